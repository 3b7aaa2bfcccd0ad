"""Softmax regression in closed form: least squares on log-probability targets (thesis seed 002, 3.3 and 4.4).

With weights W (dim, classes), targets T = log(onehot + eps) and labeled features X (n, dim):

    W = (X'X + penalty I)^-1 X'T,     proba = softmax(x'W / temperature)

No intercept, as in the thesis's listing, unless it is asked for. Labeling one more image (x, t) changes W by a rank-one
term, W+ = W + g (t - x'W), where g depends on x alone (`least_squares`). That makes a round's fit cheap
(`partial_fit`), the look-ahead exact (`influence`), and the logits of a whole pool a matter of one matrix-vector
product (`moved_`).
"""

from copy import copy
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import lapack
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from stages.al.heads.base import HEADS, encode_labels
from stages.al.heads.calibration import FITTED, TEMPERATURES, left_out_temperature
from stages.al.heads.least_squares import LeastSquares
from stages.al.heads.spectrum import Spectrum

PENALTIES = np.logspace(-4, 6, 41)
"""Those that generalised cross-validation chooses from, in the units of `ridge`."""

GCV = "gcv"


def log_targets(y: Int[np.ndarray, "n"], n_classes: int, epsilon: float) -> Float[np.ndarray, "n classes"]:
    """log(onehot + epsilon), the thesis's targets (4.4, listing line 2)."""
    return np.log(np.eye(n_classes)[y] + epsilon)


def softmax(logits: Float[np.ndarray, "n classes"]) -> Float[np.ndarray, "n classes"]:
    """Row-wise softmax in the logits' precision; each class's column lies together in memory, which is what is fast."""
    by_class = np.ascontiguousarray(logits.T)
    by_class = by_class - by_class.max(axis=0)
    np.exp(by_class, out=by_class)
    by_class /= by_class.sum(axis=0)
    return by_class.T


def is_singular(gram: Float[np.ndarray, "dim dim"]) -> bool:
    """Whether a Gram matrix has a reciprocal condition number (LAPACK's 1-norm estimate) below machine precision."""
    factor, failed = lapack.dpotrf(gram)
    if failed:
        return True
    rcond, _ = lapack.dpocon(factor, np.abs(gram).sum(axis=0).max())
    return bool(rcond < np.finfo(np.float64).eps)


def _weights(sample_weight: Any, X: np.ndarray) -> Float[np.ndarray, "n"]:
    if sample_weight is None:
        return np.ones(len(X))
    return np.asarray(_check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True))


@dataclass(frozen=True)
class Moved:
    """How a `partial_fit` moved the weights, by gains'S, and the intercept, by constants'S.

    weights_before : the array that weights_ was; gains (m, dim), constants (m,), surprise S (m, classes): one row per
        new image
    """

    weights_before: Float[np.ndarray, "dim classes"]
    gains: Float[np.ndarray, "m dim"]
    constants: Float[np.ndarray, "m"]
    surprise: Float[np.ndarray, "m classes"]

    @classmethod
    def nowhere(cls, dim: int, n_classes: int) -> "Moved":
        """No new image, no move."""
        return cls(np.empty((dim, n_classes)), np.empty((0, dim)), np.empty(0), np.empty((0, n_classes)))


