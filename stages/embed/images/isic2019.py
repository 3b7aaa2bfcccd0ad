"""ISIC 2019, skin lesions."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from cache.errors import InputError
from stages.embed.images.base import DATASETS, DOWNLOADS, DataSet, ImageSet
from stages.embed.images.download import Archive, damage_named, fetch, unpack
from stages.embed.images.folder import FolderImages, file_contents, in_test_fifth

_SITE = "https://isic-challenge-data.s3.amazonaws.com/2019"
IMAGES = Archive(f"{_SITE}/ISIC_2019_Training_Input.zip", None)
LABELS = Archive(f"{_SITE}/ISIC_2019_Training_GroundTruth.csv", None)
CLASSES = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC")
N_IMAGES = 25_331


@DATASETS.register("isic2019")
@dataclass(frozen=True, kw_only=True)
class Isic2019(DataSet):
    """25,331 dermatoscopic photos of many sizes, 8 classes of 51% to 1%. Tschandl 2018, Codella 2018, Combalia 2019.

    These are the challenge's training images: its test images have a ninth class that training has not. There being no
    official split of them, an image is "test" when the sha256 of its file name falls in the first fifth. Photos of one
    lesion may fall on both sides, which flatters the test accuracy.

    The publisher names no checksums: the archive's own CRC of each file, the number of images and the agreement of
    images and labels are checked instead. The id is the file name; once unpacked, the archive may be removed.
    """

    def open(self, root: Path = DOWNLOADS) -> ImageSet:
        folder = root / self.name
        top = folder / "ISIC_2019_Training_Input"
        table = fetch(LABELS, folder, self.name)
        if not top.is_dir():
            unpack(fetch(IMAGES, folder, self.name), top)
        with damage_named(table):
            ids, labels = _read(table)
        with damage_named(top):
            absent = set(ids) - {file.name for file in top.iterdir()}
            if absent:
                raise InputError(f"{len(absent)} of {len(ids)} images are missing, such as {min(absent)}")
        return FolderImages(
            ids=ids,
            labels=labels,
            split=["test" if in_test_fifth(image_id) else "train" for image_id in ids],
            class_names=CLASSES,
            contents=file_contents(top, ids),
            root=top,
        )


def _read(table: Path) -> tuple[list[str], Int[np.ndarray, "images"]]:
    """Ids and labels: the CSV has a row per image and a column of 0.0 or 1.0 per class."""
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    one_hot = np.array([[float(row[name]) for name in CLASSES] for row in rows])
    if len(rows) != N_IMAGES or not (one_hot.sum(axis=1) == 1).all():
        raise InputError(f"expected {N_IMAGES} rows with one class each, found {len(rows)} rows")
    return [f"{row['image']}.jpg" for row in rows], one_hot.argmax(axis=1).astype(np.int64)
