"""The views: which augmented copies of an image are embedded beside the image itself. Torch is imported on use only."""

from __future__ import annotations

import hashlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from jaxtyping import Float

from cache.errors import InputError
from stages.registry import Registry

if TYPE_CHECKING:
    import torch


VIEWS = Registry("view")
LARGE_IMAGE = 128 * 128
"""Pixels above which cropping many images at once gains nothing and takes memory."""
_torch_seed_lock = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class View(ABC):
    """A registered view: its fields are its parameters.

    Source of the choice: the thesis (002), sections 4.6 and 5.1, stores the image and three augmented copies of it,
    taken only from what the backbone saw in its own training: flip and sharpening, with TrivialAugment Wide for
    ResNet and blur for DINOv2. The thesis gives no parameters; ours stand at each view.
    """

    name: ClassVar[str]

    @property
    def label(self) -> str:
        """What the cache calls this view; the seeds of its images depend on it."""
        return self.name

    def record(self) -> dict[str, Any]:
        """Everything that changes a pixel, for the cache's identity."""
        return {"name": self.label, **asdict(self)}

    @abstractmethod
    def apply(self, images: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
        """(n, 3, height, width) uint8 -> the same shape and type, on the same device.

        seeds : one per image; all that a random view draws from, so neither batch nor order matters.
            A view that draws nothing ignores them.
        """


@dataclass(frozen=True, kw_only=True)
class RandomView(View):
    """A view that draws. draw : which of several draws; each has seeds of its own"""

    draw: int | None = None

    @property
    def label(self) -> str:
        return self.name if self.draw is None else f"{self.name}#{self.draw}"

    def record(self) -> dict[str, Any]:
        return {key: value for key, value in super().record().items() if key != "draw"}


@VIEWS.register("identity")
@dataclass(frozen=True, kw_only=True)
class Identity(View):
    """The image itself."""

    def apply(self, images: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
        return images


@VIEWS.register("hflip")
@dataclass(frozen=True, kw_only=True)
class HFlip(View):
    """The image mirrored left to right. Thesis (002), section 5.1."""

    def apply(self, images: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
        return images.flip(-1)


@VIEWS.register("sharpen")
@dataclass(frozen=True, kw_only=True)
class Sharpen(View):
    """The image sharpened: 0 blurs, 1 leaves as is, 2 doubles the difference to the blurred image. Thesis, 5.1."""

    factor: float = 2.0

    def __post_init__(self) -> None:
        if self.factor < 0:
            raise ValueError(f"factor={self.factor} must be at least 0")

    def apply(self, images: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
        from torchvision.transforms.v2 import functional as F

        return F.adjust_sharpness(images, self.factor)


@VIEWS.register("blur")
@dataclass(frozen=True, kw_only=True)
class Blur(View):
    """Gaussian blur. Thesis (002), section 5.1, for DINOv2, which trains with sigma 0.1 to 2.

    sigma : standard deviation in pixels of the stored image
    kernel : side of the kernel in pixels, odd; less where the image is too small to mirror that far
    """

    sigma: float = 0.8
    kernel: int = 5

    def __post_init__(self) -> None:
        if self.sigma <= 0 or self.kernel < 1 or self.kernel % 2 == 0:
            raise ValueError(f"sigma={self.sigma} must be above 0 and kernel={self.kernel} odd")

    def apply(self, images: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
        from torchvision.transforms.v2 import functional as F

        kernel = min(self.kernel, 2 * min(images.shape[-2:]) - 1)
        return F.gaussian_blur(images, [kernel, kernel], [self.sigma, self.sigma])


@VIEWS.register("crop")
@dataclass(frozen=True, kw_only=True)
class Crop(RandomView):
    """A random part of the image, resized to the image's size. Szegedy et al. 2015; the main view of SimCLR.

    smallest : least share of the area that is drawn; the aspect is changed by up to 4/3, and a side that would then be
        longer than the image's is cut
    """

    smallest: float = 0.3

    def __post_init__(self) -> None:
        if not 0 < self.smallest <= 1:
            raise ValueError(f"smallest={self.smallest} must be above 0 and at most 1")

    def apply(self, images: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
        """Bilinear: a copy is never smaller than its part, so there is nothing to smooth."""
        height, width = images.shape[-2:]
        area, ratio, down, right = uniform(seeds, 4).T
        area, ratio = self.smallest + area * (1 - self.smallest), (4 / 3) ** (2 * ratio - 1)
        part_height = np.clip(np.rint(height * np.sqrt(area / ratio)), 1, height)
        part_width = np.clip(np.rint(width * np.sqrt(area * ratio)), 1, width)
        top, left = np.floor(down * (height - part_height + 1)), np.floor(right * (width - part_width + 1))
        copy = _copy_one_by_one if height * width > LARGE_IMAGE else _copy_at_once
        return copy(images, *(side.astype(int) for side in (top, part_height, left, part_width)))


def _copy_one_by_one(
    images: torch.Tensor, top: np.ndarray, height: np.ndarray, left: np.ndarray, width: np.ndarray
) -> torch.Tensor:
    """Parts of the images, each resized to its image: (n, 3, h, w) uint8, in the memory of one of them."""
    import torch
    from torch.nn.functional import interpolate

    copies = torch.empty_like(images)
    for index, image in enumerate(images):
        part = image[:, top[index] : top[index] + height[index], left[index] : left[index] + width[index]]
        resized = interpolate(part[None].float(), size=image.shape[-2:], mode="bilinear", align_corners=False)
        copies[index] = resized[0].round_()
    return copies


def _copy_at_once(
    images: torch.Tensor, top: np.ndarray, height: np.ndarray, left: np.ndarray, width: np.ndarray
) -> torch.Tensor:
    """The same, to rounding, many times faster for small images."""
    import torch
    from torch.nn.functional import grid_sample

    rows = _positions(top, height, images.shape[-2])
    columns = _positions(left, width, images.shape[-1])
    grid = np.stack(np.broadcast_arrays(columns[:, None, :], rows[:, :, None]), axis=-1)
    where = torch.from_numpy(grid.astype(np.float32)).to(images.device)
    copies = grid_sample(images.float(), where, mode="bilinear", padding_mode="border", align_corners=False)
    return copies.round_().to(torch.uint8)


def _positions(start: np.ndarray, length: np.ndarray, size: int) -> Float[np.ndarray, "images size"]:
    """Where the `size` pixels of a copy lie in the image, on grid_sample's scale: -1 and 1 are the image's edges.

    Copied is the part of `length` pixels from `start` on; no pixel outside of it has a share.
    """
    offsets = (np.arange(size) + 0.5) * (length[:, None] / size) - 0.5
    inside = start[:, None] + np.clip(offsets, 0, length[:, None] - 1)
    return (2 * inside + 1) / size - 1


@VIEWS.register("trivialaugment")
@dataclass(frozen=True, kw_only=True)
class TrivialAugment(RandomView):
    """One random operation at a random strength: TrivialAugment Wide. Mueller and Hutter 2021; thesis, section 5.1.

    Translations reach 32 pixels as in the paper, which may move a small image out of its frame.
    """

    def apply(self, images: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
        import torch

        return torch.stack([self._augment(image, seed) for image, seed in zip(images, seeds, strict=True)])

    def _augment(self, image: torch.Tensor, seed: int) -> torch.Tensor:
        import torch
        from torchvision.transforms.v2 import TrivialAugmentWide

        # torchvision draws from torch's global generator: lend it ours, in one thread at a time
        with _torch_seed_lock, torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return TrivialAugmentWide()(image)


def build_views(specs: Sequence[str]) -> list[View]:
    """The views that specs name; `crop*3` is three draws of a random view: crop#0, crop#1 and crop#2.

    Raises InputError: an unknown view, several draws of what does not draw, duplicates, or no identity at the front.
    """
    views = [view for spec in specs for view in _draws(spec)]
    labels = [view.label for view in views]
    if labels[:1] != ["identity"] or len(set(labels)) < len(labels):
        raise InputError(f"views={','.join(labels)} must be distinct and begin with identity")
    return views


def specs_of(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """The specs that `build_views` would make views of these records from."""
    counts: dict[str, int] = {}
    for record in records:
        name = record["name"].partition("#")[0]
        default = asdict(VIEWS.build(name))
        changed = [f":{key}={value}" for key, value in record.items() if key != "name" and default.get(key) != value]
        one = name + "".join(changed)
        counts[one] = counts.get(one, 0) + ("#" in record["name"])
    return [f"{one}*{count}" if count else one for one, count in counts.items()]


def _draws(spec: str) -> list[View]:
    one, star, count = spec.partition("*")
    view = VIEWS.build(one)
    if not star:
        return [view]
    if not isinstance(view, RandomView):
        raise InputError(f"view {spec!r}: {view.name} draws nothing at random, so there is only one of it")
    if not count.isdecimal() or int(count) < 1:
        raise InputError(f"view {spec!r}: write a number of draws after the star, such as {view.name}*3")
    return [replace(view, draw=draw) for draw in range(int(count))]


def uniform(seeds: Sequence[int], draws: int) -> Float[np.ndarray, "seeds draws"]:
    """Numbers in [0, 1), the same whatever the other seeds: SplitMix64. Steele, Lea and Flood 2014, Figure 14."""
    steps = np.arange(1, draws + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    bits = np.array(seeds, dtype=np.uint64)[:, None] + steps
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((bits ^ (bits >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53


def view_seed(base: int, label: str, image_id: str) -> int:
    """The seed of one view of one image, in [0, 2**63), from sha256: the same in every process and batch."""
    return int.from_bytes(hashlib.sha256(repr((base, label, image_id)).encode()).digest()[:8], "big") >> 1
