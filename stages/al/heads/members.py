"""Committees of linear heads: one head with features dropped at random, or several fitted to resampled images.

What query strategies need that ask how much the members disagree (BALD, query by committee).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from sklearn.base import clone

from stages.al.heads.closed_form import ClosedFormSoftmax, log_targets


@dataclass(frozen=True)
class Members:
    """Linear heads of one shape: logits X W + b, temperature included."""

    weights: Float[np.ndarray, "members dim classes"]
    constants: Float[np.ndarray, "members classes"]

    def logits(self, X: Float[np.ndarray, "n dim"]) -> Float[np.ndarray, "members n classes"]:
        """Of every member, in one product, in the precision of X."""
        members, dim, classes = self.weights.shape
        stacked = self.weights.transpose(1, 0, 2).reshape(dim, members * classes).astype(X.dtype)
        logits = X @ stacked + self.constants.ravel().astype(X.dtype)
        return logits.reshape(len(X), members, classes).transpose(1, 0, 2)


def dropout_members(head: Any, n_members: int, rate: float, rng: np.random.Generator) -> Members:
    """A fitted linear head with each feature dropped with probability `rate`, the others divided by 1 - rate.

    Monte-Carlo dropout (Gal and Ghahramani 2016) on the input features. A member drops the same features of all images,
    so that it is one function (consistent dropout, Kirsch et al. 2019, 4.2); per image its law is that of independent
    masks.
    """
    if not 0 < rate < 1:
        raise ValueError(f"rate={rate} must be above 0 and below 1")
    weights, constant = head.affine()
    kept = (rng.random((n_members, len(weights))) >= rate) / (1 - rate)
    return Members(kept[:, :, None] * weights, np.repeat(constant[None], n_members, axis=0))


def bootstrap_members(
    head: Any, X: Float[np.ndarray, "n dim"], places: Int[np.ndarray, "n"], n_members: int, rng: np.random.Generator
) -> Members:
    """The head fitted to n of the labeled images drawn with replacement, `n_members` times (Breiman 1996).

    places : labels, each in 0 .. n_classes - 1. Closed forms are solved in one batched call, at the penalty,
    temperature and dimensions of the fitted head, without class weights; heads that train many at once do, from a cold
    start and without early stopping; an svm's keep its temperature.
    """
    counts = rng.multinomial(len(X), np.full(len(X), 1 / len(X)), size=n_members)
    if isinstance(head, ClosedFormSoftmax):
        return _solved(head, X.astype(np.float64), places, counts)
    members = [clone(head) for _ in range(n_members)]
    if hasattr(head, "temperature_"):
        members = [member.set_params(temperature=head.temperature_) for member in members]
    drawn = [np.repeat(np.arange(len(X)), count) for count in counts]
    data = [(X[rows], places[rows]) for rows in drawn]
    if hasattr(head, "fit_many"):
        type(head).fit_many(members, data)
    else:
        for member, (features, labels) in zip(members, data, strict=True):
            member.fit(features, labels)
    weights, constants = zip(*(member.affine() for member in members), strict=True)
    return Members(np.stack(weights), np.stack(constants))


def _solved(
    head: ClosedFormSoftmax, X: np.ndarray, places: np.ndarray, counts: Int[np.ndarray, "members n"]
) -> Members:
    """Weighted least squares of every member, by its n x n or its dim x dim system, whichever is smaller."""
    n_classes, root = len(head.classes_), np.sqrt(counts)[:, :, None]
    X = head.reduce(X)
    targets = np.broadcast_to(log_targets(places, n_classes, head.epsilon), (*counts.shape, n_classes))
    X = np.broadcast_to(X, (*counts.shape, X.shape[1]))
    mean_x, mean_t = np.zeros((len(counts), 1, X.shape[2])), np.zeros((len(counts), 1, n_classes))
    if head.intercept:
        share = (counts / counts.sum(axis=1, keepdims=True))[:, None, :]
        mean_x, mean_t = share @ X, share @ targets
    rows, sought = (X - mean_x) * root, (targets - mean_t) * root
    weights = _ridge(rows, sought, head.penalty_)
    expanded = np.stack([head.expand(member.T).T for member in weights])
    return Members(expanded / head.temperature_, ((mean_t - mean_x @ weights) / head.temperature_)[:, 0])


def _ridge(X: np.ndarray, T: np.ndarray, penalty: float) -> np.ndarray:
    """Stacked ridge regressions; the Penrose inverse where there is no penalty."""
    if penalty == 0:
        return np.linalg.pinv(X) @ T
    transposed = X.transpose(0, 2, 1)
    if X.shape[1] < X.shape[2]:
        return transposed @ np.linalg.solve(X @ transposed + penalty * np.eye(X.shape[1]), T)
    return np.linalg.solve(transposed @ X + penalty * np.eye(X.shape[2]), transposed @ T)
