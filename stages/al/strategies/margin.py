from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from stages.al.pool import Needs, PoolView
from stages.al.strategies.base import STRATEGIES, ScoredStrategy
from stages.al.uncertainty import margin


@STRATEGIES.register("margin")
@dataclass(frozen=True, kw_only=True)
class Margin(ScoredStrategy):
    """Query where the two most probable classes are closest. Cost O(n classes). Scheffer et al. 2001; thesis seed
    (002), 2.1; best-practices seed (000), section 2."""

    requires = frozenset({Needs.PROBA})

    def score(self, view: PoolView) -> Float[np.ndarray, "candidates"]:
        return -margin(view.proba)
