from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from stages.al.pool import Needs, PoolView
from stages.al.strategies.base import STRATEGIES, ScoredStrategy
from stages.al.uncertainty import least_confidence


@STRATEGIES.register("least_confidence")
@dataclass(frozen=True, kw_only=True)
class LeastConfidence(ScoredStrategy):
    """Query where the most probable class is least probable. Cost O(n classes). Settles 2009; thesis (002), 2.1."""

    requires = frozenset({Needs.PROBA})

    def score(self, view: PoolView) -> Float[np.ndarray, "candidates"]:
        return least_confidence(view.proba)
