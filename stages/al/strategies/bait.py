from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from cache.errors import InputError
from stages.al.design import BLOCK, ClassDesign, Design, forward_backward, rows_of
from stages.al.strategies.base import STRATEGIES, Strategy, require_enough
from stages.al.uncertainty import doubt
from stages.al.view import Needs, PoolView

FORMS = ("binary", "multiclass")
MOST_PARAMETERS, MOST_NUMBERS = 4000, 2**26
"""Dimensions times classes, and candidates times classes squared, of the multiclass form: a GiB of matrices."""


def binary_information(X: Float[np.ndarray, "n d"], weight: Float[np.ndarray, "n"]) -> Float[np.ndarray, "d d"]:
    """Sum of w x x', in the precision of X but for the sum of blocks."""
    total = np.zeros((X.shape[1], X.shape[1]))
    for start in range(0, len(X), BLOCK):
        part = slice(start, start + BLOCK)
        rows = X[part] * np.sqrt(weight[part, None]).astype(X.dtype)
        total += rows.T @ rows
    return total


def class_information(X: Float[np.ndarray, "n d"], proba: Float[np.ndarray, "n C"]) -> Float[np.ndarray, "Cd Cd"]:
    """Sum of (diag p - pp') (x) xx', likewise."""
    dim, classes = X.shape[1], proba.shape[1]
    total = np.zeros((classes * dim, classes * dim))
    for start in range(0, len(X), BLOCK):
        rows, p = X[start : start + BLOCK], proba[start : start + BLOCK].astype(X.dtype)
        spread = (p[:, :, None] * rows[:, None, :]).reshape(len(rows), -1)
        total -= spread.T @ spread
        for c in range(classes):
            block = slice(c * dim, (c + 1) * dim)
            total[block, block] += binary_information(rows, p[:, c])
    return total


@STRATEGIES.register("bait")
@dataclass(frozen=True, kw_only=True)
class BAIT(Strategy):
    """Query the batch S that makes the trace of (penalty I + I_labeled + I_S)^-1 I_pool least, I: Fisher information.

    Ash et al. 2021 (BAIT): greedily twice the batch, then backwards the half that is missed least, as in their
    algorithm and code. Form `multiclass` is theirs, with I(x) = (diag p - pp') (x) xx' of a softmax on the features:
    (d C)^2 numbers. Form `binary` is Huseljic et al. 2024: whether the most probable class is right, I(x) = p(1 - p)xx'
    with its p, d^2 numbers. Probabilities are the head's, at its temperature, whatever the head; the features take the
    place of a network's last layer. Deviations: every labeled image counts as much as one of the batch, where their
    code divides the labeled ones' sum by L + b and multiplies the batch's by b / (L + b); I_pool is over the whole
    pool, labeled images included, as in their code. With one image a round nothing needs pruning.
    """

    form: Literal["binary", "multiclass"] = "binary"
    penalty: float = 1.0
    paper = "Ash et al. 2021"
    cost = "N d (d + C) + b n d binary; N (d C)^2 + b n C^2 (d + C) multiclass"
    requires = frozenset({Needs.PROBA})
    batches = True

    def __post_init__(self) -> None:
        if self.form not in FORMS or not self.penalty > 0:
            raise ValueError(
                f"form={self.form!r} must be one of {', '.join(FORMS)} and penalty={self.penalty} positive"
            )

    def query(self, view: PoolView, batch_size: int, rng: np.random.Generator) -> Int[np.ndarray, "batch"]:
        require_enough(view, batch_size)
        design = (self._binary if self.form == "binary" else self._multiclass)(view, rows_of(view.features, batch_size))
        return view.candidates[forward_backward(design, batch_size, rng)]

    def _binary(self, view: PoolView, rows: Float[np.ndarray, "n d"]) -> Design:
        weight, X = view.measured_everywhere(doubt).astype(np.float64), view.pool_features
        pool = binary_information(X, weight / (weight.max() or 1.0))
        labeled = binary_information(X[view.labeled].astype(np.float64), weight[view.labeled])
        return Design(rows, weight[view.candidates], self._inverse(labeled), pool / len(X))

    def _multiclass(self, view: PoolView, rows: Float[np.ndarray, "n d"]) -> ClassDesign:
        (n, dim), classes = rows.shape, view.n_classes
        if dim * classes > MOST_PARAMETERS or n * classes**2 > MOST_NUMBERS:
            raise InputError(
                f"bait: form=multiclass takes at most {MOST_PARAMETERS} dimensions x classes and {MOST_NUMBERS} "
                f"candidates x classes^2, here {dim} x {classes} and {n} x {classes}^2: use form=binary"
            )
        proba, X = view.pool_proba, view.pool_features
        pool = class_information(X, proba) / len(X)
        labeled = class_information(X[view.labeled].astype(np.float64), proba[view.labeled])
        return ClassDesign(rows, proba[view.candidates], self._inverse(labeled), pool)

    def _inverse(self, information: Float[np.ndarray, "d d"]) -> Float[np.ndarray, "d d"]:
        return np.linalg.inv(information + self.penalty * np.eye(len(information)))
