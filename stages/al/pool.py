"""The pool of a run, and the frozen view of it that a strategy gets."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float, Float32, Int, Int32, Int64
from sklearn.preprocessing import normalize

from cache.derived import DerivedStore
from stages.al.clustering import SETTINGS, Summary, k_means, means, summarise
from stages.al.heads.members import Members, bootstrap_members, dropout_members
from stages.al.logits import BLOCK, TrackedLogits
from stages.al.neighbours import ball_graph, nearest_neighbours
from stages.al.readings import Reading, read

T = TypeVar("T")
F = TypeVar("F", bound="Follower")
TYPICALITY_NEIGHBOURS = 20
FEW_CANDIDATES = 8
"""Where the pool has so many times the candidates, they are measured alone."""

MOST_TRACKED = 2**28
"""Logits of a pool that are kept from round to round, a GiB of them."""
COMMITTEE_NUMBERS = 2**20
"""Logits of all members that are held at once."""


class Needs(StrEnum):
    """What a strategy may ask of the view, beyond the features and the labels spent so far."""

    PROBA = "proba"
    VIEWS = "views"
    DISTANCE = "distance"
    CLUSTERS = "clusters"
    TYPICALITY = "typicality"
    HEAD = "head"
    PROGRESS = "progress"
    MEMBERS = "members"
    ORACLE = "oracle"


@dataclass(frozen=True)
class Pool:
    """All training images in a fixed order, and what can be said of them without labels.

    views : projected features (n_views, n_pool, dim) float32, the identity view first
    labels : what the oracle would answer; strategies never see this
    derived : where label-free arrays are kept, so that every seed and strategy shares them
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
        """The features, L2-normalised."""
        return normalize(np.asarray(self.features, dtype=np.float32))

    def neighbours(self, k: int) -> tuple[Int32[np.ndarray, "pool k"], Float32[np.ndarray, "pool k"]]:
        """The k nearest other images and squared distances, L2-normalised features. See `nearest_neighbours`."""

        def compute() -> dict[str, np.ndarray]:
            indices, squared = nearest_neighbours(self.features, k)
            return {"neighbours": indices, "neighbour-distances": squared}

        found = self.derived.get_all("neighbours", {"k": k}, compute)
        return found["neighbours"], found["neighbour-distances"]

    def ball_graph(self, radius: float) -> tuple[Int64[np.ndarray, "starts"], Int32[np.ndarray, "pairs"]]:
        """All pairs within a radius of each other, L2-normalised features: indptr and indices. See `ball_graph`."""

        def compute() -> dict[str, np.ndarray]:
            indptr, indices = ball_graph(self.features, radius)
            return {"ball-indptr": indptr, "ball-indices": indices}

        found = self.derived.get_all("ball-graph", {"radius": float(radius)}, compute)
        return found["ball-indptr"], found["ball-indices"]

    def typicality(self) -> Float[np.ndarray, "pool"]:
        """1 / mean squared distance to the 20 nearest pool images, L2-normalised features (TypiClust, equation 1)."""
        if len(self) == 1:
            return np.ones(1)
        _, squared = self.neighbours(min(TYPICALITY_NEIGHBOURS, len(self) - 1))
        return typicality_of(squared.mean(axis=1))

    def clusters(self, k: int) -> Int[np.ndarray, "pool"]:
        """k-means clusters of the L2-normalised features, none of them empty. See `k_means`."""
        return self.derived.get("clusters", {"k": k, **SETTINGS}, lambda: k_means(self.unit, k, self._summary))

    def _summary(self, size: int) -> Summary:
        def compute() -> dict[str, np.ndarray]:
            return {f"summary-{name}": array for name, array in summarise(self.unit, size)._asdict().items()}

        found = self.derived.get_all("summary", {"size": size, **SETTINGS}, compute)
        return Summary(found["summary-centres"], found["summary-sizes"])


class Follower(ABC):
    """What a run keeps from round to round, so that a strategy computes only what the new labels change.

    A query must not depend on it: brought up to date in one step or in many, it says the same.
    """

    @abstractmethod
    def follow(self, labeled: Int[np.ndarray, "labeled"]) -> None:
        """Take notice of the images labeled since the last call; `labeled` only ever grows at its end."""


class DistanceToLabeled(Follower):
    """Squared Euclidean distance of every pool image to its nearest labeled one; inf where nothing is labeled."""

    def __init__(self, features: Float[np.ndarray, "pool dim"]) -> None:
        self._features, self._seen = features, 0
        self.distance = np.full(len(features), np.inf, dtype=np.float32)

    def follow(self, labeled: Int[np.ndarray, "labeled"]) -> None:
        for index in labeled[self._seen :]:
            difference = self._features - self._features[index]
            np.minimum(self.distance, np.einsum("nd,nd->n", difference, difference), out=self.distance)
        self._seen = len(labeled)


def typicality_of(mean_squared_distance: np.ndarray) -> np.ndarray:
    """Typicality as in the authors' code: the constant keeps duplicates finite."""
    return 1.0 / (mean_squared_distance + 1e-5)


