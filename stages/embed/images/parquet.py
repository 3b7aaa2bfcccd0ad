"""Parquet files in the Hugging Face image layout."""

import difflib
import hashlib
import json
import re
import warnings
from collections.abc import Mapping
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
from stages.embed.images.base import DATASETS, DOWNLOADS, DataSet, ImageSet, digest_each
from stages.embed.images.decoding import decode
from stages.embed.images.folder import path_slug, user_path

SPLITS = ("train", "val", "test")
_NAMES = b"class names"


@DATASETS.register("parquet")
@dataclass(frozen=True, kw_only=True)
class Parquet(DataSet):
    """A folder with train*.parquet, val*.parquet and test*.parquet, or one Parquet file, all of it "train".

    Columns: images, struct(bytes, path) or the bytes of image files, and labels, integers (null or -1: unlabeled) or
    text. They are `image` and `label`, else the only ones that the `huggingface` schema metadata calls an Image and a
    ClassLabel; others are chosen by name: parquet:PATH?label=coarse_label or parquet:PATH?image=photo&label=kind.
    Without labels every image is unlabeled. Class names come from the metadata, else they are the label numbers or the
    texts in order. The id is `<split>/<row number>`, rows counted through the files of a split in the order of their
    names.
    """

    argument: ClassVar[str] = "path"
    path: str

    @cached_property
    def slug(self) -> str:
        path, chosen = _choices(self.path)
        choice = "?" + "&".join(f"{kind}={chosen[kind]}" for kind in sorted(chosen)) if chosen else ""
        return path_slug("parquet", f"{user_path(path).resolve()}{choice}")

    def open(self, root: Path = DOWNLOADS) -> ImageSet:
        path, chosen = _choices(self.path)
        tables = [(split, _read(file, chosen)) for split, file in _files_by_split(path)]
        split = [name for name, table in tables for _ in range(len(table))]
        if not split:
            raise InputError(f"there is no row in the Parquet files of {path!r}: write at least one image")
        labels, class_names = _labels([table for _, table in tables], path)
        encoded = pa.chunked_array([chunk for _, table in tables for chunk in _encoded(table)], pa.binary())
        return ParquetImages(
            ids=[f"{name}/{row:08d}" for name in SPLITS for row in range(split.count(name))],
            labels=labels,
            split=split,
            class_names=class_names,
            contents=digest_each(len(encoded), lambda row: hashlib.sha256(_file(encoded, row)).hexdigest()),
            encoded=encoded,
        )


@dataclass(frozen=True, kw_only=True)
class ParquetImages(ImageSet):
    """encoded : the bytes of every image file, an Arrow array."""

    encoded: pa.ChunkedArray

    def load(self, index: int) -> UInt8[np.ndarray, "height width 3"]:
        return decode(_file(self.encoded, index), self.ids[index])


def _file(encoded: pa.ChunkedArray, row: int) -> bytes:
    """The bytes of an image file; of a missing one, none."""
    return encoded[row].as_py() or b""


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


def _choices(argument: str) -> tuple[str, dict[str, str]]:
    """The path, and the columns chosen after a question mark: of "image" and "label" those that are."""
    found = re.fullmatch(r"(.*?)\?((?:image|label)=.*)", argument, flags=re.DOTALL)
    if not found:
        return argument, {}
    chosen = dict(part.partition("=")[::2] for part in found[2].split("&"))
    if not set(chosen) <= {"image", "label"} or not all(chosen.values()):
        raise InputError(f"{found[2]!r} names no columns: write parquet:PATH?image=COLUMN&label=COLUMN, or one of them")
    return found[1], chosen


def _read(file: Path, chosen: Mapping[str, str]) -> pa.Table:
    """The images as column `image` and, where there are any, the labels as column `label`, with their metadata."""
    try:
        with pq.ParquetFile(file) as parquet:
            schema = parquet.schema_arrow
            image, label = _image_column(schema, str(file), chosen), _label_column(schema, str(file), chosen)
            columns = [image] if label is None else [image, label]
            table = parquet.read(columns=columns).select(columns).rename_columns(["image", "label"][: len(columns)])
            names = [] if label is None else _features(schema).get(label, {}).get("names") or []
            return table.replace_schema_metadata({_NAMES: json.dumps(names)})
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{str(file)!r} cannot be read as Parquet: {reason}") from error


