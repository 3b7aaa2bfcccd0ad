"""What the heads trained by gradient share: parameters, recipes, classes, probabilities."""

from abc import abstractmethod
from dataclasses import fields, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from stages.al.heads.closed_form import softmax
from stages.al.heads.recipes import RECIPES, Training


def encode_labels(y: np.ndarray, n_classes: int | None) -> tuple[np.ndarray, Int[np.ndarray, "n"]]:
    """The classes and each label's place among them. Raises ValueError for labels outside 0 .. n_classes - 1."""
    check_classification_targets(y)
    if n_classes is None:
        classes, places = np.unique(y, return_inverse=True)
        return classes, places
    classes = np.arange(n_classes)
    if not np.isin(y, classes).all():
        raise ValueError(f"labels must be 0 .. {n_classes - 1}, found {np.setdiff1d(y, classes)}")
    return classes, y.astype(int)


class GradientHead(ClassifierMixin, BaseEstimator):
    """Base of the heads trained by gradient, on one processor, in float32; subclasses say which network.

    recipe : thesis, supclust or ssl_meets_al (`stages.al.heads.recipes`); it fills whatever is not given here
    optimizer : sgd, adam, adamw or nadam; the others up to patience: see `Training`
    seed : of every draw, batches and initial weights
    n_classes : number of classes when labels are 0 .. n_classes - 1 and some may be unseen; None learns them from y

    A strategy sees the softmax of the logits as trained, at temperature 1, uncalibrated. Output weights start at
    zero, so that classes without a label stay equal to each other; they tie.

    Fitted: classes_ (C,), weights_ (in + 1, C) of the last layer with the bias as its last row, float64.
    """

    uses_validation = True

    def __init__(
        self,
        *,
        recipe: str = "thesis",
        optimizer: str | None = None,
        learning_rate: float | None = None,
        momentum: float | None = None,
        nesterov: bool | None = None,
        weight_decay: float | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        drop_last: bool | None = None,
        schedule: str | None = None,
        patience: int | None = None,
        seed: int = 0,
        n_classes: int | None = None,
    ):
        self.recipe = recipe
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.nesterov = nesterov
        self.weight_decay = weight_decay
        self.epochs = epochs
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.schedule = schedule
        self.patience = patience
        self.seed = seed
        self.n_classes = n_classes

    @property
    def training(self) -> Training:
        """The named recipe with the values that were given in their place. Raises ValueError."""
        if self.recipe not in RECIPES:
            raise ValueError(f"there is no recipe {self.recipe!r}: there are {', '.join(RECIPES)}")
        given = {field.name: getattr(self, field.name) for field in fields(Training)}
        return replace(RECIPES[self.recipe], **{key: value for key, value in given.items() if value is not None})

    def check_parameters(self) -> None:
        """Raises ValueError; the constructor only assigns, as scikit-learn wants it."""
        training = self.training
        if (self.momentum or self.nesterov) and training.optimizer != "sgd":
            raise ValueError(f"momentum and nesterov are of sgd, and {training.optimizer} would ignore them")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed} must be 0 or more")

    @abstractmethod
    def _train(self, X: np.ndarray, y: np.ndarray, validation: tuple[np.ndarray, np.ndarray] | None) -> list[Any]:
        """The layers' weights, each (in + 1, out)."""

    def fit(self, X: Any, y: Any, validation: tuple[Any, Any] | None = None) -> "GradientHead":
        """Train. X : (n, dim), y : (n,), validation : (X, y) for early stopping, which without it does not happen.

        Raises ValueError for labels outside 0 .. n_classes - 1 and when the training diverges.
        """
        self.check_parameters()
        X, y = validate_data(self, X, y, dtype=np.float32)
        self.classes_, places = encode_labels(y, self.n_classes)
        if validation is not None:
            known = np.isin(validation[1], self.classes_)
            kept = np.asarray(validation[0])[known], np.searchsorted(self.classes_, np.asarray(validation[1])[known])
            validation = kept if known.any() else None
        self._layers = [layer.astype(np.float64) for layer in self._train(X, places, validation)]
        self.weights_ = self._layers[-1]
        self._unseen = np.setdiff1d(np.arange(len(self.classes_)), places)
        return self

    def logits(self, X: Any) -> Float[np.ndarray, "n classes"]:
        """What the softmax is taken of, in the precision of X (n, dim); classes without a label yet tie exactly."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        for hidden in self._layers[:-1]:
            X = np.maximum(_affine(X, hidden), 0)
        logits = _affine(X, self._layers[-1])
        logits[:, self._unseen] = logits[:, self._unseen[:1]]
        return logits

    def predict_proba(self, X: Any) -> Float[np.ndarray, "n classes"]:
        """Rows that sum to 1, float64, for X (n, dim)."""
        return softmax(self.logits(X))

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of each row of X (n, dim)."""
        winners = self.logits(X).argmax(axis=1)
        return self.classes_[winners]


def _affine(X: np.ndarray, weights: np.ndarray) -> np.ndarray:
    weights = weights.astype(X.dtype)
    return X @ weights[:-1] + weights[-1]
