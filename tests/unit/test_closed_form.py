"""The closed forms and the look-ahead against independent solvers and brute force."""

import numpy as np
import pytest
import scipy.linalg
from sklearn.linear_model import Ridge as SklearnRidge

from stages.al.heads import HEADS
from stages.al.heads.closed_form import log_targets
from stages.al.lookahead import lookahead
from tests.conftest import blobs

SHAPES = [(120, 10), (8, 30), (30, 30), (29, 30), (31, 30)]


def thesis_listing(x: np.ndarray, y: np.ndarray, epsilon: float = 10**-32, n_classes: int = 10) -> np.ndarray:
    """The thesis's own lines (002, section 4.4)."""
    y_processed = np.log(np.eye(n_classes)[y] + epsilon)
    inv = np.linalg.inv(x.T @ x)
    return inv @ x.T @ y_processed


@pytest.mark.parametrize("method", ["inv", "solve", "pinv"])
def test_is_the_thesis_listing(method: str, rng: np.random.Generator) -> None:
    X, y = blobs(rng, n=300, dim=20, n_classes=10)
    X = X.astype(np.float64)
    weights = HEADS.build(method, n_classes=10).fit(X, y).weights_
    np.testing.assert_allclose(weights, thesis_listing(X, y), rtol=1e-9, atol=1e-9)
    if method == "inv":
        assert np.array_equal(weights, thesis_listing(X, y))


