"""The data sets, one module each: the names that `DATASET=` takes."""

from stages.embed.images import digits, folder, parquet
from stages.embed.images.base import DATASETS, DataSet, ImageSet

__all__ = ["DATASETS", "DataSet", "ImageSet", "digits", "folder", "parquet"]
