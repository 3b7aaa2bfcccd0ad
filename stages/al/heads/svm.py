"""The linear support vector machine of SSL meets AL (seed 003, section 4)."""

from typing import Any

import numpy as np
from jaxtyping import Float
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.svm import SVC
from sklearn.utils.validation import check_is_fitted, validate_data

from stages.al.heads.base import HEADS, encode_labels
from stages.al.heads.calibration import fit_temperature
from stages.al.heads.closed_form import softmax


@HEADS.register("svm")
class SVM(ClassifierMixin, BaseEstimator):
    """Linear kernel, hinge loss, C = 5, one class against the rest (SSL meets AL, seed 003, section 4).

    C : weight of the errors against the margin
    temperature : of the probabilities; None fits it on the validation set, and is 1 where there is none
    n_classes : number of classes when labels are 0 .. n_classes - 1 and some may be unseen; None learns them from y

    Each class is its own two-class SVC: scikit-learn's SVC on many classes trains one against one and only reshapes
    its decision values, LinearSVC has a squared hinge and draws at random. A class without a label decides -1
    everywhere, an only class +1: the solutions of those problems, so that unseen classes tie.

    A strategy sees softmax(decision / temperature). Platt's sigmoids would need held-out labels of every class,
    which one image per class does not leave; the softmax keeps the order of the decision values.

    Fitted: classes_ (C,), weights_ (dim + 1, C) float64 with the bias as its last row, temperature_.
    """

    uses_validation = True

    def __init__(self, *, C: float = 5.0, temperature: float | None = None, n_classes: int | None = None):
        self.C = C
        self.temperature = temperature
        self.n_classes = n_classes

    def check_parameters(self) -> None:
        """Raises ValueError; the constructor only assigns, as scikit-learn wants it."""
        if self.C <= 0 or (self.temperature is not None and self.temperature <= 0):
            raise ValueError(f"C={self.C} and temperature={self.temperature} must be positive")

    def fit(self, X: Any, y: Any, validation: tuple[Any, Any] | None = None) -> "SVM":
        """X : (n, dim), y : (n,), validation : (X, y) for the temperature.

        Raises ValueError for labels outside 0 .. n_classes - 1.
        """
        self.check_parameters()
        X, y = validate_data(self, X, y, dtype=np.float64)
        self.classes_, places = encode_labels(y, self.n_classes)
        seen = np.unique(places)
        self.weights_ = np.zeros((X.shape[1] + 1, len(self.classes_)))
        self.weights_[-1] = -1
        for place in seen:
            self.weights_[:, place] = self._against_the_rest(X, places == place)
        if len(seen) == 2:  # one problem, seen from its two sides
            self.weights_[:, seen[0]] = -self.weights_[:, seen[1]]
        self.temperature_ = self.temperature or self._fitted_temperature(validation)
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Signed distances to the planes in units of the margin, (n, classes); (n,) of the second class if two."""
        decision = self._decide(self._checked(X))
        return decision[:, 1] if len(self.classes_) == 2 else decision

    def predict_proba(self, X: Any) -> Float[np.ndarray, "n classes"]:
        """Rows that sum to 1, float64, for X (n, dim)."""
        return softmax(self._decide(self._checked(X)).astype(np.float64) / self.temperature_)

    def logits(self, X: Float[np.ndarray, "n dim"]) -> Float[np.ndarray, "n classes"]:
        """What the softmax is taken of, in the precision of X, which is not checked."""
        return self._decide(X) / X.dtype.type(self.temperature_)

    def affine(self) -> tuple[Float[np.ndarray, "dim classes"], Float[np.ndarray, "classes"]]:
        """W and b of the logits X W + b, temperature included."""
        return self.weights_[:-1] / self.temperature_, self.weights_[-1] / self.temperature_

    def predict(self, X: Any) -> np.ndarray:
        """The class with the largest decision value for each row of X (n, dim)."""
        winners = self._decide(self._checked(X)).argmax(axis=1)
        return self.classes_[winners]

    def _checked(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        return validate_data(self, X, dtype=[np.float64, np.float32], reset=False)

    def _decide(self, X: Float[np.ndarray, "n dim"]) -> Float[np.ndarray, "n classes"]:
        weights = self.weights_.astype(X.dtype)
        return X @ weights[:-1] + weights[-1]

    def _against_the_rest(self, X: np.ndarray, inside: np.ndarray) -> np.ndarray:
        if inside.all():
            return np.append(np.zeros(X.shape[1]), 1.0)
        fitted = SVC(kernel="linear", C=self.C).fit(X, inside)
        return np.append(fitted.coef_[0], fitted.intercept_[0])

    def _fitted_temperature(self, validation: tuple[Any, Any] | None) -> float:
        """The one of least cross-entropy on the validation images of known classes."""
        if validation is None:
            return 1.0
        X, y = (np.asarray(part) for part in validation)
        known = np.isin(y, self.classes_)
        if not known.any():
            return 1.0
        return fit_temperature(self._decide(X[known]), np.searchsorted(self.classes_, y[known]))