@pytest.mark.parametrize(("n", "dim"), SHAPES)
@pytest.mark.parametrize("method", ["inv", "solve", "pinv"])
def test_is_minimum_norm_least_squares(method: str, n: int, dim: int, rng: np.random.Generator) -> None:
    X, y = rng.normal(size=(n, dim)), rng.integers(0, 5, n)
    weights = HEADS.build(method, n_classes=5).fit(X, y).weights_
    expected, *_ = scipy.linalg.lstsq(X, log_targets(y, 5, 1e-32), lapack_driver="gelsy")
    np.testing.assert_allclose(X @ weights, X @ expected, rtol=1e-6, atol=1e-6 * np.abs(X @ expected).max())
    if (n, dim) in ((120, 10), (8, 30)):
        np.testing.assert_allclose(weights, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("rank", [3, 7])
def test_singular_systems_fall_back_to_the_penrose_inverse(rank: int, rng: np.random.Generator) -> None:
    X = rng.normal(size=(50, rank)) @ rng.normal(size=(rank, 10))
    y = rng.integers(0, 4, 50)
    expected = np.linalg.pinv(X) @ log_targets(y, 4, 1e-32)
    for method in ("inv", "solve", "pinv"):
        np.testing.assert_allclose(HEADS.build(method, n_classes=4).fit(X, y).weights_, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("n", "dim"), SHAPES)
def test_ridge_is_scikit_learns(n: int, dim: int, rng: np.random.Generator) -> None:
    X, y = rng.normal(size=(n, dim)), rng.integers(0, 5, n)
    head = HEADS.build("ridge:penalty=3", n_classes=5).fit(X, y)
    expected = SklearnRidge(alpha=3, fit_intercept=False, solver="svd").fit(X, log_targets(y, 5, 1e-32)).coef_.T
    np.testing.assert_allclose(head.weights_, expected, rtol=1e-8, atol=1e-8)


def test_temperature_changes_confidence_and_no_prediction(rng: np.random.Generator) -> None:
    X, y = blobs(rng)
    sharp, soft = (HEADS.build(f"ridge:temperature={t}").fit(X, y) for t in (1, 30))
    assert np.array_equal(sharp.predict(X), soft.predict(X))
    assert soft.predict_proba(X).max(axis=1).mean() < sharp.predict_proba(X).max(axis=1).mean()


@pytest.mark.parametrize("spec", ["ridge:penalty=0", "ridge:temperature=0", "solve:epsilon=-1"])
def test_impossible_parameters_are_refused(spec: str, rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        HEADS.build(spec).fit(*blobs(rng))


@pytest.mark.parametrize("spec", ["inv", "solve", "pinv", "ridge", "ridge:penalty=0.1:temperature=1"])
@pytest.mark.parametrize("n_labeled", [60, 7, 12, 11], ids=["n>d", "n<d", "n=d", "n=d-1"])
def test_lookahead_is_refitting(spec: str, n_labeled: int, rng: np.random.Generator) -> None:
    """Every (candidate, label) of a small pool, duplicates of labeled images among them."""
    X, y = blobs(rng, n=150, dim=12, n_classes=3)
    X = X.astype(np.float64)
    labeled, candidates, evaluation = X[:n_labeled], np.vstack([X[60:80], X[:3], 2 * X[1:2]]), X[80:]
    head = HEADS.build(spec, n_classes=3).fit(labeled, y[:n_labeled])
    before = head.score(evaluation, y[80:]), log_loss(head, evaluation, y[80:])
    for label in range(3):
        accuracy, loss = lookahead(head, candidates, np.full(len(candidates), label), evaluation, y[80:])
        for i, candidate in enumerate(candidates):
            refitted = HEADS.build(spec, n_classes=3).fit(
                np.vstack([labeled, candidate]), np.append(y[:n_labeled], label)
            )
            assert accuracy[i] == pytest.approx(refitted.score(evaluation, y[80:]) - before[0], abs=1e-5)
            assert loss[i] == pytest.approx(log_loss(refitted, evaluation, y[80:]) - before[1], rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("spec", ["inv", "solve", "pinv", "ridge"])
@pytest.mark.parametrize("dim", [5, 20, 33])
def test_lookahead_is_refitting_while_classes_are_unseen(spec: str, dim: int, rng: np.random.Generator) -> None:
    """Classes without a label tie; the tie must fall the same way in the look-ahead, in a refit, and row by row."""
    X, y = blobs(rng, n=160, dim=dim, n_classes=10)
    X, y = X.astype(np.float64), rng.permutation(y)
    labeled = np.flatnonzero(y < 4)[:9]
    head = HEADS.build(spec, n_classes=10).fit(X[labeled], y[labeled])
    assert head.predict(X).tolist() == [int(head.predict(x[None])[0]) for x in X]
    assert np.array_equal(head.predict(X), head.predict(np.asfortranarray(X)))
    candidates = np.arange(60, 90)
    for label in range(10):
        accuracy, _ = lookahead(head, X[candidates], np.full(30, label), X[90:], y[90:])
        for i, candidate in enumerate(candidates):
            rows = np.append(labeled, candidate)
            refitted = HEADS.build(spec, n_classes=10).fit(X[rows], np.append(y[labeled], label))
            assert accuracy[i] == pytest.approx(refitted.score(X[90:], y[90:]) - head.score(X[90:], y[90:]), abs=1e-5)


def log_loss(head: object, X: np.ndarray, y: np.ndarray) -> float:
    """Mean -log softmax of the true class, computed apart from the library."""
    logits = X @ head.weights_ / head.temperature  # type: ignore[attr-defined]
    return float((scipy.special.logsumexp(logits, axis=1) - logits[np.arange(len(y)), y]).mean())


def test_gains_move_the_weights_as_refitting_does(rng: np.random.Generator) -> None:
    X, y = rng.normal(size=(9, 15)), rng.integers(0, 3, 9)
    head = HEADS.build("pinv", n_classes=3).fit(X, y)
    x, target = rng.normal(size=15), log_targets(np.array([1]), 3, 1e-32)[0]
    moved = head.weights_ + np.outer(head.gains(x[None])[0], target - x @ head.weights_)
    refitted = HEADS.build("pinv", n_classes=3).fit(np.vstack([X, x]), np.append(y, 1))
    np.testing.assert_allclose(moved, refitted.weights_, rtol=1e-8, atol=1e-8)