@dataclass(frozen=True, kw_only=True)
class PoolView:
    """One round as a strategy sees it. What it did not declare raises; what it asks for is computed once a round.

    candidates : unlabeled pool indices it may query; every score is one number per candidate, in this order
    labeled, labels : pool indices labeled so far, in order, and their labels
    distance_to_labeled : squared Euclidean distance of each candidate to its nearest labeled image (inf if none)
    progress : round as a fraction of the budget, validation accuracy and cross-entropy of the current head
    followers : what the run keeps from round to round; see `following`
    """

    pool: Pool
    candidates: Int[np.ndarray, "candidates"]
    labeled: Int[np.ndarray, "labeled"]
    labels: Int[np.ndarray, "labeled"]
    fitted_head: Any
    tracked: TrackedLogits | None = None
    state: dict[str, float] = field(default_factory=dict)
    allowed: frozenset[Needs] = frozenset(Needs)
    memo: dict[str, Any] = field(default_factory=dict)
    followers: dict[Hashable, Any] = field(default_factory=dict)

    @property
    def n_classes(self) -> int:
        return self.pool.n_classes

    @property
    def features(self) -> Float[np.ndarray, "candidates dim"]:
        return self._once("features", lambda: self.pool.features[self.candidates])

    @property
    def pool_features(self) -> Float[np.ndarray, "pool dim"]:
        return self.pool.features

    @property
    def unit(self) -> Float32[np.ndarray, "pool dim"]:
        """The pool's features, L2-normalised."""
        return self.pool.unit

    @property
    def head(self) -> Any:
        self._require(Needs.HEAD)
        return self._head()

    @property
    def proba(self) -> Float[np.ndarray, "candidates classes"]:
        self._require(Needs.PROBA)
        return self._once("proba", lambda: self._head().predict_proba(self.features))

    def measured(self, measure: Callable[[Reading], np.ndarray]) -> Float[np.ndarray, "candidates"]:
        """A measure of what is read off the candidates' logits, in single precision, as fast as can be."""
        self._require(Needs.PROBA)
        return self._once(measure.__name__, lambda: self._measured(measure))

    def exact_reading(self, positions: Int[np.ndarray, "m"]) -> Reading:
        """What is read off the logits of some candidates, in double precision."""
        self._require(Needs.PROBA)
        return read(self._head().logits(self.pool_features[self.candidates[positions]].astype(np.float64)))

    def members(self, kind: str, n_members: int, rate: float, rng: np.random.Generator) -> Members:
        """A committee made of the head: `dropout` of features at a rate, or `bootstrap` of the labeled images."""
        self._require(Needs.MEMBERS)
        if kind == "dropout":
            return dropout_members(self._head(), n_members, rate, rng)
        return bootstrap_members(self._head(), self.pool_features[self.labeled], self.labels, n_members, rng)

    def measured_by(
        self, members: Members, measure: Callable[[Float[np.ndarray, "members n classes"]], Float[np.ndarray, "n"]]
    ) -> Float[np.ndarray, "candidates"]:
        """A measure of the candidates' logits by every member, block by block."""
        step = max(1, COMMITTEE_NUMBERS // (len(members.weights) * self.n_classes))
        starts = range(0, len(self.candidates), step)
        return np.concatenate([measure(members.logits(self.features[start : start + step])) for start in starts])

    @property
    def view_features(self) -> Float[np.ndarray, "views candidates dim"]:
        self._require(Needs.VIEWS)
        return self._once("view_features", lambda: self.pool.views[:, self.candidates])

    @property
    def view_proba(self) -> Float[np.ndarray, "views candidates classes"]:
        self._require(Needs.VIEWS)
        return self._once(
            "view_proba", lambda: np.stack([self._head().predict_proba(view) for view in self.view_features])
        )

    @property
    def distance_to_labeled(self) -> Float[np.ndarray, "candidates"]:
        self._require(Needs.DISTANCE)
        follower = self.following("distance", lambda: DistanceToLabeled(self.pool_features))
        return self._once("distance", lambda: follower.distance[self.candidates])

    @property
    def typicality(self) -> Float[np.ndarray, "candidates"]:
        self._require(Needs.TYPICALITY)
        return self._once("typicality", lambda: self.pool.typicality()[self.candidates])

    def clusters(self, k: int) -> Int[np.ndarray, "pool"]:
        """A cluster number for every pool image."""
        self._require(Needs.CLUSTERS)
        return self._once(f"clusters {k}", lambda: self.pool.clusters(k))

    def centres(self, k: int) -> Float[np.ndarray, "clusters dim"]:
        """The mean of each of these clusters' L2-normalised features."""
        return self._once(f"centres {k}", lambda: means(self.unit, self.clusters(k)))

    @property
    def oracle(self) -> Int[np.ndarray, "candidates"]:
        """The candidates' true labels: for ablations that show how much knowing them would help."""
        self._require(Needs.ORACLE)
        return self.pool.labels[self.candidates]

    def following(self, key: Hashable, make: Callable[[], F]) -> F:
        """What the run keeps under that key, made when first asked for, and brought up to date.

        key : must differ for whatever differs in what `make` makes, hyperparameters included
        """
        if key not in self.followers:
            self.followers[key] = make()
        follower: F = self.followers[key]
        follower.follow(self.labeled)
        return follower

    @property
    def progress(self) -> dict[str, float]:
        self._require(Needs.PROGRESS)
        return self.state

    def _measured(self, measure: Callable[[Reading], np.ndarray]) -> Float[np.ndarray, "candidates"]:
        few = len(self.candidates) * FEW_CANDIDATES < len(self.pool)
        if self.tracked is None or few or len(self.pool) * self.n_classes > MOST_TRACKED:
            parts = np.array_split(self.candidates, 1 + len(self.candidates) // BLOCK)
            return np.concatenate([measure(read(self._head().logits(self.pool_features[part]))) for part in parts])
        reading, _ = self.tracked.read(self._head())
        return measure(reading)[self.candidates]

    def _head(self) -> Any:
        if self.fitted_head is None:
            raise ValueError("nothing is labeled yet, so there is no head to ask")
        return self.fitted_head

    def _require(self, need: Needs) -> None:
        if need not in self.allowed:
            raise AttributeError(f"a strategy asked for {need.value!r} without declaring it in `requires`")

    def _once(self, name: str, compute: Callable[[], T]) -> T:
        if name not in self.memo:
            self.memo[name] = compute()
        return self.memo[name]
