from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from stages.al.logits import BLOCK
from stages.al.representatives import k_means_representatives
from stages.al.strategies.base import STRATEGIES, Strategy, require_enough
from stages.al.view import Needs, PoolView

LARGEST_CAP = 1.0


def class_means(
    features: Float[np.ndarray, "labeled dim"], labels: Int[np.ndarray, "labeled"], n_classes: int
) -> Float[np.ndarray, "anchors dim"]:
    """What features are mixed with: the mean of every class's labeled images, of all of them for classes without."""
    present = np.unique(labels)
    means = [features[labels == label].mean(axis=0) for label in present]
    return np.stack(means + [features.mean(axis=0)] * (len(present) < n_classes))


# With logits z W + b, prediction y and probabilities p, the cross-entropy at y has the gradient g = W (p - e_y) in z.
# The optimal mix for the anchor z* moves z by eps |z* - z| g / |g| (paper, equation 5), eps = cap / sqrt(dim). The
# logits then move by t u with u = W'g / |g| and t = eps |z* - z|, so that class j overtakes y at
#
#     t_j = (logit_y - logit_j) / (u_j - u_y),   if u_j > u_y,
#
# the prediction flips beyond t = min_j t_j, and does so for some anchor if cap is beyond
#
#     sqrt(dim) min_j t_j / max_c |z*_c - z|.
#
# Only the direction of g counts: p - e_y is (1 - p_y) (s - e_y), s the softmax over the other classes, so that s is as
# good and has digits where p_y is 1. And with W'W = M, |g|^2 = (s - e_y)'M (s - e_y) needs no g.
def flipping_caps(
    features: Float[np.ndarray, "n dim"],
    weights: Float[np.ndarray, "dim classes"],
    constants: Float[np.ndarray, "classes"],
    anchors: Float[np.ndarray, "anchors dim"],
) -> Float[np.ndarray, "n"]:
    """The smallest cap beyond which mixing changes an image's prediction; inf where none does."""
    logits = weights.T @ features.T + constants[:, None]  # a row for each class: reductions over them are fast
    predicted, columns = logits.argmax(axis=0), np.arange(len(features))
    gap = logits[predicted, columns] - logits
    gap[predicted, columns] = np.inf
    toward = np.exp(gap.min(axis=0) - gap) if len(gap) > 1 else np.zeros_like(gap)
    toward /= np.maximum(toward.sum(axis=0), 1)
    toward[predicted, columns] = -1
    centred = weights - weights.mean(axis=1, keepdims=True)
    moved = centred.T @ centred @ toward
    length = np.sqrt(np.maximum((toward * moved).sum(axis=0), 0))
    gained = moved - moved[predicted, columns]
    away = (features**2).sum(axis=1) - 2 * anchors @ features.T + (anchors**2).sum(axis=1)[:, None]
    farthest = np.sqrt(np.maximum(away.max(axis=0), 0))
    with np.errstate(divide="ignore", invalid="ignore"):
        overtaking = np.where(gained > 0, gap / gained, np.inf).min(axis=0) * length
        caps = np.sqrt(features.shape[1]) * overtaking / farthest
    return np.where(np.isnan(caps), np.inf, caps)


@STRATEGIES.register("alfa_mix")
@dataclass(frozen=True, kw_only=True)
class AlfaMix(Strategy):
    """Query representatives of the candidates whose prediction changes soonest when mixed with labeled features.

    Parvaneh et al. 2022, algorithm 1 with the closed form of equation 5 and its authors' code: the cap on the mix grows
    by `step` up to 1 until more candidates change than labels are queried; k-means on their L2-normalised features, the
    nearest to each centre; candidates drawn at random where fewer change. With one label a round it is the candidate
    nearest to their mean. Needs a head of linear logits. Deviations: the smallest cap of each candidate is computed
    instead of trying caps one by one; probabilities of exactly 1 still have a direction; k-means stops early (see
    `stages/al/representatives.py`); the authors' random fill may draw an image twice, this one does not.
    """

    step: float = 0.03125
    paper = "Parvaneh et al. 2022"
    cost = "n (d + C) C"
    batches = True
    requires = frozenset({Needs.LINEAR})

    def __post_init__(self) -> None:
        if not 0 < self.step <= LARGEST_CAP:
            raise ValueError(f"step={self.step} must be above 0 and at most {LARGEST_CAP:g}")

    def query(self, view: PoolView, batch_size: int, rng: np.random.Generator) -> Int[np.ndarray, "batch"]:
        require_enough(view, batch_size)
        changing = changing_first(self.caps(view), self.step, batch_size)
        unit = view.unit[view.candidates[changing]]
        chosen = changing[k_means_representatives(unit, None, min(batch_size, len(changing)), rng)]
        if len(chosen) < batch_size:
            others = np.setdiff1d(np.arange(len(view.candidates)), chosen)
            chosen = np.concatenate([chosen, rng.permutation(others)[: batch_size - len(chosen)]])
        return view.candidates[chosen]

    def caps(self, view: PoolView) -> Float[np.ndarray, "candidates"]:
        """The smallest cap that changes each candidate's prediction."""
        weights, constants = view.affine
        anchors = class_means(view.pool_features[view.labeled].astype(np.float64), view.labels, view.n_classes)
        blocks = (view.features[start : start + BLOCK] for start in range(0, len(view.candidates), BLOCK))
        return np.concatenate(
            [flipping_caps(block.astype(np.float64), weights, constants, anchors) for block in blocks]
        )


def changing_first(caps: Float[np.ndarray, "n"], step: float, batch_size: int) -> Int[np.ndarray, "m"]:
    """Positions of those that change at the first multiple of `step` at which more than the batch do, or at the last.

    The last multiple is the first that reaches 1.
    """
    last = np.ceil(LARGEST_CAP / step - 1e-9)
    steps = np.floor(np.minimum(caps / step, last)) + 1
    enough = np.partition(steps, batch_size)[batch_size] if batch_size < len(caps) else last
    return np.flatnonzero(steps <= min(enough, last))
