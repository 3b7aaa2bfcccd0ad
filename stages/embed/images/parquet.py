"""Parquet files in the Hugging Face image layout."""

import hashlib
import json
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Int, UInt8

from cache.errors import InputError
from cache.files import digest_file
from stages.embed.images.base import DATASETS, DataSet, ImageSet
from stages.embed.images.decoding import decode
from stages.embed.images.folder import path_slug, user_path

SPLITS = ("train", "val", "test")


@DATASETS.register("parquet")
@dataclass(frozen=True, kw_only=True)
class Parquet(DataSet):
    """A folder with train*.parquet, val*.parquet and test*.parquet, or one Parquet file, all of it "train".

    Columns: `image` struct(bytes, path) and `label` integers (absent, null or -1: unlabeled). Class names come from
    the `huggingface` schema metadata, else they are the label numbers. The id is `<split>/<row number>`, rows counted
    through the files of a split in the order of their names.
    """

    argument: ClassVar[str] = "path"
    path: str

    @cached_property
    def slug(self) -> str:
        return path_slug("parquet", self.path)

    def open(self) -> ImageSet:
        files = _files_by_split(self.path)
        tables = [(split, _read(file)) for split, file in files]
        parts = [(split, _labels(table)) for split, table in tables]
        labels = np.concatenate([part for _, part in parts])
        split = [name for name, part in parts for _ in range(len(part))]
        if not split:
            raise InputError(f"there is no row in the Parquet files of {self.path!r}: write at least one image")
        return ParquetImages(
            ids=[f"{name}/{row:08d}" for name in SPLITS for row in range(split.count(name))],
            labels=labels,
            split=split,
            class_names=_class_names(tables[0][1], labels, self.path),
            digest=_digest(files),
            encoded=pa.chunked_array([chunk for _, table in tables for chunk in _encoded(table)], pa.binary()),
        )


@dataclass(frozen=True, kw_only=True)
class ParquetImages(ImageSet):
    """encoded : the bytes of every image file, an Arrow array."""

    encoded: pa.ChunkedArray

    def load(self, index: int) -> UInt8[np.ndarray, "height width 3"]:
        return decode(self.encoded[index].as_py() or b"", self.ids[index])


def _files_by_split(path: str) -> list[tuple[str, Path]]:
    """(split, file), in the order of SPLITS, then of the file names."""
    root = user_path(path)
    if not root.exists():
        raise InputError(f"there is no file or folder {path!r}: check the path in parquet:PATH")
    if root.is_file():
        return [("train", root)]
    found = sorted(file for file in root.glob("*.parquet") if not file.name.startswith("."))
    files = [(split, file) for split in SPLITS for file in found if file.name.startswith(split)]
    if not files:
        raise InputError(f"there is no train*.parquet, val*.parquet or test*.parquet in {path!r}: name the files so")
    ignored = [file.name for file in found if not file.name.startswith(SPLITS)]
    if ignored:
        warnings.warn(f"{path!r}: ignored, as their names begin with no split: {', '.join(ignored)}", stacklevel=2)
    return files


def _read(file: Path) -> pa.Table:
    """The columns `image` and, where there is one, `label`."""
    try:
        with pq.ParquetFile(file) as parquet:
            _check(parquet.schema_arrow, str(file))
            return parquet.read(columns=[name for name in ("image", "label") if name in parquet.schema_arrow.names])
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{str(file)!r} cannot be read as Parquet: {reason}") from error


def _check(schema: pa.Schema, file: str) -> None:
    if "image" not in schema.names:
        columns = ", ".join(schema.names) or "none"
        raise InputError(f"{file!r} has no column 'image' (it has: {columns}): it must be struct(bytes, path)")
    image = schema.field("image").type
    if not pa.types.is_struct(image) or image.get_field_index("bytes") < 0:
        raise InputError(f"the column 'image' of {file!r} is {image}: it must be struct(bytes, path)")
    if "label" in schema.names and not pa.types.is_integer(schema.field("label").type):
        raise InputError(f"the column 'label' of {file!r} is {schema.field('label').type}: it must hold integers")


def _labels(table: pa.Table) -> Int[np.ndarray, "rows"]:
    if "label" not in table.column_names:
        return np.full(len(table), -1, dtype=np.int64)
    return pc.fill_null(table["label"].cast(pa.int64()), -1).to_numpy()


def _encoded(table: pa.Table) -> list[pa.Array]:
    return pc.struct_field(table["image"], "bytes").cast(pa.binary()).chunks


def _class_names(table: pa.Table, labels: Int[np.ndarray, "images"], path: str) -> tuple[str, ...]:
    """ClassLabel names of the metadata, else the numbers. Raises InputError when a label has no name."""
    highest = int(labels.max(initial=-1))
    metadata: dict[str, Any] = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
    feature = metadata.get("info", {}).get("features", {}).get("label", {})
    names = feature.get("names") or [str(index) for index in range(highest + 1)]
    if highest >= len(names) or labels.min(initial=-1) < -1:
        found = f"{labels.min()} to {highest}"
        raise InputError(f"the labels in {path!r} run from {found}: expected -1 to {len(names) - 1}")
    return tuple(names)


def _digest(files: list[tuple[str, Path]]) -> str:
    """sha256 over the split and the content of every file; the rows of a file are its ids and labels."""
    whole = hashlib.sha256()
    for split, file in files:
        whole.update(f"{split} {digest_file(file)}\n".encode())
    return whole.hexdigest()