class ClosedFormSoftmax(ClassifierMixin, BaseEstimator):
    """Base of the closed-form heads; subclasses say how the system is solved.

    epsilon : of the targets; 1e-32 is the thesis's
    temperature : divides the logits before the softmax: a number, or `fitted` for the one of least cross-entropy on the
        labeled images, each predicted from the others (leave-one-out, in closed form), as far as its class has others;
        until one has, the head's usual one. With all views as rows the others include the image's own views, which
        makes it too low. 1 is the thesis's and saturates. It changes no prediction, but what strategies and look-ahead
        see: always the probabilities at this temperature
    intercept : whether to add a constant, unpenalised
    class_weight : `balanced` gives every class with labels the same weight in the squared error (as in scikit-learn)
    dims_per_label : use only the first so many features per labeled image, which a PCA has ordered by variance: PCA
        dimensions that grow with the labels (thesis 6.1); all features when None
    n_classes : number of classes when labels are 0 .. n_classes - 1 and some may be unseen; None learns them from y

    Fitted: classes_ (C,), weights_ (dim, C) and intercept_ (C,) float64, temperature_, penalty_, class_weight_ (C,)
    of the squared errors, unseen_ (classes without a label), moved_ (see `partial_fit`).
    """

    usual_temperature = 1.0
    rows_per_label = 1
    """Rows that stand for one labeled image, such as its views; set by whoever passes them."""

    temperature_: float
    moved_: Moved | None
    _rows: tuple[np.ndarray, np.ndarray, np.ndarray]
    _fitted_to: tuple[np.ndarray, np.ndarray, np.ndarray]
    _system: LeastSquares | None

    def __init__(
        self,
        *,
        epsilon: float = 1e-32,
        temperature: float | Literal["fitted"] = 1.0,
        intercept: bool = False,
        class_weight: Literal["balanced"] | dict | None = None,
        dims_per_label: float | None = None,
        n_classes: int | None = None,
    ):
        self.epsilon = epsilon
        self.temperature = temperature
        self.intercept = intercept
        self.class_weight = class_weight
        self.dims_per_label = dims_per_label
        self.n_classes = n_classes

    def check_parameters(self) -> None:
        """Raises ValueError; the constructor only assigns, as scikit-learn wants it."""
        if self.epsilon <= 0:
            raise ValueError(f"epsilon={self.epsilon} must be positive")
        low, high = TEMPERATURES
        if self.temperature != FITTED and (isinstance(self.temperature, str) or not low <= self.temperature <= high):
            raise ValueError(f"temperature={self.temperature} must be from {low:g} to {high:g}, or {FITTED!r}")
        if isinstance(self.class_weight, str) and self.class_weight != "balanced":
            raise ValueError(f"class_weight={self.class_weight!r} must be 'balanced' or left out")
        if self.dims_per_label is not None and self.dims_per_label <= 0:
            raise ValueError(f"dims_per_label={self.dims_per_label} must be positive")

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "ClosedFormSoftmax":
        """Solve for the weights. X : (n, dim), y : (n,), sample_weight : (n,) of the squared errors, 1 when None.

        Raises ValueError for labels outside 0 .. n_classes - 1.
        """
        return self._begin(X, y, None, sample_weight)

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> "ClosedFormSoftmax":
        """Add labeled images to those of before: the weights of a `fit` on all of them.

        To 1e-6 relative also after 500 calls, unless scales of features or images differ by more than five decades.
        classes : all that will come, needed at the first call where n_classes is None and y has not all of them
        m new images cost O(m (min(n, dim)^2 + min(n, dim) dim)), and `moved_` says how the weights have moved. Class
        weights, a fitted temperature, generalised cross-validation, truncation and growing dimensions depend on all
        images: they cost a fit, and `moved_` is None.
        """
        if not hasattr(self, "classes_"):
            return self._begin(X, y, classes, sample_weight)
        X, y = validate_data(self, X, y, dtype=np.float64, reset=False)
        if classes is not None and not np.array_equal(np.unique(classes), self.classes_):
            raise ValueError(f"classes={classes} are not those of the first call, {self.classes_}")
        _, places = encode_labels(y, self.n_classes, self.classes_)
        return self.add(X, places, _weights(sample_weight, X))

    def add(
        self,
        X: Float[np.ndarray, "m dim"],
        places: Int[np.ndarray, "m"],
        weight: Float[np.ndarray, "m"] | None = None,
    ) -> "ClosedFormSoftmax":
        """`partial_fit` to a fitted head without its checks, which cost more than the update; places : in classes_."""
        new = X.astype(np.float64), places, np.ones(len(X)) if weight is None else weight
        if self._depends_on_all():
            old = self._rows
            self._rows = (*map(np.concatenate, zip(old, new, strict=True)),)  # type: ignore[assignment]
            self._fit_rows()
        else:
            self._append(*(part[new[2] > 0] for part in new))
        return self

    def grown(self, X: Float[np.ndarray, "m dim"], places: Int[np.ndarray, "m"]) -> "ClosedFormSoftmax":
        """Another head, as this one would be after `add`. They share what neither ever changes in place."""
        other = copy(self)
        other._system = copy(self._least_squares())
        return other.add(X, places)

    def logits(self, X: Float[np.ndarray, "n dim"]) -> Float[np.ndarray, "n classes"]:
        """What the softmax is taken of, in the precision of X, which is not checked. Classes without a label tie."""
        return self.raw_logits(X) / X.dtype.type(self.temperature_)

    def raw_logits(self, X: Float[np.ndarray, "n dim"]) -> Float[np.ndarray, "n classes"]:
        """The logits before the temperature: x'W and the intercept."""
        raw = X @ self.weights_.astype(X.dtype)
        raw += self.intercept_.astype(X.dtype)
        if len(self.unseen_):  # equal whatever the rounding of a matrix product
            raw[:, self.unseen_] = raw[:, self.unseen_[:1]]
        return raw

    def predict_proba(self, X: Any) -> Float[np.ndarray, "n classes"]:
        """Rows that sum to 1, float64, for X (n, dim)."""
        return softmax(self.logits(self._checked(X)).astype(np.float64))

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of each row of X (n, dim)."""
        winners = self.raw_logits(self._checked(X)).argmax(axis=1)
        return self.classes_[winners]

    def affine(self) -> tuple[Float[np.ndarray, "dim classes"], Float[np.ndarray, "classes"]]:
        """W and b of the logits X W + b, temperature included."""
        return self.weights_ / self.temperature_, self.intercept_ / self.temperature_

    def influence(
        self, X: Any, candidates: Any, places: Int[np.ndarray, "m"] | None = None
    ) -> Float[np.ndarray, "n m"]:
        """By how much labeling candidate j moves x_i'W, per unit of its surprise t_j - x_j'W.

        X : (n, dim), candidates : (m, dim), places : (m,) of their labels among the classes, for class weights
        Exact as long as nothing but the squared errors changes: a penalty chosen by cross-validation, a fitted
        temperature, class weights, the number of dimensions and the directions kept stay as they are.
        """
        gains, constants = self.gains(self._checked(candidates, np.float64), places)
        return self._checked(X, np.float64) @ gains.T + constants

    def gains(
        self, candidates: Float[np.ndarray, "m dim"], places: Int[np.ndarray, "m"] | None = None
    ) -> tuple[Float[np.ndarray, "m dim"], Float[np.ndarray, "m"]]:
        """By how much labeling each candidate moves the weights and the intercept, per unit of its surprise.

        See `influence`, which is x'g and the constant, and checks what it is given.
        """
        weight = np.ones(len(candidates)) if places is None else self.class_weight_[places]
        gains, constants = self._least_squares().gains(self.reduce(candidates.astype(np.float64)), weight)
        return self.expand(gains), constants

    def inverse(self) -> tuple[Float[np.ndarray, "size size"], Float[np.ndarray, "size size"]]:
        """The two matrices that say how a new image moves the predictions; see `LeastSquares.inverse` and `rows`."""
        return self._least_squares().inverse()

    def rows(self, X: Float[np.ndarray, "n dim"]) -> Float[np.ndarray, "n size"]:
        """Images as the rows that are solved: reduced, with a 1 after them where there is a constant."""
        X = self.reduce(X)
        return np.hstack([X, np.ones((len(X), 1), X.dtype)]) if self.intercept else X

    def calibrated_temperature(self, X: Float[np.ndarray, "n dim"], places: Int[np.ndarray, "n"]) -> float:
        """Fitted to labeled images, each predicted from the others as `temperature="fitted"` does, at the fitted
        penalty and directions; the head's own temperature where no class has two. Whatever the views, one row each.
        """
        targets = log_targets(places, len(self.classes_), self.epsilon)
        rows = self.reduce(X.astype(np.float64)), targets, self.rows_per_label * self.class_weight_[places]
        return left_out_temperature(*rows, places, self.penalty_, self.intercept) or self.temperature_

    def _begin(self, X: Any, y: Any, classes: Any, sample_weight: Any) -> "ClosedFormSoftmax":
        self.check_parameters()
        X, y = validate_data(self, X, y, dtype=np.float64)
        self.classes_, places = encode_labels(y, self.n_classes, classes)
        weight = _weights(sample_weight, X)
        self._rows = X, places, weight
        self._fit_rows()
        return self

    def _depends_on_all(self) -> bool:
        """Whether a new image changes more than one row of the system."""
        return self.class_weight is not None or self.dims_per_label is not None or self.temperature == FITTED

    def _fit_rows(self) -> None:
        X, places, weight = (part[self._rows[2] > 0] for part in self._rows)
        self._n_labels = weight.sum() / self.rows_per_label
        self.class_weight_ = np.ones(len(self.classes_))
        if self.class_weight is not None:
            present = np.unique(places)
            self.class_weight_[present] = compute_class_weight(
                self.class_weight, classes=self.classes_[present], y=self.classes_[places]
            )
            weight = weight * self.class_weight_[places]
            X, places, weight = (part[weight > 0] for part in (X, places, weight))
        self._dims = X.shape[1]
        if self.dims_per_label is not None:
            self._dims = int(np.clip(self.dims_per_label * self._n_labels, 1, X.shape[1]))
        self.unseen_ = np.setdiff1d(np.arange(len(self.classes_)), places)
        self._system, self.moved_ = None, None
        targets = log_targets(places, len(self.classes_), self.epsilon)
        X = self._restrict(X, targets, weight)
        self._fitted_to = X, targets, weight
        self.penalty_ = self._chosen_penalty(X, targets, weight)
        self._take(*self._solve(X, targets, weight))
        if isinstance(self.temperature, str):
            fitted = left_out_temperature(*self._fitted_to, places, self.penalty_, self.intercept)
            self.temperature_ = fitted or self.usual_temperature
        else:
            self.temperature_ = self.temperature

    def _append(self, X: np.ndarray, places: np.ndarray, weight: np.ndarray) -> None:
        system = self._least_squares()
        targets = log_targets(places, len(self.classes_), self.epsilon)
        before, surprise = self.weights_, targets - self.raw_logits(X)
        gains, constants = system.append(X, targets, weight)
        self.unseen_ = np.setdiff1d(self.unseen_, places) if len(self.unseen_) else self.unseen_
        self._take(system.coefficients, system.constant)
        self.moved_ = Moved(before, gains, constants, surprise)

    def _solve(self, X: np.ndarray, T: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Coefficients (dim, classes) and constant (classes,) of rows with positive weights."""
        system = self._least_squares()
        return system.coefficients, system.constant

    def _least_squares(self) -> LeastSquares:
        """The system of the labeled images; made when first asked for, because a single fit may do without."""
        if self._system is None:
            X, targets, weight = self._fitted_to
            self._system = LeastSquares(X, targets, weight, penalty=self.penalty_, constant=self.intercept)
            if not self._depends_on_all():
                del self._rows, self._fitted_to
        return self._system

    def _chosen_penalty(self, X: np.ndarray, T: np.ndarray, weight: np.ndarray) -> float:
        return 0.0

    def _restrict(self, X: np.ndarray, T: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """The labeled images in the space in which they are solved; what it chooses, `reduce` and `expand` follow."""
        return self.reduce(X)

    def reduce(self, X: np.ndarray) -> np.ndarray:
        """Into that space: the leading features."""
        return X[:, : self._dims]

    def expand(self, rows: np.ndarray) -> np.ndarray:
        """Back from it: (m, features)."""
        missing = self.n_features_in_ - rows.shape[1]
        return np.pad(rows, ((0, 0), (0, missing))) if missing else rows

    def _take(self, coefficients: np.ndarray, constant: np.ndarray) -> None:
        self.weights_, self.intercept_ = self.expand(coefficients.T).T.copy(), constant.copy()
        if len(self.unseen_):
            for fitted in (self.weights_, self.intercept_):
                fitted[..., self.unseen_] = fitted[..., self.unseen_[:1]]

    def _checked(self, X: Any, dtype: Any = (np.float64, np.float32)) -> np.ndarray:
        check_is_fitted(self)
        return validate_data(self, X, dtype=list(dtype) if isinstance(dtype, tuple) else dtype, reset=False)


@HEADS.register("inv")
class Inv(ClosedFormSoftmax):
    """The thesis's listing: inv(X'X) X'T; the Penrose inverse where X'X is singular (4.4).

    Forming X'X squares the condition number: where features are nearly collinear (cond X above 1e6), digits are lost
    that `pinv` keeps. Unlike the listing, which checks nothing, a numerically singular system is noticed, so that
    fewer images than dimensions give the Penrose inverse's predictions instead of random ones (its figure 5.2).
    """

    def _solve(self, X, T, weight):  # type: ignore[no-untyped-def]
        if self.intercept or len(X) < X.shape[1]:
            return super()._solve(X, T, weight)
        root = np.sqrt(weight)[:, None]
        x, y = X * root, T * root
        gram = x.T @ x
        if is_singular(gram):
            return super()._solve(X, T, weight)
        return self._regular(gram, x, y), np.zeros(T.shape[1])

    def _regular(self, gram, x, y):  # type: ignore[no-untyped-def]
        return np.linalg.inv(gram) @ x.T @ y


@HEADS.register("solve")
class Solve(Inv):
    """The thesis's default: solve(X'X, X'T); the Penrose inverse where X'X is singular (4.4), as `inv` has it."""

    def _regular(self, gram, x, y):  # type: ignore[no-untyped-def]
        return np.linalg.solve(gram, x.T @ y)


@HEADS.register("pinv")
class Pinv(ClosedFormSoftmax):
    """The thesis's third method: the Penrose inverse always (3.3).

    Deviation: taken of X, not of X'X, by orthogonal transformations, which gives the same weights without squaring the
    condition number.
    """


@HEADS.register("truncated_pinv")
class TruncatedPinv(ClosedFormSoftmax):
    """The Penrose inverse of the largest singular values only: a "slower version" of its growth (thesis 6.1 and 5.8).

    With fewer images than dimensions the Penrose inverse keeps as many directions as there are images, the last ones
    fitted to noise, which is why accuracy drops where n = dim (figure 5.2).

    share : directions kept per labeled image, at most all; 1 is `pinv`
    """

    def __init__(
        self,
        *,
        share: float = 0.5,
        epsilon: float = 1e-32,
        temperature: float | Literal["fitted"] = 1.0,
        intercept: bool = False,
        class_weight: Literal["balanced"] | dict | None = None,
        dims_per_label: float | None = None,
        n_classes: int | None = None,
    ):
        super().__init__(
            epsilon=epsilon,
            temperature=temperature,
            intercept=intercept,
            class_weight=class_weight,
            dims_per_label=dims_per_label,
            n_classes=n_classes,
        )
        self.share = share

    def check_parameters(self) -> None:
        super().check_parameters()
        if not 0 < self.share <= 1:
            raise ValueError(f"share={self.share} must be above 0 and at most 1")

    def _depends_on_all(self) -> bool:
        return True

    def _restrict(self, X, T, weight):  # type: ignore[no-untyped-def]
        spectrum = Spectrum(super().reduce(X), T, weight, self.intercept)
        self._directions = spectrum.directions[: max(1, int(self.share * self._n_labels))]
        return self.reduce(X)

    def reduce(self, X: np.ndarray) -> np.ndarray:
        return super().reduce(X) @ self._directions.T

    def expand(self, rows: np.ndarray) -> np.ndarray:
        return super().expand(rows @ self._directions)


@HEADS.register("ridge")
class Ridge(ClosedFormSoftmax):
    """(X'X + penalty I)^-1 X'T: the regularised closed form that the thesis leaves to future work (6.1).

    penalty : in units of one labeled image's squared value per dimension (the projection makes that 1 on average), or
        `gcv` for the one of PENALTIES with the least generalised cross-validation error at every fit (Golub, Heath and
        Wahba 1979). Ask for the intercept with it: the targets' mean is far from 0, and counts as noise otherwise
    """

    usual_temperature = 10.0

    def __init__(
        self,
        *,
        penalty: float | Literal["gcv"] = 10.0,
        epsilon: float = 1e-32,
        temperature: float | Literal["fitted"] = 10.0,
        intercept: bool = False,
        class_weight: Literal["balanced"] | dict | None = None,
        dims_per_label: float | None = None,
        n_classes: int | None = None,
    ):
        super().__init__(
            epsilon=epsilon,
            temperature=temperature,
            intercept=intercept,
            class_weight=class_weight,
            dims_per_label=dims_per_label,
            n_classes=n_classes,
        )
        self.penalty = penalty

    def check_parameters(self) -> None:
        super().check_parameters()
        if self.penalty != GCV and (isinstance(self.penalty, str) or self.penalty <= 0):
            raise ValueError(
                f"penalty={self.penalty} must be positive, or {GCV!r}; without a penalty use the head 'solve'"
            )

    def _depends_on_all(self) -> bool:
        return super()._depends_on_all() or self.penalty == GCV

    def _chosen_penalty(self, X: np.ndarray, T: np.ndarray, weight: np.ndarray) -> float:
        if isinstance(self.penalty, str):
            return Spectrum(X, T, weight, self.intercept).cross_validated(PENALTIES)
        return self.penalty
