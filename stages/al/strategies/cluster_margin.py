from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from scipy.cluster.hierarchy import cut_tree, linkage
from scipy.spatial.distance import pdist

from stages.al.clustering import SETTINGS
from stages.al.strategies.base import STRATEGIES, Strategy, require_enough
from stages.al.strategies.margin import Margin
from stages.al.view import Needs, PoolView

MOST_LINKED = 4096
"""Pool images up to which every one is a leaf of the tree."""

MICRO_CLUSTERS = 1000
"""Leaves of the tree of a larger pool."""


def round_robin(clusters: Int[np.ndarray, "n"], k: int, rng: np.random.Generator) -> Int[np.ndarray, "k"]:
    """Positions of k members: a random one of each cluster in turn, the smallest first, then a second of each, ...

    Of clusters of one size the one that comes first is first.
    """
    _, first, inverse, sizes = np.unique(clusters, return_index=True, return_inverse=True, return_counts=True)
    shuffled = rng.permutation(len(clusters))
    grouped = shuffled[np.argsort(inverse[shuffled], kind="stable")]
    turn = np.empty(len(clusters), dtype=np.int64)
    turn[grouped] = np.arange(len(clusters)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.lexsort((first[inverse], sizes[inverse], turn))[:k]


@STRATEGIES.register("cluster_margin")
@dataclass(frozen=True, kw_only=True)
class ClusterMargin(Strategy):
    """Query candidates of small margin from many clusters of the pool, the smallest clusters first.

    Citovsky et al. 2021, algorithms 1 and 2: average-linkage clusters of the whole pool, once; the `pool_factor` b
    candidates of smallest margin; of their clusters, the one with fewest of them first, a random one of them each,
    round after round. Deviations: the tree is cut at a number of clusters, not at a distance that would have to be
    found for each data set; clusters of equal size go by their smallest margin; distances are those of L2-normalised
    features; the leaves of a pool of more than 4,096 images are the centres of 1,000 k-means clusters,
    whatever their sizes, as all pairs of images would not fit into memory (and 1,000 the most clusters).
    """

    pool_factor: int = 10
    clusters: int = 500
    paper = "Citovsky et al. 2021"
    cost = "n C; N d times 1000 for the clusters, once for all seeds"
    regime = "high"
    batches = True
    requires = frozenset({Needs.PROBA, Needs.CLUSTERS})

    def __post_init__(self) -> None:
        if self.pool_factor < 1 or not 1 <= self.clusters <= MICRO_CLUSTERS:
            raise ValueError(
                f"pool_factor={self.pool_factor} must be at least 1 and clusters={self.clusters} 1 to {MICRO_CLUSTERS}"
            )

    def query(self, view: PoolView, batch_size: int, rng: np.random.Generator) -> Int[np.ndarray, "batch"]:
        require_enough(view, batch_size)
        n_unsure = min(self.pool_factor * batch_size, len(view.candidates))
        unsure = Margin().query(view, n_unsure, rng)
        return unsure[round_robin(pool_clusters(view, self.clusters)[unsure], batch_size, rng)]


def pool_clusters(view: PoolView, k: int) -> Int[np.ndarray, "pool"]:
    """Average-linkage clusters of the pool's L2-normalised features, k of them where there are as many leaves."""

    def compute() -> np.ndarray:
        n = len(view.pool_features)
        leaf = np.arange(n) if n <= MOST_LINKED else view.clusters(MICRO_CLUSTERS)
        points = view.unit if n <= MOST_LINKED else view.centres(MICRO_CLUSTERS)
        if len(points) == 1:
            return np.zeros(n, dtype=np.int32)
        tree = linkage(pdist(points), "average")
        return cut_tree(tree, n_clusters=min(k, len(points)))[leaf, 0].astype(np.int32)

    settings = {"k": k, **SETTINGS, "most_linked": MOST_LINKED, "micro_clusters": MICRO_CLUSTERS}
    return view.pool.derived.get("average-linkage", settings, compute)
