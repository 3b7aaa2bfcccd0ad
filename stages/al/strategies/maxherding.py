from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from stages.al.kernel_coverage import Gains, KeptGains
from stages.al.strategies.base import STRATEGIES, Strategy, require_enough, top_k
from stages.al.view import PoolView


def greedy(
    gains: Gains, candidates: Int[np.ndarray, "candidates"], batch_size: int, rng: np.random.Generator
) -> Int[np.ndarray, "batch"]:
    """The candidate of largest gain, then the one of largest gain with it labeled, and so on; ties at random."""
    chosen = np.empty(batch_size, dtype=np.int64)
    for i in range(batch_size):
        chosen[i] = candidates[top_k(gains.of(candidates), 1, rng)[0]]
        if i + 1 < batch_size:
            gains.label(int(chosen[i]))
            candidates = candidates[candidates != chosen[i]]
    return chosen


@STRATEGIES.register("maxherding")
@dataclass(frozen=True, kw_only=True)
class MaxHerding(Strategy):
    """Query what adds most to the pool's mean similarity to its most similar labeled image.

    Bae, Noh and Sutherland 2024, algorithm 1: greedy maximisation of mean_i max_{x in labeled} k(i, x), with
    k(i, x) = exp(-|i - x|^2 / sigma^2) of L2-normalised features, sigma = 1 as in their code. Deviations: only the
    round's candidates can be queried; in a pool of more than `images` images, and while few are labeled in one of more
    than some 5,000 (see `kernel_coverage`), the mean is over a random sample, the same for
    every run, and the candidate's own share is exact.

    sigma : of the kernel; images : at most so many of the pool are looked at
    """

    sigma: float = 1.0
    images: int = 25_000
    paper = "Bae et al. 2024"
    cost = "N d a query; N min(N, images) d once a run"
    regime = "low"
    cold_start = True

    def __post_init__(self) -> None:
        if not 0.01 <= self.sigma <= 100 or self.images < 1:
            raise ValueError(f"sigma={self.sigma} must be from 0.01 to 100 and images={self.images} at least 1")

    def query(self, view: PoolView, batch_size: int, rng: np.random.Generator) -> Int[np.ndarray, "batch"]:
        require_enough(view, batch_size)
        kept = view.following(
            ("gains", self.sigma, self.images), lambda: KeptGains(view.pool.unit, self.images, self.sigma)
        )
        return greedy(kept.gains.copy(), view.candidates, batch_size, rng)
