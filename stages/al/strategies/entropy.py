from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from stages.al.pool import Needs, PoolView
from stages.al.strategies.base import STRATEGIES, ScoredStrategy
from stages.al.uncertainty import entropy


@STRATEGIES.register("entropy")
@dataclass(frozen=True, kw_only=True)
class Entropy(ScoredStrategy):
    """Query where the class probabilities are most spread. Cost O(n classes). Settles 2009; thesis seed (002), 2.1.

    Deviation: the thesis prints argmax of sum p log p without the minus sign; the entropy is meant.
    """

    requires = frozenset({Needs.PROBA})

    def score(self, view: PoolView) -> Float[np.ndarray, "candidates"]:
        return entropy(view.proba)
