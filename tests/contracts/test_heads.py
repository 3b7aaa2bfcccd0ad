"""What every head must keep, one property per function."""

from collections.abc import Callable

import jaxtyping
import numpy as np
import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.utils.estimator_checks import parametrize_with_checks

from stages.al.heads import HEADS
from tests.conftest import blobs

NAMES = ("inv", "linear", "mlp", "pinv", "ridge", "solve", "svm", "truncated_pinv")
CLOSED_FORMS = ("inv", "pinv", "ridge", "solve", "truncated_pinv")
ESTIMATOR_XFAIL: dict[str, dict[str, str]] = {name: {} for name in NAMES} | {
    name: {"check_class_weight_classifiers": "without an intercept no weight moves the boundary off the origin"}
    for name in CLOSED_FORMS
}
"""scikit-learn's checks that a head fails, with the reason."""

FLOAT32 = {"linear": 1e-6, "mlp": 1e-6}
"""Heads trained in single precision: by how much a probability may move when the order of additions does."""


def test_every_head_is_under_contract() -> None:
    assert sorted(NAMES) == list(HEADS) == sorted(ESTIMATOR_XFAIL)


@parametrize_with_checks(
    [HEADS.build(name) for name in NAMES] + [HEADS.build("ridge:intercept=true")],
    expected_failed_checks=lambda head: {} if getattr(head, "intercept", False) else ESTIMATOR_XFAIL[head.name],
)
def test_scikit_learn_estimator(estimator: BaseEstimator, check: Callable[[BaseEstimator], None]) -> None:
    """With annotations unchecked, as users run it: scikit-learn's checks pass arguments of wrong types on purpose."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        check(estimator)
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(params=NAMES)
def head(request: pytest.FixtureRequest) -> BaseEstimator:
    return HEADS.build(request.param, n_classes=4)


@pytest.fixture(params=[(90, 6), (5, 20), (20, 20)], ids=["n>d", "n<d", "n=d"])
def data(request: pytest.FixtureRequest, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    n, dim = request.param
    return blobs(rng, n=n, dim=dim)


def test_rows_are_probabilities(head: BaseEstimator, data: tuple[np.ndarray, np.ndarray]) -> None:
    proba = head.fit(*data).predict_proba(data[0])
    assert proba.shape == (len(data[0]), 4)
    assert (proba >= 0).all()
    np.testing.assert_allclose(proba.sum(axis=1), 1)


def test_refit_is_idempotent(head: BaseEstimator, data: tuple[np.ndarray, np.ndarray]) -> None:
    once = head.fit(*data).weights_.copy()
    assert np.array_equal(head.fit(*data).weights_, once)
    assert np.array_equal(clone(head).fit(*data).weights_, once)


def test_relabeling_classes_permutes_columns(head: BaseEstimator, data: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = data
    order = np.array([2, 0, 3, 1])
    proba = head.fit(X, y).predict_proba(X)
    relabeled = clone(head).fit(X, order[y]).predict_proba(X)
    np.testing.assert_allclose(relabeled[:, order], proba, rtol=1e-6, atol=FLOAT32.get(head.name, 1e-12))


def test_unseen_classes_have_their_column(head: BaseEstimator, rng: np.random.Generator) -> None:
    X, y = blobs(rng)
    seen = y < 2
    assert head.fit(X[seen], y[seen]).predict_proba(X).shape == (len(X), 4)
    assert head.classes_.tolist() == [0, 1, 2, 3]


def test_a_label_out_of_range_is_refused(head: BaseEstimator, rng: np.random.Generator) -> None:
    X, y = blobs(rng)
    with pytest.raises(ValueError, match=r"labels must be 0 \.\. 3"):
        head.fit(X, y + 1)


def test_learns_separable_classes(head: BaseEstimator, rng: np.random.Generator) -> None:
    X, y = blobs(rng, n=200, dim=8)
    assert head.fit(X[:100], y[:100]).score(X[100:], y[100:]) > 0.95
