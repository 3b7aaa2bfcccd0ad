"""A network with one hidden layer: the thesis's ablation of the classifier (seed 002, 5.8 and 7.4)."""

from typing import Any

import numpy as np

from stages.al.heads.base import HEADS
from stages.al.heads.gradient import GradientHead


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
        self.hidden = hidden

    def check_parameters(self) -> None:
        super().check_parameters()
        if self.hidden <= 0:
            raise ValueError(f"hidden={self.hidden} must be positive")

    def _train(self, X: np.ndarray, y: np.ndarray, validation: tuple[np.ndarray, np.ndarray] | None) -> list[Any]:
        from stages.al.heads.lockstep import train_network

        bound = 1 / np.sqrt(X.shape[1])
        drawn = np.random.default_rng([self.seed, 1]).uniform(-bound, bound, (1, X.shape[1] + 1, self.hidden))
        start = [drawn.astype(np.float32), np.zeros((1, self.hidden + 1, len(self.classes_)), dtype=np.float32)]
        layers = train_network(
            X[None], y[None], start=start, training=self.training, seeds=[self.seed], validation=validation
        )
        return [layer[0] for layer in layers]
