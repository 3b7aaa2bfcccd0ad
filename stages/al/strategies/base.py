"""The two shapes of a strategy: score every candidate, or query a batch."""

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, Int

from stages.al.pool import Needs, PoolView
from stages.registry import Registry

STRATEGIES = Registry("strategy")


@dataclass(frozen=True, kw_only=True)
class Strategy(ABC):
    """Queries `batch_size` candidates of a view. Its fields are its hyperparameters.

    requires : what the view must offer beyond features, labeled images and their labels
    cold_start : whether it can query before anything is labeled; the others raise ValueError then
    """

    name: ClassVar[str]
    requires: ClassVar[frozenset[Needs]] = frozenset()
    cold_start: ClassVar[bool] = False

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


def require_enough(view: PoolView, batch_size: int) -> None:
    """Raises ValueError when a batch does not fit into the candidates."""
    if not 1 <= batch_size <= len(view.candidates):
        raise ValueError(f"batch_size={batch_size} does not fit into {len(view.candidates)} candidates")


def top_k(scores: Float[np.ndarray, "n"], k: int, rng: np.random.Generator) -> Int[np.ndarray, "k"]:
    """Positions of the k highest scores, highest first; equal scores in random order."""
    threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
    contenders = np.flatnonzero(scores >= threshold)
    shuffled = rng.permutation(contenders)
    return shuffled[np.argsort(-scores[shuffled], kind="stable")[:k]]
