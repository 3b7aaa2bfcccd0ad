"""The logits of fixed images under a head that changes a little every round."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from stages.al.heads.closed_form import ClosedFormSoftmax, Moved

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
        """What the softmax is taken of, float32, the column of a class lying together in memory."""
        if not isinstance(head, ClosedFormSoftmax):
            return np.asfortranarray(head.logits(self._features))
        move = self._next_move(head)
        for block in blocks(len(self._features), len(head.classes_)):
            self._bring(head, move, block)
        return self._raw.T * np.float32(1 / head.temperature_)

    def measure(self, head: Any, measure: Measure) -> Float[np.ndarray, "n"]:
        """A measure of every image's logits, float32."""
        if not isinstance(head, ClosedFormSoftmax) or 4 * len(self._features) * len(head.classes_) > LARGEST_KEPT:
            return measure_logits(head.logits, self._features, len(head.classes_), measure)
        found, move = np.empty(len(self._features), dtype=np.float32), self._next_move(head)
        for block in blocks(len(found), len(head.classes_)):
            self._bring(head, move, block)
            found[block] = measure(self._raw[:, block].T * np.float32(1 / head.temperature_))
        return found

    def _next_move(self, head: ClosedFormSoftmax) -> Moved | None:
        """How to come from the logits that stand to the head's, None for computing them anew."""
        stood, self._weights = self._weights, head.weights_
        if stood is head.weights_:
            return Moved.nowhere(head.weights_)
        moved = head.moved_
        if moved and moved.weights_before is stood and len(moved.gains) < len(head.classes_):
            self._moved += float(np.linalg.norm(moved.gains) * np.linalg.norm(moved.surprise))
            if self._moved <= LARGEST_MOVE * np.linalg.norm(head.weights_):
                return moved.single()
        self._moved = 0.0
        if len(self._raw) != len(head.classes_):
            self._raw = np.empty((len(head.classes_), len(self._features)), dtype=np.float32)
        return None

    def _bring(self, head: ClosedFormSoftmax, move: Moved | None, block: slice) -> None:
        """Bring a block of images up to date."""
        features = self._features[block]
        if move is None:
            self._raw[:, block] = head.raw_logits(features).T
            return
        for gain, constant, surprise in zip(move.gains, move.constants, move.surprise, strict=True):
            influence = features @ gain
            influence += constant
            self._raw[:, block] += surprise[:, None] * influence
        if len(head.unseen_):
            self._raw[head.unseen_, block] = self._raw[head.unseen_[:1], block]


def measure_logits(
    logits: Callable[[np.ndarray], np.ndarray], features: Float[np.ndarray, "n dim"], n_classes: int, measure: Measure
) -> Float[np.ndarray, "n"]:
    """A measure of the logits of features, in their precision, block by block."""
    found = np.empty(len(features), dtype=features.dtype)
    for block in blocks(len(features), n_classes):
        found[block] = measure(np.asfortranarray(logits(features[block])))
    return found


def blocks(n: int, n_classes: int) -> list[slice]:
    """Consecutive parts of n images."""
    size = max(64, BLOCK_NUMBERS // n_classes)
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]
