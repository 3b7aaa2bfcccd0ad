"""The strategies that look at several views of an image, against plain loops."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import entropy

from cache.errors import InputError
from stages.al.pool import Pool
from stages.al.strategies import STRATEGIES
from stages.al.strategies.diff2aug_kmeans import best_of_clusters, proportional
from tests.conftest import make_view

UNCERTAINTY: dict[str, Callable[[np.ndarray], float]] = {
    "margin": lambda p: np.sort(p)[-2] - np.sort(p)[-1],
    "least_confidence": lambda p: -p.max(),
    "entropy": lambda p: float(entropy(p)),
}


@pytest.fixture
def three_views(tiny_pool: Pool, rng: np.random.Generator) -> Pool:
    views = np.concatenate([tiny_pool.views, tiny_pool.views[:1] + rng.normal(size=(1, 120, 6)).astype(np.float32)])
    return Pool(views=views, labels=tiny_pool.labels, n_classes=4, derived=tiny_pool.derived)


def proba_by_hand(pool: Pool, head: object, candidates: np.ndarray) -> np.ndarray:
    weights, constants = head.affine()
    return softmax(pool.views[:, candidates].astype(np.float64) @ weights + constants, axis=2)


def test_consistency_is_the_sum_of_the_classes_variances(three_views: Pool) -> None:
    view = make_view(three_views, np.arange(10))
    proba = proba_by_hand(three_views, view.head, view.candidates)
    mean = proba.mean(axis=0)
    expected = [sum(((proba[:, i, c] - mean[i, c]) ** 2).mean() for c in range(4)) for i in range(110)]
    strategy = STRATEGIES.build("ssal_consistency")
    np.testing.assert_allclose(strategy.score(view), expected, rtol=1e-3, atol=1e-6)
    queried = strategy.query(view, 5, np.random.default_rng(0))
    assert queried.tolist() == view.candidates[np.argsort(expected)[::-1][:5]].tolist()


@pytest.mark.parametrize("measure", UNCERTAINTY)
def test_a_batch_takes_the_most_uncertain_of_every_cluster(measure: str, three_views: Pool) -> None:
    view = make_view(three_views, np.arange(10))
    proba = proba_by_hand(three_views, view.head, view.candidates)
    scores = np.array([[UNCERTAINTY[measure](p) for p in each] for each in proba]).mean(axis=0)
    strategy = STRATEGIES.build(f"diff2aug_kmeans:measure={measure}:clusters=3")
    assert strategy.query(view, 1, np.random.default_rng(0)).tolist() == [view.candidates[scores.argmax()]]
    queried = strategy.query(view, 11, np.random.default_rng(0))
    clusters = view.clusters(3)[view.candidates]
    expected: list[int] = []
    for cluster in range(3):
        members = np.flatnonzero(clusters == cluster)
        count = (clusters[queried - 10] == cluster).sum()
        assert abs(count - 11 * len(members) / 110) < 1
        expected += members[np.argsort(-scores[members])[:count]].tolist()
    assert queried.tolist() == view.candidates[sorted(expected, key=lambda i: -scores[i])].tolist()


def test_proportional_by_hand(rng: np.random.Generator) -> None:
    assert proportional(np.array([50, 30, 20]), 10, rng).tolist() == [5, 3, 2]
    assert proportional(np.array([50, 30, 20]), 4, rng).tolist() == [2, 1, 1]  # 2, 1.2, 0.8
    assert proportional(np.array([6, 3, 1]), 9, rng).tolist() == [5, 3, 1]  # 5.4, 2.7, 0.9
    assert proportional(np.array([1, 7, 2]), 10, rng).tolist() == [1, 7, 2]
    ties = {tuple(proportional(np.array([5, 5]), 1, np.random.default_rng(seed))) for seed in range(20)}
    assert ties == {(0, 1), (1, 0)}


def test_no_cluster_gives_more_than_it_has(rng: np.random.Generator) -> None:
    for _ in range(200):
        sizes = rng.integers(1, 30, rng.integers(1, 15))
        total = int(rng.integers(1, sizes.sum() + 1))
        counts = proportional(sizes, total, rng)
        assert counts.sum() == total
        assert (counts <= sizes).all()
        assert (np.abs(counts - total * sizes / sizes.sum()) < 1).all()


def test_clusters_without_candidates_do_not_count(rng: np.random.Generator) -> None:
    scores = np.array([0.1, 0.9, 0.5, 0.4, 0.8, 0.2])
    assert best_of_clusters(scores, np.array([7, 7, 7, 7, 2, 2]), 3, rng).tolist() == [1, 4, 2]


@pytest.mark.parametrize("name", ["ssal_consistency", "diff2aug_kmeans"])
def test_one_view_is_refused(name: str, tiny_pool: Pool, rng: np.random.Generator) -> None:
    pool = Pool(views=tiny_pool.views[:1], labels=tiny_pool.labels, n_classes=4, derived=tiny_pool.derived)
    with pytest.raises(InputError, match="make embed VIEWS=identity,hflip"):
        STRATEGIES.build(name).query(make_view(pool, np.arange(10)), 2, rng)


def test_there_must_be_a_cluster() -> None:
    with pytest.raises(ValueError, match="clusters=0 must be at least 1"):
        STRATEGIES.build("diff2aug_kmeans:clusters=0")
