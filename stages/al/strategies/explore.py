from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from stages.al.signals import RANKS, SIGNALS, compared, signals_once
from stages.al.strategies.base import STRATEGIES, Strategy, require_enough, top_k
from stages.al.view import Needs, PoolView

LEADING = {
    "coverage": 0.35,
    "doubtful_coverage": 0.3,
    "adaptive_coverage": 0.15,
    "closeness": 0.1,
    "least_confidence": 0.1,
}
"""The signal of greatest weight, and how often it is each."""
MOST_OTHERS, SPREAD = 4, 0.6
"""Signals beside it, and the standard deviation of their weights."""
FIRST, LAST = 0.2, 6.2
"""Labels per dimension up to which a mixture has its early weights, and from which on its late ones."""


def mixture(draw: int) -> Float[np.ndarray, "two signals"]:
    """Random weights of SIGNALS, early and late ones: a leading signal, others of either sign that may come or go."""
    rng = np.random.default_rng(draw)
    weights = np.zeros((2, len(SIGNALS)))
    weights[:, SIGNALS.index(str(rng.choice(list(LEADING), p=list(LEADING.values()))))] = 1
    for place in rng.choice(len(SIGNALS), rng.integers(MOST_OTHERS + 1), replace=False):
        weights[:, place] += SPREAD * rng.normal() * np.array([(1, 1), (1, 0), (0, 1)])[rng.integers(3)]
    return weights


@STRATEGIES.register("explore")
@dataclass(frozen=True, kw_only=True)
class Explore(Strategy):
    """Query what is highest in a random mixture of the surrogate's signals: runs for the surrogate to learn from.

    Our own, for what thesis seed (002), 5.7, finds missing: logs of other ways of querying than the strategies' few. A
    mixture is a weighted sum of -log(1 - rank), in which being among the very first counts most. Its weights, of which
    every draw has others, move from early to late ones with the logarithm of the labels per dimension.

    draw : which mixture
    """

    draw: int = 0
    paper = "thesis seed 2023, 5.7"
    cost = "m (r + L) d for 500 of the candidates and 2,000 images r"
    requires = frozenset({Needs.CLOSED_FORM, Needs.CLUSTERS})

    def query(self, view: PoolView, batch_size: int, rng: np.random.Generator) -> Int[np.ndarray, "batch"]:
        require_enough(view, batch_size)
        some = compared(view, rng, batch_size)
        ranks = signals_once(view, some)[:, : len(RANKS)].astype(np.float64)
        labels = len(view.labeled) / view.pool_features.shape[1]
        late = float(np.clip(np.log(labels / FIRST) / np.log(LAST / FIRST), 0, 1))
        weights = (1 - late, late) @ mixture(self.draw)
        scores = -np.log1p(-ranks) @ weights
        return some.candidates[top_k(scores, batch_size, rng)]
