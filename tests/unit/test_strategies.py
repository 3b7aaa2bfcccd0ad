"""Each strategy against an oracle: brute force, or its formula by hand."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.preprocessing import normalize

from cache.errors import InputError
from pipeline.grid import check_grid, expand, require_met
from stages.al.pool import Pool
from stages.al.readings import read
from stages.al.strategies import STRATEGIES
from stages.al.strategies.base import top_k
from stages.al.strategies.typiclust import typicality_within
from stages.al.uncertainty import closeness, entropy, least_confidence, margin
from tests.conftest import blobs, make_view

PROBA = np.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.4, 0.3, 0.3], [0.7, 0.2, 0.1]])


def test_uncertainties_by_hand() -> None:
    with np.errstate(divide="ignore"):
        logits = np.log(PROBA)
    reading = read(logits)
    np.testing.assert_allclose(entropy(reading), [0, np.log(2), 1.0889, 0.8018], atol=1e-4)
    np.testing.assert_allclose(least_confidence(reading), [0, 0.5, 0.6, 0.3], atol=1e-12)
    np.testing.assert_allclose(margin(reading), [1, 0, 0.1, 0.5], atol=1e-12)
    sure = read(np.array([[0.0, -50.0, -52.0], [0.0, -49.0, -60.0]]))
    for measure in (entropy, least_confidence, closeness):
        assert 0 < measure(sure)[0] < measure(sure)[1] < 1e-18
    for measure in (entropy, least_confidence, margin):
        np.testing.assert_allclose(measure(read(logits + 7)), measure(reading), atol=1e-12)
        assert measure(read(logits[:, :1] + 1)).tolist()[1:] == [float(measure is margin)] * 3


@pytest.mark.parametrize(
    ("name", "worst"),
    [
        ("entropy", lambda p: -sum(x * np.log(x) for x in p if x > 0)),
        ("least_confidence", lambda p: -max(p)),
        ("margin", lambda p: sorted(p)[-2] - sorted(p)[-1]),
    ],
)
def test_uncertainty_strategies_query_the_most_uncertain(
    name: str, worst: Callable[[np.ndarray], float], tiny_pool: Pool
) -> None:
    view = make_view(tiny_pool, np.arange(10))
    scores = [worst(p) for p in view.proba]
    expected = view.candidates[np.argsort(scores)[::-1][:6]]
    queried = STRATEGIES.build(name).query(view, 6, np.random.default_rng(0))
    assert queried.tolist() == expected.tolist()


def test_all_stands_for_every_strategy_that_heads_and_views_suit() -> None:
    every = set(STRATEGIES) - {"surrogate", "gain_surrogate"}
    assert expand(["all"], ["ridge"], 2) == (sorted(every), [])
    assert expand(["margin", "surrogate"], ["mlp"], 1) == (["margin", "surrogate"], [])
    of_one_view, left_out = expand(["all"], ["ridge", "linear"], 1)
    assert left_out == [
        *("diff2aug_kmeans", "expected_loss_reduction", "explore", "model_change"),
        *("ssal_consistency", "true_gain", "validation_loss_reduction", "variance_reduction"),
    ]
    assert set(of_one_view) == every - set(left_out)


def test_what_a_strategy_needs_and_does_not_get_is_named() -> None:
    check_grid(["ridge"], ["all"], 1)
    for head, strategy in (("mlp", "bald"), ("mlp", "alfa_mix"), ("linear", "variance_reduction")):
        with pytest.raises(InputError, match=f"{strategy}.*{head}.*use .*ridge"):
            check_grid([head], [strategy], 1)
    with pytest.raises(InputError, match="ssal_consistency.*compares views.*make embed VIEWS="):
        require_met("ssal_consistency", ["ridge"], 1)


def test_random_is_uniform(tiny_pool: Pool) -> None:
    view = make_view(tiny_pool, np.arange(100))
    draws = [STRATEGIES.build("random").query(view, 1, np.random.default_rng(seed))[0] for seed in range(2000)]
    counts = np.bincount(draws, minlength=120)[100:]
    assert counts.min() > 60
    assert counts.max() < 145


def test_top_k_breaks_ties_with_the_generator() -> None:
    scores = np.array([1.0, 3.0, 1.0, 1.0])
    picks = {tuple(top_k(scores, 2, np.random.default_rng(seed))) for seed in range(50)}
    assert picks == {(1, 0), (1, 2), (1, 3)}


@pytest.mark.parametrize("n_labeled", [1, 10])
def test_coreset_is_the_farthest_point_every_time(tiny_pool: Pool, n_labeled: int) -> None:
    labeled = np.arange(n_labeled)
    view = make_view(tiny_pool, labeled)
    centres, expected = list(labeled), []
    for _ in range(8):
        distance = [
            -1 if i in centres else min(np.linalg.norm(tiny_pool.features[i] - tiny_pool.features[c]) for c in centres)
            for i in range(len(tiny_pool))
        ]
        centres.append(int(np.argmax(distance)))
        expected.append(centres[-1])
    assert STRATEGIES.build("coreset").query(view, 8, np.random.default_rng(0)).tolist() == expected


def authors_typiclust(features: np.ndarray, clusters: np.ndarray, labeled: list[int], budget: int) -> list[int]:
    """The query of the authors' deep-al/pycls/al/typiclust.py, from its description, on given clusters."""
    labels = clusters.copy()
    ids = [c for c in np.unique(labels) if (labels == c).sum() > 5]
    order = sorted(ids, key=lambda c: (sum(labels[i] == c for i in labeled), -(labels == c).sum()))
    labels[labeled] = -1
    chosen: list[int] = []
    for i in range(budget):
        members = np.flatnonzero(labels == order[i % len(order)])
        k = min(20, len(members) // 2)
        squared = ((features[members][:, None] - features[members][None]) ** 2).sum(axis=2)
        nearest = np.sort(squared + np.diag(np.full(len(members), np.inf)), axis=1)[:, :k]
        chosen.append(int(members[np.argmax(1 / (nearest.mean(axis=1) + 1e-5))]))
        labels[chosen[-1]] = -1
    return chosen


@pytest.mark.parametrize(("n_labeled", "batch_size"), list(itertools.product([0, 3, 10], [1, 4])))
def test_typiclust_is_the_authors(
    make_pool: Callable[..., Pool], rng: np.random.Generator, n_labeled: int, batch_size: int
) -> None:
    features, labels = blobs(rng, n=400, dim=5, n_classes=8)
    pool, labeled = make_pool(features, labels, 8), rng.choice(400, n_labeled, replace=False)
    unit = normalize(features.astype(np.float64))
    expected = authors_typiclust(unit, pool.clusters(n_labeled + batch_size).copy(), labeled.tolist(), batch_size)
    queried = STRATEGIES.build("typiclust").query(make_view(pool, labeled), batch_size, np.random.default_rng(0))
    assert queried.tolist() == expected


def test_clusters_are_k_means_of_the_unit_features(tiny_pool: Pool) -> None:
    expected = KMeans(5, n_init=1, random_state=5).fit_predict(normalize(tiny_pool.features))
    assert tiny_pool.clusters(5).tolist() == expected.tolist()


def test_typicality_is_the_inverse_mean_squared_distance(rng: np.random.Generator) -> None:
    features = rng.normal(size=(30, 4))
    squared = ((features[:, None] - features[None]) ** 2).sum(axis=2)
    expected = 1 / (np.sort(squared, axis=1)[:, 1:6].mean(axis=1) + 1e-5)
    np.testing.assert_allclose(typicality_within(features, 5), expected)


def test_typicality_of_the_pool(tiny_pool: Pool) -> None:
    unit = normalize(tiny_pool.features.astype(np.float64))
    squared = ((unit[:, None] - unit[None]) ** 2).sum(axis=2)
    expected = 1 / (np.sort(squared, axis=1)[:, 1:21].mean(axis=1) + 1e-5)
    np.testing.assert_allclose(tiny_pool.typicality(), expected, rtol=1e-3)
