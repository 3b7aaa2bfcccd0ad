from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from stages.al.centres import k_center_greedy
from stages.al.strategies.base import STRATEGIES, Strategy, require_enough, top_k
from stages.al.view import Needs, PoolView


@STRATEGIES.register("coreset")
@dataclass(frozen=True, kw_only=True)
class Coreset(Strategy):
    """Query the candidate farthest from everything labeled (k-center greedy).

    Sener and Savarese 2018, algorithm 1; thesis seed (002), 2.1. The greedy form, without their mixed-integer
    refinement. With nothing labeled the first centre is drawn at random.
    """

    paper = "Sener and Savarese 2018"
    cost = "n d per label, b n d at worst for the batch"
    requires = frozenset({Needs.DISTANCE})
    cold_start = True

    def query(self, view: PoolView, batch_size: int, rng: np.random.Generator) -> Int[np.ndarray, "batch"]:
        require_enough(view, batch_size)
        distance = view.distance_to_labeled
        if batch_size == 1:  # needs no features
            return view.candidates[top_k(distance, 1, rng)]
        return view.candidates[k_center_greedy(view.features, distance, batch_size, rng)]
