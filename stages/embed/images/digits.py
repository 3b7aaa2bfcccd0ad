"""The handwritten digits that scikit-learn brings along: the data set that needs no network."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from cache.files import digest_array
from stages.embed.images.arrays import ArrayImages
from stages.embed.images.base import DATASETS, DOWNLOADS, DataSet, ImageSet

_SPLIT_SEED = 0
_TEST_FRACTION = 0.2


@DATASETS.register("digits")
@dataclass(frozen=True, kw_only=True)
class Digits(DataSet):
    """1,797 gray 8x8 images, values 0..16 stretched to 0..255. Alpaydin and Kaynak 1998 (UCI, the test part).

    The data has no official split: a permutation by NumPy's generator with seed 0 makes the first fifth (359) "test".
    """

    def open(self, root: Path = DOWNLOADS) -> ImageSet:
        bunch = load_digits()
        pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
        labels = bunch.target.astype(np.int64)
        split = np.full(len(pixels), "train", dtype=object)
        split[np.random.default_rng(_SPLIT_SEED).permutation(len(pixels))[: int(_TEST_FRACTION * len(pixels))]] = "test"
        ids = [f"{index:04d}" for index in range(len(pixels))]
        return ArrayImages(
            ids=ids,
            labels=labels,
            split=split.tolist(),
            class_names=tuple(str(digit) for digit in range(10)),
            contents=[digest_array(image) for image in pixels],
            flippable=False,
            pixels=pixels,
        )