def _features(schema: pa.Schema) -> dict[str, Any]:
    """What the `huggingface` metadata says of each column."""
    metadata: dict[str, Any] = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features: dict[str, Any] = metadata.get("info", {}).get("features", {})
    return {name: feature for name, feature in features.items() if isinstance(feature, dict)}


def _column(schema: pa.Schema, file: str, chosen: Mapping[str, str], kind: str, feature_type: str) -> str | None:
    """The column chosen, else the one named after its kind, else the only one of that feature type.

    Raises InputError: no such column, or several to choose from.
    """
    if kind in chosen and chosen[kind] not in schema.names:
        near = difflib.get_close_matches(chosen[kind], schema.names, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise InputError(f"{file!r} has no column {chosen[kind]!r}: {hint}It has: {', '.join(schema.names) or 'none'}")
    if kind in chosen or kind in schema.names:
        return chosen.get(kind, kind)
    typed = [name for name, feature in _features(schema).items() if feature.get("_type") == feature_type]
    typed = [name for name in typed if name in schema.names]
    if len(typed) > 1:
        raise InputError(f"{file!r} has several {kind} columns: choose one of {_options(kind, typed)}")
    return typed[0] if typed else None


def _options(kind: str, names: list[str]) -> str:
    return ", ".join(f"parquet:PATH?{kind}={name}" for name in names)


def _image_column(schema: pa.Schema, file: str, chosen: Mapping[str, str]) -> str:
    name = _column(schema, file, chosen, "image", "Image")
    if name is None:
        columns = ", ".join(schema.names) or "none"
        raise InputError(f"{file!r} has no column 'image' (it has: {columns}): choose with parquet:PATH?image=COLUMN")
    kind = schema.field(name).type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise InputError(
            f"the column {name!r} of {file!r} is {schema.field(name).type}: it must be struct(bytes, path) or binary"
        )
    return name


def _label_column(schema: pa.Schema, file: str, chosen: Mapping[str, str]) -> str | None:
    name = _column(schema, file, chosen, "label", "ClassLabel")
    if name is not None and not (pa.types.is_integer(schema.field(name).type) or _is_text(schema.field(name).type)):
        raise InputError(f"the column {name!r} of {file!r} is {schema.field(name).type}: it must be integers or text")
    return name


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _encoded(table: pa.Table) -> list[pa.Array]:
    column = table["image"]
    content = pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column
    return content.cast(pa.binary()).chunks


def _labels(tables: list[pa.Table], path: str) -> tuple[Int[np.ndarray, "images"], tuple[str, ...]]:
    """Labels of all rows and class names. Raises InputError when a label has no name or files differ in kind."""
    columns = [table["label"] if "label" in table.column_names else None for table in tables]
    texts = [column is not None and _is_text(column.type) for column in columns]
    if any(texts):
        return _text_labels(columns, path)
    numbers = [_numbers(column, len(table)) for column, table in zip(columns, tables, strict=True)]
    labels = np.concatenate(numbers)
    highest = int(labels.max(initial=-1))
    names = json.loads(tables[0].schema.metadata[_NAMES]) or [str(index) for index in range(highest + 1)]
    if highest >= len(names) or labels.min(initial=-1) < -1:
        found = f"{labels.min()} to {highest}"
        raise InputError(f"the labels in {path!r} run from {found}: expected -1 to {len(names) - 1}")
    return labels, tuple(names)


def _numbers(column: pa.ChunkedArray | None, rows: int) -> Int[np.ndarray, "rows"]:
    if column is None:
        return np.full(rows, -1, dtype=np.int64)
    return pc.fill_null(column.cast(pa.int64()), -1).to_numpy()


def _text_labels(columns: list[pa.ChunkedArray | None], path: str) -> tuple[Int[np.ndarray, "images"], tuple[str, ...]]:
    """Every text is a class, null is unlabeled."""
    if not all(column is not None and _is_text(column.type) for column in columns):
        raise InputError(f"the labels in {path!r} are text in one file and not in another: write one kind")
    texts = [text for column in columns if column is not None for text in column.to_pylist()]
    names = sorted({text for text in texts if text is not None})
    index_of: dict[str | None, int] = {name: index for index, name in enumerate(names)}
    return np.array([index_of.get(text, -1) for text in texts], dtype=np.int64), tuple(names)
