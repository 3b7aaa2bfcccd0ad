"""Softmax regression in closed form: least squares on log-probability targets (thesis seed 002, 3.3 and 4.4).

With weights W (dim, classes), targets T = log(onehot + eps) and labeled features X (n, dim):

    W = (X'X + penalty I)^-1 X'T,     proba = softmax(x'W / temperature)

No intercept, as in the thesis's listing. One more labeled image (x, t) changes W by a rank-one term,

    W+ = W + g (t - x'W),     g = A^-1 x / (1 + x'A^-1 x)  where A = X'X + penalty I is regular
                              g = r / |r|^2                 where it is singular and r, the part of x outside the
                                                            row space of X, is not zero (Greville 1960)
                              g = A^+ x / (1 + x'A^+ x)     where it is singular and r is zero

which is what makes the look-ahead exact and cheap: `gains` returns g.
"""

from abc import abstractmethod
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.linalg import LinAlgError
from scipy.linalg import cho_factor, cho_solve, lapack
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from stages.al.heads.base import HEADS

OUTSIDE = 1e-8
"""A candidate whose squared distance to the row space is below this share of its squared norm lies inside it."""


def log_targets(y: Int[np.ndarray, "n"], n_classes: int, epsilon: float) -> Float[np.ndarray, "n classes"]:
    """log(onehot + epsilon), the thesis's targets (4.4, listing line 2)."""
    return np.log(np.eye(n_classes)[y] + epsilon)


def softmax(logits: Float[np.ndarray, "... classes"]) -> Float[np.ndarray, "... classes"]:
    """Row-wise softmax in float64."""
    shifted = np.asarray(logits, dtype=np.float64) - logits.max(axis=-1, keepdims=True)
    np.exp(shifted, out=shifted)
    shifted /= shifted.sum(axis=-1, keepdims=True)
    return shifted


def is_singular(gram: Float[np.ndarray, "dim dim"]) -> bool:
    """Whether a Gram matrix has a reciprocal condition number (LAPACK's 1-norm estimate) below machine precision."""
    factor, failed = lapack.dpotrf(gram)
    if failed:
        return True
    rcond, _ = lapack.dpocon(factor, np.abs(gram).sum(axis=0).max())
    return bool(rcond < np.finfo(np.float64).eps)


def _distinct_columns(
    y: Int[np.ndarray, "n"], n_classes: int
) -> tuple[Int[np.ndarray, "distinct"], Int[np.ndarray, "classes"]]:
    """The classes whose targets differ (those in y, the first of the others), and for every class its place there."""
    unseen = np.setdiff1d(np.arange(n_classes), y)
    distinct = np.union1d(np.unique(y), unseen[:1])
    stands_for = np.arange(n_classes)
    stands_for[unseen] = unseen[:1]
    return distinct, np.searchsorted(distinct, stands_for)


