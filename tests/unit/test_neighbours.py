"""Neighbours and ball graphs against all distances, in float64."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from stages.al import neighbours
from stages.al.neighbours import BallGraph, ball_graph, nearest_neighbours, nearest_of_another
from stages.al.pool import Pool
from tests.conftest import blobs

POOLS = {
    "blobs": lambda rng: blobs(rng, n=300)[0],
    "sorted": lambda rng: np.sort(rng.normal(size=(300, 3)), axis=0).astype(np.float32),
    "duplicates": lambda rng: np.tile(rng.normal(size=(40, 8)), (8, 1)).astype(np.float32),
    "all but two equal": lambda rng: np.vstack([np.ones((200, 4)), rng.normal(size=(2, 4))]).astype(np.float32),
    "constant": lambda rng: np.ones((120, 5), dtype=np.float32),
    "zero": lambda rng: np.zeros((50, 5), dtype=np.float32),
    "some zero": lambda rng: np.where(np.arange(90)[:, None] % 3, rng.normal(size=(90, 4)), 0).astype(np.float32),
    "near-duplicates": lambda rng: (1 + 1e-5 * rng.normal(size=(300, 16))).astype(np.float32),
    "opposite": lambda rng: np.outer([1, -1] * 30, np.ones(7)).astype(np.float32),
    "wide": lambda rng: rng.normal(size=(50, 700)).astype(np.float32),
    "one dimension": lambda rng: rng.normal(size=(60, 1)).astype(np.float32),
    "float64": lambda rng: rng.normal(size=(60, 5)),
    "far": lambda rng: 1e6 * rng.normal(size=(60, 5)).astype(np.float32),
    "seven": lambda rng: rng.normal(size=(7, 3)).astype(np.float32),
    "two": lambda rng: rng.normal(size=(2, 3)).astype(np.float32),
}


@pytest.fixture(params=POOLS)
def features(request: pytest.FixtureRequest, rng: np.random.Generator) -> np.ndarray:
    return POOLS[request.param](rng)


def all_distances(features: np.ndarray) -> np.ndarray:
    """Squared, of the L2-normalised features; infinite to itself."""
    unit = normalize(features.astype(np.float32)).astype(np.float64)
    squared = np.stack([((row - unit) ** 2).sum(axis=1) for row in unit])
    np.fill_diagonal(squared, np.inf)
    return squared


def assert_nearest(features: np.ndarray, k: int) -> None:
    indices, squared = nearest_neighbours(features, k)
    expected = all_distances(features).astype(np.float32)
    order = np.argsort(expected, axis=1, kind="stable")[:, :k]
    assert indices.dtype == np.int32 and squared.dtype == np.float32
    np.testing.assert_array_equal(indices, order)
    np.testing.assert_allclose(squared, np.take_along_axis(expected, order, axis=1), rtol=1e-6)


def assert_ball(features: np.ndarray, radius: float) -> None:
    indptr, indices = ball_graph(features, radius)
    within = all_distances(features) <= radius**2
    assert indptr.dtype == np.int64 and indices.dtype == np.int32
    assert indptr.tolist() == [0, *np.cumsum(within.sum(axis=1)).tolist()]
    np.testing.assert_array_equal(indices, np.nonzero(within)[1])
    assert (within == within.T).all()


def test_the_nearest(features: np.ndarray) -> None:
    for k in {1, 2, 5, 20, len(features) - 1}:
        if k < len(features):
            assert_nearest(features, k)


def test_all_within_a_radius(features: np.ndarray) -> None:
    squared = all_distances(features)
    exactly = float(np.sqrt(np.sort(squared, axis=1)[:, len(features) // 3].min()))
    for radius in (0.0, 1e-6, 0.3, exactly, 1.0, 2.1):
        assert_ball(features, radius)


@pytest.mark.parametrize("rows", [1, 8, 29, 300])
def test_the_size_of_a_block_changes_nothing(
    rows: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "BLOCK", rows * 300)
    features = blobs(rng, n=300)[0]
    assert_nearest(features, 4)
    assert_ball(features, 0.3)


@settings(deadline=None, max_examples=60)
@given(arrays(np.float32, st.tuples(st.integers(2, 40), st.integers(1, 4)), elements=st.sampled_from([-1, 0, 1, 3])))
def test_many_ties(features: np.ndarray) -> None:
    for k in range(1, min(4, len(features))):
        assert_nearest(features, k)
    assert_ball(features, 0.7)


def test_near_duplicates_keep_their_digits(rng: np.random.Generator) -> None:
    """2 - 2ab in float32 would give 0 or 1e-7 for each of these."""
    features = np.ones((30, 64), dtype=np.float32)
    features[:, 0] += np.float32(1e-5) * np.arange(30, dtype=np.float32)
    indices, squared = nearest_neighbours(features, 1)
    assert (np.abs(indices[:, 0] - np.arange(30)) == 1).all()
    assert (squared > 1e-13).all() and (squared < 1e-10).all()


def test_as_scikit_learn(rng: np.random.Generator) -> None:
    features = blobs(rng, n=500, dim=10)[0]
    distances, indices = (
        NearestNeighbors(n_neighbors=20, algorithm="brute").fit(normalize(features).astype(np.float64)).kneighbors()
    )
    found, squared = nearest_neighbours(features, 20)
    np.testing.assert_array_equal(found, indices)
    np.testing.assert_allclose(squared, distances**2, rtol=1e-4)


def test_one_image_and_what_is_impossible() -> None:
    one = np.ones((1, 3), dtype=np.float32)
    indptr, indices = ball_graph(one, 1.0)
    assert indptr.tolist() == [0, 0] and indices.tolist() == []
    for features, k in ((one, 1), (np.ones((7, 3)), 7), (np.ones((7, 3)), 0)):
        with pytest.raises(ValueError, match=f"1 to {len(features) - 1}"):
            nearest_neighbours(features, k)
    for radius in (-0.1, np.inf, np.nan):
        with pytest.raises(ValueError, match="radius"):
            ball_graph(one, radius)


def test_the_pool_keeps_them(tiny_pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    nearest, ball = tiny_pool.neighbours(5), tiny_pool.ball_graph(0.4)
    for found, expected in zip(nearest, nearest_neighbours(tiny_pool.features, 5), strict=True):
        assert isinstance(found.base, np.memmap)
        np.testing.assert_array_equal(found, expected)
    indptr, indices = ball_graph(tiny_pool.features, 0.4)
    np.testing.assert_array_equal(ball.degree, np.diff(indptr))
    np.testing.assert_array_equal(np.concatenate([*ball.neighbours(np.arange(120))]), indices)
    monkeypatch.setattr(neighbours, "_scores", None)
    assert tiny_pool.neighbours(5)[0].tolist() == nearest[0].tolist()
    assert tiny_pool.ball_graph(0.4).degree.tolist() == ball.degree.tolist()


@pytest.mark.parametrize("most", [0, 100, np.inf])
def test_pairs_that_are_not_kept_are_found_again(features: np.ndarray, most: float) -> None:
    indptr, indices = ball_graph(features, 0.5)
    graph = BallGraph(features, 0.5, *ball_graph(features, 0.5, most))
    rows = np.arange(len(features))[::3][::-1]
    expected = [indices[indptr[row] : indptr[row + 1]] for row in rows]
    assert graph.degree.tolist() == np.diff(indptr).tolist()
    np.testing.assert_array_equal(np.concatenate([*graph.neighbours(rows)]), np.concatenate(expected))
    assert [*graph.neighbours(rows[:0])] == []


@pytest.mark.parametrize("n_groups", [1, 2, 7])
def test_the_nearest_of_another_group(features: np.ndarray, n_groups: int, rng: np.random.Generator) -> None:
    groups = rng.integers(0, n_groups, len(features))
    squared = all_distances(features)
    squared[groups[:, None] == groups] = np.inf
    np.testing.assert_allclose(nearest_of_another(features, groups), squared.min(axis=1), rtol=1e-12)


@pytest.mark.parametrize("n", [1, 2, 7])
def test_typicality_of_a_small_pool(n: int, make_pool: Callable[..., Pool], rng: np.random.Generator) -> None:
    pool = make_pool(*blobs(rng, n=n), 4)
    squared = np.sort(all_distances(pool.features), axis=1)[:, :-1]
    expected = 1 / (squared.mean(axis=1) + 1e-5) if n > 1 else [1.0]
    np.testing.assert_allclose(pool.typicality(), expected, rtol=1e-5)
