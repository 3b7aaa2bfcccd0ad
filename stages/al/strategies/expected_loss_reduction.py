from dataclasses import dataclass
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float, Int
from scipy.stats import entropy

from stages.al.heads.closed_form import ClosedFormSoftmax, log_targets, softmax
from stages.al.readings import BLOCK, LEAST, fast_exp, fast_log
from stages.al.strategies.base import STRATEGIES, Strategy, drawn, require_enough, top_k
from stages.al.view import Needs, PoolView


def expected_loss_reduction(
    head: ClosedFormSoftmax,
    candidates: Float[np.ndarray, "m dim"],
    images: Float[np.ndarray, "n dim"],
    temperature: float,
) -> Float[np.ndarray, "m"]:
    """By how much the mean entropy (nats) of the images' predictions is expected to fall once a candidate is labeled.

    Labeling candidate x as y moves the logits of an image e by (e'g)(t_y - x'W) (see closed_form). The targets of two
    labels differ in two entries, each by k = log(1 + eps) - log(eps): with u = log(eps) - x'W the logits become

        z + (e'g) u,  and  (e'g) k  more for class y,

    so that the sums of the softmax, less one term, serve all labels: O(m n C) instead of O(m n C^2). Where classes have
    different weights, g depends on the label's, and every weight has its own sums.
    """
    candidates, images = candidates.astype(np.float64), images.astype(np.float64)
    weights = head.class_weight_
    now, logits = head.raw_logits(images) / temperature, head.raw_logits(candidates)
    off, on = log_targets(np.arange(1), 2, head.epsilon)[0, ::-1] / temperature
    surprise, proba = (off - logits / temperature).astype(np.float32), softmax(logits / temperature)
    future = np.zeros(len(candidates))
    by_class = np.ascontiguousarray(now.T, dtype=np.float32)
    for weight in np.unique(weights):
        labels = np.flatnonzero(weights == weight)
        moves = head.influence(images, candidates, np.full(len(candidates), labels[0])).T.astype(np.float32, order="C")
        after = np.empty((len(candidates), len(labels)))
        _entropies(by_class, moves, surprise, np.float32(on - off), labels, after)
        future += (proba[:, labels] * after).sum(axis=1)
    return float(entropy(softmax(now), axis=1).mean()) - future / len(images)


@numba.njit(cache=True, fastmath={"contract", "nsz", "reassoc"}, error_model="numpy")
@no_type_check
def _entropies(logits, moves, surprise, more, labels, after):
    """after (m, labels): summed entropy of softmax(logits + move surprise, and move more for the label)."""
    classes, n = logits.shape
    below, share = np.empty((classes, BLOCK), np.float32), np.empty((classes, BLOCK), np.float32)
    high, place = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.int32)
    rest, weighted = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    after[:] = 0
    for i in range(len(moves)):
        for start in range(0, n, BLOCK):
            size = min(BLOCK, n - start)
            move = moves[i, start : start + size]
            for c in range(classes):
                row, values, factor = logits[c, start : start + size], below[c], surprise[i, c]
                for e in range(size):
                    values[e] = row[e] + factor * move[e]
                    larger = values[e] > high[e] if c else True
                    high[e] = values[e] if larger else high[e]
                    place[e] = c if larger else place[e]
            for e in range(size):
                rest[e], weighted[e] = 0, 0
            for c in range(classes):
                values, shares = below[c], share[c]
                for e in range(size):
                    values[e] -= high[e]
                    capped = max(values[e], np.float32(LEAST))
                    shares[e] = np.float32(0) if place[e] == c else fast_exp(capped)  # the largest one counts apart:
                    rest[e] += shares[e]  # what is left without it keeps its digits
                    weighted[e] += capped * shares[e]
            for j in range(len(labels)):
                values, shares, total = below[labels[j]], share[labels[j]], np.float32(0)
                for e in range(size):
                    largest = np.float32(0) if place[e] == labels[j] else np.float32(1)
                    others = largest + (rest[e] - shares[e])
                    others_weighted = weighted[e] - max(values[e], np.float32(LEAST)) * shares[e]
                    new = values[e] + more * move[e]
                    shift = max(new, np.float32(0))
                    capped, scale = max(new - shift, np.float32(LEAST)), fast_exp(max(-shift, np.float32(LEAST)))
                    own = fast_exp(capped)
                    sum_ = scale * others + own
                    total += fast_log(sum_) - (scale * (others_weighted - shift * others) + own * capped) / sum_
                after[i, j] += total


@STRATEGIES.register("expected_loss_reduction")
@dataclass(frozen=True, kw_only=True)
class ExpectedLossReduction(Strategy):
    """Query what is expected to leave the pool's predictions most certain once it is labeled and the head refitted.

    Roy and McCallum 2001 (with log loss), also known as expected error reduction: the mean over the labels, as
    probable as the head says, of the summed entropy of the predictions by the head refitted with that label. Exact for
    closed-form heads but for what refitting would choose anew (see `influence`), by their rank-one update. Deviations:
    probabilities are taken at the temperature fitted by leave-one-out to the labeled images (the head's own until two
    images share a class), because log loss at an arbitrary one means little; scored are `candidates` candidates, on
    `images` candidates, both drawn at random each round; a batch is the highest scores. Take a head with a penalty:
    without one the images sought are those whose label would blow up the weights, which looks like certainty.
    """

    candidates: int = 500
    images: int = 500
    paper = "Roy and McCallum 2001"
    cost = "m k (C + d) + L d min(L, d) for m of the candidates and k images"
    requires = frozenset({Needs.CLOSED_FORM})

    def __post_init__(self) -> None:
        if self.candidates < 1 or self.images < 1:
            raise ValueError(f"candidates={self.candidates} and images={self.images} must be at least 1")

    def query(self, view: PoolView, batch_size: int, rng: np.random.Generator) -> Int[np.ndarray, "batch"]:
        require_enough(view, batch_size)
        head = view.closed_form
        temperature = head.calibrated_temperature(view.pool_features[view.labeled], view.labels)
        images = view.candidates[drawn(len(view.candidates), self.images, rng)]
        scored = view.candidates[drawn(len(view.candidates), max(self.candidates, batch_size), rng)]
        features = view.pool_features
        scores = expected_loss_reduction(head, features[scored], features[images], temperature)
        return scored[top_k(scores, batch_size, rng)]
