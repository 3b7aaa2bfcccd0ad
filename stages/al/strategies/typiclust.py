from dataclasses import dataclass
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float, Int

from stages.al.pool import typicality_of
from stages.al.strategies.base import STRATEGIES, Strategy, require_enough
from stages.al.view import Needs, PoolView

BLOCK = 2**19
"""Similarities held at a time: 2 MB, which stay in the processor's cache."""


def typicality_within(unit: Float[np.ndarray, "n dim"], n_neighbors: int) -> Float[np.ndarray, "n"]:
    """1 / mean squared distance to the nearest min(n_neighbors, n // 2) others, at least one (authors' code)."""
    n = len(unit)
    if n == 1:
        return np.ones(1)
    mean = np.empty(n)
    half = np.einsum("nd,nd->n", unit, unit) / 2
    step = max(8, BLOCK // n)
    for start in range(0, n, step):
        similarity = unit[start : start + step] @ unit.T
        _mean_of_nearest(similarity, start, unit, half, max(1, min(n_neighbors, n // 2)), mean)
    return typicality_of(mean)


# |a - b|^2 = |a|^2 - 2 (a.b - |b|^2 / 2): the product of matrices says who is nearest, and the distance itself is
# measured again from the difference, so that near-duplicates keep their digits.


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _mean_of_nearest(similarity, start, unit, half, k, mean):
    """Mean squared distance of rows start, start + 1, ... to the k nearest others."""
    nearness, place = np.empty(k, similarity.dtype), np.empty(k, np.int64)
    for i in range(len(similarity)):
        nearness[:] = -np.inf
        for j in range(len(unit)):
            value = similarity[i, j] - half[j]
            if value > nearness[k - 1] and j != start + i:
                spot = k - 1
                while spot > 0 and value > nearness[spot - 1]:
                    nearness[spot], place[spot] = nearness[spot - 1], place[spot - 1]
                    spot -= 1
                nearness[spot], place[spot] = value, j
        total = 0.0
        for j in place:
            for c in range(unit.shape[1]):
                difference = np.float64(unit[start + i, c]) - unit[j, c]
                total += difference * difference
        mean[start + i] = total / k


def cluster_order(
    clusters: Int[np.ndarray, "pool"], labeled: Int[np.ndarray, "labeled"], min_cluster_size: int
) -> Int[np.ndarray, "clusters"]:
    """Clusters with fewest labeled images first, then largest; those of at most `min_cluster_size` images last."""
    sizes = np.bincount(clusters)
    covered = np.bincount(clusters[labeled], minlength=len(sizes))
    return np.lexsort((-sizes, covered, sizes <= min_cluster_size))


@STRATEGIES.register("typiclust")
@dataclass(frozen=True, kw_only=True)
class TypiClust(Strategy):
    """Query the most typical image of the largest cluster that has no labeled image.

    Hacohen et al. 2022, algorithm 1 and its authors' code: L2-normalised features, labeled + b clusters (at most
    `max_clusters`), clusters of at most `min_cluster_size` images ignored, typicality among the cluster's unlabeled
    images, of equally typical ones the first. Deviations: of those images only the round's candidates count; features
    are the PCA projection; the clustering of k clusters is the same for every run, and that of a large pool begins with
    a summary of it, see `k_means`; small clusters come last instead of never, so that a batch can always be filled; a
    cluster revisited in one batch yields its next most typical image.
    """

    n_neighbors: int = 20
    min_cluster_size: int = 5
    max_clusters: int = 500
    paper = "Hacohen et al. 2022"
    cost = "b m^2 d in clusters of m images; N d (L + b) to cluster, once for all seeds"
    regime = "low"
    requires = frozenset({Needs.CLUSTERS})
    cold_start = True

    def __post_init__(self) -> None:
        if self.n_neighbors < 1 or self.min_cluster_size < 0 or self.max_clusters < 1:
            raise ValueError(
                f"n_neighbors={self.n_neighbors} and max_clusters={self.max_clusters} must be at least 1, "
                f"min_cluster_size={self.min_cluster_size} at least 0"
            )

    def query(self, view: PoolView, batch_size: int, rng: np.random.Generator) -> Int[np.ndarray, "batch"]:
        require_enough(view, batch_size)
        k = min(len(view.labeled) + batch_size, self.max_clusters, len(view.pool_features))
        clusters = view.clusters(k)
        order = cluster_order(clusters, view.labeled, self.min_cluster_size)
        home = clusters[view.candidates]
        waiting = np.ones(len(home), dtype=bool)
        chosen: list[int] = []
        while len(chosen) < batch_size:
            left = np.bincount(home[waiting], minlength=len(order))
            for cluster in order[left[order] > 0][: batch_size - len(chosen)]:
                members = np.flatnonzero(waiting & (home == cluster))
                chosen.append(int(members[self.choose(view, k, int(cluster), view.candidates[members], rng)]))
                waiting[chosen[-1]] = False
        return view.candidates[chosen]

    def choose(
        self, view: PoolView, k: int, cluster: int, members: Int[np.ndarray, "m"], rng: np.random.Generator
    ) -> int:
        """Which of the cluster's candidates, given by their pool indices, to query: its place among them.

        cluster : one of `view.clusters(k)`
        """
        return int(typicality_within(view.unit[members], self.n_neighbors).argmax())
