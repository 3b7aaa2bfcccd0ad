"""The data sets, one module each: the names that `DATASET=` takes."""

from stages.embed.images import (
    cifar10,
    cifar100,
    digits,
    fashion_mnist,
    folder,
    isic2019,
    parquet,
    svhn,
    tiny_imagenet,
)
from stages.embed.images.base import DATASETS, DataSet, ImageSet

__all__ = [
    "DATASETS",
    "DataSet",
    "ImageSet",
    "cifar10",
    "cifar100",
    "digits",
    "fashion_mnist",
    "folder",
    "isic2019",
    "parquet",
    "svhn",
    "tiny_imagenet",
]
