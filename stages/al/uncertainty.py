"""Three readings of a row of logits, shared by the uncertainty strategies and the surrogate's inputs.

Log-probabilities are logits too. All are fastest where the column of a class lies together in memory.
"""

import numpy as np
from jaxtyping import Float

LEAST = -87.0
"""Lowest logit below the largest that is told from lower ones: about what single precision's exponential is 0 at."""


def entropy(logits: Float[np.ndarray, "n classes"]) -> Float[np.ndarray, "n"]:
    """-sum p ln p of the softmax p of every row, in nats; 0 ln 0 = 0."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    np.maximum(shifted, LEAST, out=shifted)
    exponentials = np.exp(shifted)
    total = exponentials.sum(axis=1)
    exponentials *= shifted
    return np.log(total) - exponentials.sum(axis=1) / total


def least_confidence(logits: Float[np.ndarray, "n classes"]) -> Float[np.ndarray, "n"]:
    """1 - the largest class probability."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return 1 - 1 / np.exp(shifted, out=shifted).sum(axis=1)


def margin(logits: Float[np.ndarray, "n classes"]) -> Float[np.ndarray, "n"]:
    """Largest minus second largest class probability; 1 where there is one class."""
    first, second = logits[:, 0], np.full_like(logits[:, 0], -np.inf)
    for column in logits.T[1:]:
        second = np.maximum(second, np.minimum(first, column))
        first = np.maximum(first, column)
    shifted = logits - first[:, None]
    return (1 - np.exp(second - first)) / np.exp(shifted, out=shifted).sum(axis=1)
