"""The backbones, one module each: the names that `BACKBONE=` takes. Torch is imported when one is loaded."""

from stages.embed.backbones import dinov2, resnet18, rotation, simclr, simsiam
from stages.embed.backbones.base import BACKBONES, Backbone, FrozenBackbone, Preprocessing

__all__ = [
    "BACKBONES",
    "Backbone",
    "FrozenBackbone",
    "Preprocessing",
    "dinov2",
    "resnet18",
    "rotation",
    "simclr",
    "simsiam",
]
