"""How long, how fast and on which views a network is pretrained: one table, by method and name. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

ARCHITECTURES = ("convnet", "resnet18", "resnet34", "resnet50")
_CHOICES = {"arch": ARCHITECTURES, "optimizer": ("adamw", "sgd"), "schedule": ("cosine", "steps")}
_POSITIVE = ("steps", "epochs", "learning_rate", "temperature", "projection_dim", "crop")
_AT_LEAST = {"size": 4, "batch_size": 2, "weight_decay": 0, "jitter": 0, "hue": 0, "gray": 0, "blur": 0}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides the result besides the images, the method and the seed.

    arch, size : the network, and the largest side in pixels of the square images that it sees
    steps, epochs : how long, one of the two; an epoch leaves out the images that fill no batch
    batch_size : images per step (fewer where the pool is smaller), each seen in every view that the method needs
    learning_rate : the highest; linear warm-up over the share `warm_up`, then "cosine" down to the share `floor`, or
        "steps": a fifth of it after 30%, 60% and 80%
    momentum, nesterov : of SGD
    temperature : of SimCLR's loss; projection_dim : of the head's output
    crop : smallest share of the area that a view shows; 1 for the whole image
    jitter, hue, jitter_share : brightness, contrast and saturation change by up to `jitter`, the hue by up to `hue`
        turns, in this share of the views
    gray, blur : shares of the views that are made gray, and blurred with a sigma of 0.1 to `blur_sigma` pixels
    """

    arch: str = "convnet"
    size: int = 32
    steps: int | None = None
    epochs: int | None = None
    batch_size: int = 256
    optimizer: str = "adamw"
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    momentum: float = 0.9
    nesterov: bool = False
    schedule: str = "cosine"
    warm_up: float = 0.0
    floor: float = 0.0
    temperature: float = 0.2
    projection_dim: int = 128
    crop: float = 0.3
    jitter: float = 0.4
    hue: float = 0.0
    jitter_share: float = 1.0
    gray: float = 0.2
    blur: float = 0.5
    blur_sigma: float = 1.0

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError(f"give either steps or epochs, got steps={self.steps} and epochs={self.epochs}")
        for key, allowed in _CHOICES.items():
            if getattr(self, key) not in allowed:
                raise ValueError(f"{key} must be one of {', '.join(allowed)}, got {getattr(self, key)!r}")
        for key in _POSITIVE:
            value = getattr(self, key)
            if value is not None and not value > 0:
                raise ValueError(f"{key} must be above 0, got {value}")
        for key, least in _AT_LEAST.items():
            if not getattr(self, key) >= least:
                raise ValueError(f"{key} must be at least {least}, got {getattr(self, key)}")
        for key in ("crop", "gray", "blur"):
            if not getattr(self, key) <= 1:
                raise ValueError(f"{key} is a share and must be at most 1, got {getattr(self, key)}")

    def steps_per_epoch(self, n_images: int) -> int:
        return max(n_images // self.batch_size, 1)

    def total_steps(self, n_images: int) -> int:
        return self.steps or (self.epochs or 0) * self.steps_per_epoch(n_images)

    def with_changes(self, changes: dict[str, Any]) -> Recipe:
        """The same with other values; `steps` given replaces `epochs`, and the other way round."""
        if "steps" in changes and "epochs" not in changes:
            changes = {**changes, "epochs": None}
        if "epochs" in changes and "steps" not in changes:
            changes = {**changes, "steps": None}
        return replace(self, **changes)


# For two CPU cores and small images: AdamW, the small network, weaker views than the papers'. Ours.
_CPU = Recipe(steps=400, warm_up=0.05)

# SUPClust (001), appendix A.2, table 2, column "CIFAR10/10-LT": ResNet18, 500 epochs, batch 512, SGD 0.4, cosine,
# momentum 0.9 without Nesterov; "LR decay rate 0.1" ends the cosine at 0.1^3 of the rate in the TypiClust repository,
# which A.2 names for the transformations. From that repository too (scan/configs/pretext/simclr_cifar10.yml), because
# the paper is silent: temperature 0.1, weight decay 1e-4, 128 outputs. No blur there.
_SUPCLUST = Recipe(
    arch="resnet18",
    epochs=500,
    batch_size=512,
    optimizer="sgd",
    learning_rate=0.4,
    floor=1e-3,
    temperature=0.1,
    crop=0.2,
    hue=0.1,
    jitter_share=0.8,
    blur=0.0,
)

# SSL meets AL (003), section 4: ResNet18, 800 epochs, batch 512, SGD with momentum 0.9, weight decay 0.0001 on
# everything, crop [0.2, 1], jitter (0.4, 0.4, 0.4, 0.1) with probability 0.8, gray 0.2, blur sigma [0.1, 2]. Its "base
# learning rate of 0.03", as in SimSiam (section 4 there: rate = base x batch / 256), is 0.06 at batch 512. Blur with
# probability 0.5 and 2048 outputs as in SimSiam; the paper is silent.
_SSL_MEETS_AL = Recipe(
    arch="resnet18",
    epochs=800,
    batch_size=512,
    optimizer="sgd",
    learning_rate=0.06,
    projection_dim=2048,
    crop=0.2,
    hue=0.1,
    jitter_share=0.8,
    blur_sigma=2.0,
)

# Best practices (000), section 7, pretrains by rotation prediction and gives no numbers for it. Its networks (section
# 3) are ResNet18, batch 128, 200 epochs, SGD 0.1, momentum 0.9, weight decay 5e-4, crops and flips; the same numbers
# with Nesterov and drops after 60, 120 and 160 of 200 epochs are those of Gidaris et al. 2018 for CIFAR-10. Their
# crop, padded by 4 of 32 pixels, moves by an eighth; here it is a random part of at least 0.6 of the area.
_BEST_PRACTICES = Recipe(
    arch="resnet18",
    epochs=200,
    batch_size=128,
    optimizer="sgd",
    learning_rate=0.1,
    weight_decay=5e-4,
    nesterov=True,
    schedule="steps",
    crop=0.6,
    jitter=0.0,
    gray=0.0,
    blur=0.0,
)

RECIPES: dict[str, dict[str, Recipe]] = {
    "simclr": {
        "cpu": _CPU,
        "supclust_cifar10": _SUPCLUST,
        # the column "ISIC2019" of the same table; images of 224 pixels (section 4)
        "supclust_isic2019": replace(_SUPCLUST, size=224, batch_size=32, learning_rate=0.025),
    },
    "simsiam": {
        "cpu": replace(_CPU, projection_dim=256),
        "ssl_meets_al": _SSL_MEETS_AL,
    },
    "rotation": {
        "cpu": replace(_CPU, batch_size=128, gray=0.0, blur=0.0),
        "best_practices": _BEST_PRACTICES,
    },
}
