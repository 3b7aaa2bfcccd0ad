from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from stages.al.pool import PoolView
from stages.al.strategies.base import STRATEGIES, ScoredStrategy


@STRATEGIES.register("random")
@dataclass(frozen=True, kw_only=True)
class Random(ScoredStrategy):
    """Query any candidate with equal chance: every score is a tie. Cost O(n). Settles 2009; thesis seed (002), 2.1."""

    cold_start = True

    def score(self, view: PoolView) -> Float[np.ndarray, "candidates"]:
        return np.zeros(len(view.candidates))
