"""Average-linkage clusters of a whole pool, of images or of small k-means clusters of them."""

from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def average_linkage(
    points: Float[np.ndarray, "n dim"], weights: Float[np.ndarray, "n"], k: int
) -> Int[np.ndarray, "n"]:
    """The k clusters at which merging the two of least mean Euclidean distance between members stops, k <= n.

    weights : how many members each point stands for, as if they all lay there
    By chains of nearest neighbours (Murtagh 1983): O(n^2) time, and 4 n^2 bytes.
    """
    n = len(points)
    squared = (points**2).sum(axis=1, dtype=np.float32)
    distance = points.astype(np.float32) @ points.T.astype(np.float32)
    distance *= -2
    distance += squared[:, None]
    distance += squared
    np.sqrt(np.maximum(distance, 0, out=distance), out=distance)
    pairs, heights = _merges(distance, weights.copy())
    kept = pairs[np.argsort(heights, kind="stable")[: n - k]]
    graph = coo_array((np.ones(len(kept), dtype=bool), (kept[:, 0], kept[:, 1])), shape=(n, n))
    return connected_components(graph, directed=False)[1].astype(np.int32)


@numba.njit(cache=True)
@no_type_check
def _merges(distance, weights):
    """Pairs of points whose clusters are merged, and at which mean distance, in the order of the chains."""
    n = len(weights)
    pairs, heights = np.empty((n - 1, 2), np.int32), np.empty(n - 1, np.float32)
    alive = np.ones(n, np.bool_)
    chain, length, first = np.empty(n, np.int32), 0, 0
    for merge in range(n - 1):
        if length == 0:
            while not alive[first]:
                first += 1
            chain[0], length = first, 1
        while True:
            tip = chain[length - 1]
            nearest = chain[length - 2] if length > 1 else -1
            least = distance[tip, nearest] if length > 1 else np.float32(np.inf)
            for j in range(n):
                if alive[j] and j != tip and distance[tip, j] < least:
                    nearest, least = j, distance[tip, j]
            if length > 1 and nearest == chain[length - 2]:
                break
            chain[length] = nearest
            length += 1
        length -= 2
        pairs[merge, 0], pairs[merge, 1], heights[merge] = tip, nearest, least
        total = weights[tip] + weights[nearest]
        for j in range(n):
            mean = (weights[tip] * distance[tip, j] + weights[nearest] * distance[nearest, j]) / total
            distance[tip, j] = distance[j, tip] = mean
        weights[tip], alive[nearest] = total, False
    return pairs, heights
