"""Exact neighbours among L2-normalised features, a block of rows at a time: the k nearest, the nearest of another
group, and all within a radius."""

from collections.abc import Iterator
from functools import cached_property

import numpy as np
from jaxtyping import Float, Float32, Int, Int32, Int64
from sklearn.preprocessing import normalize

BLOCK = 2**22
"""Scores worked on at a time: some 500 MB of pairs to measure in the worst case, that all images are alike."""
BLOCKS = 4
"""Of them that are multiplied together, 64 MB: a product of more rows is faster."""
GROUP = 32
"""Columns of which only the best counts where a bound on the k-th best score is sought."""
ROWS = 256
"""Rows of a ball graph handed out at once."""


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


def nearest_of_another(features: Float[np.ndarray, "n dim"], groups: Int[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """Squared distance of the L2-normalised features to the nearest one of another group; inf where there is one group.

    Cost O(n^2 d) time, as `nearest_neighbours`.
    """
    order = np.argsort(groups, kind="stable")  # so that a group's columns lie together
    starts = np.flatnonzero(np.diff(groups[order], prepend=groups[order[0]] - 1))
    if len(starts) == 1:
        return np.full(len(features), np.inf)
    unit = _unit(features[order])
    tolerance = _tolerance(unit)
    nearest = np.empty(len(unit))
    for start, score in _scores(unit):
        stop = start + len(score)
        for low, high in zip(starts, [*starts[1:], len(unit)], strict=True):
            score[max(low - start, 0) : max(high - start, 0), low:high] = -np.inf
        rows, columns = _where(score >= score.max(axis=1)[:, None] - 2 * tolerance)
        squared = _squared_distances(unit, start + rows, columns)
        nearest[order[start:stop]] = np.minimum.reduceat(squared, np.searchsorted(rows, np.arange(len(score))))
    return nearest


def ball_graph(
    features: Float[np.ndarray, "n dim"], radius: float, most: float | int = np.inf
) -> tuple[Int64[np.ndarray, "n+1"], Int32[np.ndarray, "pairs"]]:
    """All pairs within a Euclidean distance of the L2-normalised features, as rows of a sparse matrix.

    The neighbours of image i, ascending and without itself, are indices[indptr[i] : indptr[i + 1]]. Symmetric; the
    radius itself is within. Cost O(n^2 d) time; memory 8 bytes a pair.
    most : where there are more pairs, they are counted but not kept, and indices is empty
    Raises ValueError where the radius is negative or not finite.
    """
    if not 0 <= radius < np.inf:
        raise ValueError(f"radius={radius} is impossible: a finite number, at least 0")
    counts, indices, pairs = [np.zeros(1, dtype=np.int64)], [np.empty(0, dtype=np.int32)], 0
    for count, columns in _Balls(features, radius).of(None):
        counts.append(count)
        pairs += len(columns)
        indices = [*indices, columns] if pairs <= most else indices[:1]
    return np.cumsum(np.concatenate(counts)), np.concatenate(indices)


class BallGraph:
    """What `ball_graph` found; pairs it has not kept are found again, row by row, when they are asked for."""

    def __init__(
        self,
        features: Float[np.ndarray, "n dim"],
        radius: float,
        indptr: Int64[np.ndarray, "n+1"],
        indices: Int32[np.ndarray, "pairs"],
    ) -> None:
        self._features, self._radius, self._indptr, self._indices = features, radius, indptr, indices

    def __len__(self) -> int:
        return len(self._features)

    @property
    def degree(self) -> Int64[np.ndarray, "n"]:
        """Images within the radius of each, without itself."""
        return np.diff(self._indptr)

    def neighbours(self, rows: Int[np.ndarray, "rows"]) -> Iterator[Int32[np.ndarray, "pairs"]]:
        """The neighbours of these images one after the other, in pieces."""
        if len(self._indices) < self._indptr[-1]:
            yield from (columns for _, columns in self._balls.of(rows))
            return
        for start in range(0, len(rows), ROWS):
            part = rows[start : start + ROWS]
            yield np.concatenate([self._indices[self._indptr[row] : self._indptr[row + 1]] for row in part])

    @cached_property
    def _balls(self) -> "_Balls":
        return _Balls(self._features, self._radius)


class _Balls:
    """Finds who is within a radius."""

    def __init__(self, features: Float[np.ndarray, "n dim"], radius: float) -> None:
        self._unit, self._radius = _unit(features), radius
        self._right, self._tolerance = _right(self._unit), _tolerance(self._unit)
        # the score at which the distance is the radius
        self._edges = ((_squared_norms(self._unit) - radius**2) / 2).astype(np.float32)

    def of(self, rows: Int[np.ndarray, "rows"] | None) -> Iterator[tuple[np.ndarray, Int32[np.ndarray, "pairs"]]]:
        """Block by block of some images, or of all: how many are near each, and who they are."""
        for images, score in _scores_of(self._unit, self._right, rows):
            edge = self._edges[images]
            near, columns = _where(score >= edge[:, None] - self._tolerance)
            doubtful = np.flatnonzero(score[near, columns] <= edge[near] + self._tolerance)
            within = np.ones(len(near), dtype=bool)
            squared = _squared_distances(self._unit, images[near[doubtful]], columns[doubtful])
            within[doubtful] = squared <= self._radius**2
            yield np.bincount(near[within], minlength=len(score)), columns[within].astype(np.int32)


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


def _right(unit: Float32[np.ndarray, "n dim"]) -> Float32[np.ndarray, "dim+1 n"]:
    return np.vstack([unit.T, -0.5 * _squared_norms(unit)[None].astype(np.float32)])


def _scores(unit: Float32[np.ndarray, "n dim"]) -> Iterator[tuple[int, Float32[np.ndarray, "rows n"]]]:
    """Blocks of rows of the scores: the first row's position, and scores with -inf for the image itself.

    A block is overwritten by the next.
    """
    for images, score in _scores_of(unit, _right(unit), None):
        yield int(images[0]), score


def _scores_of(
    unit: Float32[np.ndarray, "n dim"], right: Float32[np.ndarray, "dim+1 n"], rows: Int[np.ndarray, "rows"] | None
) -> Iterator[tuple[Int[np.ndarray, "block"], Float32[np.ndarray, "block n"]]]:
    """As `_scores`, of some images or of all: whose scores they are, and the scores."""
    n = len(unit)
    rows = np.arange(n) if rows is None else rows
    step = min(len(rows), max(8, BLOCK // n))
    buffer = np.empty((min(len(rows), BLOCKS * step), n), dtype=np.float32)
    for start in range(0, len(rows), max(1, len(buffer))):
        images = rows[start : start + len(buffer)]
        left = np.hstack([unit[images], np.ones((len(images), 1), dtype=np.float32)])
        score = np.matmul(left, right, out=buffer[: len(images)])
        score[np.arange(len(images)), images] = -np.inf
        for first in range(0, len(images), step):
            yield images[first : first + step], score[first : first + step]


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
