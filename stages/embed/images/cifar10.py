"""CIFAR-10, and what it shares with CIFAR-100."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stages.embed.images.arrays import Part, array_images
from stages.embed.images.base import DATASETS, DOWNLOADS, DataSet, ImageSet
from stages.embed.images.download import Archive, damage_named, fetch, unpack

if TYPE_CHECKING:
    from torchvision.datasets import CIFAR10


@DATASETS.register("cifar10")
@dataclass(frozen=True, kw_only=True)
class Cifar10(DataSet):
    """60,000 color photos of 32x32 pixels, 10 classes, the official 50,000 for training. Krizhevsky 2009."""

    def open(self, root: Path = DOWNLOADS) -> ImageSet:
        from torchvision.datasets import CIFAR10

        return open_cifar(CIFAR10, root / self.name)


def open_cifar(loader: type[CIFAR10], folder: Path) -> ImageSet:
    """The images by torchvision's loader, which checks every file against its published checksum.

    folder : holds the archive or the folder in it (cifar-10-batches-py, cifar-100-python); once unpacked, the archive
        may be removed
    """
    unpacked = folder / loader.base_folder
    if not unpacked.is_dir():
        unpack(fetch(Archive(loader.url, loader.tgz_md5), folder, folder.name), unpacked)
    with damage_named(unpacked), warnings.catch_warnings():
        # the published pickles were written by a NumPy whose dtypes NumPy 2.4 frowns at
        warnings.filterwarnings("ignore", message=r"dtype\(\): align")
        loaded = {split: loader(folder, train=split == "train") for split in ("train", "test")}
    parts = {split: Part(pixels=part.data, labels=np.array(part.targets)) for split, part in loaded.items()}
    return array_images(parts, tuple(loaded["train"].classes), flippable=True)
