"""Strategies that ask a committee made of the head."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from stages.al.committee import Opinions
from stages.al.strategies.base import Strategy, refined_top_k, require_enough
from stages.al.view import Needs, PoolView


@dataclass(frozen=True, kw_only=True)
class CommitteeStrategy(Strategy):
    """Queries by one number made of what the members of a committee say of a candidate, highest first.

    kind : `dropout`, the head with features dropped at random, the same ones for all images (consistent dropout);
        `bootstrap`, heads fitted to the labeled images drawn with replacement
    members : 25 as in SUPClust's baselines (deep-al)
    rate : of the features that a member of the kind `dropout` drops

    A committee is drawn anew for every query. It needs a head of linear logits. All candidates are scored in single
    precision; those that could belong to the query again in double, which decides.
    """

    kind: Literal["dropout", "bootstrap"] = "dropout"
    members: int = 25
    rate: float = 0.5
    cost = "n d C members"
    regime = "high"
    requires = frozenset({Needs.MEMBERS})

    def __post_init__(self) -> None:
        if not 2 <= self.members <= 1000 or not 0 < self.rate < 1:
            raise ValueError(f"members={self.members} must be 2 to 1000 and rate={self.rate} between 0 and 1")

    @staticmethod
    @abstractmethod
    def measure(opinions: Opinions) -> Float[np.ndarray, "n"]:
        """One number per image."""

    def query(self, view: PoolView, batch_size: int, rng: np.random.Generator) -> Int[np.ndarray, "batch"]:
        require_enough(view, batch_size)
        committee = view.members(self.kind, self.members, self.rate, rng)

        def exact(positions: Int[np.ndarray, "m"]) -> Float[np.ndarray, "m"]:
            return self.measure(view.exact_opinions(committee, positions))

        return view.candidates[refined_top_k(self.measure(view.opinions(committee)), exact, batch_size, rng)]
