from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from stages.al.design import BLOCK, quadratic_forms
from stages.al.heads.closed_form import ClosedFormSoftmax
from stages.al.strategies.base import STRATEGIES, Strategy, drawn, require_enough, top_k
from stages.al.view import Needs, PoolView

OUTSIDE = 1e-6
"""Share of its length by which an image must leave the span of the labeled ones to count as outside."""


def model_change(
    head: ClosedFormSoftmax, candidates: Float[np.ndarray, "n dim"], images: Float[np.ndarray, "m dim"]
) -> Float[np.ndarray, "n"]:
    """Mean length of the move of the images' logits, were a candidate labeled as the head predicts it.

    The logits of e move by (e'g)(t - x'W) (see closed_form): the length is |t - x'W| |e'g|.
    """
    logits = head.raw_logits(candidates)
    predicted = logits.argmax(axis=1)
    surprise = np.log(head.epsilon) - logits
    at_predicted = np.arange(len(logits)), predicted
    surprise[at_predicted] = np.log1p(head.epsilon) - logits[at_predicted]
    return np.linalg.norm(surprise, axis=1) * reach(head, candidates, images, head.class_weight_[predicted])


def reach(
    head: ClosedFormSoftmax,
    candidates: Float[np.ndarray, "n dim"],
    images: Float[np.ndarray, "m dim"],
    weight: Float[np.ndarray, "n"],
) -> Float[np.ndarray, "n"]:
    """Mean |e'g| over the images e, for each candidate. See `LeastSquares.inverse`."""
    inverse, unseen = head.inverse()
    rows, images = head.rows(candidates), head.rows(images.astype(np.float64))
    (energy,) = np.maximum(quadratic_forms(rows, inverse), 0.0)
    found = weight * _mean_lengths(rows, images @ inverse) / (1 + weight * energy)
    if unseen.any():
        rows = rows.astype(np.float64)
        (energy,) = quadratic_forms(rows, unseen)
        new = energy > OUTSIDE**2 * np.einsum("nd,nd->n", rows, rows)
        found[new] = _mean_lengths(rows[new], images @ unseen) / energy[new]
    return found


def _mean_lengths(X: Float[np.ndarray, "n d"], images: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "n"]:
    """Mean |x'e| over the images."""
    images = images.T.astype(X.dtype)
    starts = range(0, len(X), BLOCK)
    parts = [np.abs(X[start : start + BLOCK] @ images).mean(axis=1) for start in starts]
    return np.concatenate(parts).astype(np.float64) if parts else np.empty(0)


@STRATEGIES.register("model_change")
@dataclass(frozen=True, kw_only=True)
class ModelChange(Strategy):
    """Query what would change the head's outputs on the pool most, were it labeled as the head predicts it.

    Mohamadi et al. 2022, "most likely model output change" (MLMOC): the sum over unlabeled images of the Euclidean
    length of the change of the outputs. Exact for closed-form heads but for what refitting would choose anew (see
    `influence`), where the paper linearises a network. Outputs are the logits, targets the head's. Deviations: the sum
    is over `images` of the candidates, drawn at random each round; a batch is the highest scores.
    """

    images: int = 200
    paper = "Mohamadi et al. 2022"
    cost = "n d (d + C + k) for k images"
    requires = frozenset({Needs.CLOSED_FORM})

    def __post_init__(self) -> None:
        if self.images < 1:
            raise ValueError(f"images={self.images} must be at least 1")

    def query(self, view: PoolView, batch_size: int, rng: np.random.Generator) -> Int[np.ndarray, "batch"]:
        require_enough(view, batch_size)
        head = view.closed_form
        images = view.pool_features[view.candidates[drawn(len(view.candidates), self.images, rng)]]
        return view.candidates[top_k(model_change(head, view.features, images), batch_size, rng)]
