"""What stage one is asked to do."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """Run a frozen backbone over every image and view, once, into the feature cache."""

    dataset: str = "digits"
    """digits, folder:PATH or parquet:PATH"""
    backbone: str = "simclr"
    """simclr, simsiam, rotation, resnet18 or dinov2; hyperparameters after colons: simclr:steps=1000:width=32"""
    views: tuple[str, ...] = ()
    """augmentations to embed beside the image, comma-separated; by default those the backbone was trained with"""
    weights: str = ""
    """a .safetensors or .pth file, or 'random' to test plumbing; by default the backbone's own"""
    device: str = "auto"
    """auto, cpu or cuda"""
    batch_size: int = 256
    """images per forward pass"""
    view_seed: int = 0
    """seed of the random views"""
    data_root: Path = Path("data")
    """folder of everything alcove writes"""


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Pretrain a network on the unlabeled pool, so that `embed` finds it ready."""

    method: str = "simclr"
    """simclr, simsiam or rotation; hyperparameters after colons, such as simclr:width=64:temperature=0.1"""
    dataset: str = "digits"
    """the data set whose split "train" is learned from, without its labels"""
    recipe: str = ""
    """cpu, or the paper's: supclust_cifar10, supclust_isic2019, ssl_meets_al, best_practices; by default cpu"""
    arch: str = ""
    """convnet, resnet18, resnet34 or resnet50; by default the recipe's"""
    steps: int | None = None
    """optimiser steps; by default the recipe's"""
    epochs: int | None = None
    """passes over the pool, instead of steps"""
    device: str = "auto"
    """auto, cpu or cuda"""
    data_root: Path = Path("data")
    """folder of everything alcove writes"""

    @property
    def backbone(self) -> str:
        """What BACKBONE= has to say to embed with these weights."""
        given = {"recipe": self.recipe, "arch": self.arch, "steps": self.steps, "epochs": self.epochs}
        return ":".join([self.method, *(f"{name}={value}" for name, value in given.items() if value not in ("", None))])