class ClosedFormSoftmax(ClassifierMixin, BaseEstimator):
    """Base of the closed-form heads; subclasses say how the system is solved.

    epsilon : of the targets; 1e-32 is the thesis's
    temperature : divides the logits before the softmax. 1 is the thesis's and saturates: strategies that read
        probabilities see values near 0 and 1. It changes no prediction
    n_classes : number of classes when labels are 0 .. n_classes - 1 and some may be unseen; None learns them from y

    Fitted: classes_ (C,), weights_ (dim, C) float64.
    """

    def __init__(self, *, epsilon: float = 1e-32, temperature: float = 1.0, n_classes: int | None = None):
        self.epsilon = epsilon
        self.temperature = temperature
        self.n_classes = n_classes

    def check_parameters(self) -> None:
        """Raises ValueError; the constructor only assigns, as scikit-learn wants it."""
        if self.epsilon <= 0 or self.temperature <= 0:
            raise ValueError(f"epsilon={self.epsilon} and temperature={self.temperature} must be positive")

    @abstractmethod
    def _solve(
        self, X: Float[np.ndarray, "n dim"], T: Float[np.ndarray, "n classes"]
    ) -> Float[np.ndarray, "dim classes"]:
        """The weights; sets what `gains` needs."""

    def fit(self, X: Any, y: Any) -> "ClosedFormSoftmax":
        """Solve for the weights. X : (n, dim), y : (n,). Raises ValueError for labels outside 0 .. n_classes - 1."""
        self.check_parameters()
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        if self.n_classes is None:
            self.classes_, y = np.unique(y, return_inverse=True)
        else:
            self.classes_ = np.arange(self.n_classes)
            if not np.isin(y, self.classes_).all():
                raise ValueError(f"labels must be 0 .. {self.n_classes - 1}, found {np.setdiff1d(y, self.classes_)}")
        seen, column = _distinct_columns(y.astype(int), len(self.classes_))
        distinct = self._solve(X, log_targets(column[y.astype(int)], len(seen), self.epsilon))
        self.weights_, self._distinct, self._column = distinct[:, column], distinct, column
        return self

    def logits(self, X: Any) -> Float[np.ndarray, "n classes"]:
        """x'W before the temperature, in the precision of X (n, dim).

        Classes without a label yet share one column, computed once, so that they tie exactly and argmax takes the
        first of them, whatever the rounding of a matrix product.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        return (X @ self._distinct.astype(X.dtype))[:, self._column]

    def predict_proba(self, X: Any) -> Float[np.ndarray, "n classes"]:
        """Rows that sum to 1, float64, for X (n, dim)."""
        return softmax(self.logits(X) / self.temperature)

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of each row of X (n, dim)."""
        winners = self.logits(X).argmax(axis=1)
        return self.classes_[winners]

    def gains(self, X: Any) -> Float[np.ndarray, "m dim"]:
        """For each row x the vector g by which labeling it with target t moves the weights: W + outer(g, t - x'W)."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        inverse_x = X @ self._inverse
        inside = inverse_x / (1 + np.einsum("md,md->m", X, inverse_x))[:, None]
        if self._row_space is None:
            return inside
        outside = X - (X @ self._row_space.T) @ self._row_space
        squared = np.einsum("md,md->m", outside, outside)
        leaves = squared > OUTSIDE * np.einsum("md,md->m", X, X)
        inside[leaves] = outside[leaves] / squared[leaves, None]
        return inside

    def _least_squares(self, X: np.ndarray, T: np.ndarray) -> np.ndarray:
        """Minimum-norm least squares by the Penrose inverse, for singular systems."""
        U, s, Vt = np.linalg.svd(X, full_matrices=False)
        kept = s > max(X.shape) * np.finfo(np.float64).eps * s.max(initial=0.0)
        U, s, Vt = U[:, kept], s[kept], Vt[kept]
        self._row_space = Vt if kept.sum() < X.shape[1] else None
        self._inverse = (Vt.T / s**2) @ Vt
        return (Vt.T / s) @ (U.T @ T)


@HEADS.register("inv")
class Inv(ClosedFormSoftmax):
    """The thesis's listing: inv(X'X) X'T; the Penrose inverse where X'X is singular (4.4).

    Forming X'X squares the condition number: where features are nearly collinear (cond X above 1e6), digits are lost
    that `pinv` keeps.
    """

    def _solve(self, X, T):  # type: ignore[no-untyped-def]
        gram = X.T @ X
        if is_singular(gram):
            return self._least_squares(X, T)
        self._row_space = None
        self._inverse = np.linalg.inv(gram)
        return self._regular(gram, X, T)

    def _regular(self, gram, X, T):  # type: ignore[no-untyped-def]
        return self._inverse @ X.T @ T


@HEADS.register("solve")
class Solve(Inv):
    """The thesis's default: solve(X'X, X'T); the Penrose inverse where X'X is singular (4.4)."""

    def _regular(self, gram, X, T):  # type: ignore[no-untyped-def]
        return np.linalg.solve(gram, X.T @ T)


@HEADS.register("pinv")
class Pinv(ClosedFormSoftmax):
    """The thesis's third method: the Penrose inverse always (3.3).

    Deviation: taken of X, not of X'X, which gives the same weights without squaring the condition number.
    """

    def _solve(self, X, T):  # type: ignore[no-untyped-def]
        return self._least_squares(X, T)


@HEADS.register("ridge")
class Ridge(ClosedFormSoftmax):
    """(X'X + penalty I)^-1 X'T: the regularised closed form that the thesis leaves to future work (6.1).

    penalty : in units of one labeled image's squared value per dimension (the projection makes that 1 on average)
    """

    def __init__(
        self,
        *,
        penalty: float = 10.0,
        epsilon: float = 1e-32,
        temperature: float = 10.0,
        n_classes: int | None = None,
    ):
        super().__init__(epsilon=epsilon, temperature=temperature, n_classes=n_classes)
        self.penalty = penalty

    def check_parameters(self) -> None:
        super().check_parameters()
        if self.penalty <= 0:
            raise ValueError(f"penalty={self.penalty} must be positive; without a penalty use the head 'solve'")

    def _solve(self, X, T):  # type: ignore[no-untyped-def]
        try:
            factor = cho_factor(X.T @ X + self.penalty * np.eye(X.shape[1]))
        except LinAlgError as error:
            raise ValueError(f"penalty={self.penalty} is too small for these features: raise it") from error
        self._row_space = None
        self._inverse = cho_solve(factor, np.eye(X.shape[1]))
        return cho_solve(factor, X.T @ T)
