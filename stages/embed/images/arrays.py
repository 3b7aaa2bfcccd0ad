"""Data sets small enough to be held decoded, as arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, UInt8

from cache.files import digest_array
from stages.embed.images.base import ImageSet


@dataclass(frozen=True, kw_only=True)
class ArrayImages(ImageSet):
    """pixels : all images; gray ones have no last axis."""

    pixels: UInt8[np.ndarray, "images height width *channels"]

    def load(self, index: int) -> UInt8[np.ndarray, "height width 3"]:
        return self.load_many([index])[0]

    def load_many(self, indices: Sequence[int]) -> UInt8[np.ndarray, "images height width 3"]:
        """Several images in one step."""
        images = self.pixels[np.asarray(indices)]
        return images if images.ndim == 4 else np.repeat(images[..., None], 3, axis=3)


@dataclass(frozen=True, kw_only=True)
class Part:
    """One split of a data set, in its published order."""

    pixels: UInt8[np.ndarray, "images height width *channels"]
    labels: Int[np.ndarray, "images"]


def array_images(parts: Mapping[str, Part], class_names: tuple[str, ...], flippable: bool) -> ArrayImages:
    """The images of some splits, one after the other. The id is `<split>/<position in the split>`."""
    ids = [f"{split}/{index:08d}" for split, part in parts.items() for index in range(len(part.labels))]
    split = [name for name, part in parts.items() for _ in range(len(part.labels))]
    labels = np.concatenate([part.labels for part in parts.values()]).astype(np.int64)
    shapes = [part.pixels.shape[1:] for part in parts.values()]
    pixels = np.empty((len(labels), *shapes[0]), dtype=np.uint8)  # contiguous, whatever order the files have
    np.concatenate([part.pixels for part in parts.values()], out=pixels)
    return ArrayImages(
        ids=ids,
        labels=labels,
        split=split,
        class_names=class_names,
        contents=[digest_array(image) for image in pixels],
        flippable=flippable,
        pixels=pixels,
    )
