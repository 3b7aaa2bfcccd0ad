"""The pool of a run, and what can be said of it without labels."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Float32, Int, Int32
from sklearn.preprocessing import normalize

from cache.derived import DerivedStore
from stages.al.clustering import SETTINGS, Summary, k_means, summarise
from stages.al.logits import BLOCK
from stages.al.neighbours import BallGraph, ball_graph, nearest_neighbours, nearest_of_another

TYPICALITY_NEIGHBOURS = 20
MOST_PAIRS = 2**27
"""Pairs of a ball graph that are kept, half a GiB of them."""


@dataclass(frozen=True)
class Evaluation:
    """Labeled images outside the pool."""

    features: Float[np.ndarray, "n dim"]
    labels: Int[np.ndarray, "n"]

    def some(self, size: int, rng: np.random.Generator) -> "Evaluation":
        """So many of them at random; all where there are no more."""
        if len(self.labels) <= size:
            return self
        rows = np.sort(rng.choice(len(self.labels), size, replace=False))
        return Evaluation(self.features[rows], self.labels[rows])


@dataclass(frozen=True)
class Pool:
    """All training images in a fixed order, and what can be said of them without labels.

    views : projected features (n_views, n_pool, dim) float32, the identity view first
    labels : what the oracle would answer; strategies never see this
    derived : where arrays made of it are kept, so that every seed and strategy shares them
    """

    views: Float[np.ndarray, "views pool dim"]
    labels: Int[np.ndarray, "pool"]
    n_classes: int
    derived: DerivedStore

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def features(self) -> Float[np.ndarray, "pool dim"]:
        return self.views[0]

    @cached_property
    def unit(self) -> Float32[np.ndarray, "pool dim"]:
        """The L2-normalised features, in a file that all runs share; features of zeros stay so."""
        return self.derived.get("unit", {}, lambda: normalize(self.features.astype(np.float32)))

    def neighbours(self, k: int) -> tuple[Int32[np.ndarray, "pool k"], Float32[np.ndarray, "pool k"]]:
        """The k nearest other images and squared distances, L2-normalised features. See `nearest_neighbours`."""

        def compute() -> dict[str, np.ndarray]:
            indices, squared = nearest_neighbours(self.features, k)
            return {"neighbours": indices, "neighbour-distances": squared}

        found = self.derived.get_all("neighbours", {"k": k}, compute)
        return found["neighbours"], found["neighbour-distances"]

    def ball_graph(self, radius: float) -> BallGraph:
        """Who is within a radius of whom, L2-normalised features; pairs are kept up to a limit. See `ball_graph`."""

        def compute() -> dict[str, np.ndarray]:
            indptr, indices = ball_graph(self.features, radius, MOST_PAIRS)
            return {"ball-indptr": indptr, "ball-indices": indices}

        found = self.derived.get_all("ball-graph", {"radius": float(radius), "most": MOST_PAIRS}, compute)
        return BallGraph(self.features, radius, found["ball-indptr"], found["ball-indices"])

    def distance_to_other_cluster(self, k: int) -> Float[np.ndarray, "pool"]:
        """Distance to the nearest image of another of k clusters, L2-normalised features; inf where there is one."""

        def compute() -> np.ndarray:
            return np.sqrt(nearest_of_another(self.features, self.clusters(k)))

        return self.derived.get("distance-to-other-cluster", {"k": k, **SETTINGS}, compute)

    def typicality(self) -> Float[np.ndarray, "pool"]:
        """1 / mean squared distance to the 20 nearest pool images, L2-normalised features (TypiClust, equation 1)."""
        return self._typicality

    @cached_property
    def _typicality(self) -> Float[np.ndarray, "pool"]:
        if len(self) == 1:
            return np.ones(1)
        _, squared = self.neighbours(min(TYPICALITY_NEIGHBOURS, len(self) - 1))
        return typicality_of(squared.mean(axis=1))

    def second_moment(self) -> Float[np.ndarray, "size size"]:
        """Mean of x x' over the pool, of the features with a 1 after them: float64 (dim + 1, dim + 1)."""

        def compute() -> np.ndarray:
            size = self.features.shape[1] + 1
            total = np.zeros((size, size))
            for start in range(0, len(self), BLOCK):
                rows = self.features[start : start + BLOCK].astype(np.float64)
                rows = np.hstack([rows, np.ones((len(rows), 1))])
                total += rows.T @ rows
            return total / len(self)

        return self.derived.get("second-moment", {}, compute)

    def clusters(self, k: int) -> Int[np.ndarray, "pool"]:
        """k-means clusters of the L2-normalised features, none of them empty. See `k_means`."""
        return self.derived.get("clusters", {"k": k, **SETTINGS}, lambda: k_means(self.unit, k, self._summary))

    def _summary(self, size: int) -> Summary:
        def compute() -> dict[str, np.ndarray]:
            return {f"summary-{name}": array for name, array in summarise(self.unit, size)._asdict().items()}

        found = self.derived.get_all("summary", {"size": size, **SETTINGS}, compute)
        return Summary(found["summary-centres"], found["summary-sizes"])


def typicality_of(mean_squared_distance: np.ndarray) -> np.ndarray:
    """Typicality as in the authors' code: the constant keeps duplicates finite."""
    return 1.0 / (mean_squared_distance + 1e-5)
