from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from stages.al.strategies.base import STRATEGIES, Strategy, require_enough, top_k
from stages.al.view import Needs, PoolView

FIELDS = {"margin": "closeness", "least_confidence": "least_confidence", "entropy": "entropy"}


def proportional(
    sizes: Int[np.ndarray, "clusters"], total: int, rng: np.random.Generator
) -> Int[np.ndarray, "clusters"]:
    """Counts that add up to `total` <= the sizes' sum, proportional to the sizes, none larger than its size.

    Rounded down, then one more for the largest remainders, ties at random.
    """
    counts, remainders = np.divmod(sizes * total, sizes.sum())
    largest = np.lexsort((rng.random(len(sizes)), -remainders))
    counts[largest[: total - counts.sum()]] += 1
    return counts


def best_of_clusters(
    scores: Float[np.ndarray, "n"], clusters: Int[np.ndarray, "n"], k: int, rng: np.random.Generator
) -> Int[np.ndarray, "k"]:
    """Positions of the highest scores of every cluster, as many as proportional to its size, the highest first."""
    _, places, sizes = np.unique(clusters, return_inverse=True, return_counts=True)
    counts = proportional(sizes, k, rng)
    chosen = []
    for cluster in np.flatnonzero(counts):
        members = np.flatnonzero(places == cluster)
        chosen.append(members[top_k(scores[members], int(counts[cluster]), rng)])
    queried = np.concatenate(chosen)
    return queried[np.argsort(-scores[queried], kind="stable")]


@STRATEGIES.register("diff2aug_kmeans")
@dataclass(frozen=True, kw_only=True)
class Diff2AugKmeans(Strategy):
    """Query the most uncertain candidates, over all views, of every cluster, as many as proportional to its size.

    Song et al. 2019, section 3; thesis seed (002), 2.3: an uncertainty (their diff2 is `margin`) averaged over the
    views; k-means with a fixed number of clusters, 20 in the authors' code. A batch of one is the most uncertain
    candidate of all. Deviations: the authors' code measures the mean prediction of two fresh augmentations, here every
    cached view is measured and the thesis's mean taken; the clusters are those of the whole pool's L2-normalised
    features, the same in every round, and their sizes those among the candidates; what rounding leaves over goes to
    the largest remainders, not to clusters at random. Raises InputError where there is one view.
    """

    measure: Literal["margin", "least_confidence", "entropy"] = "margin"
    clusters: int = 20
    paper = "Song et al. 2019"
    cost = "n d C views; N d clusters to cluster, once for all seeds"
    regime = "high"
    batches = True
    requires = frozenset({Needs.SEVERAL_VIEWS, Needs.CLUSTERS})

    def __post_init__(self) -> None:
        if self.clusters < 1:
            raise ValueError(f"clusters={self.clusters} must be at least 1")

    def query(self, view: PoolView, batch_size: int, rng: np.random.Generator) -> Int[np.ndarray, "batch"]:
        require_enough(view, batch_size)
        scores = getattr(view.view_opinions, FIELDS[self.measure])
        if batch_size == 1:
            return view.candidates[top_k(scores, 1, rng)]
        clusters = view.clusters(min(self.clusters, len(view.pool_features)))
        return view.candidates[best_of_clusters(scores, clusters[view.candidates], batch_size, rng)]
