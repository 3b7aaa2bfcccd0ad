"""What all labels of a pool say of each image: a logistic regression that has not seen its label."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from stages.al.pool import Evaluation, Pool
from stages.al.posterior import SETTINGS, crossed_posterior, posterior_by, posterior_seeing_labels
from tests.conftest import blobs


def overlapping(rng: np.random.Generator, n_classes: int, n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    X, y = blobs(rng, n=n, n_classes=n_classes)
    return (X + 3 * rng.normal(size=X.shape)).astype(np.float32), y


def regression(X: np.ndarray, y: np.ndarray, n_classes: int, C: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights and constants of least C sum of losses + |W|^2 / 2, by scipy. Two classes have one weight vector."""

    def loss(flat: np.ndarray) -> float:
        W, b = flat[: X.shape[1] * n_classes].reshape(X.shape[1], n_classes), flat[X.shape[1] * n_classes :]
        penalty = (W**2).sum() * (2 if n_classes == 2 else 1) / 2
        return -C * log_softmax(X @ W + b, axis=1)[np.arange(len(y)), y].sum() + penalty

    found = minimize(loss, np.zeros((X.shape[1] + 1) * n_classes), options={"gtol": 1e-6}).x
    return found[: X.shape[1] * n_classes].reshape(X.shape[1], n_classes), found[X.shape[1] * n_classes :]


@pytest.mark.parametrize("n_classes", [2, 3])
def test_is_the_regression_on_the_other_folds(n_classes: int, rng: np.random.Generator) -> None:
    X, y = overlapping(rng, n_classes)
    proba = crossed_posterior(X, y, n_classes)
    assert proba.dtype == np.float32 and proba.sum(axis=1) == pytest.approx(1, abs=1e-6)
    scaled = (X - X.mean(axis=0)) / X.std()
    fold = np.random.default_rng(0).permutation(len(X)) % 5
    logits = np.empty((len(X), n_classes))
    for k in range(5):
        W, b = regression(scaled[fold != k], y[fold != k], n_classes, SETTINGS["C"])
        logits[fold == k] = scaled[fold == k] @ W + b
    temperatures = np.geomspace(0.2, 5, 2001)
    losses = [-log_softmax(logits / t, axis=1)[np.arange(len(y)), y].mean() for t in temperatures]
    expected = softmax(logits / temperatures[np.argmin(losses)], axis=1)
    np.testing.assert_allclose(proba, expected, atol=1e-2)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_of_other_images_is_the_regression_on_all_that_are_labeled(n_classes: int, rng: np.random.Generator) -> None:
    X, y = overlapping(rng, n_classes)
    others = X[:50] + rng.normal(size=(50, X.shape[1])).astype(np.float32)
    proba = posterior_by(Evaluation(X, y), others, n_classes)
    W, b = regression((X - X.mean(axis=0)) / X.std(), y, n_classes, SETTINGS["C"])
    logits = (others - X.mean(axis=0)) / X.std() @ W + b
    misses = [np.abs(softmax(logits / t, axis=1) - proba).max() for t in np.geomspace(0.2, 5, 501)]
    assert min(misses) < 0.01


def test_a_class_that_validation_does_not_have_is_improbable(rng: np.random.Generator) -> None:
    X, y = overlapping(rng, 3)
    proba = posterior_by(Evaluation(X[y < 2], y[y < 2]), X, 4)
    assert (proba[:, 2:] < proba[:, :2].min(axis=1, keepdims=True)).all()


def test_an_image_s_own_label_does_not_say_what_it_is(rng: np.random.Generator) -> None:
    """Its probabilities change by no more than the common temperature does."""
    X, y = overlapping(rng, 3)
    other = y.copy()
    other[7] = (y[7] + 1) % 3
    one, two = (np.log(crossed_posterior(X, labels, 3)[7].astype(np.float64)) for labels in (y, other))
    ratio = (one - one.mean()) / (two - two.mean())
    assert np.ptp(ratio) < 1e-3 and ratio.mean() == pytest.approx(1, abs=0.05)


def test_is_calibrated_and_better_than_chance(rng: np.random.Generator) -> None:
    X, y = overlapping(rng, 4, n=2000)
    proba = crossed_posterior(X, y, 4)
    right = proba.argmax(axis=1) == y
    assert right.mean() == pytest.approx(proba.max(axis=1).mean(), abs=0.03)
    assert np.log(proba[np.arange(2000), y]).mean() > np.log(1 / 4) + 0.3


@pytest.mark.parametrize("case", ["rare class", "one class", "one image", "two images", "constant", "unseen class"])
def test_small_and_odd_pools(case: str, rng: np.random.Generator) -> None:
    X, y = overlapping(rng, 3, n=30)
    match case:
        case "rare class":
            y = np.where(np.arange(30) == 4, 2, y % 2)
        case "one class":
            y = np.ones(30, dtype=y.dtype)
        case "one image" | "two images":
            size = 1 if case == "one image" else 2
            X, y = X[:size], y[:size]
        case "constant":
            X = np.ones_like(X)
        case "unseen class":
            y = y % 2
    proba = crossed_posterior(X, y, 3)
    assert np.isfinite(proba).all() and proba.sum(axis=1) == pytest.approx(1, abs=1e-6)
    if case == "one class":
        assert proba[:, 1].min() > 0.99
    if case == "unseen class":
        assert (proba[:, 2] < proba[:, :2].min(axis=1)).all()


def test_is_computed_once_a_pool(
    make_pool: Callable[..., Pool], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = overlapping(rng, 3)
    first = posterior_seeing_labels(make_pool(X, y, 3))
    np.testing.assert_array_equal(first, crossed_posterior(X, y, 3))
    monkeypatch.setattr("stages.al.posterior.crossed_posterior", None)
    np.testing.assert_array_equal(posterior_seeing_labels(make_pool(X, y, 3)), first)
