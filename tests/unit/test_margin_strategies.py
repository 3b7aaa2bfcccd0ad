"""Strategies made of margins, losses and boundaries, each against an oracle."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from sklearn.svm import SVC

from stages.al.heads import HEADS
from stages.al.hinge import solve_hinge
from stages.al.pool import Pool
from stages.al.strategies import STRATEGIES
from stages.al.strategies.true_loss import cross_entropy
from tests.conftest import blobs, make_view


def hinge(X: np.ndarray, signs: np.ndarray, cost: float, weights: np.ndarray) -> tuple[np.ndarray, float]:
    gram = X @ X.T
    constant = solve_hinge(gram, signs, cost, weights)
    return weights @ X, constant


@pytest.mark.parametrize("spread", [0.3, 3.0])
def test_the_svm_is_scikit_learns(rng: np.random.Generator, spread: float) -> None:
    signs = np.where(rng.random(80) < 0.4, 1.0, -1.0)
    X = rng.normal(size=(80, 5)) + signs[:, None] * spread
    fitted = SVC(kernel="linear", C=5, tol=1e-8).fit(X, signs)
    direction, constant = hinge(X, signs, 5.0, np.zeros(80))
    np.testing.assert_allclose(direction, fitted.coef_[0], atol=1e-5)
    np.testing.assert_allclose(constant, fitted.intercept_[0], atol=1e-5)


def test_where_the_svm_starts_does_not_matter(rng: np.random.Generator) -> None:
    signs, X = np.where(rng.random(60) < 0.5, 1.0, -1.0), rng.normal(size=(60, 4))
    cold = hinge(X, signs, 5.0, np.zeros(60))
    stood = np.zeros(40)
    hinge(X[:40], signs[:40], 5.0, stood)
    warm = hinge(X, signs, 5.0, np.pad(stood, (0, 20)))
    np.testing.assert_allclose(cold[0], warm[0], atol=1e-8)
    np.testing.assert_allclose(cold[1], warm[1], atol=1e-8)


def test_svm_min_margin_is_the_least_decision_value(tiny_pool: Pool) -> None:
    labeled = np.arange(14)
    view = make_view(tiny_pool, labeled)
    y = tiny_pool.labels[labeled]
    machines = [SVC(kernel="linear", C=5, tol=1e-8).fit(tiny_pool.features[labeled], y == c) for c in np.unique(y)]
    expected = [-min(abs(m.decision_function(x[None])[0]) for m in machines) for x in view.features]
    np.testing.assert_allclose(STRATEGIES.build("svm_min_margin").score(view), expected, atol=1e-5)


def test_svm_min_margin_leaves_out_classes_without_a_label(tiny_pool: Pool) -> None:
    labeled = np.flatnonzero(tiny_pool.labels < 2)[:8]
    strategy, view = STRATEGIES.build("svm_min_margin"), make_view(tiny_pool, labeled)
    assert strategy.score(view).min() < -1  # the constant -1 of a class without labels is no boundary
    one = np.flatnonzero(tiny_pool.labels == 2)[:4]
    assert (strategy.score(make_view(tiny_pool, one)) == 0).all()


def test_svm_min_margin_asks_an_svm_head_of_the_same_cost(tiny_pool: Pool) -> None:
    labeled = np.arange(14)
    view = make_view(tiny_pool, labeled)
    head = HEADS.build("svm", n_classes=4).fit(tiny_pool.features[labeled], tiny_pool.labels[labeled])
    head.weights_[-1] += 1
    asked = STRATEGIES.build("svm_min_margin").score(replace(view, fitted_head=head, followers={}))
    np.testing.assert_allclose(asked, -np.abs(head._decide(view.features)).min(axis=1), atol=1e-4)
    own = STRATEGIES.build("svm_min_margin:C=4").score(replace(view, fitted_head=head, followers={}))
    assert np.abs(own - asked).max() > 0.1


def test_true_loss_keeps_its_digits_where_probabilities_saturate() -> None:
    logits = np.array([[0.0, -50.0, -60.0], [0.0, -2000.0, -1000.0], [1.0, 1.0, 1.0]])
    np.testing.assert_allclose(cross_entropy(logits, np.array([0, 1, 2])), [1.9287e-22, 2000, np.log(3)], rtol=1e-4)


def test_true_loss_queries_the_highest_cross_entropy(make_pool: Callable, rng: np.random.Generator) -> None:
    features, labels = blobs(rng)
    view = make_view(make_pool(features, labels, 4), np.arange(10))
    losses = [-np.log(p[y]) for p, y in zip(view.proba, labels[view.candidates], strict=True)]
    queried = STRATEGIES.build("true_loss").query(view, 6, np.random.default_rng(0))
    assert queried.tolist() == view.candidates[np.argsort(losses)[::-1][:6]].tolist()
