"""Softmax regression trained by gradient: the thesis's classifier (seed 002, 5.2) and those of two other papers."""

from typing import Any

import numpy as np

from stages.al.heads.base import HEADS
from stages.al.heads.closed_form import Ridge
from stages.al.heads.gradient import GradientHead

STARTS = ("cold", "closed_form")


@HEADS.register("linear")
class Linear(GradientHead):
    """Softmax regression with a bias, by gradient descent on the cross-entropy (thesis seed 002, 5.2 and 4.6).

    start : cold, weights of zero; or closed_form, the logits of the head `ridge` as it stands (thesis 6.1)

    Deviation: PyTorch draws the initial weights, which a convex problem does not need.
    """

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
        seed: int = 0,
        n_classes: int | None = None,
    ):
        super().__init__(
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
            seed=seed,
            n_classes=n_classes,
        )
        self.start = start

    def check_parameters(self) -> None:
        super().check_parameters()
        if self.start not in STARTS:
            raise ValueError(f"start must be one of {', '.join(STARTS)}, got {self.start!r}")

    def _train(self, X: np.ndarray, y: np.ndarray, validation: tuple[np.ndarray, np.ndarray] | None) -> list[Any]:
        from stages.al.heads.lockstep import train_linear

        n_classes, start = len(self.classes_), None
        if self.start == "closed_form":
            ridge = Ridge(n_classes=n_classes).fit(X, y)
            start = np.vstack([ridge.weights_ / ridge.temperature, np.zeros(n_classes)])[None].astype(np.float32)
        trained = train_linear(
            X[None],
            y[None],
            n_classes=n_classes,
            training=self.training,
            seeds=[self.seed],
            start=start,
            validation=validation,
        )
        return [trained[0]]
