from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.special import logsumexp

from stages.al.heads.members import KINDS
from stages.al.pool import Needs, PoolView
from stages.al.strategies.base import STRATEGIES, Strategy, require_enough, top_k


def mutual_information(logits: Float[np.ndarray, "members n classes"]) -> Float[np.ndarray, "n"]:
    """Entropy of the members' mean prediction less the mean of their entropies, in nats."""
    log_proba = logits - logsumexp(logits, axis=2, keepdims=True)
    log_mean = logsumexp(log_proba, axis=0) - np.log(len(logits))
    spread = (np.exp(log_proba) * log_proba).sum(axis=2).mean(axis=0)
    return spread - (np.exp(log_mean) * log_mean).sum(axis=1)


@STRATEGIES.register("bald")
@dataclass(frozen=True, kw_only=True)
class BALD(Strategy):
    """Query where a committee disagrees: the mutual information of label and parameters.

    Houlsby et al. 2011, equation 2; with dropout Gal et al. 2017; thesis seed (002), 7.1. The committee is the head
    with features dropped at random, the same ones for all images, or heads fitted to resampled labeled images. Needs a
    head of linear logits. With batches the highest scores are taken; BatchBALD's joint entropy is another strategy.
    """

    kind: str = "dropout"
    members: int = 20
    rate: float = 0.5
    paper = "Houlsby et al. 2011"
    cost = "n d C members"
    regime = "high"
    requires = frozenset({Needs.MEMBERS})

    def __post_init__(self) -> None:
        if self.kind not in KINDS or not 2 <= self.members <= 1000 or not 0 < self.rate < 1:
            raise ValueError(
                f"kind={self.kind} must be one of {', '.join(KINDS)}, members={self.members} 2 to 1000 and "
                f"rate={self.rate} between 0 and 1"
            )

    def query(self, view: PoolView, batch_size: int, rng: np.random.Generator) -> Int[np.ndarray, "batch"]:
        require_enough(view, batch_size)
        committee = view.members(self.kind, self.members, self.rate, rng)
        return view.candidates[top_k(view.measured_by(committee, mutual_information), batch_size, rng)]
