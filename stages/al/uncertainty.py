"""Three readings of a row of class probabilities, shared by the uncertainty strategies and the surrogate's inputs."""

import numpy as np
from jaxtyping import Float
from scipy.special import entr


def entropy(proba: Float[np.ndarray, "n classes"]) -> Float[np.ndarray, "n"]:
    """-sum p ln p per row, in nats; 0 ln 0 = 0."""
    return entr(proba).sum(axis=1)


def least_confidence(proba: Float[np.ndarray, "n classes"]) -> Float[np.ndarray, "n"]:
    """1 - the largest class probability."""
    return 1.0 - proba.max(axis=1)


def margin(proba: Float[np.ndarray, "n classes"]) -> Float[np.ndarray, "n"]:
    """Largest minus second largest class probability; 1 where there is one class."""
    if proba.shape[1] < 2:
        return np.ones(len(proba))
    top = np.partition(proba, proba.shape[1] - 2, axis=1)
    return top[:, -1] - top[:, -2]
