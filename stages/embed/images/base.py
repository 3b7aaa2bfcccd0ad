"""What a data set must offer: an ordered list of images, decoded one at a time."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Int, UInt8

from cache.files import digest_json
from stages.registry import Registry

DATASETS = Registry("data set")
DOWNLOADS = Path("data/datasets")
_IMAGES_PER_TASK = 64


@dataclass(frozen=True, kw_only=True)
class ImageSet(ABC):
    """The images of a data set in a fixed order.

    ids : unique and stable; the same image keeps its id when others are added
    labels : class index, or -1 where unknown
    split : "train" (the pool), "val" or "test", one per image
    class_names : one per class index
    contents : sha256 of every image's own bytes, that of its file or of its pixels; UNREADABLE where there are none
    flippable : whether a mirrored image keeps its meaning (digits: no)
    """

    ids: Sequence[str]
    labels: Int[np.ndarray, "images"]
    split: Sequence[str]
    class_names: tuple[str, ...]
    contents: Sequence[str]
    flippable: bool = True

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def digest(self) -> str:
        """sha256 over ids, labels, split, class names and contents: equal where every image and its place are."""
        labels = self.labels.tolist()
        return digest_json([list(self.ids), labels, list(self.split), self.class_names, list(self.contents)])

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


def digest_each(n: int, digest: Callable[[int], str]) -> list[str]:
    """`digest` of 0 to n - 1, in order, in threads: hashlib lets them run at once."""
    tasks = [range(start, min(start + _IMAGES_PER_TASK, n)) for start in range(0, n, _IMAGES_PER_TASK)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        done = pool.map(lambda task: [digest(index) for index in task], tasks)
        return [content for contents in done for content in contents]
