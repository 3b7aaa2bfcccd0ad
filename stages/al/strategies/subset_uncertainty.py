from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Int

from stages.al.strategies.badge import Badge
from stages.al.strategies.base import STRATEGIES, Strategy, UncertaintyStrategy, require_enough
from stages.al.strategies.coreset import Coreset
from stages.al.strategies.entropy import Entropy
from stages.al.strategies.least_confidence import LeastConfidence
from stages.al.strategies.margin import Margin
from stages.al.strategies.random import Random
from stages.al.view import Needs, PoolView

SUBSETS: dict[str, Strategy] = {"random": Random(), "coreset": Coreset(), "badge": Badge()}
MEASURES: dict[str, UncertaintyStrategy] = {
    "entropy": Entropy(),
    "least_confidence": LeastConfidence(),
    "margin": Margin(),
}


@STRATEGIES.register("subset_uncertainty")
@dataclass(frozen=True, kw_only=True)
class SubsetUncertainty(Strategy):
    """Query the most uncertain of a subset of the candidates, which keeps a batch from being much of the same.

    Best-practices seed (000), A.16: the subset is drawn at random, as in Beluch et al. 2018, or chosen for diversity by
    the coreset or badge strategy, which pays on redundant pools. The seed's subsets are 10 times the batch.

    measure : of uncertainty
    factor : images of the subset per label; all candidates where that is as many
    """

    measure: Literal["entropy", "least_confidence", "margin"] = "entropy"
    subset: Literal["random", "coreset", "badge"] = "random"
    factor: int = 10
    paper = "Beluch et al. 2018"
    cost = "factor b d C, and that of choosing factor b images"
    regime = "high"
    batches = True
    requires = frozenset({Needs.PROBA, Needs.HEAD, Needs.DISTANCE})

    def __post_init__(self) -> None:
        if self.measure not in MEASURES or self.subset not in SUBSETS or self.factor < 1:
            raise ValueError(
                f"measure={self.measure} must be one of {', '.join(MEASURES)}, subset={self.subset} one of "
                f"{', '.join(SUBSETS)} and factor={self.factor} at least 1"
            )

    def query(self, view: PoolView, batch_size: int, rng: np.random.Generator) -> Int[np.ndarray, "batch"]:
        require_enough(view, batch_size)
        size = self.factor * batch_size
        if size < len(view.candidates):
            view = replace(view, candidates=np.sort(SUBSETS[self.subset].query(view, size, rng)), memo={})
        return MEASURES[self.measure].query(view, batch_size, rng)
