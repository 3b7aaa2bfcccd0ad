from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from stages.al.kernel_coverage import Gains, NearerThanLabeled
from stages.al.strategies.base import STRATEGIES, Strategy, require_enough
from stages.al.strategies.maxherding import greedy
from stages.al.uncertainty import closeness
from stages.al.view import Needs, PoolView


@STRATEGIES.register("uherding")
@dataclass(frozen=True, kw_only=True)
class UHerding(Strategy):
    """Query what adds most to the pool's similarity to its most similar labeled image, weighted by uncertainty.

    Bae, Oliveira and Sutherland 2025, algorithm 1: MaxHerding whose mean weighs an image by 1 - margin of the current
    head, with sigma the smallest distance between labeled images (1 until two differ), so that labels shift it from
    coverage to margin. With nothing labeled, or nothing uncertain, all weigh the same: that is MaxHerding. Deviations:
    the temperature that calibrates is the head's (`temperature=fitted`), no other is searched; only the round's
    candidates can be queried; in a pool of more than `images` images, and while few are labeled in one of more than
    some 5,000 (see `kernel_coverage`), the mean is over a random sample, the same for
    every run, and the candidate's own share is exact.

    sigma : of the kernel, or `adaptive`; images : at most so many of the pool are looked at
    """

    sigma: float | Literal["adaptive"] = "adaptive"
    images: int = 8_000
    paper = "Bae et al. 2025"
    cost = "N (d + C) + N min(N, images) / L a query; N min(N, images) d once a run"
    requires = frozenset({Needs.PROBA})
    cold_start = True

    def __post_init__(self) -> None:
        if self.sigma != "adaptive" and (isinstance(self.sigma, str) or not 0.01 <= self.sigma <= 100):
            raise ValueError(f"sigma={self.sigma} must be from 0.01 to 100, or 'adaptive'")
        if self.images < 1:
            raise ValueError(f"images={self.images} must be at least 1")

    def query(self, view: PoolView, batch_size: int, rng: np.random.Generator) -> Int[np.ndarray, "batch"]:
        require_enough(view, batch_size)
        lists = view.following(("nearer", self.images), lambda: NearerThanLabeled(view.pool.unit, self.images))
        closest = np.sqrt(lists.closest_pair) if np.isfinite(lists.closest_pair) else 1.0
        sigma = closest if isinstance(self.sigma, str) else self.sigma
        return greedy(Gains(lists, uncertainty(view), sigma), view.candidates, batch_size, rng)


def uncertainty(view: PoolView) -> Float[np.ndarray, "pool"]:
    """1 - margin of every pool image, over the largest; 1 where there is no head, or none is uncertain."""
    weight = view.measured_everywhere(closeness) if len(view.labeled) else np.zeros(len(view.pool))
    return weight / weight.max() if weight.any() else np.ones(len(view.pool))
