from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from stages.al.logits import BLOCK
from stages.al.readings import read
from stages.al.representatives import k_means_representatives
from stages.al.strategies.base import STRATEGIES, Strategy, require_enough
from stages.al.uncertainty import entropy
from stages.al.view import Needs, PoolView


@STRATEGIES.register("clue")
@dataclass(frozen=True, kw_only=True)
class Clue(Strategy):
    """Query the candidates nearest to the centres of k-means clusters in which uncertain candidates weigh more.

    Prabhu et al. 2021, algorithm 1 and its authors' code: as many clusters as labels a round, on features as they are,
    each candidate weighted by its entropy. With one label a round it is the candidate nearest to the weighted mean.
    Deviations: k-means stops early (see `stages/al/representatives.py`) and is seeded by the run; where one candidate
    is nearest to several centres, each cluster queries its own nearest member; entropies are not raised by 1e-8, and
    where all are 0 all candidates weigh the same.

    temperature : divides the logits before the entropy: 1 as for the paper's digits, 0.1 as for its DomainNet
    """

    temperature: float = 1.0
    paper = "Prabhu et al. 2021"
    cost = "n d (C + b)"
    batches = True
    requires = frozenset({Needs.HEAD})

    def __post_init__(self) -> None:
        if not 0.001 <= self.temperature <= 1000:
            raise ValueError(f"temperature={self.temperature} must be from 0.001 to 1000")

    def query(self, view: PoolView, batch_size: int, rng: np.random.Generator) -> Int[np.ndarray, "batch"]:
        require_enough(view, batch_size)
        weights = self.weights(view)
        return view.candidates[k_means_representatives(view.features, weights, batch_size, rng)]

    def weights(self, view: PoolView) -> Float[np.ndarray, "candidates"]:
        """Entropy of the candidates at the temperature."""
        head, starts = view.head, range(0, len(view.candidates), BLOCK)
        logits = (head.logits(view.features[start : start + BLOCK]) for start in starts)
        return np.concatenate([entropy(read(part / part.dtype.type(self.temperature))) for part in logits])
