"""How a gradient head is trained: the settings, and the papers' values of them."""

from dataclasses import dataclass

OPTIMIZERS = ("sgd", "adam", "adamw", "nadam")
SCHEDULES = ("constant", "cosine")


@dataclass(frozen=True, kw_only=True)
class Training:
    """Settings of one training.

    momentum, nesterov : of sgd only
    weight_decay : as torch.optim means it: decoupled for adamw, an L2 term for the others; the bias decays too
    epochs : passes over the labeled images, at most
    batch_size : labeled images per step; where fewer are labeled, all of them
    drop_last : leave out an epoch's last batch where it is smaller than the others
    schedule : of the learning rate over the epochs; cosine falls to zero at the last
    patience : epochs without a lower validation cross-entropy before a run stops; 0 never stops early
    dropout : share of the input features set to zero in training, drawn for every image anew; no paper here has it
    """

    optimizer: str
    learning_rate: float
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    epochs: int
    batch_size: int
    drop_last: bool = False
    schedule: str = "constant"
    patience: int = 0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name, known in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        for name in ("learning_rate", "epochs", "batch_size"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)} must be positive")
        if min(self.weight_decay, self.patience, self.momentum) < 0 or self.momentum >= 1:
            raise ValueError(
                "weight_decay and patience must be 0 or more and momentum in [0, 1), "
                f"got {self.weight_decay}, {self.patience} and {self.momentum}"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout} must be in [0, 1)")
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")


RECIPES = {
    "thesis": Training(
        optimizer="adamw",
        learning_rate=1e-3,
        weight_decay=0.01,
        epochs=100,
        batch_size=32,
        drop_last=True,
        patience=10,
    ),
    "supclust": Training(
        optimizer="sgd",
        learning_rate=0.025,
        momentum=0.9,
        nesterov=True,
        weight_decay=3e-4,
        epochs=200,
        batch_size=100,
        schedule="cosine",
    ),
    "ssl_meets_al": Training(
        optimizer="sgd",
        learning_rate=30.0,
        momentum=0.9,
        epochs=100,
        batch_size=256,
        schedule="cosine",
    ),
}
"""thesis (seed 002): AdamW at 1e-3, the rest PyTorch's defaults (5.2), batches of 32, early stopping with the best
weights restored (4.6). Its text praises drop_last=False, its reason and figure 4.1 condemn the small last batch:
we leave that out. Epochs and patience are not stated: ours. supclust: SUPClust, table 1 (A.1), CIFAR's column; its
"gamma" means nothing to a cosine. ssl_meets_al: SSL meets AL, section 4; no weight decay."""
