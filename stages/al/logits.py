"""The logits of fixed images under a head that changes a little every round."""

from typing import Any

import numpy as np
from jaxtyping import Float

from stages.al.heads.closed_form import ClosedFormSoftmax, Moved
from stages.al.readings import Reading, influence_of, move_and_read

BLOCK = 2**14
"""Images whose logits are asked for at once."""

LARGEST_MOVE = 8.0
"""Rounding grows with what has been added to the logits; at so many times the weights' norm they are computed anew."""


class TrackedLogits:
    """Logits of some images, brought up to date from round to round.

    Where a closed-form head says how it has moved (`moved_`), the logits of all images move by one matrix-vector
    product and a rank-one term, O(n (dim + classes)), instead of O(n dim classes). Rounding stays that of single
    precision. Other heads are asked again. Holds 4 bytes per image and class.
    """

    def __init__(self, features: Float[np.ndarray, "n dim"]):
        self._features = features
        self._logits = np.empty((0, len(features)), dtype=np.float32)
        self._weights: np.ndarray | None = None
        self._moved = 0.0

    def read(self, head: Any) -> tuple[Reading, Float[np.ndarray, "classes n"]]:
        """What there is to read off the head's logits, and the logits: float32, not to be changed."""
        move = self._next_move(head)
        if move is None:
            self._ask(head)
            move = Moved.nowhere(self._features.shape[1], len(self._logits))
        influence = np.empty((len(move.gains), len(self._features)), dtype=np.float32)
        for row, gain, constant in zip(influence, move.gains, move.constants, strict=True):
            row[:] = influence_of(self._features, gain.astype(np.float32)) + np.float32(constant)
        surprise = move.surprise / getattr(head, "temperature_", 1)
        return move_and_read(self._logits, influence, surprise.astype(np.float32)), self._logits

    def _ask(self, head: Any) -> None:
        for start in range(0, len(self._features), BLOCK):
            block = slice(start, start + BLOCK)
            logits = head.logits(self._features[block])
            if len(self._logits) != logits.shape[1]:
                self._logits = np.empty((logits.shape[1], len(self._features)), dtype=np.float32)
            self._logits[:, block] = logits.T

    def _next_move(self, head: Any) -> Moved | None:
        """How to come from the logits that stand to the head's; None for asking the head."""
        if not isinstance(head, ClosedFormSoftmax):
            return None
        stood, self._weights = self._weights, head.weights_
        if stood is head.weights_:
            return Moved.nowhere(*head.weights_.shape)
        moved = head.moved_
        if moved and moved.weights_before is stood and len(moved.gains) < len(head.classes_):
            self._moved += float(np.linalg.norm(moved.gains) * np.linalg.norm(moved.surprise))
            if self._moved <= LARGEST_MOVE * np.linalg.norm(head.weights_):
                return moved
        self._moved = 0.0
        return None
