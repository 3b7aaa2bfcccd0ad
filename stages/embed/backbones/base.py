"""What a backbone must offer: a frozen network, its preprocessing and the digest of its weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cache.location import Location
from stages.embed.images.base import ImageSet
from stages.registry import Registry

if TYPE_CHECKING:
    import torch

BACKBONES = Registry("backbone")


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How uint8 images become network input; part of the cache key.

    resize : length of the shorter side after resizing, in pixels; 0 keeps the size
    crop : side of the central square that is kept, in pixels; it is the network's input
    interpolation : "bilinear" or "bicubic", antialiased
    mean, std : per channel, of values scaled to [0, 1]
    squash : resize both sides to `resize`, whatever the shape of the image
    """

    resize: int
    crop: int
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    squash: bool = False

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """(n, 3, height, width) uint8 -> (n, 3, crop, crop) float32, on the images' device.

        Resized as floats and rounded, as torchvision's weights records do it with a tensor. Resizing bytes takes a
        fifth of the time, and gives pixels one level off (bicubic: up to 28) that depend on device and processor: one
        cache would hold two kinds of features.
        """
        import torch
        from torchvision.transforms.v2 import InterpolationMode
        from torchvision.transforms.v2 import functional as F

        pixels = images.to(torch.float32, memory_format=torch.contiguous_format)  # the kernel is slow on other layouts
        if self.resize:
            size = [self.resize] * (2 if self.squash else 1)
            pixels = F.resize(pixels, size, InterpolationMode(self.interpolation), antialias=True)
        pixels = F.center_crop(pixels, [self.crop, self.crop])
        if self.resize:
            pixels = pixels.round_().clamp_(0, 255)
        mean, std = (255 * pixels.new_tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        return pixels.sub_(mean).div_(std)

    def record(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class FrozenBackbone:
    """A network ready to embed.

    full_name : `<arch>.<weights>`, so that two networks with different weights cannot share a name
    weights_digest : sha256 over the names, shapes and values of the state dict
    network : maps preprocessed images (n, 3, h, w) float32 to features (n, dim); in eval mode
    """

    full_name: str
    weights_digest: str
    preprocessing: Preprocessing
    dim: int
    network: torch.nn.Module


@dataclass(frozen=True, kw_only=True)
class Backbone(ABC):
    """A registered backbone: its fields are its hyperparameters. Torch is imported by `load` only."""

    name: ClassVar[str]
    views: ClassVar[tuple[str, ...]]
    """The views embedded unless the user names others."""

    @abstractmethod
    def load(self, weights: str, images: ImageSet, weights_root: Location, device: str) -> FrozenBackbone:
        """Get the weights and build the network, on `device`.

        weights : "" for the backbone's own, "random" (by name only), or the path of a weights file
        images : the data set, for backbones pretrained on the pool
        weights_root : place that keeps weights made here
        Raises WeightsUnavailableError (no network: says the ways out), InputError (a file that does not fit).
        """

    def weights_to_make(self, images: ImageSet, weights_root: Location) -> Path | None:
        """The file of weights of its own that `load` would first make from the images; None where it makes none."""
        return None
