"""One round of a run as a strategy sees it, and what a run keeps from round to round."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, TypeVar, cast

import numpy as np
from jaxtyping import Float, Float32, Int

from cache.errors import InputError
from stages.al.centres import lower_distances
from stages.al.clustering import means
from stages.al.committee import Opinions, members_opinions, opinions_of, views_opinions
from stages.al.heads.base import HEADS
from stages.al.heads.closed_form import ClosedFormSoftmax, softmax
from stages.al.heads.members import Members, bootstrap_members, dropout_members
from stages.al.logits import BLOCK, TrackedLogits
from stages.al.pool import Evaluation, Pool
from stages.al.posterior import posterior_seeing_labels
from stages.al.readings import Reading, read

T = TypeVar("T")
F = TypeVar("F", bound="Follower")
FEW_CANDIDATES = 8
"""Where the pool has so many times the candidates, they are measured alone."""

MOST_TRACKED = 2**28
"""Logits of a pool that are kept from round to round, a GiB of them."""
COMMITTEE_NUMBERS = 2**20
"""Logits of all members that are held at once in double precision."""


class Needs(StrEnum):
    """What a strategy may ask of the view, beyond the features and the labels spent so far."""

    PROBA = "proba"
    VIEWS = "views"
    SEVERAL_VIEWS = "several views"
    DISTANCE = "distance"
    CLUSTERS = "clusters"
    TYPICALITY = "typicality"
    HEAD = "head"
    PROGRESS = "progress"
    LINEAR = "linear"
    CLOSED_FORM = "closed form"
    MEMBERS = "members"
    ORACLE = "oracle"
    VALIDATION = "validation"


HEAD_MUST = {Needs.LINEAR: "affine", Needs.MEMBERS: "affine", Needs.CLOSED_FORM: "influence"}
"""What a head must have for a need to be met."""


def unmet(needs: frozenset[Needs], head: Any, n_views: int | None = None) -> str | None:
    """Why a head, or class of heads, and so many views (unknown yet when None) do not do; None where they do."""
    for need, attribute in HEAD_MUST.items():
        if need in needs and not hasattr(head, attribute):
            kind = "has no closed form" if need == Needs.CLOSED_FORM else "is not linear in the features"
            able = ", ".join(name for name in HEADS if hasattr(HEADS.get(name), attribute))
            return f"the head {head.name!r} {kind}, as this strategy needs it: use {able}"
    if Needs.SEVERAL_VIEWS in needs and n_views == 1:
        return (
            "it compares views of an image, and there is one of each: embed more and use that cache, "
            "`make embed VIEWS=identity,hflip,...`"
        )
    return None


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
        self.distance = np.full(len(features), np.inf)

    def follow(self, labeled: Int[np.ndarray, "labeled"]) -> None:
        lower_distances(self._features, self._features[labeled[self._seen :]], self.distance)
        self._seen = len(labeled)


@dataclass(frozen=True, kw_only=True)
class PoolView:
    """One round as a strategy sees it. What it did not declare raises; what it asks for is computed once a round.

    candidates : unlabeled pool indices it may query; every score is one number per candidate, in this order
    labeled, labels : pool indices labeled so far, in order, and their labels
    distance_to_labeled : squared Euclidean distance of each candidate to its nearest labeled image (inf if none)
    progress : round as a fraction of the budget, validation accuracy and cross-entropy of the current head
    held_out : the labeled validation images, asked for as `validation`
    followers : what the run keeps from round to round; see `following`
    """

    pool: Pool
    candidates: Int[np.ndarray, "candidates"]
    labeled: Int[np.ndarray, "labeled"]
    labels: Int[np.ndarray, "labeled"]
    fitted_head: Any
    tracked: TrackedLogits | None = None
    held_out: Evaluation | None = None
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
    def closed_form(self) -> ClosedFormSoftmax:
        """The head where it is solved in closed form. Raises InputError where it is not."""
        return cast(ClosedFormSoftmax, self._head_with(Needs.CLOSED_FORM))

    @property
    def affine(self) -> tuple[Float[np.ndarray, "dim classes"], Float[np.ndarray, "classes"]]:
        """W and b of the head's logits x W + b, temperature included. Raises InputError where it has none."""
        return self._head_with(Needs.LINEAR).affine()

    @property
    def proba(self) -> Float[np.ndarray, "candidates classes"]:
        self._require(Needs.PROBA)
        return self._once("proba", lambda: self._head().predict_proba(self.features))

    @property
    def fast_proba(self) -> Float32[np.ndarray, "candidates classes"]:
        """`proba` in single precision, as fast as can be; the small ones keep their digits, the large round to 1.

        Asked of the head anew every round, so that no rounding of earlier rounds gets into it.
        """
        self._require(Needs.PROBA)
        return self._once("fast_proba", self._fast_proba)

    def measured(self, measure: Callable[[Reading], np.ndarray]) -> Float[np.ndarray, "candidates"]:
        """A measure of what is read off the candidates' logits, in single precision, as fast as can be."""
        self._require(Needs.PROBA)
        return self._once(measure.__name__, lambda: self._measured(measure, self.candidates))

    def measured_everywhere(self, measure: Callable[[Reading], np.ndarray]) -> Float[np.ndarray, "pool"]:
        """As `measured`, of all pool images."""
        self._require(Needs.PROBA)
        return self._once(f"pool {measure.__name__}", lambda: self._measured(measure, np.arange(len(self.pool))))

    @property
    def pool_proba(self) -> Float[np.ndarray, "pool classes"]:
        """Class probabilities of all pool images."""
        self._require(Needs.PROBA)
        return self._once("pool_proba", lambda: self._head().predict_proba(self.pool_features))

    def exact_reading(self, positions: Int[np.ndarray, "m"]) -> Reading:
        """What is read off the logits of some candidates, in double precision."""
        self._require(Needs.PROBA)
        return read(self._head().logits(self.pool_features[self.candidates[positions]].astype(np.float64)))

    def members(
        self, kind: Literal["dropout", "bootstrap"], n_members: int, rate: float, rng: np.random.Generator
    ) -> Members:
        """A committee made of the head: `dropout` of features at a rate, or `bootstrap` of the labeled images."""
        head = self._head_with(Needs.MEMBERS)
        if kind == "dropout":
            return dropout_members(head, n_members, rate, rng)
        return bootstrap_members(head, self.pool_features[self.labeled], self.labels, n_members, rng)

    def opinions(self, members: Members) -> Opinions:
        """What the members say of the candidates, in single precision, as fast as can be."""
        return members_opinions(members, self.pool_features, self.candidates)

    def exact_opinions(self, members: Members, positions: Int[np.ndarray, "m"]) -> Opinions:
        """What they say of some candidates, in double precision."""
        blocks = np.array_split(
            self.candidates[positions], 1 + len(positions) * members.constants.size // COMMITTEE_NUMBERS
        )
        parts = [opinions_of(members.logits(self.pool_features[block].astype(np.float64))) for block in blocks]
        return Opinions(*map(np.concatenate, zip(*parts, strict=True)))

    @property
    def view_features(self) -> Float[np.ndarray, "views candidates dim"]:
        self._require(Needs.VIEWS)
        return self._once("view_features", lambda: self.pool.views[:, self.candidates])

    @property
    def view_proba(self) -> Float[np.ndarray, "views candidates classes"]:
        """In the precision of the features."""
        self._require(Needs.VIEWS)
        return self._once("view_proba", lambda: np.stack([softmax(self._head().logits(v)) for v in self.view_features]))

    def require_several_views(self) -> None:
        """Raises InputError where there is a single view of every image."""
        self._require(Needs.SEVERAL_VIEWS)
        if why := unmet(frozenset({Needs.SEVERAL_VIEWS}), self.fitted_head, len(self.pool.views)):
            raise InputError(why)

    @property
    def view_opinions(self) -> Opinions:
        """What the head says of all views of every candidate, in single precision. Raises InputError of one view."""
        self.require_several_views()
        return self._once("view_opinions", lambda: views_opinions(self._head(), self.pool.views, self.candidates))

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

    def distance_to_other_cluster(self, k: int) -> Float[np.ndarray, "pool"]:
        """Of every pool image, the distance to the nearest one in another of k clusters, L2-normalised features."""
        self._require(Needs.CLUSTERS)
        return self.pool.distance_to_other_cluster(k)

    @property
    def oracle(self) -> Int[np.ndarray, "candidates"]:
        """The candidates' true labels: for ablations that show how much knowing them would help."""
        self._require(Needs.ORACLE)
        return self.pool.labels[self.candidates]

    @property
    def oracle_proba(self) -> Float32[np.ndarray, "pool classes"]:
        """What all labels of the pool together say of each of its images, which is for ablations too."""
        self._require(Needs.ORACLE)
        return posterior_seeing_labels(self.pool)

    @property
    def validation(self) -> Evaluation:
        """The validation images and their labels."""
        self._require(Needs.VALIDATION)
        if self.held_out is None:
            raise ValueError("this round has no validation images")
        return self.held_out

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

    def _measured(
        self, measure: Callable[[Reading], np.ndarray], images: Int[np.ndarray, "n"]
    ) -> Float[np.ndarray, "n"]:
        few = len(images) * FEW_CANDIDATES < len(self.pool)
        if self.tracked is None or few or len(self.pool) * self.n_classes > MOST_TRACKED:
            parts = np.array_split(images, 1 + len(images) // BLOCK)
            return np.concatenate([measure(read(self._head().logits(self.pool_features[part]))) for part in parts])
        reading, _ = self.tracked.read(self._head())
        return measure(reading)[images]

    def _fast_proba(self) -> Float32[np.ndarray, "candidates classes"]:
        proba = np.empty((len(self.candidates), self.n_classes), dtype=np.float32)
        for start in range(0, len(proba), BLOCK):
            features = self.pool_features[self.candidates[start : start + BLOCK]]
            proba[start : start + BLOCK] = softmax(self._head().logits(features.astype(np.float32, copy=False)))
        return proba

    def _head_with(self, need: Needs) -> Any:
        self._require(need)
        head = self._head()
        if why := unmet(frozenset({need}), head):
            raise InputError(why)
        return head

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
