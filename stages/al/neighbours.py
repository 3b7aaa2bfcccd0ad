"""Exact neighbours among L2-normalised features, a block of rows at a time: the k nearest, and all within a radius."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Float32, Int, Int32, Int64
from sklearn.preprocessing import normalize

BLOCK = 2**22
"""Scores held at a time: 16 MB, and some 500 MB of pairs to measure in the worst case, that all images are alike."""
GROUP = 32
"""Columns of which only the best counts where a bound on the k-th best score is sought."""


def nearest_neighbours(
    features: Float[np.ndarray, "n dim"], k: int
) -> tuple[Int32[np.ndarray, "n k"], Float32[np.ndarray, "n k"]]:
    """Positions of the k nearest others by Euclidean distance of the L2-normalised features, and squared distances.

    Nearest first, ties by position. An image is not its own neighbour; its copies are, at distance 0. Cost O(n^2 d)
    time and O(n (k + d)) memory, more time where many images lie as near as the k-th.
    Raises ValueError unless 1 <= k < n.
    """
    n = len(features)
    if not 1 <= k < n:
        raise ValueError(f"{k} nearest neighbours among {n} images are impossible: 1 to {n - 1}")
    unit = _unit(features)
    tolerance = _tolerance(unit)
    indices, distances = np.empty((n, k), dtype=np.int32), np.empty((n, k), dtype=np.float32)
    for start, score in _scores(unit):
        rows, columns = _where(score >= _bound_of_best(score, k)[:, None] - 2 * tolerance)
        squared = _squared_distances(unit, start + rows, columns).astype(np.float32)
        order = np.lexsort((squared, rows))  # stable, and columns ascend within a row
        nearest = order[np.searchsorted(rows, np.arange(len(score)))[:, None] + np.arange(k)]
        block = slice(start, start + len(score))
        indices[block], distances[block] = columns[nearest], squared[nearest]
    return indices, distances


def ball_graph(
    features: Float[np.ndarray, "n dim"], radius: float
) -> tuple[Int64[np.ndarray, "n+1"], Int32[np.ndarray, "pairs"]]:
    """All pairs within a Euclidean distance of the L2-normalised features, as rows of a sparse matrix.

    The neighbours of image i, ascending and without itself, are indices[indptr[i] : indptr[i + 1]]. Symmetric; the
    radius itself is within. Cost O(n^2 d) time; memory 8 bytes a pair.
    Raises ValueError where the radius is negative or not finite.
    """
    if not 0 <= radius < np.inf:
        raise ValueError(f"radius={radius} is impossible: a finite number, at least 0")
    unit = _unit(features)
    tolerance = _tolerance(unit)
    edges = ((_squared_norms(unit) - radius**2) / 2).astype(np.float32)  # the score at which the distance is `radius`
    counts, indices = [np.zeros(1, dtype=np.int64)], [np.empty(0, dtype=np.int32)]
    for start, score in _scores(unit):
        edge = edges[start : start + len(score)]
        rows, columns = _where(score >= edge[:, None] - tolerance)
        doubtful = np.flatnonzero(score[rows, columns] <= edge[rows] + tolerance)
        within = np.ones(len(rows), dtype=bool)
        within[doubtful] = _squared_distances(unit, start + rows[doubtful], columns[doubtful]) <= radius**2
        counts.append(np.bincount(rows[within], minlength=len(score)))
        indices.append(columns[within].astype(np.int32))
    return np.cumsum(np.concatenate(counts)), np.concatenate(indices)


def _unit(features: np.ndarray) -> Float32[np.ndarray, "n dim"]:
    return normalize(np.asarray(features, dtype=np.float32))


def _squared_norms(unit: Float32[np.ndarray, "n dim"]) -> np.ndarray:
    """1, or 0 for images whose features are all zero, to the rounding of float32."""
    return np.einsum("nd,nd->n", unit, unit, dtype=np.float64)


# With s_ij = a_i.a_j - |a_j|^2 / 2, the squared distance is |a_i|^2 - 2 s_ij: in every row the best score is the
# nearest, and the product of [a_i, 1] with [a_j, -|a_j|^2 / 2] is all of it. In float32, u = 2^-24, that product of
# d + 1 terms is off by at most 1.5 (d + 1) u whatever the order of summation; rounding of norms, edges and of
# distances to float32 adds less than 6 u. So the score only says who must be measured, and who need not.


def _tolerance(unit: np.ndarray) -> np.float32:
    """A bound on the error of a score."""
    return np.float32(2 * (unit.shape[1] + 4) * 2.0**-24)


def _scores(unit: Float32[np.ndarray, "n dim"]) -> Iterator[tuple[int, Float32[np.ndarray, "rows n"]]]:
    """Blocks of rows of the scores: the first row's position, and scores with -inf for the image itself.

    A block is overwritten by the next.
    """
    n = len(unit)
    step = min(n, max(8, BLOCK // n))
    right = np.hstack([unit, -0.5 * _squared_norms(unit)[:, None].astype(np.float32)]).T
    buffer = np.empty((step, n), dtype=np.float32)
    for start in range(0, n, step):
        rows = np.arange(start, min(start + step, n))
        left = np.hstack([unit[rows], np.ones((len(rows), 1), dtype=np.float32)])
        score = np.matmul(left, right, out=buffer[: len(rows)])
        score[rows - start, rows] = -np.inf
        yield start, score


def _bound_of_best(score: Float32[np.ndarray, "rows n"], k: int) -> Float32[np.ndarray, "rows"]:
    """A number that the k best scores of each row reach: the k-th best among the best of groups of columns."""
    n = score.shape[1]
    width = max(1, min(GROUP, n // (4 * k)))
    best = score[:, : n - n % width].reshape(len(score), width, -1).max(axis=1)
    return np.partition(best, -k, axis=1)[:, -k]


def _where(mask: np.ndarray) -> tuple[Int[np.ndarray, "pairs"], Int[np.ndarray, "pairs"]]:
    """Rows and columns of the true places, row by row; faster than np.nonzero where they are few."""
    return np.divmod(np.flatnonzero(mask), mask.shape[1])


def _squared_distances(
    unit: Float32[np.ndarray, "n dim"], left: Int[np.ndarray, "pairs"], right: Int[np.ndarray, "pairs"]
) -> Float[np.ndarray, "pairs"]:
    """From differences in float64, so that near-duplicates keep their digits."""
    squared = np.empty(len(left))
    step = max(1, BLOCK // 4 // unit.shape[1])
    for start in range(0, len(left), step):
        pairs = slice(start, start + step)
        difference = unit[left[pairs]].astype(np.float64) - unit[right[pairs]]
        np.einsum("nd,nd->n", difference, difference, out=squared[pairs])
    return squared
