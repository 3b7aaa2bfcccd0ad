from dataclasses import dataclass
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Bool, Float, Int

from stages.al.strategies.badge import residuals
from stages.al.strategies.base import STRATEGIES, Strategy, require_enough
from stages.al.view import Needs, PoolView


def closeness(proba: Float[np.ndarray, "n classes"]) -> Float[np.ndarray, "n"]:
    """1 - margin, as the sum of all but the largest probability and the second largest: it keeps its digits."""
    others = residuals(proba)
    np.maximum(others, 0, out=others)
    return others.sum(axis=1, dtype=np.float64) + others.max(axis=1)


def odds(
    uncertainty: Float[np.ndarray, "n"], distance: Float[np.ndarray, "n"], waiting: Bool[np.ndarray, "n"], gamma: float
) -> Float[np.ndarray, "n"]:
    """Probabilities of the next draw: (uncertainty + distance rescaled to 0 .. 1)^gamma among those waiting.

    Even where only copies of what was drawn are left, all at distance 0.
    """
    left = distance[waiting]
    lowest, highest = left.min(), left.max()
    relevance = uncertainty[waiting] + (left - lowest) / ((highest - lowest) or 1) if highest else np.ones(len(left))
    weight = (relevance / relevance.max()) ** gamma
    found = np.zeros(len(distance))
    found[waiting] = weight / weight.sum()
    return found


@numba.njit(cache=True, fastmath={"contract", "nsz", "reassoc"}, error_model="numpy")
@no_type_check  # numba compiles the function itself, not one that a test has wrapped
def lower_city_block(proba, drawn, distance):
    """Lower each distance to that of one more drawn row, the sum of absolute differences, in place."""
    for i in range(len(proba)):
        total = proba.dtype.type(0)
        for c in range(proba.shape[1]):
            total += abs(proba[i, c] - proba[drawn, c])
        distance[i] = min(distance[i], total)


@STRATEGIES.register("falcun")
@dataclass(frozen=True, kw_only=True)
class Falcun(Strategy):
    """Query by chance where the head is uncertain and predicts otherwise than for what the batch has already.

    Gilhuber et al. 2024, equations 1 to 6, after their code: uncertainty is 1 - margin, distance the L1 distance of
    class probabilities to the nearest image of the batch and at first the uncertainty; see `odds`. The distances
    themselves are never rescaled (scikit-activeml 1.0.1 rescales in place, so that they lose their unit with every
    draw, and not before the first one).

    gamma : 0 draws evenly, large ones the most relevant
    """

    gamma: float = 10.0
    paper = "Gilhuber et al. 2024"
    cost = "n d C + b n C"
    regime = "any"
    batches = True
    requires = frozenset({Needs.PROBA})

    def __post_init__(self) -> None:
        if not 0 <= self.gamma < np.inf:
            raise ValueError(f"gamma={self.gamma} must be finite and not negative")

    def query(self, view: PoolView, batch_size: int, rng: np.random.Generator) -> Int[np.ndarray, "batch"]:
        require_enough(view, batch_size)
        uncertainty = closeness(view.fast_proba)
        distance, waiting = uncertainty.copy(), np.ones(len(uncertainty), dtype=bool)
        drawn = np.empty(batch_size, dtype=np.int64)
        for i in range(batch_size):
            if i:
                lower_city_block(view.fast_proba, drawn[i - 1], distance)
            drawn[i] = rng.choice(len(distance), p=odds(uncertainty, distance, waiting, self.gamma))
            waiting[drawn[i]] = False
        return view.candidates[drawn]
