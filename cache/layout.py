"""How a feature cache lies on disk: its arrays, its records, and what they add up to.

    <root>/<data set>/<backbone's full name>/<key>/
        identity.json      everything that changes a value; its digest is the key; written first
        features/          (n_images, n_views, dim) float16; a Zarr shard holds some images with all their views
        ids/ labels/ split/ contents/
        records/00000.json digest and unreadable images of a shard, written when the shard stands
        manifest.json      written last: its existence says that the cache is complete

Nothing in it depends on when or in how many sittings it was written, so a resumed cache equals an uninterrupted
one byte for byte.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import zarr

from cache.errors import CacheIncompleteError, CacheMismatchError
from cache.files import digest_json
from cache.location import Location, zarr_node

FORMAT = 3
"""Raise it when a view, a preprocessing or a file changes what it holds: older caches are then not used."""


def content_digest(path: Location, records: Sequence[Mapping[str, Any]]) -> str:
    columns = [read_array(path, name) for name in ("ids", "labels", "split", "contents")]
    return digest_json([[str(value) for value in column] for column in columns] + [dict(record) for record in records])


def holds(path: Location, name: str, column: np.ndarray) -> bool:
    """Whether an array is on disk with these values."""
    try:
        return np.array_equal(read_array(path, name), column)
    except CacheMismatchError:
        return False


def record_path(path: Location, shard: int) -> Location:
    return path / "records" / f"{shard:05d}.json"


def read_records(path: Location, n_shards: int) -> list[dict[str, Any]]:
    """Every shard's record. Raises CacheIncompleteError when one is missing."""
    records = [read_json(record_path(path, shard)) for shard in range(n_shards)]
    missing = [shard for shard, record in enumerate(records) if "digest" not in record]
    if missing:
        raise CacheIncompleteError(f"{len(missing)} of {n_shards} shards of {path} are missing")
    return records


def read_json(path: Location) -> dict[str, Any]:
    """A JSON object, or an empty one where there is none to be read."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def read_array(path: Location, name: str, rows: slice = slice(None)) -> np.ndarray:
    """Values of an array. Raises CacheMismatchError where they cannot be decoded."""
    try:
        return np.asarray(open_array(path, name)[rows])
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise CacheMismatchError(f"the array {name!r} of {path} is damaged") from error


def open_array(path: Location, name: str) -> zarr.Array:
    try:
        return zarr.open_array(zarr_node(path / name), mode="r+" if name == "features" else "r", zarr_format=3)
    except (OSError, ValueError, KeyError) as error:
        raise CacheMismatchError(f"the cache {path} has lost its array {name!r}: remove that folder") from error
