from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from stages.al.pool import Needs, PoolView
from stages.al.strategies.base import STRATEGIES, Strategy, require_enough, top_k


def k_center_greedy(
    features: Float[np.ndarray, "n dim"],
    distance: Float[np.ndarray, "n"],
    batch_size: int,
    rng: np.random.Generator,
) -> Int[np.ndarray, "batch"]:
    """Positions of `batch_size` centres, each the farthest from all centres before it; ties at random.

    distance : squared Euclidean distance to the nearest centre there is already; inf everywhere if there is none
    """
    distance = distance.astype(np.float64)
    chosen = np.empty(batch_size, dtype=np.int64)
    for i in range(batch_size):
        chosen[i] = top_k(distance, 1, rng)[0]
        difference = (features - features[chosen[i]]).astype(np.float64)
        np.minimum(distance, np.einsum("nd,nd->n", difference, difference), out=distance)
        distance[chosen[: i + 1]] = -1.0
    return chosen


@STRATEGIES.register("coreset")
@dataclass(frozen=True, kw_only=True)
class Coreset(Strategy):
    """Query the candidate farthest from everything labeled (k-center greedy).

    Sener and Savarese 2018, algorithm 1; thesis seed (002), 2.1. The greedy form, without their mixed-integer
    refinement. With nothing labeled the first centre is drawn at random.
    """

    paper = "Sener and Savarese 2018"
    cost = "b n d"
    requires = frozenset({Needs.DISTANCE})
    cold_start = True

    def query(self, view: PoolView, batch_size: int, rng: np.random.Generator) -> Int[np.ndarray, "batch"]:
        require_enough(view, batch_size)
        return view.candidates[k_center_greedy(view.features, view.distance_to_labeled, batch_size, rng)]
