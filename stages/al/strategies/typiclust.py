from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from stages.al.pool import Needs, PoolView, typicality_of
from stages.al.strategies.base import STRATEGIES, Strategy, require_enough


def typicality_within(features: Float[np.ndarray, "n dim"], n_neighbors: int) -> Float[np.ndarray, "n"]:
    """1 / mean squared distance to the nearest min(n_neighbors, n // 2) others, at least one (authors' code)."""
    if len(features) == 1:
        return np.ones(1)
    k = max(1, min(n_neighbors, len(features) // 2))
    distances, _ = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(features).kneighbors()
    return typicality_of((distances**2).mean(axis=1))


def cluster_order(
    clusters: Int[np.ndarray, "pool"], labeled: Int[np.ndarray, "labeled"], min_cluster_size: int
) -> Int[np.ndarray, "kept"]:
    """Clusters with fewest labeled images first, then largest; those of at most `min_cluster_size` images last."""
    sizes = np.bincount(clusters)
    covered = np.bincount(clusters[labeled], minlength=len(sizes))
    small = sizes <= min_cluster_size
    order = np.lexsort((-sizes, covered, small))
    return order[sizes[order] > 0]


@STRATEGIES.register("typiclust")
@dataclass(frozen=True, kw_only=True)
class TypiClust(Strategy):
    """Query the most typical image of the largest cluster that has no labeled image.

    Hacohen et al. 2022, algorithm 1 and its authors' code: L2-normalised features, labeled + b clusters (at most
    `max_clusters`), clusters of at most `min_cluster_size` images ignored, typicality among the cluster's unlabeled
    images. Deviations: of those images only the round's candidates count; features are the PCA projection; the
    clustering of k clusters is seeded by k, not by the run; small clusters come last instead of never, so that a batch
    can always be filled; a cluster revisited in one batch yields its next most typical image.
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
        n_clusters = min(len(view.labeled) + batch_size, self.max_clusters, len(view.pool_features))
        clusters = view.clusters(n_clusters)
        order = cluster_order(clusters, view.labeled, self.min_cluster_size)
        waiting = np.ones(len(view.candidates), dtype=bool)
        chosen: list[int] = []
        while len(chosen) < batch_size:
            order = order[np.isin(order, clusters[view.candidates[waiting]])]
            for cluster in order[: batch_size - len(chosen)]:
                members = np.flatnonzero(waiting & (clusters[view.candidates] == cluster))
                typicality = typicality_within(normalize(view.features[members]), self.n_neighbors)
                chosen.append(int(members[typicality.argmax()]))
                waiting[chosen[-1]] = False
        return view.candidates[chosen]
