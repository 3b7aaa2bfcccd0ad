"""Street View House Numbers."""

from dataclasses import dataclass
from pathlib import Path

from stages.embed.images.arrays import Part, array_images
from stages.embed.images.base import DATASETS, DOWNLOADS, DataSet, ImageSet
from stages.embed.images.download import Archive, damage_named, fetch


@DATASETS.register("svhn")
@dataclass(frozen=True, kw_only=True)
class Svhn(DataSet):
    """99,289 color photos of digits of 32x32 pixels, the official 73,257 for training. Netzer et al. 2011.

    The class of a digit is the digit. The 531,131 "extra" images are left out, as in the papers. Never mirrored: a
    mirrored 2 or 5 is no digit.
    """

    def open(self, root: Path = DOWNLOADS) -> ImageSet:
        from torchvision.datasets import SVHN

        folder, parts = root / self.name, {}
        for split in ("train", "test"):
            url, _, md5 = SVHN.split_list[split]
            file = fetch(Archive(url, md5), folder, self.name)
            with damage_named(file):
                images = SVHN(folder, split=split)
            parts[split] = Part(pixels=images.data.transpose(0, 2, 3, 1), labels=images.labels)
        return array_images(parts, tuple("0123456789"), flippable=False)
