"""Tiny ImageNet."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cache.errors import InputError
from stages.embed.images.base import DATASETS, DOWNLOADS, DataSet, ImageSet
from stages.embed.images.download import Archive, damage_named, fetch, unpack
from stages.embed.images.folder import FolderImages, file_contents

ARCHIVE = Archive("http://cs231n.stanford.edu/tiny-imagenet-200.zip", "90528d7ca1a48142e341f4ef8d21d0de")
N_IMAGES = 110_000


@DATASETS.register("tiny_imagenet")
@dataclass(frozen=True, kw_only=True)
class TinyImageNet(DataSet):
    """110,000 color photos of 64x64 pixels, 200 classes, 500 of each for training. Le and Yang 2015 (Stanford CS231n).

    The published validation images (50 of each class) are "test", as the published test images have no labels. Classes
    are in the order of their WordNet ids and named by the first word of words.txt, with the id where two share it. The
    id is the path in the archive; once unpacked, the archive may be removed.
    """

    def open(self, root: Path = DOWNLOADS) -> ImageSet:
        top = root / self.name / "tiny-imagenet-200"
        if not top.is_dir():
            unpack(fetch(ARCHIVE, root / self.name, self.name), top)
        with damage_named(top):
            classes = sorted(folder.name for folder in (top / "train").iterdir() if folder.is_dir())
            listed = [*_train(top, classes), *_annotated(top)]
            if len(listed) != N_IMAGES:
                raise InputError(f"expected {N_IMAGES} images, found {len(listed)}")
            index_of = {name: index for index, name in enumerate(classes)}
            labels = np.array([index_of[name] for _, name, _ in listed], dtype=np.int64)
        ids, _, split = (list(column) for column in zip(*listed, strict=True))
        return FolderImages(
            ids=ids,
            labels=labels,
            split=split,
            class_names=_class_names(top / "words.txt", classes),
            contents=file_contents(top, ids),
            root=top,
        )


def _train(top: Path, classes: list[str]) -> Iterator[tuple[str, str, str]]:
    """(id, class, split) of the training images."""
    for name in classes:
        for file in sorted((top / "train" / name / "images").iterdir()):
            yield f"train/{name}/images/{file.name}", name, "train"


def _annotated(top: Path) -> Iterator[tuple[str, str, str]]:
    """(id, class, split) of the published validation images."""
    for line in (top / "val" / "val_annotations.txt").read_text().splitlines():
        file, name = line.split("\t")[:2]
        yield f"val/images/{file}", name, "test"


def _class_names(words: Path, classes: list[str]) -> tuple[str, ...]:
    lines = words.read_text().splitlines() if words.is_file() else []
    first = {wordnet: text.partition(",")[0] for wordnet, _, text in (line.partition("\t") for line in lines)}
    names = [first.get(wordnet, wordnet) for wordnet in classes]
    return tuple(
        name if names.count(name) == 1 else f"{name} ({wordnet})" for name, wordnet in zip(names, classes, strict=True)
    )
