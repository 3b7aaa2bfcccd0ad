from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from stages.al.logits import BLOCK
from stages.al.readings import read
from stages.al.strategies.base import STRATEGIES, ScoredStrategy
from stages.al.view import Needs, PoolView


def cross_entropy(logits: Float[np.ndarray, "n classes"], labels: Int[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """-ln p of each label: log(1 + rest) + (largest - its own), which keeps its digits where p is 0 or 1."""
    reading = read(logits)
    return np.log1p(reading.rest) + (reading.largest - logits[np.arange(len(labels)), labels])


@STRATEGIES.register("true_loss")
@dataclass(frozen=True, kw_only=True)
class TrueLoss(ScoredStrategy):
    """Query where the cross-entropy of the head is highest, computed with the true label.

    Thesis seed (002), section 5.8, figure 5.7: what methods that predict the loss (Yoo and Kweon 2019) could reach at
    best. An ablation: it sees labels that nobody has paid for, and cannot be used where they are unknown.
    """

    paper = "thesis seed 2023, 5.8"
    cost = "n d C"
    requires = frozenset({Needs.HEAD, Needs.ORACLE})

    def score(self, view: PoolView) -> Float[np.ndarray, "candidates"]:
        head, labels = view.head, view.oracle
        starts = range(0, len(labels), BLOCK)
        blocks = [slice(start, start + BLOCK) for start in starts]
        return np.concatenate(
            [cross_entropy(head.logits(view.features[block].astype(np.float64)), labels[block]) for block in blocks]
        )
