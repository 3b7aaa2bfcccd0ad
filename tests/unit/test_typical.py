"""Clusterings, and the strategies that query by them, against plain loops and scikit-learn."""

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.preprocessing import normalize

from cache.errors import InputError
from stages.al.pool import Pool
from stages.al.strategies import STRATEGIES
from stages.al.strategies.supclust import sup
from stages.al.strategies.typiclust import typicality_within
from stages.al.view import PoolView
from tests.conftest import blobs, make_view

MakePool = Callable[..., Pool]


@pytest.fixture
def large(make_pool: MakePool, rng: np.random.Generator) -> Pool:
    """A pool that is clustered by way of its summary."""
    features, labels = blobs(rng, n=3000, dim=8, n_classes=10)
    return make_pool(features, labels, 10)


def inertia(unit: np.ndarray, clusters: np.ndarray) -> float:
    """Sum of the squared distances to the means of the clusters."""
    return sum(np.square(unit[clusters == c] - unit[clusters == c].mean(axis=0)).sum() for c in set(clusters.tolist()))


@pytest.mark.parametrize(("k", "worse"), [(1, 1.001), (7, 1.05), (50, 1.05), (51, 1.05), (300, 1.05)])
def test_clusters_of_a_large_pool_are_nearly_as_tight_as_scikit_learns(large: Pool, k: int, worse: float) -> None:
    unit, clusters = normalize(large.features), large.clusters(k)
    model = KMeans(k, n_init=1, random_state=0) if k <= 50 else MiniBatchKMeans(k, n_init=1, random_state=0)
    assert inertia(unit, clusters) < worse * inertia(unit, model.fit_predict(unit))
    assert np.bincount(clusters, minlength=k).min() > 0


def test_centres_are_the_means_of_the_clusters(large: Pool) -> None:
    clusters = large.clusters(60)
    unit = normalize(large.features.astype(np.float64))
    expected = [unit[clusters == c].mean(axis=0) for c in range(clusters.max() + 1)]
    np.testing.assert_allclose(make_view(large, np.arange(3)).centres(60), expected, atol=1e-6)


@pytest.mark.parametrize("n_distinct", [1, 7])
def test_a_large_pool_of_few_distinct_images_has_few_clusters(
    make_pool: MakePool, rng: np.random.Generator, n_distinct: int
) -> None:
    distinct = rng.normal(size=(n_distinct, 5)).astype(np.float32)
    pool = make_pool(distinct[np.arange(1000) % n_distinct], np.arange(1000) % 2, 2)
    clusters = pool.clusters(20)
    assert len(set(clusters.tolist())) == clusters.max() + 1 <= n_distinct
    for name in ("typiclust", "supclust"):
        queried = STRATEGIES.build(name).query(make_view(pool, np.arange(13)), 7, np.random.default_rng(0))
        assert len(set(queried.tolist())) == 7


def test_near_duplicates_keep_their_typicality(rng: np.random.Generator) -> None:
    """A product of matrices in single precision loses their distances, and copies score 1e5 only if it does not."""
    unit = normalize(rng.normal(size=(60, 30)) + 5).astype(np.float32)
    unit[:30] = unit[0]
    unit[:15] += 1e-4
    distances = ((unit[:, None].astype(np.float64) - unit[None]) ** 2).sum(axis=2)
    expected = 1 / (np.sort(distances, axis=1)[:, 1:11].mean(axis=1) + 1e-5)
    np.testing.assert_allclose(typicality_within(unit, 10), expected, rtol=1e-4)


def plain_sup(x: np.ndarray, centres: np.ndarray, i: int, temperature: float) -> float:
    """Equations 2 and 3 of SUPClust."""
    others = [j for j in range(len(centres)) if j != i]
    force = [np.exp(-np.linalg.norm(centres[i] - centres[j]) / temperature) for j in others]
    weights = [one / sum(force) for one in force]
    return 1 / sum(w * np.linalg.norm(x - centres[j]) for w, j in zip(weights, others, strict=True))


def test_sup_is_the_papers_formula(rng: np.random.Generator) -> None:
    points, centres = rng.normal(size=(9, 4)), rng.normal(size=(5, 4))
    for temperature in (0.1, 1.0, 30.0):
        expected = [plain_sup(x, centres, 3, temperature) for x in points]
        np.testing.assert_allclose(sup(points, centres, 3, temperature), expected)
    assert sup(points, centres[:1], 0, 1.0).tolist() == [1.0] * 9


def plain_supclust(view: PoolView, share: float, temperature: float, without: str) -> list[int]:
    """Candidates that a query of one label may choose, by plain loops."""
    unit = normalize(view.pool.features.astype(np.float64))
    clusters = view.pool.clusters(len(view.labeled) + 1)
    centres = np.array([unit[clusters == c].mean(axis=0) for c in range(clusters.max() + 1)])
    sizes = [(clusters == c).sum() * ~np.isin(c, clusters[view.labeled]) for c in range(len(centres))]
    cluster = int(np.argmax(sizes))
    members = view.candidates[clusters[view.candidates] == cluster]
    if without != "typicality":
        members = members[np.argsort(-typicality_within(unit[members], 20))][: int(np.ceil(len(members) * share))]
    if without == "sup":
        return sorted(members.tolist())
    return [max(members.tolist(), key=lambda i: plain_sup(unit[i], centres, cluster, temperature))]


@pytest.mark.parametrize("without", ["nothing", "typicality", "sup"])
@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_supclust_is_its_four_parts(large: Pool, without: str, temperature: float) -> None:
    strategy = STRATEGIES.build(f"supclust:without={without}:temperature={temperature}")
    for n_labeled in (4, 60):
        view = make_view(large, np.arange(n_labeled))
        expected = plain_supclust(view, 0.1, temperature, without)
        queried = {int(strategy.query(view, 1, np.random.default_rng(seed))[0]) for seed in range(9)}
        assert queried <= set(expected)
        assert len(queried) > 1 or without != "sup"


def test_with_a_single_cluster_supclust_is_typiclust(large: Pool) -> None:
    view = make_view(large, np.array([], dtype=np.int64))
    queries = [STRATEGIES.build(name).query(view, 1, np.random.default_rng(0)) for name in ("supclust", "typiclust")]
    assert queries[0] == queries[1]


def test_with_the_smallest_share_supclust_is_typiclust(large: Pool) -> None:
    view = make_view(large, np.arange(12))
    queries = [
        STRATEGIES.build(name).query(view, 9, np.random.default_rng(0)).tolist()
        for name in ("supclust:typical_share=0.0001", "typiclust")
    ]
    assert queries[0] == queries[1]


def test_tcm_turns_from_typiclust_to_margin(large: Pool) -> None:
    strategy = STRATEGIES.build("tcm:per_class=3")
    for n_labeled, same in ((29, "typiclust"), (30, "margin")):
        view = make_view(large, np.arange(n_labeled))
        expected = STRATEGIES.build(same).query(view, 4, np.random.default_rng(0))
        assert strategy.query(view, 4, np.random.default_rng(0)).tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("supclust:typical_share=0", "above 0"),
        ("supclust:temperature=-1", "temperature=-1"),
        ("supclust:without=all", "without='all'"),
        ("supclust:n_neighbors=0", "at least 1"),
        ("tcm:per_class=0", "per_class=0"),
    ],
)
def test_impossible_settings_are_refused(spec: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        STRATEGIES.build(spec)
