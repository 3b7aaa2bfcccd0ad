"""What stage one is asked to do."""

from dataclasses import dataclass
from pathlib import Path

from cache.location import Location


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """Run a frozen backbone over every image and view, once, into the feature cache."""

    dataset: str = "digits"
    """digits, cifar10, cifar100, svhn, fashion_mnist, tiny_imagenet or isic2019 (all but digits are downloaded to
    DATA_ROOT/datasets), folder:PATH or parquet:PATH, with parquet:PATH?label=COLUMN for another label column"""
    backbone: str = "simclr"
    """simclr, simsiam, rotation; resnet18, resnet34, resnet50, vgg16, densenet201; dino, dino_b; dinov2, dinov2_b,
    dinov2_l, dinov2_g, each also with registers (dinov2_reg, ...); timm:MODEL for any other of timm; cifar_resnet18,
    cifar_resnet34, cifar_resnet50 with WEIGHTS=file; resnet34_simclr_cifar100. Hyperparameters after colons:
    simclr:steps=1000:width=32"""
    views: tuple[str, ...] = ()
    """what to embed of each image, comma-separated: identity first, then any of hflip, sharpen, blur, crop and
    trivialaugment, the last two in several draws if you write crop*3; by default what the backbone was trained with"""
    weights: str = ""
    """a .safetensors, .pth, .pth.tar or .bin file, or 'random' to test plumbing; by default the backbone's own"""
    device: str = "auto"
    """auto and cuda are all GPUs of this machine, each with a process of its own; or cpu, cuda:1, cuda:0,cuda:2"""
    precision: str = "auto"
    """float32 or bfloat16; by default bfloat16 on GPUs that have it. Features of one cache share one precision"""
    shard: str = "1/1"
    """which part of the work is ours: i/n for the i-th of n workers, which may run at once on one cache"""
    batch_size: int = 0
    """images per forward pass; by default what suits the device, and less where a GPU runs out of memory"""
    view_seed: int = 0
    """seed of the random views"""
    data_root: Location = Path("data")
    """folder of everything alcove writes, or s3://bucket/prefix for its features, logs and pretrained weights"""


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
    data_root: Location = Path("data")
    """folder of everything alcove writes, or s3://bucket/prefix for its features, logs and pretrained weights"""

    @property
    def backbone(self) -> str:
        """What BACKBONE= has to say to embed with these weights."""
        given = {"recipe": self.recipe, "arch": self.arch, "steps": self.steps, "epochs": self.epochs}
        return ":".join([self.method, *(f"{name}={value}" for name, value in given.items() if value not in ("", None))])
