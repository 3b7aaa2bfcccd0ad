"""Readings of a row of logits, shared by the uncertainty strategies and the surrogate's inputs.

Log-probabilities are logits too. In double precision all keep their digits where the probabilities saturate, as those
of the thesis's targets do: 1 - p is never computed from a p that has been rounded to 1. All are fastest where the
column of a class lies together in memory.
"""

import numpy as np
from jaxtyping import Float

LEAST = -87.0
"""Lowest logit below the largest that is told from lower ones: about where single precision's exponential is 0."""


def entropy(logits: Float[np.ndarray, "n classes"]) -> Float[np.ndarray, "n"]:
    """-sum p ln p of the softmax p of every row, in nats; 0 ln 0 = 0."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    np.maximum(shifted, LEAST, out=shifted)
    exponentials = np.exp(shifted)
    rest = _less_largest(exponentials, shifted)
    exponentials *= shifted
    return np.log1p(rest) - exponentials.sum(axis=1) / (1 + rest)


def least_confidence(logits: Float[np.ndarray, "n classes"]) -> Float[np.ndarray, "n"]:
    """1 - the largest class probability."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    rest = _less_largest(np.exp(shifted), shifted)
    return rest / (1 + rest)


def closeness(logits: Float[np.ndarray, "n classes"]) -> Float[np.ndarray, "n"]:
    """1 - margin: less the difference of the two largest class probabilities; 0 where there is one class."""
    first, second = logits[:, 0], np.full_like(logits[:, 0], -np.inf)
    for column in logits.T[1:]:
        second = np.maximum(second, np.minimum(first, column))
        first = np.maximum(first, column)
    shifted = logits - first[:, None]
    rest = _less_largest(np.exp(shifted), shifted)
    return (rest + np.exp(second - first)) / (1 + rest)


def margin(logits: Float[np.ndarray, "n classes"]) -> Float[np.ndarray, "n"]:
    """Largest minus second largest class probability; 1 where there is one class."""
    return 1 - closeness(logits)


def _less_largest(
    exponentials: Float[np.ndarray, "n classes"], shifted: Float[np.ndarray, "n classes"]
) -> Float[np.ndarray, "n"]:
    """Sum of every row of exp(shifted), whose largest is exp(0), without one of its largest.

    In double precision with all its digits; in single precision, which only screens, as a difference.
    """
    rest = exponentials.sum(axis=1) - 1
    if rest.dtype == np.float64:
        small = np.flatnonzero(rest < 0.5)
        rest[small] = np.where(shifted[small] < 0, exponentials[small], 0).sum(axis=1)
    return rest
