"""Committees against one fit per member."""

from collections.abc import Callable

import numpy as np
import pytest

from stages.al.heads import HEADS
from stages.al.heads.members import bootstrap_members, dropout_members
from stages.al.pool import Pool
from stages.al.strategies import STRATEGIES
from tests.conftest import blobs, make_view

CLOSED_FORMS = ["ridge", "ridge:intercept=true:temperature=3", "solve", "pinv:intercept=true", "ridge:penalty=gcv"]


@pytest.mark.parametrize("n", [60, 7])
@pytest.mark.parametrize("spec", [*CLOSED_FORMS, "ridge:dims_per_label=0.2", "svm"])
def test_bootstrap_members_are_fits_to_resampled_images(spec: str, n: int, rng: np.random.Generator) -> None:
    X, y = blobs(rng, n=n, dim=12)
    X = X.astype(np.float64)
    head = HEADS.build(spec, n_classes=4).fit(X, y)
    members = bootstrap_members(head, X, y, 5, np.random.default_rng(3))
    counts = np.random.default_rng(3).multinomial(n, np.full(n, 1 / n), size=5)
    for i, count in enumerate(counts):
        rows = np.repeat(np.arange(n), count)
        if spec == "ridge:penalty=gcv":  # the penalty is the whole head's
            alone = HEADS.build(f"ridge:penalty={head.penalty_}", n_classes=4)
        elif spec == "ridge:dims_per_label=0.2":
            alone = HEADS.build("ridge", n_classes=4)
            X = np.where(np.arange(12) < int(0.2 * n), X, 0)
        else:
            alone = HEADS.build(spec, n_classes=4)
        expected = alone.fit(X[rows], y[rows]).logits(X)
        np.testing.assert_allclose(members.logits(X)[i], expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


def test_members_of_a_gradient_head_are_trained_together(rng: np.random.Generator) -> None:
    X, y = blobs(rng, n=40)
    head = HEADS.build("linear:epochs=3", n_classes=4).fit(X, y)
    members = bootstrap_members(head, X, y, 3, rng)
    assert members.weights.shape == (3, 6, 4)
    assert np.ptp(members.weights, axis=0).max() > 0


@pytest.mark.parametrize("spec", ["ridge:intercept=true", "svm", "linear:epochs=2"])
def test_dropout_members_average_to_the_head(spec: str, rng: np.random.Generator) -> None:
    X, y = blobs(rng, n=40)
    head = HEADS.build(spec, n_classes=4).fit(X, y)
    members = dropout_members(head, 4000, 0.3, rng)
    dropped = (members.weights == 0).all(axis=2)
    assert dropped.mean() == pytest.approx(0.3, abs=0.02)
    error = members.logits(X).std(axis=0).max() / np.sqrt(4000)
    np.testing.assert_allclose(members.logits(X).mean(axis=0), head.logits(X), atol=5 * error)
    with pytest.raises(ValueError, match="above 0 and below 1"):
        dropout_members(head, 3, 1.0, rng)


def test_a_head_that_is_not_linear_has_no_committee(
    make_pool: Callable[..., Pool], tiny_pool: Pool, rng: np.random.Generator
) -> None:
    head = HEADS.build("mlp:epochs=1", n_classes=4).fit(tiny_pool.features[:10], tiny_pool.labels[:10])
    view = make_view(tiny_pool, np.arange(10), fitted_head=head)
    with pytest.raises(ValueError, match="not linear"):
        STRATEGIES.build("bald").query(view, 1, rng)
