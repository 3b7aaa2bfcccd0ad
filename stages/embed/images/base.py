"""What a data set must offer: an ordered list of images, decoded one at a time."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Int, UInt8

from stages.registry import Registry

DATASETS = Registry("data set")
DOWNLOADS = Path("data/datasets")


@dataclass(frozen=True, kw_only=True)
class ImageSet(ABC):
    """The images of a data set in a fixed order.

    ids : unique and stable; the same image keeps its id when others are added
    labels : class index, or -1 where unknown
    split : "train" (the pool), "val" or "test", one per image
    class_names : one per class index
    digest : sha256 over ids, labels, split and every image's bytes
    flippable : whether a mirrored image keeps its meaning (digits: no)
    """

    ids: Sequence[str]
    labels: Int[np.ndarray, "images"]
    split: Sequence[str]
    class_names: tuple[str, ...]
    digest: str
    flippable: bool = True

    def __len__(self) -> int:
        return len(self.ids)

    @abstractmethod
    def load(self, index: int) -> UInt8[np.ndarray, "height width 3"]:
        """Decode one image to RGB. Raises UnreadableImageError naming the image."""


@dataclass(frozen=True, kw_only=True)
class DataSet(ABC):
    """A registered data set: its fields say which images, `open` finds them."""

    name: ClassVar[str]

    @cached_property
    def slug(self) -> str:
        """A folder name that tells this data set from every other."""
        return self.name

    @abstractmethod
    def open(self, root: Path = DOWNLOADS) -> ImageSet:
        """List the images.

        root : what is downloaded lies in `root / name`; DATA_ROOT/datasets. Data sets found elsewhere ignore it.
        Raises InputError when there are no images or they cannot be listed, DataUnavailableError when they are to be
        downloaded and cannot be.
        """
