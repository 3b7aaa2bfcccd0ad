"""The temperature at which logits become probabilities."""

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from stages.al.heads.spectrum import Spectrum

FITTED = "fitted"
TEMPERATURES = (1e-2, 1e4)
"""Lowest and highest."""


def fit_temperature(logits: Float[np.ndarray, "n classes"], places: Int[np.ndarray, "n"]) -> float:
    """The temperature of least cross-entropy on images of known classes (Guo et al. 2017, 4.2), within TEMPERATURES."""
    logits = logits - logits.max(axis=1, keepdims=True)
    true = logits[np.arange(len(places)), places]

    def loss(log_temperature: float) -> float:
        temperature = np.exp(log_temperature)
        return float((logsumexp(logits / temperature, axis=1) - true / temperature).mean())

    return float(np.exp(minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded").x))


def left_out_temperature(
    X: Float[np.ndarray, "n dim"],
    targets: Float[np.ndarray, "n classes"],
    weight: Float[np.ndarray, "n"],
    places: Int[np.ndarray, "n"],
    penalty: float,
    constant: bool,
) -> float | None:
    """Fitted to least-squares predictions of every row by the others, of the rows whose class has another one.

    None where none has.
    """
    known = np.bincount(places)[places] > 1
    if not known.any():
        return None
    left_out = Spectrum(X, targets, weight, constant).left_out(penalty)
    return fit_temperature(left_out[known], places[known])
