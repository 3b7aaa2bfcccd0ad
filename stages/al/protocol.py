"""The rules of a run: what is labeled first, how much at once, and when to stop."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from cache.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Counts of images."""

    initial_size: int = 10
    """images labeled at random before the first query; the same ones for every strategy of a seed"""
    batch_size: int = 1
    """images labeled per round"""
    budget: int = 210
    """images labeled in all, initial set included; the pool's size is the upper limit"""
    candidates: int = 10_000
    """images drawn at random each round, of which a strategy may query (thesis: 10,000)"""

    def check(self) -> None:
        """Raises InputError where the counts do not go together."""
        if not (1 <= self.initial_size <= self.budget and self.batch_size >= 1 and self.candidates >= self.batch_size):
            raise InputError(
                f"initial_size={self.initial_size}, batch_size={self.batch_size}, budget={self.budget} and "
                f"candidates={self.candidates} do not go together: 1 <= initial_size <= budget and "
                f"1 <= batch_size <= candidates are needed"
            )

    def n_rounds(self, n_pool: int) -> int:
        """Times the head is fitted: after the initial set and after every query."""
        return 1 + -(-(min(self.budget, n_pool) - self.initial_size) // self.batch_size)


@dataclass(frozen=True, kw_only=True)
class CandidateLog:
    """What is written down for the surrogate to learn from."""

    log_seeds: int = 5
    """seeds below this number log candidates; the others are left to test the surrogate"""
    log_every: int = 10
    """rounds from one candidate log to the next"""
    log_candidates: int = 2000
    """candidates logged of a round at most, drawn at random (the queried ones always)"""

    def check(self) -> None:
        """Raises InputError where nothing could be logged."""
        if self.log_seeds < 0 or self.log_every < 1 or self.log_candidates < 1:
            raise InputError(
                f"log_seeds={self.log_seeds} must be at least 0, log_every={self.log_every} and "
                f"log_candidates={self.log_candidates} at least 1"
            )


def initial_set(protocol: Protocol, n_pool: int, rng: np.random.Generator) -> Int[np.ndarray, "initial"]:
    """Distinct pool indices, drawn at random. Raises InputError when the pool is smaller."""
    if protocol.initial_size > n_pool:
        raise InputError(f"initial_size={protocol.initial_size} is more than the pool's {n_pool} images")
    return rng.choice(n_pool, protocol.initial_size, replace=False)
