"""CIFAR-100."""

from dataclasses import dataclass
from pathlib import Path

from stages.embed.images.base import DATASETS, DOWNLOADS, DataSet, ImageSet
from stages.embed.images.cifar10 import open_cifar


@DATASETS.register("cifar100")
@dataclass(frozen=True, kw_only=True)
class Cifar100(DataSet):
    """60,000 color photos of 32x32 pixels, 100 fine classes, the official 50,000 for training. Krizhevsky 2009."""

    def open(self, root: Path = DOWNLOADS) -> ImageSet:
        from torchvision.datasets import CIFAR100

        return open_cifar(CIFAR100, root / self.name)
