"""The two shapes of a strategy: score every candidate, or query a batch."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float, Int, Shaped

from stages.al.readings import Reading
from stages.al.view import Needs, PoolView
from stages.registry import Registry

STRATEGIES = Registry("strategy")

SPARE, GROUP = 32, 64
"""Candidates beyond the batch that are always scored in double precision, which shows how large rounding is; they are
found among the maxima of groups of so many."""

ROUNDING = 8.0
"""Times the largest rounding seen among them that any candidate's score may be off."""


@dataclass(frozen=True, kw_only=True)
class Strategy(ABC):
    """Queries `batch_size` candidates of a view. Its fields are its hyperparameters.

    requires : what the view must offer beyond features, labeled images and their labels
    cold_start : whether it can query before anything is labeled, hence choose the initial set too; the others raise
        ValueError then
    paper : authors and year
    cost : of one query, in n candidates, N pool images, d dimensions, C classes, b images queried, L labeled
    regime : the budgets that its paper recommends it for
    batches : whether it is made for several labels a round; with one it comes down to something simpler
    """

    name: ClassVar[str]
    requires: ClassVar[frozenset[Needs]] = frozenset()
    cold_start: ClassVar[bool] = False
    paper: ClassVar[str] = ""
    cost: ClassVar[str] = ""
    regime: ClassVar[Literal["any", "low", "high"]] = "any"
    batches: ClassVar[bool] = False

    @abstractmethod
    def query(self, view: PoolView, batch_size: int, rng: np.random.Generator) -> Int[np.ndarray, "batch"]:
        """Distinct pool indices, all from `view.candidates`, the first choice first.

        Raises ValueError when there are fewer candidates than `batch_size`.
        """

    def record(self) -> dict[str, Any]:
        """What the run log keeps, and what tells two runs apart."""
        return {"name": self.name, **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class ScoredStrategy(Strategy):
    """Queries the candidates of highest score; ties are broken by the seeded generator."""

    @abstractmethod
    def score(self, view: PoolView) -> Float[np.ndarray, "candidates"]:
        """One number per candidate, higher = query first."""

    def query(self, view: PoolView, batch_size: int, rng: np.random.Generator) -> Int[np.ndarray, "batch"]:
        require_enough(view, batch_size)
        return view.candidates[top_k(self.score(view), batch_size, rng)]


@dataclass(frozen=True, kw_only=True)
class UncertaintyStrategy(ScoredStrategy):
    """Queries by one number made of a candidate's class probabilities: the `measure` of their reading, highest first.

    All candidates are scored in single precision; those that could belong to the query, given the rounding seen, again
    in double, which decides. Queries thus depend neither on how a pool is multiplied nor on what was kept of the round
    before.
    """

    requires = frozenset({Needs.PROBA})

    @staticmethod
    @abstractmethod
    def measure(reading: Reading) -> Float[np.ndarray, "n"]:
        """One number per image."""

    def score(self, view: PoolView) -> Float[np.ndarray, "candidates"]:
        return view.measured(self.measure)

    def query(self, view: PoolView, batch_size: int, rng: np.random.Generator) -> Int[np.ndarray, "batch"]:
        require_enough(view, batch_size)
        return view.candidates[
            refined_top_k(self.score(view), lambda close: self.measure(view.exact_reading(close)), batch_size, rng)
        ]


def refined_top_k(
    scores: Float[np.ndarray, "n"],
    exact: Callable[[Int[np.ndarray, "m"]], Float[np.ndarray, "m"]],
    k: int,
    rng: np.random.Generator,
) -> Int[np.ndarray, "k"]:
    """Positions of the k highest exact scores, highest first, where only rounded ones are known of all.

    exact : the scores of some positions in double precision; asked for those that could be among the k, given the
        rounding seen
    """
    close = np.flatnonzero(scores >= _low_bar(scores, min(k + SPARE, len(scores))))
    refined = exact(close)
    least = kth_largest(refined, k)
    rounding = ROUNDING * np.abs(refined - scores[close]).max()
    if (scores >= least - rounding).sum() > len(close):
        close = np.flatnonzero(scores >= least - rounding)
        refined = exact(close)
    return close[top_k(refined, k, rng)]


def _low_bar(scores: Float[np.ndarray, "n"], k: int) -> float:
    """A number that at least k of the scores reach, and few more: the k-th largest of the maxima of some groups."""
    groups = len(scores) // GROUP
    return kth_largest(scores[: groups * GROUP].reshape(GROUP, groups).max(axis=0) if groups >= 2 * k else scores, k)


def require_enough(view: PoolView, batch_size: int) -> None:
    """Raises ValueError when a batch does not fit into the candidates."""
    if not 1 <= batch_size <= len(view.candidates):
        raise ValueError(f"batch_size={batch_size} does not fit into {len(view.candidates)} candidates")


def top_k(scores: Float[np.ndarray, "n"], k: int, rng: np.random.Generator) -> Int[np.ndarray, "k"]:
    """Positions of the k highest scores, highest first; equal scores in random order."""
    contenders = np.flatnonzero(scores >= kth_largest(scores, k))
    shuffled = rng.permutation(contenders)
    return shuffled[np.argsort(-scores[shuffled], kind="stable")[:k]]


def kth_largest(scores: Shaped[np.ndarray, "n"], k: int) -> float:
    """The k-th largest of the scores."""
    return float(scores.max() if k == 1 else np.partition(scores, len(scores) - k)[len(scores) - k])


def drawn(n: int, k: int, rng: np.random.Generator) -> Int[np.ndarray, "drawn"]:
    """k of the positions 0 .. n - 1 at random, in order; all where there are no more."""
    return np.sort(rng.choice(n, k, replace=False)) if k < n else np.arange(n)
