from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from stages.al.strategies.base import STRATEGIES, Strategy, require_enough
from stages.al.view import PoolView


@STRATEGIES.register("random")
@dataclass(frozen=True, kw_only=True)
class Random(Strategy):
    """Query any candidate with equal chance. Settles 2009; thesis seed (002), 2.1."""

    paper = "Settles 2009"
    cost = "b"
    cold_start = True

    def query(self, view: PoolView, batch_size: int, rng: np.random.Generator) -> Int[np.ndarray, "batch"]:
        require_enough(view, batch_size)
        return rng.choice(view.candidates, batch_size, replace=False)
