"""FashionMNIST."""

from dataclasses import dataclass
from pathlib import Path

from stages.embed.images.arrays import Part, array_images
from stages.embed.images.base import DATASETS, DOWNLOADS, DataSet, ImageSet
from stages.embed.images.download import Archive, damage_named, fetch, unpack


@DATASETS.register("fashion_mnist")
@dataclass(frozen=True, kw_only=True)
class FashionMnist(DataSet):
    """70,000 gray pictures of clothes of 28x28 pixels, 10 classes, the official 60,000 for training. Xiao et al. 2017.

    A mirrored garment is the same garment, so these images may be mirrored.
    """

    def open(self, root: Path = DOWNLOADS) -> ImageSet:
        from torchvision.datasets import FashionMNIST

        raw = root / self.name / "FashionMNIST" / "raw"  # where torchvision's loader looks
        for name, md5 in FashionMNIST.resources:
            unpacked = raw / name.removesuffix(".gz")
            if not unpacked.is_file():
                unpack(fetch(Archive(FashionMNIST.mirrors[0] + name, md5), raw, self.name), unpacked)
        with damage_named(raw):
            loaded = {split: FashionMNIST(root / self.name, train=split == "train") for split in ("train", "test")}
            parts = {
                split: Part(pixels=images.data.numpy(), labels=images.targets.numpy())
                for split, images in loaded.items()
            }
        return array_images(parts, tuple(FashionMNIST.classes), flippable=True)
