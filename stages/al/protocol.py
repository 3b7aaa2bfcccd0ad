"""The rules of a run: what is labeled first, how much at once, and when to stop."""

import re
from dataclasses import asdict, dataclass
from typing import Any

from cache.errors import InputError

TRAIN_VIEWS = ("first", "all")


def count_of(name: str, amount: str, n: int) -> int:
    """A number of images: `210`, or `5%` of n, rounded, at least 1. Raises InputError.

    SSL meets AL (seed 003), section 4, gives initial sets and budgets as such percentages, from 0.1% on.
    """
    if re.fullmatch(r"\d{1,12}", amount):
        return int(amount)
    if (match := re.fullmatch(r"(\d{1,3}(?:\.\d{1,9})?)%", amount)) and 0 < (percent := float(match[1])) <= 100:
        return max(1, round(percent * n / 100))
    raise InputError(f"{name}={amount!r} is neither a number of images such as 210 nor a percentage such as 5%")


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Counts of images, as a run follows and records them; ProtocolConfig says what each means."""

    initial: str = "random"
    initial_size: int = 10
    batch_size: int = 1
    budget: int = 210
    candidates: int = 10_000
    train_views: str = "first"

    def check(self) -> None:
        """Raises InputError where the counts do not go together."""
        if self.train_views not in TRAIN_VIEWS:
            raise InputError(f"train_views={self.train_views!r} must be one of {', '.join(TRAIN_VIEWS)}")
        if not (1 <= self.initial_size <= self.budget and self.batch_size >= 1 and self.candidates >= self.batch_size):
            raise InputError(
                f"initial_size={self.initial_size}, batch_size={self.batch_size}, budget={self.budget} and "
                f"candidates={self.candidates} do not go together: 1 <= initial_size <= budget and "
                f"1 <= batch_size <= candidates are needed"
            )

    def require_pool(self, n_pool: int) -> None:
        """Raises InputError where the initial set does not fit into the pool."""
        if self.initial_size > n_pool:
            raise InputError(f"initial_size={self.initial_size} is more than the pool's {n_pool} images")

    def require_query(self, n_pool: int) -> None:
        """Raises InputError where the initial set spends the budget."""
        if self.n_rounds(n_pool) < 2:
            raise InputError(f"budget={self.budget} leaves nothing to query after {self.initial_size} labels")

    def n_rounds(self, n_pool: int) -> int:
        """Times the head is fitted: after the initial set and after every query."""
        return 1 + -(-(min(self.budget, n_pool) - self.initial_size) // self.batch_size)

    def record(self) -> dict[str, Any]:
        """What the run log keeps."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class ProtocolConfig:
    """A protocol as it is asked for, before the pool's size is known."""

    initial: str = "random"
    """the first labels: random, one_per_class, kmeans, kcenter, typical, or a strategy that needs no labels"""
    initial_size: str = "10"
    """images labeled before the first query, or a percentage of the pool; the same ones for every strategy of a seed"""
    batch_size: int = 1
    """images labeled per round"""
    budget: str = "210"
    """images labeled in all, initial set included, or a percentage such as 5%; the pool's size is the upper limit"""
    candidates: int = 10_000
    """images drawn at random each round, of which a strategy may query (thesis: 10,000)"""
    train_views: str = "first"
    """what the head learns from: the first view of the labeled images, or all views of them"""

    def check(self) -> None:
        """Raises InputError for what no pool could make right."""
        counted = self._counted(1)
        if "%" not in self.initial_size + self.budget:
            counted.check()

    def resolve(self, n_pool: int) -> Protocol:
        """The protocol on a pool of that many images. Raises InputError."""
        protocol = self._counted(n_pool)
        protocol.check()
        protocol.require_pool(n_pool)
        return protocol

    def _counted(self, n_pool: int) -> Protocol:
        return Protocol(
            initial=self.initial,
            initial_size=count_of("initial_size", self.initial_size, n_pool),
            batch_size=self.batch_size,
            budget=count_of("budget", self.budget, n_pool),
            candidates=self.candidates,
            train_views=self.train_views,
        )


@dataclass(frozen=True, kw_only=True)
class CandidateLog:
    """What is written down for the surrogate to learn from: dense look-ahead tables (`candidate_rows`) of some rounds.

    A round of 10 classes and 50 dimensions takes about 20 us of one core a row, and a row 54 bytes: by these defaults
    20 rounds of 2,000 rows in a run of 210 labels, or 2.2 MB.
    """

    log_seeds: int = 0
    """seeds below this number log candidates; the others are left to test what is learned from them"""
    log_every: int = 10
    """rounds from one candidate log to the next"""
    log_candidates: int = 2000
    """candidates logged of a round at most, drawn at random (the queried ones always); with 0 the queried ones alone,
    without what labeling them would change, so that it goes with every head (thesis)"""
    log_images: int = 500
    """validation images that changes are measured on at most, drawn each round; half as many later, and of the pool"""
    log_later: int = 10
    """random labels after which a candidate's later change is measured"""

    def check(self) -> None:
        """Raises InputError where nothing could be logged."""
        least_one = min(self.log_every, self.log_images, self.log_later)
        if min(self.log_seeds, self.log_candidates) < 0 or least_one < 1:
            raise InputError(
                f"log_seeds={self.log_seeds} and log_candidates={self.log_candidates} must be at least 0, "
                f"log_every={self.log_every}, log_images={self.log_images} and log_later={self.log_later} at least 1"
            )
