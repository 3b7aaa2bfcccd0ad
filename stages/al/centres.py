"""Greedy choice of points that lie far from each other: k-center and k-means++.

Distances to the nearest centre only ever shrink, so one that has not been brought up to date is an upper bound. Both
algorithms keep a bound for every point and with how many of the centres it has been compared, and compare a point with
the others only when its bound makes it the next choice. Their results are those of comparing everything. Distances are
squared Euclidean ones, from differences in double precision: copies of a centre are at exactly 0.
"""

from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float, Float64, Int

FEW_CENTRES = 8
MOST_SCORES = 2**20
"""Held at a time."""

FAST = {"contract", "nsz", "reassoc"}
"""Sums in any order, which is what lets the processor take several terms at once."""


def k_center_greedy(
    features: Float[np.ndarray, "n dim"],
    distance: Float[np.ndarray, "n"],
    batch_size: int,
    rng: np.random.Generator,
) -> Int[np.ndarray, "batch"]:
    """Positions of `batch_size` centres, each the farthest from all centres before it; ties at random.

    distance : squared Euclidean distance to the nearest centre there is already; inf everywhere if there is none
    """
    chosen = np.empty(batch_size, dtype=np.int64)
    _farthest(features, distance.astype(np.float64), rng.permutation(len(features)), chosen)
    return chosen


def k_means_plus_plus(
    features: Float[np.ndarray, "n dim"],
    size: int,
    rng: np.random.Generator,
    factor: Float[np.ndarray, "n m"] | None = None,
    first: int | None = None,
) -> Int[np.ndarray, "centres"]:
    """Distinct positions of k-means++ centres; where only copies of centres are left, drawn evenly from them.

    factor : the points are the outer products of its rows with those of the features; just the features when None
    first : the first centre; drawn evenly when None
    """
    factor = np.ones((len(features), 1), dtype=np.float32) if factor is None else factor
    chosen = np.empty(size, dtype=np.int64)
    chosen[0] = rng.integers(len(features)) if first is None else first
    found = _spread(factor, features, squared_norms(factor), squared_norms(features), chosen, rng)
    if found < size:
        copies = np.setdiff1d(np.arange(len(features)), chosen[:found])
        chosen[found:] = rng.choice(copies, size - found, replace=False)
    return chosen


def squared_norms(rows: Float[np.ndarray, "n dim"]) -> Float[np.ndarray, "n"]:
    """Squared Euclidean norm of each row, in double precision."""
    norms = np.full(len(rows), np.inf)
    _lower(rows, np.zeros((1, rows.shape[1]), rows.dtype), norms)
    return norms


