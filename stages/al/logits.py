"""The logits of fixed images under a head that changes a little every round."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from stages.al.heads.closed_form import ClosedFormSoftmax, softmax

Measure = Callable[[Float[np.ndarray, "n classes"]], Float[np.ndarray, "n"]]

BLOCK_NUMBERS = 2**17
"""Logits worked on at once: they and what is made of them stay in the processor's cache."""

LARGEST_KEPT = 2**30
"""Bytes of logits kept from round to round; above, they are computed in blocks and forgotten."""

LARGEST_MOVE = 8.0
"""Rounding grows with what has been added to the logits; at so many times the weights' norm they are computed anew."""


class TrackedLogits:
    """Logits of some images, brought up to date from round to round.

    Where a closed-form head says how it has moved (`moved_`), the logits of all images move by one matrix-vector
    product and a rank-one term, O(n (dim + classes)), instead of O(n dim classes). Rounding stays that of single
    precision. Other heads are simply asked again.
    """

    def __init__(self, features: Float[np.ndarray, "n dim"]):
        self._features = features
        self._raw = np.empty((0, len(features)), dtype=np.float32)
        self._weights: np.ndarray | None = None
        self._moved = 0.0

    def logits(self, head: Any) -> Float[np.ndarray, "n classes"]:
        """What the softmax is taken of, float32, a column per class lying together in memory."""
        if not isinstance(head, ClosedFormSoftmax):
            return np.asfortranarray(head.logits(self._features))
        self._update(head)
        return (self._raw if head.temperature_ == 1 else self._raw / np.float32(head.temperature_)).T

    def measure(self, head: Any, measure: Measure) -> Float[np.ndarray, "n"]:
        """A measure of every image's class probabilities, float32."""
        if not isinstance(head, ClosedFormSoftmax) or 4 * len(self._features) * len(head.classes_) > LARGEST_KEPT:
            return measure_logits(head.logits, self._features, len(head.classes_), measure)
        self._update(head)
        found = np.empty(len(self._features), dtype=np.float32)
        for block in blocks(len(found), len(head.classes_)):
            found[block] = measure(softmax(self._raw[:, block].T / np.float32(head.temperature_)))
        return found

    def _update(self, head: ClosedFormSoftmax) -> None:
        if head.weights_ is self._weights:
            return
        moved = head.moved_
        if moved and moved.weights_before is self._weights:
            self._moved += float(np.linalg.norm(moved.gains) * np.linalg.norm(moved.surprise))
        else:
            self._moved = np.inf
        if moved is None or self._moved > LARGEST_MOVE * np.linalg.norm(head.weights_):
            self._compute(head)
        else:
            gains, constants = moved.gains.T.astype(np.float32), moved.constants.astype(np.float32)
            surprise = moved.surprise.T.astype(np.float32)
            for block in blocks(len(self._features), len(surprise)):
                self._raw[:, block] += surprise @ (self._features[block] @ gains + constants).T
            self._raw[head.unseen_] = self._raw[head.unseen_[:1]]
        self._weights = head.weights_

    def _compute(self, head: ClosedFormSoftmax) -> None:
        if len(self._raw) != len(head.classes_):
            self._raw = np.empty((len(head.classes_), len(self._features)), dtype=np.float32)
        for block in blocks(len(self._features), len(self._raw)):
            self._raw[:, block] = head.raw_logits(self._features[block]).T
        self._moved = 0.0


def measure_logits(
    logits: Callable[[np.ndarray], np.ndarray], features: Float[np.ndarray, "n dim"], n_classes: int, measure: Measure
) -> Float[np.ndarray, "n"]:
    """A measure of the class probabilities of features, in their precision, block by block."""
    found = np.empty(len(features), dtype=features.dtype)
    for block in blocks(len(features), n_classes):
        found[block] = measure(softmax(logits(features[block])))
    return found


def blocks(n: int, n_classes: int) -> list[slice]:
    """Consecutive parts of n images."""
    size = max(64, BLOCK_NUMBERS // n_classes)
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]
