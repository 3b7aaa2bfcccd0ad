from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from stages.al.strategies.base import STRATEGIES, Strategy
from stages.al.strategies.margin import Margin
from stages.al.strategies.typiclust import TypiClust
from stages.al.view import PoolView


@STRATEGIES.register("tcm")
@dataclass(frozen=True, kw_only=True)
class TypiClustThenMargin(Strategy):
    """Query what TypiClust does until there are `per_class` labels for every class, then what margin does.

    Doucet et al. 2024 (TCM): diversity first, uncertainty from a transition point on, which comes early with
    self-supervised features. A batch is never split between the two. Deviation: the paper's table of transition points
    is not followed; the default of 5 labels for each class, of `n_classes` whether seen or not, is ours.
    """

    per_class: int = 5
    paper = "Doucet et al. 2024"
    cost = "TypiClust's, then margin's"
    requires = TypiClust.requires | Margin.requires
    cold_start = True

    def __post_init__(self) -> None:
        if self.per_class < 1:
            raise ValueError(f"per_class={self.per_class} must be at least 1")

    def query(self, view: PoolView, batch_size: int, rng: np.random.Generator) -> Int[np.ndarray, "batch"]:
        first = len(view.labeled) < self.per_class * view.n_classes
        return (TypiClust() if first else Margin()).query(view, batch_size, rng)
