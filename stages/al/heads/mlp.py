"""A network with one hidden layer: the thesis's ablation of the classifier (seed 002, 5.8 and 7.4)."""

import numpy as np

from stages.al.heads.base import HEADS
from stages.al.heads.gradient import GradientHead

INITIAL = 1
"""Stream of the seed that initial weights draw from; batches and dropout have their own (`lockstep`)."""


@HEADS.register("mlp")
class MLP(GradientHead):
    """One hidden layer of ReLU units, trained as `linear` is (thesis seed 002, 5.8: "Linear classifier vs MLP").

    hidden : units of the hidden layer. The thesis does not state its network: one layer and its width are ours

    Hidden weights start uniform in +-1/sqrt(dim), as PyTorch's do; deviation: those of the last layer start at zero.
    """

    def __init__(
        self,
        *,
        hidden: int = 128,
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
        self.hidden = hidden

    def check_parameters(self) -> None:
        super().check_parameters()
        if self.hidden <= 0:
            raise ValueError(f"hidden={self.hidden} must be positive")

    def _first_layers(self, X: np.ndarray, y: np.ndarray, n_classes: int) -> list[np.ndarray]:
        bound, rng = 1 / np.sqrt(X.shape[1]), np.random.default_rng([self.seed, INITIAL])
        return [rng.uniform(-bound, bound, (X.shape[1] + 1, self.hidden)), np.zeros((self.hidden + 1, n_classes))]