def lower_distances(
    features: Float[np.ndarray, "n dim"], centres: Float[np.ndarray, "m dim"], distance: Float64[np.ndarray, "n"]
) -> None:
    """Lower each distance to that of the nearest of some more centres, in place.

    Of many centres a product of matrices, |x|^2 + |c|^2 - 2 x.c, says which could be the nearest: it is off by
    (dim + 4) u (|x|^2 + |c|^2) at most, u the rounding of the features' precision.
    """
    if len(centres) < FEW_CENTRES:
        _lower(features, centres, distance)
        return
    norms, centre_norms = squared_norms(features), squared_norms(centres)
    error = (features.shape[1] + 4) * np.finfo(features.dtype).eps * (norms + centre_norms.max())
    step = max(1, MOST_SCORES // len(centres))
    for start in range(0, len(features), step):
        block = slice(start, start + step)
        score = features[block] @ centres.T
        _lower_close(features[block], centres, score, norms[block], centre_norms, error[block], distance[block])


@numba.njit(cache=True, error_model="numpy")
@no_type_check  # numba compiles the functions themselves, not ones that a test has wrapped
def _lower(features, centres, distance):
    for i in range(len(features)):
        for j in range(len(centres)):
            distance[i] = min(distance[i], _difference(features[i], centres[j]))


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _lower_close(features, centres, score, norms, centre_norms, error, distance):
    for i in range(len(features)):
        for j in range(len(centres)):
            if norms[i] + centre_norms[j] - 2 * score[i, j] - error[i] < distance[i]:
                distance[i] = min(distance[i], _difference(features[i], centres[j]))


@numba.njit(cache=True, fastmath=FAST, error_model="numpy")
@no_type_check
def _difference(one, other):
    total = 0.0
    for j in range(len(one)):
        difference = np.float64(one[j]) - np.float64(other[j])
        total += difference * difference
    return total


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _farthest(features, distance, turn, chosen):
    """A heap of bounds: what stands on top and has been compared with all centres is the farthest."""
    size = len(distance)
    heap, compared = np.arange(size), np.zeros(size, np.int64)
    for place in range(size // 2, -1, -1):
        _sift_down(heap, size, place, distance, turn)
    for i in range(len(chosen)):
        while compared[heap[0]] < i:
            top = heap[0]
            for j in range(compared[top], i):
                distance[top] = min(distance[top], _difference(features[top], features[chosen[j]]))
            compared[top] = i
            _sift_down(heap, size, 0, distance, turn)
        chosen[i] = heap[0]
        size -= 1
        heap[0] = heap[size]
        _sift_down(heap, size, 0, distance, turn)


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _sift_down(heap, size, place, distance, turn):
    """Where a point of the heap belongs: larger bounds above, equal ones by turn."""
    point = heap[place]
    while 2 * place + 1 < size:
        child = 2 * place + 1
        if child + 1 < size and _above(heap[child + 1], heap[child], distance, turn):
            child += 1
        if not _above(heap[child], point, distance, turn):
            break
        heap[place] = heap[child]
        place = child
    heap[place] = point


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _above(one, other, distance, turn):
    return distance[one] > distance[other] or (distance[one] == distance[other] and turn[one] < turn[other])


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _spread(factor, features, factor_norm, norm, chosen, rng):
    """Draw by bound, accept with probability distance / bound: whenever it comes to it, a point is accepted with odds
    of its distance. Bounds are the leaves of a tree of sums. Returns after how many there were only copies left."""
    n = len(features)
    leaves = 1
    while leaves < n:
        leaves *= 2
    tree, compared = np.zeros(2 * leaves), np.ones(n, np.int64)
    for i in range(n):
        if i != chosen[0]:
            tree[leaves + i] = _between(factor, features, factor_norm, norm, i, chosen[0])
    for node in range(leaves - 1, 0, -1):
        tree[node] = tree[2 * node] + tree[2 * node + 1]
    for i in range(1, len(chosen)):
        accepted = False
        while not accepted:
            if tree[1] == 0:
                return i
            leaf = _drawn(tree, leaves, rng)
            point = leaf - leaves
            bound = distance = tree[leaf]
            for j in range(compared[point], i):
                distance = min(distance, _between(factor, features, factor_norm, norm, point, chosen[j]))
            compared[point] = i
            accepted = rng.random() * bound < distance
            _set_leaf(tree, leaf, 0.0 if accepted else distance)
        chosen[i] = point
    return len(chosen)


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _drawn(tree, leaves, rng):
    """A leaf with odds of its value, never one of 0."""
    target, node = rng.random() * tree[1], 1
    while node < leaves:
        node *= 2
        if tree[node] == 0 or (target >= tree[node] and tree[node + 1] > 0):
            target -= tree[node]
            node += 1
    return node


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _set_leaf(tree, leaf, value):
    tree[leaf] = value
    while leaf > 1:
        leaf //= 2
        tree[leaf] = tree[2 * leaf] + tree[2 * leaf + 1]


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _between(factor, features, factor_norm, norm, i, j):
    """Squared distance of two outer products p (x) x and q (x) y, without multiplying them out:

        |p (x) x - q (x) y|^2 = |p|^2 |x|^2 + |q|^2 |y|^2 - 2 (p.q) (x.y),   2 p.q = |p|^2 + |q|^2 - |p - q|^2

    and the same for x.y. Written in the differences, nearly equal points keep their digits and equal ones are at 0.
    """
    apart, factor_apart = _difference(features[i], features[j]), _difference(factor[i], factor[j])
    twice = factor_apart * (norm[i] + norm[j]) + (factor_norm[i] + factor_norm[j] - factor_apart) * apart
    twice += (factor_norm[i] - factor_norm[j]) * (norm[i] - norm[j])
    return max(0.0, twice / 2)
