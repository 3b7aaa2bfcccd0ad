"""The backbones, one module for each family: the names that `BACKBONE=` takes. Torch is imported when one is loaded."""

from stages.embed.backbones import cifar, dino, rotation, simclr, simsiam, timm_models, torchvision_models
from stages.embed.backbones.base import BACKBONES, Backbone, FrozenBackbone, Preprocessing

__all__ = [
    "BACKBONES",
    "Backbone",
    "FrozenBackbone",
    "Preprocessing",
    "cifar",
    "dino",
    "rotation",
    "simclr",
    "simsiam",
    "timm_models",
    "torchvision_models",
]
