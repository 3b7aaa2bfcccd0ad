"""What the heads trained by gradient share: parameters, recipes, classes, training side by side, probabilities."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
from jaxtyping import Float
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from stages.al.heads.base import encode_labels
from stages.al.heads.closed_form import softmax
from stages.al.heads.recipes import RECIPES, Training


class GradientHead(ClassifierMixin, BaseEstimator):
    """Base of the heads trained by gradient, on one processor, in float32; subclasses say which network.

    start : cold, as an unfitted head; warm, from the weights of this head's last fit (scikit-learn's warm_start: the
        first fit is cold); what else there is, the subclass says
    recipe : thesis, supclust or ssl_meets_al (`stages.al.heads.recipes`); it fills whatever is not given here
    optimizer : sgd, adam, adamw or nadam; the others up to dropout: see `Training`
    seed : of every draw, batches, dropout and initial weights
    n_classes : number of classes when labels are 0 .. n_classes - 1 and some may be unseen; None learns them from y

    A strategy sees the softmax of the logits as trained, at temperature 1, uncalibrated. Output weights start at
    zero, so that classes without a label stay equal to each other; they tie.

    Fitted: classes_ (C,), weights_ (in + 1, C) of the last layer with the bias as its last row, float64.
    """

    uses_validation = True
    starts: tuple[str, ...] = ("cold", "warm")

    def __init__(
        self,
        *,
        start: str = "cold",
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
        dropout: float | None = None,
        seed: int = 0,
        n_classes: int | None = None,
    ):
        self.start = start
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
        self.dropout = dropout
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
        if self.start not in self.starts:
            raise ValueError(f"start must be one of {', '.join(self.starts)}, got {self.start!r}")
        if (self.momentum or self.nesterov) and training.optimizer != "sgd":
            raise ValueError(f"momentum and nesterov are of sgd, and {training.optimizer} would ignore them")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed} must be 0 or more")

    @abstractmethod
    def _first_layers(self, X: np.ndarray, y: np.ndarray, n_classes: int) -> list[np.ndarray]:
        """The layers' weights before training, each (in + 1, out), of a start that is not warm."""

    def fit(self, X: Any, y: Any, validation: tuple[Any, Any] | None = None) -> "GradientHead":
        """Train. X : (n, dim), y : (n,), validation : (X, y) for early stopping, which without it does not happen.

        Raises ValueError for labels outside 0 .. n_classes - 1, for other features or classes than those of the fit
        that a warm start begins from, and when the training diverges.
        """
        self.fit_many([self], [(X, y)], validation)
        return self

    @classmethod
    def fit_many(
        cls,
        heads: Sequence["GradientHead"],
        data: Sequence[tuple[Any, Any]],
        validation: tuple[Any, Any] | None = None,
    ) -> None:
        """Fit every head to its own (X, y), in lock-step: each is left bitwise as its own `fit` leaves it, sooner.

        heads : of one class and equal parameters but for `seed`; data : one (X, y) per head, of equal shapes
        Raises ValueError where they differ, when classes learned from the labels differ, and when `fit` would for any
        of them; then none is fitted.
        """
        from stages.al.heads.lockstep import train_network

        _check_alike(heads, data)
        checked = [head._check(X, y) for head, (X, y) in zip(heads, data, strict=True)]
        Xs, places, classes = ([part[i] for part in checked] for i in range(3))
        if len({X.shape for X in Xs}) > 1:
            raise ValueError(f"fit_many needs data of one shape, found {sorted({X.shape for X in Xs})}")
        if not all(np.array_equal(classes[0], other) for other in classes):
            raise ValueError("fit_many found different classes in the labels: give n_classes")
        starts = [head._start(*part) for head, part in zip(heads, checked, strict=True)]
        layers = train_network(
            np.stack(Xs),
            np.stack(places),
            start=[np.stack(layer).astype(np.float32) for layer in zip(*starts, strict=True)],
            training=heads[0].training,
            seeds=[head.seed for head in heads],
            validation=_of_known_classes(validation, classes[0]),
        )
        for i, head in enumerate(heads):
            head._keep([layer[i].astype(np.float64) for layer in layers], classes[i], places[i])

    def _check(self, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The features, each label's place among the classes, and the classes."""
        self.check_parameters()
        X, y = validate_data(self, X, y, dtype=np.float32)
        classes, places = encode_labels(y, self.n_classes)
        return X, places, classes

    @property
    def _goes_on(self) -> bool:
        return self.start == "warm" and hasattr(self, "_layers")

    def _start(self, X: np.ndarray, places: np.ndarray, classes: np.ndarray) -> list[np.ndarray]:
        first = self._first_layers(X, places, len(classes))
        if not self._goes_on:
            return first
        if not np.array_equal(classes, self.classes_):
            raise ValueError(f"a warm start needs the classes of the last fit, {self.classes_}, found {classes}")
        if [layer.shape for layer in first] != [layer.shape for layer in self._layers]:
            raise ValueError(
                f"a warm start needs layers of the last fit's shapes, {[layer.shape for layer in self._layers]}, "
                f"found {[layer.shape for layer in first]}"
            )
        return self._layers

    def _keep(self, layers: list[np.ndarray], classes: np.ndarray, places: np.ndarray) -> None:
        unseen = np.setdiff1d(np.arange(len(classes)), places)
        if self._goes_on:
            unseen = np.intersect1d(unseen, self._unseen)
        self._unseen: np.ndarray = unseen
        self.classes_, self._layers, self.weights_ = classes, layers, layers[-1]

    def logits(self, X: Float[np.ndarray, "n dim"]) -> Float[np.ndarray, "n classes"]:
        """What the softmax is taken of, in the precision of X; classes without a label yet tie exactly.

        X is taken as it is, unchecked: the pool is scored in every round, and `predict` and `predict_proba` check.
        """
        for hidden in self._layers[:-1]:
            X = _affine(X, hidden)
            np.maximum(X, 0, out=X)
        logits = _affine(X, self.weights_)
        if len(self._unseen) > 1:
            logits[:, self._unseen] = logits[:, self._unseen[:1]]
        return logits

    def predict_proba(self, X: Any) -> Float[np.ndarray, "n classes"]:
        """Rows that sum to 1, float64, for X (n, dim)."""
        return softmax(self.logits(self._checked(X)).astype(np.float64))

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of each row of X (n, dim)."""
        winners = self.logits(self._checked(X)).argmax(axis=1)
        return self.classes_[winners]

    def _checked(self, X: Any) -> Float[np.ndarray, "n dim"]:
        check_is_fitted(self)
        return validate_data(self, X, dtype=[np.float64, np.float32], reset=False)


def _check_alike(heads: Sequence[GradientHead], data: Sequence[tuple[Any, Any]]) -> None:
    """Raises ValueError unless heads may train side by side, each on its own data."""
    if not heads or len(heads) != len(data):
        raise ValueError(f"fit_many needs one (X, y) for each head, got {len(heads)} heads and {len(data)}")
    if len({id(head) for head in heads}) < len(heads):
        raise ValueError("fit_many got the same head twice")
    kinds = [(type(head), head.get_params() | {"seed": None}) for head in heads]
    if any(kind != kinds[0] for kind in kinds):
        raise ValueError("fit_many needs heads of one class with equal parameters, the seed aside")


def _of_known_classes(validation: tuple[Any, Any] | None, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The validation images of these classes and their labels' places; None where there are none."""
    if validation is None:
        return None
    X, y = (np.asarray(part) for part in validation)
    known = np.isin(y, classes)
    return (X[known], np.searchsorted(classes, y[known])) if known.any() else None


def _affine(X: np.ndarray, weights: np.ndarray) -> np.ndarray:
    weights = weights.astype(X.dtype)
    result = X @ weights[:-1]
    result += weights[-1]
    return result
