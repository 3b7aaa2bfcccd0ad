from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from stages.al.centres import k_means_plus_plus, squared_norms
from stages.al.heads.closed_form import softmax
from stages.al.strategies.base import STRATEGIES, Strategy, refined_top_k, require_enough
from stages.al.view import Needs, PoolView


def residuals(proba: Float[np.ndarray, "n classes"]) -> Float[np.ndarray, "n classes"]:
    """Class probabilities p less 1 at the largest: the loss's gradient by the logits where the prediction is the label.

    1 - p is the sum of the others, which keeps its digits where p is rounded to 1.
    """
    rows, largest = np.arange(len(proba)), proba.argmax(axis=1)
    found = proba.copy()
    found[rows, largest] = 0
    found[rows, largest] = -found.sum(axis=1)
    return found


@STRATEGIES.register("badge")
@dataclass(frozen=True, kw_only=True)
class Badge(Strategy):
    """Query gradients that are large and far apart: by k-means++ on those of the loss at the head's own prediction.

    Ash et al. 2020, algorithm 1: an image's gradient is its `residuals` (x) its features, the first centre is the
    largest gradient (their code), the others are drawn by squared distance to the nearest centre (`centres`, without
    multiplying the gradients out); labeled images are no centres. One label a round is thus the largest gradient, as in
    the thesis (seed 002, 2.1). Deviations: features are those the head is given, not a hidden layer's, also where the
    head is not linear in them; without the intercept's column; in a batch nothing is queried twice.
    """

    paper = "Ash et al. 2020"
    cost = "n d C, and b n (d + C) at worst for the batch"
    regime = "high"
    batches = True
    requires = frozenset({Needs.PROBA, Needs.HEAD})

    def query(self, view: PoolView, batch_size: int, rng: np.random.Generator) -> Int[np.ndarray, "batch"]:
        require_enough(view, batch_size)

        def exact(positions: Int[np.ndarray, "m"]) -> Float[np.ndarray, "m"]:
            features = view.features[positions].astype(np.float64)
            return squared_norms(residuals(softmax(view.head.logits(features)))) * squared_norms(features)

        factor = residuals(view.fast_proba)
        (first,) = refined_top_k(squared_norms(factor) * squared_norms(view.features), exact, 1, rng)
        if batch_size == 1:
            return view.candidates[[first]]
        return view.candidates[k_means_plus_plus(view.features, batch_size, rng, factor, int(first))]
