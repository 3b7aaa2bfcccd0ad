"""Softmax regression trained by gradient: the thesis's classifier (seed 002, 5.2) and those of two other papers."""

import numpy as np
from jaxtyping import Float

from stages.al.heads.base import HEADS
from stages.al.heads.closed_form import Ridge
from stages.al.heads.gradient import GradientHead


@HEADS.register("linear")
class Linear(GradientHead):
    """Softmax regression with a bias, by gradient descent on the cross-entropy (thesis seed 002, 5.2 and 4.6).

    start : cold, weights of zero; closed_form, the logits of the head `ridge` as it stands (thesis 6.1); or warm

    Deviation: PyTorch draws the initial weights, which a convex problem does not need.
    """

    starts = ("cold", "closed_form", "warm")

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
        super().__init__(
            start=start,
            recipe=recipe,
            optimizer=optimizer,
            learning_rate=learning_rate,
            momentum=momentum,
            nesterov=nesterov,
            weight_decay=weight_decay,
            epochs=epochs,
            batch_size=batch_size,
            drop_last=drop_last,
            schedule=schedule,
            patience=patience,
            dropout=dropout,
            seed=seed,
            n_classes=n_classes,
        )

    def affine(self) -> tuple[Float[np.ndarray, "dim classes"], Float[np.ndarray, "classes"]]:
        """W and b of the logits X W + b."""
        return self.weights_[:-1], self.weights_[-1]

    def _first_layers(self, X: np.ndarray, y: np.ndarray, n_classes: int) -> list[np.ndarray]:
        weights = np.zeros((X.shape[1] + 1, n_classes))
        if self.start == "closed_form":
            ridge = Ridge(n_classes=n_classes).fit(X, y)
            weights[:-1] = ridge.weights_ / ridge.temperature_
        return [weights]
