"""Spread-out points and the strategies made of them, against brute force and scikit-activeml."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import chisquare
from skactiveml.base import SkactivemlClassifier
from skactiveml.pool import CoreSet, Falcun

from stages.al.centres import k_center_greedy, k_means_plus_plus, lower_distances, squared_norms
from stages.al.pool import Pool
from stages.al.strategies import STRATEGIES
from stages.al.strategies.badge import residuals
from stages.al.strategies.falcun import closeness, odds
from stages.al.view import DistanceToLabeled, PoolView
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
    theirs = CoreSet(metric="euclidean", random_state=0)
    expected = theirs.query(features.astype(np.float64), known, batch_size=60)
    assert STRATEGIES.build("coreset").query(view, 60, rng).tolist() == expected.tolist()


def test_a_batch_of_coreset_is_as_many_rounds_of_one(tiny_pool: Pool, rng: np.random.Generator) -> None:
    coreset, labeled = STRATEGIES.build("coreset"), np.arange(10)
    batch = coreset.query(make_view(tiny_pool, labeled), 20, rng)
    for _ in range(20):
        labeled = np.append(labeled, coreset.query(make_view(tiny_pool, labeled), 1, rng))
    assert labeled[10:].tolist() == batch.tolist()


def gradients(view: PoolView) -> np.ndarray:
    """(p - onehot(argmax p)) (x) features of every candidate, multiplied out."""
    proba = view.proba
    return np.einsum("nc,nd->ncd", proba - np.eye(4)[proba.argmax(axis=1)], view.features).reshape(len(proba), -1)


def test_badge_begins_with_the_largest_gradient(tiny_pool: Pool, rng: np.random.Generator) -> None:
    for n_labeled in (5, 10, 40):
        view = make_view(tiny_pool, np.arange(n_labeled))
        largest = view.candidates[np.linalg.norm(gradients(view), axis=1).argmax()]
        for batch_size in (1, 4):
            assert STRATEGIES.build("badge").query(view, batch_size, rng)[0] == largest


def test_badge_draws_by_the_distances_of_gradients(tiny_pool: Pool, rng: np.random.Generator) -> None:
    """Neither 0 nor a labeled image is a centre, and nothing is drawn twice."""
    view = make_view(tiny_pool, np.arange(10), candidates=np.arange(20, 32))
    between = distances(gradients(view))
    first = np.linalg.norm(gradients(view), axis=1).argmax()
    drawn = [STRATEGIES.build("badge").query(view, 2, rng)[1] for _ in range(1000)]
    counts, expected = np.bincount(np.array(drawn) - 20, minlength=12), 1000 * between[first] / between[first].sum()
    common = expected > 5
    assert counts[first] == 0
    found, wanted = (np.append(part[common], part[~common].sum()) for part in (counts, expected))
    assert chisquare(found[wanted > 0], wanted[wanted > 0]).pvalue > 1e-3


def test_residuals_keep_their_digits_where_probabilities_saturate() -> None:
    proba = np.array([[1, 1e-20, 3e-20], [0.2, 0.5, 0.3]], dtype=np.float32)
    np.testing.assert_allclose(residuals(proba), [[-4e-20, 1e-20, 3e-20], [0.2, -0.5, 0.3]], rtol=1e-6)
    np.testing.assert_allclose(closeness(proba), [7e-20, 0.8], rtol=1e-6)


def authors_falcun(proba: np.ndarray, size: int, gamma: float, rng: np.random.Generator) -> list[int]:
    """The draws of their code, from its description: distances are rescaled among what is left, for the draw only."""
    ordered = np.sort(proba, axis=1)
    uncertainty = 1 - (ordered[:, -1] - ordered[:, -2])
    distance, left, drawn = uncertainty.copy(), list(range(len(proba))), []
    while len(drawn) < size:
        if drawn:
            for i in range(len(proba)):
                distance[i] = min(distance[i], sum(abs(p - q) for p, q in zip(proba[i], proba[drawn[-1]], strict=True)))
        low, high = min(distance[left]), max(distance[left])
        relevance = [((distance[i] - low) / (high - low) + uncertainty[i]) ** gamma for i in left]
        drawn.append(int(rng.choice(left, p=np.array(relevance) / sum(relevance))))
        left.remove(drawn[-1])
    return drawn


@pytest.mark.parametrize("gamma", [1, 10])
def test_falcun_is_the_authors(tiny_pool: Pool, gamma: int) -> None:
    view = make_view(tiny_pool, np.arange(10))
    for seed in range(5):
        expected = authors_falcun(view.proba, 20, gamma, np.random.default_rng(seed))
        queried = STRATEGIES.build(f"falcun:gamma={gamma}").query(view, 20, np.random.default_rng(seed))
        assert queried.tolist() == view.candidates[expected].tolist()


def test_falcuns_odds_are_scikit_activemls_until_it_rescales_what_it_keeps(rng: np.random.Generator) -> None:
    """Its first two draws, where uncertainties are from 0 to 1."""

    class Given(SkactivemlClassifier):
        def fit(self, X: np.ndarray, y: np.ndarray) -> "Given":
            return self

        def predict_proba(self, X: np.ndarray) -> np.ndarray:
            return X

    proba = rng.dirichlet(np.ones(4), size=40)
    proba[:2] = [1, 0, 0, 0], [0.5, 0.5, 0, 0]
    theirs = Falcun(gamma=10, random_state=0)
    (first, _), expected = theirs.query(
        proba, np.full(40, np.nan), Given(), fit_clf=False, batch_size=2, return_utilities=True
    )
    uncertainty, waiting = closeness(proba), np.ones(40, dtype=bool)
    np.testing.assert_allclose(odds(uncertainty, uncertainty, waiting, 10.0), expected[0], rtol=1e-9)
    waiting[first] = False
    distance = np.minimum(uncertainty, np.abs(proba - proba[first]).sum(axis=1))
    np.testing.assert_allclose(odds(uncertainty, distance, waiting, 10.0)[waiting], expected[1][waiting], rtol=1e-9)


@pytest.mark.parametrize("subset", ["random", "coreset"])
@pytest.mark.parametrize("measure", ["entropy", "least_confidence", "margin"])
def test_subset_uncertainty_is_the_uncertainty_of_a_subset(tiny_pool: Pool, measure: str, subset: str) -> None:
    view = make_view(tiny_pool, np.arange(10))
    strategy = STRATEGIES.build(f"subset_uncertainty:measure={measure}:subset={subset}:factor=9")
    drawn = STRATEGIES.build(subset).query(view, 45, np.random.default_rng(1))
    part = make_view(tiny_pool, np.arange(10), candidates=drawn)
    expected = STRATEGIES.build(measure).query(part, 5, np.random.default_rng(0))
    assert strategy.query(view, 5, np.random.default_rng(1)).tolist() == expected.tolist()
    whole = STRATEGIES.build(measure).query(view, 20, np.random.default_rng(0))
    assert strategy.query(view, 20, np.random.default_rng(1)).tolist() == whole.tolist()


def test_impossible_settings_are_said() -> None:
    for spec, message in (
        ("falcun:gamma=-1", "gamma=-1.0 must be finite and not negative"),
        ("subset_uncertainty:factor=0", "factor=0 at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            STRATEGIES.build(spec)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_centres", [1, 50])
def test_distances_to_the_nearest_centre_keep_their_digits(
    dtype: type, n_centres: int, rng: np.random.Generator
) -> None:
    features = (1000 + rng.normal(size=(200, 30))).astype(dtype)  # far from 0, where products of matrices lose digits
    features[:20] = features[20:40] + 1e-3 * rng.normal(size=(20, 30)).astype(dtype)
    features[60:70] = features[25]
    centres = features[20 : 20 + n_centres]
    expected = cdist(features.astype(np.float64), centres.astype(np.float64), "sqeuclidean").min(axis=1)
    distance = np.full(200, np.inf)
    distance[100:150] = 40.0
    expected[100:150] = np.minimum(expected[100:150], 40.0)
    lower_distances(features, centres, distance)
    np.testing.assert_allclose(distance, expected, rtol=1e-9, atol=1e-20)
