"""Spread-out points and the strategies made of them, against brute force and scikit-activeml."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import chisquare

from stages.al.centres import k_center_greedy, k_means_plus_plus, squared_norms
from stages.al.pool import DistanceToLabeled, Pool
from stages.al.strategies import STRATEGIES
from tests.conftest import blobs, make_view


def distances(points: np.ndarray) -> np.ndarray:
    """All squared distances, in double precision."""
    points = points.astype(np.float64)
    return ((points[:, None] - points[None]) ** 2).sum(axis=2)


def farthest_first(between: np.ndarray, distance: np.ndarray, size: int) -> list[int]:
    """k-center by comparing everything."""
    distance, chosen = distance.copy(), []
    for _ in range(size):
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, between[chosen[-1]])
        distance[chosen] = -1
    return chosen


@pytest.mark.parametrize("spread", [0.0, 1.0, 30.0])
def test_k_center_is_brute_force_in_order(rng: np.random.Generator, spread: float) -> None:
    features = (spread * rng.normal(size=(7, 5))[rng.integers(0, 7, 300)] + rng.normal(size=(300, 5))).astype(
        np.float32
    )
    between = distances(features)
    distance = between[:3].min(axis=0)
    expected = farthest_first(between, distance, 100)
    assert k_center_greedy(features, distance, 100, rng).tolist() == expected


def test_equally_far_centres_are_drawn_evenly(rng: np.random.Generator) -> None:
    corners = np.array([[1, 0], [0, 1], [-1, 0], [0, -1], [0, 0]], dtype=np.float32)
    picks = [tuple(k_center_greedy(corners, squared_norms(corners), 2, rng).tolist()) for _ in range(4000)]
    counts = [picks.count(pair) for pair in itertools.permutations(range(4), 2)]
    assert sum(counts) == 4000
    assert chisquare(counts).pvalue > 1e-3


def test_copies_come_last(rng: np.random.Generator) -> None:
    features = np.tile(rng.normal(size=(6, 40)).astype(np.float32), (5, 1))
    factor = np.tile(rng.random(size=(6, 3)).astype(np.float32), (5, 1))
    for chosen in (
        k_center_greedy(features, np.full(30, np.inf), 30, rng),
        k_means_plus_plus(features, 30, rng),
        k_means_plus_plus(features, 30, rng, factor),
    ):
        assert set((chosen[:6] % 6).tolist()) == set(range(6))
        assert sorted(chosen.tolist()) == list(range(30))


@pytest.mark.parametrize("with_factor", [False, True])
def test_k_means_plus_plus_draws_by_exact_squared_distance(rng: np.random.Generator, with_factor: bool) -> None:
    """The second and third centre together, against the law by hand on multiplied-out points."""
    features = rng.normal(size=(6, 3)).astype(np.float32)
    features[5] = 3 * features[0]
    factor = rng.normal(size=(6, 2)).astype(np.float32) if with_factor else None
    points = np.einsum("nc,nd->ncd", factor, features).reshape(6, -1) if with_factor else features
    between, expected = distances(points), np.zeros((6, 6))
    for second, third in itertools.permutations(range(1, 6), 2):
        left = np.minimum(between[0], between[second])
        expected[second, third] = between[0, second] / between[0].sum() * left[third] / left.sum()
    found = np.zeros((6, 6))
    for _ in range(10_000):
        _, second, third = k_means_plus_plus(features, 3, rng, factor, first=0)
        found[second, third] += 1
    possible = expected > 0
    assert found[~possible].sum() == 0
    assert chisquare(found[possible], 10_000 * expected[possible]).pvalue > 1e-3


def test_distances_to_labeled_keep_their_digits_in_any_steps(rng: np.random.Generator) -> None:
    features = (100 + rng.normal(size=(200, 30))).astype(np.float32)
    features[50] = features[3] + np.float32(1e-4) * (np.arange(30) == 7)
    labeled = rng.permutation(50)
    once, stepwise = DistanceToLabeled(features), DistanceToLabeled(features)
    once.follow(labeled)
    for step in (0, 1, 2, 7, 50):
        stepwise.follow(labeled[:step])
    assert once.distance.tolist() == stepwise.distance.tolist()
    np.testing.assert_allclose(once.distance, distances(features)[labeled].min(axis=0), rtol=1e-12)
    assert 0 < once.distance[50] < 1e-7


@pytest.mark.parametrize("n_labeled", [1, 20])
def test_coreset_is_scikit_activemls_in_order(
    make_pool: Callable[..., Pool], rng: np.random.Generator, n_labeled: int
) -> None:
    features, labels = blobs(rng, n=300, dim=8)
    view = make_view(make_pool(features, labels, 4), rng.choice(300, n_labeled, replace=False))
    known = np.full(300, np.nan)
    known[view.labeled] = view.labels
    theirs = pytest.importorskip("skactiveml.pool").CoreSet(metric="euclidean", random_state=0)
    expected = theirs.query(features.astype(np.float64), known, batch_size=60)
    assert STRATEGIES.build("coreset").query(view, 60, rng).tolist() == expected.tolist()


def test_a_batch_of_coreset_is_as_many_rounds_of_one(tiny_pool: Pool, rng: np.random.Generator) -> None:
    coreset, labeled = STRATEGIES.build("coreset"), np.arange(10)
    batch = coreset.query(make_view(tiny_pool, labeled), 20, rng)
    for _ in range(20):
        labeled = np.append(labeled, coreset.query(make_view(tiny_pool, labeled), 1, rng))
    assert labeled[10:].tolist() == batch.tolist()
