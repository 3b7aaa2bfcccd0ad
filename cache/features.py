"""The feature cache, one Zarr group per data set x backbone x key: its identity, its writer, its reader."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import zarr
from jaxtyping import Bool, Float, Int
from zarr.errors import ContainsArrayError

from cache.errors import CacheError, CacheIncompleteError, CacheMismatchError, InputError
from cache.files import PARTIAL, digest_array, digest_json, remove, touch, write_json
from cache.layout import FORMAT, content_digest, holds, open_array, read_array, read_json, read_records, record_path
from cache.location import Location, files_under, zarr_node
from cache.locks import Lock

CHUNK_IMAGES = 256
SHARD_IMAGES = 1024
LARGEST_ROUNDING = 0.014
"""Of a feature's norm: it keeps the cosine between what is stored and what was computed above 0.9999."""
NOTHING = 1e-4
"""Of the largest norm of a shard: smaller features, such as an evenly gray image's, have no direction to keep."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Everything that changes a value of the cache.

    backbone, parameters : the registered name and its hyperparameters; full_name : `<arch>.<weights>`
    weights : where they come from, as the user asked: "" for the backbone's own, "random", or a file's name
    weights_digest, dataset_digest : sha256; preprocessing, views : their records
    precision, dtype : of the network's pass, and as stored
    """

    dataset: str
    dataset_digest: str
    backbone: str
    parameters: Mapping[str, Any]
    full_name: str
    weights: str
    weights_digest: str
    preprocessing: Mapping[str, Any]
    views: Sequence[Mapping[str, Any]]
    view_seed: int
    precision: str = "float32"
    dtype: str = "float16"
    format: int = FORMAT

    @cached_property
    def key(self) -> str:
        return digest_json(asdict(self))[:16]

    def folder(self, root: Location) -> Location:
        return root / self.dataset / self.full_name / self.key


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The images of a cache, in order.

    labels : class index or -1; split : train, val or test; contents : sha256 of the image's own bytes, or UNREADABLE
    """

    ids: Sequence[str]
    labels: Int[np.ndarray, "images"]
    split: Sequence[str]
    contents: Sequence[str]
    class_names: Sequence[str]


class FeatureWriter:
    """Writes one cache, shard by shard, in any order and any number of sittings."""

    def __init__(
        self, root: Location, identity: Identity, listing: Listing, dim: int, shard_images: int = SHARD_IMAGES
    ) -> None:
        """Begin the cache, or go on with one that was begun. Finished shards are kept if they are what they say."""
        self.path = identity.folder(root)
        self._identity, self._listing = identity, listing
        self._shape = (len(listing.ids), len(identity.views), dim)
        self._shard_images = shard_images
        self._lock = Lock(self.path.with_name(f"{self.path.name}.lock"))
        if not self._begun:
            with self._lock.alone():
                if not self._begun:
                    self._create()
        self._lock.share()
        self._features = open_array(self.path, "features")
        if self._features.shape != self._shape:
            raise CacheMismatchError(
                f"the cache {self.path} holds features of shape {self._features.shape}, expected {self._shape}: "
                f"remove that folder and run the same command again"
            )

    def close(self) -> None:
        """Be no longer at work: another writer may clear what was left half-written."""
        self._lock.release()

    @property
    def _begun(self) -> bool:
        return (self.path / "identity.json").exists() and (self.path / "features" / "zarr.json").exists()

    def _create(self) -> None:
        group = zarr.open_group(zarr_node(self.path), mode="a", zarr_format=3)
        chunk = min(CHUNK_IMAGES, self._shard_images)
        with suppress(ContainsArrayError):  # never overwritten: where nothing locks, another writer may be ahead
            group.create_array(
                "features",
                shape=self._shape,
                dtype=self._identity.dtype,
                chunks=(chunk, 1, self._shape[2]),
                shards=(-(-self._shard_images // chunk) * chunk, self._shape[1], self._shape[2]),
                fill_value=0,
            )
        self._write_listing()
        write_json(self.path / "identity.json", asdict(self._identity))

    def _columns(self) -> dict[str, np.ndarray]:
        text = np.dtypes.StringDType()
        return {
            "ids": np.array(self._listing.ids, dtype=text),
            "labels": np.asarray(self._listing.labels, dtype=np.int64),
            "split": np.array(self._listing.split, dtype=text),
            "contents": np.array(self._listing.contents, dtype=text),
        }

    def _write_listing(self) -> None:
        """Ids, labels, split and contents, where they are not on disk as they should be."""
        group = zarr.open_group(zarr_node(self.path), mode="a", zarr_format=3)
        for name, column in self._columns().items():
            if not holds(self.path, name, column):
                group.create_array(name, data=column, overwrite=True)

    @property
    def complete(self) -> bool:
        """Whether the cache is finished and its record holds."""
        try:
            return bool(FeatureCache(self.path, fix=""))
        except CacheError:
            return False

    def rows(self, shard: int) -> range:
        """The images of a shard."""
        step = self._features.shards[0]  # type: ignore[index]
        return range(shard * step, min((shard + 1) * step, self._shape[0]))

    @property
    def n_shards(self) -> int:
        return -(-self._shape[0] // self._features.shards[0])  # type: ignore[index]

    def pending(self) -> list[int]:
        """The shards still to be embedded: no record, or values that contradict it."""
        return [shard for shard in range(self.n_shards) if not self.stands(shard)]

    def stands(self, shard: int) -> bool:
        """Whether somebody has written the shard, and it is what its record says."""
        try:
            record = json.loads(record_path(self.path, shard).read_text())
            rows = self.rows(shard)
            values = read_array(self.path, "features", slice(rows.start, rows.stop))
            return bool(record["digest"] == digest_array(values))
        except (OSError, ValueError, KeyError, TypeError, CacheMismatchError):
            return False

    def write(
        self, shard: int, features: Float[np.ndarray, "rows views dim"], unreadable: Mapping[int, str] | None = None
    ) -> None:
        """Store one shard, then its record. unreadable : row in the cache -> why; their features are zero.

        Raises InputError naming the image when a feature is not finite, or too large or small for the cache's dtype.
        """
        rows = self.rows(shard)
        with np.errstate(over="ignore", under="ignore"):
            block = features.astype(self._identity.dtype)
        self._refuse(rows, ~np.isfinite(block).all(axis=(1, 2)), "not finite")
        exact = features.astype(np.float64)
        norm = np.linalg.norm(exact, axis=2)
        bent = np.linalg.norm(exact - block, axis=2) > LARGEST_ROUNDING * norm
        self._refuse(rows, (bent & (norm > NOTHING * norm.max())).any(axis=1), "too small")
        chunk = self._features.metadata.encode_chunk_key((shard, 0, 0))
        remove(self.path / "features" / chunk)  # the last shard is merged with what is there, else
        self._features[rows.start : rows.stop] = block
        reasons = {str(row): reason for row, reason in sorted((unreadable or {}).items())}
        write_json(record_path(self.path, shard), {"digest": digest_array(block), "unreadable": reasons})

    def _refuse(self, rows: range, bad: Bool[np.ndarray, "rows"], what: str) -> None:
        if bad.any():
            image = self._listing.ids[rows[int(np.flatnonzero(bad)[0])]]
            raise InputError(
                f"the features of image {image!r} are {what} in {self._identity.dtype} "
                f"({bad.sum()} such images in this shard): check the weights of {self._identity.full_name}"
            )

    def mark_current(self) -> None:
        """Make this the newest of its kind: the one that `find_cache` takes when the data set has changed."""
        touch(self.path / "identity.json")

    def unreadable(self) -> dict[str, str]:
        """Images of the written shards whose features are missing: id -> why."""
        records = [read_json(record_path(self.path, shard)).get("unreadable", {}) for shard in range(self.n_shards)]
        return {self._listing.ids[int(row)]: why for record in records for row, why in record.items()}

    def finish(self) -> None:
        """Write the manifest. Raises CacheIncompleteError when shards are missing, CacheMismatchError when the array
        has been removed meanwhile."""
        open_array(self.path, "features")
        records = read_records(self.path, self.n_shards)
        self._clear_leftovers()
        self._write_listing()
        manifest = {
            "format": FORMAT,
            "key": self._identity.key,
            "identity": asdict(self._identity),
            "shape": list(self._shape),
            "class_names": list(self._listing.class_names),
            "unreadable": {row: why for record in records for row, why in record["unreadable"].items()},
            "content": content_digest(self.path, records),
        }
        write_json(self.path / "identity.json", asdict(self._identity))
        write_json(self.path / "manifest.json", {**manifest, "digest": digest_json(manifest)})

    def _clear_leftovers(self) -> None:
        """Remove what killed writers left half-written, unless another writer is at work; the last one does it."""
        self.close()
        if self._lock.try_alone():
            for name in files_under(self.path):
                if name.endswith(PARTIAL):
                    (self.path / name).unlink()
            self._lock.release()


@dataclass(frozen=True)
class FeatureCache:
    """A finished cache, checked against its manifest when opened.

    fix : the command that makes or mends it, for messages
    Raises CacheIncompleteError, CacheMismatchError.
    """

    path: Location
    fix: str
    manifest: dict[str, Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "manifest", _verified_manifest(self.path, self.fix))

    @property
    def key(self) -> str:
        return str(self.manifest["key"])

    @property
    def identity(self) -> dict[str, Any]:
        return dict(self.manifest["identity"])

    @property
    def class_names(self) -> list[str]:
        return list(self.manifest["class_names"])

    @property
    def unreadable(self) -> dict[int, str]:
        """Rows whose image could not be decoded, with the reason."""
        return {int(row): why for row, why in self.manifest["unreadable"].items()}

    @cached_property
    def ids(self) -> np.ndarray:
        return read_array(self.path, "ids").astype(object)

    @cached_property
    def labels(self) -> Int[np.ndarray, "images"]:
        return read_array(self.path, "labels")

    @cached_property
    def split(self) -> np.ndarray:
        return read_array(self.path, "split").astype(object)

    @cached_property
    def contents(self) -> np.ndarray:
        return read_array(self.path, "contents").astype(object)

    @cached_property
    def readable(self) -> Bool[np.ndarray, "images"]:
        """Images whose features are real."""
        mask = np.ones(self.manifest["shape"][0], dtype=bool)
        mask[list(self.unreadable)] = False
        return mask

    def features(self) -> Float[np.ndarray, "images views dim"]:
        """All features. Raises CacheMismatchError when the values contradict a shard's record."""
        array = np.empty(self.manifest["shape"], dtype=self.manifest["identity"]["dtype"])
        for rows, block in self.blocks():
            array[rows] = block
        return array

    def blocks(self) -> Iterator[tuple[slice, Float[np.ndarray, "rows views dim"]]]:
        """Shard by shard, each checked against its record. Raises CacheMismatchError."""
        n, step = self.manifest["shape"][0], self.shard_images
        for shard in range(-(-n // step)):
            yield slice(shard * step, min((shard + 1) * step, n)), self.block(shard)

    @cached_property
    def shard_images(self) -> int:
        """Images per shard; the last one may hold fewer."""
        return int(open_array(self.path, "features").shards[0])  # type: ignore[index]

    def block(self, shard: int) -> Float[np.ndarray, "rows views dim"]:
        """The features of one shard, checked against its record. Raises CacheMismatchError."""
        try:
            start = shard * self.shard_images
            block = read_array(self.path, "features", slice(start, start + self.shard_images))
        except CacheMismatchError:
            block = np.empty((0, 0, 0))
        if digest_array(block) != read_json(record_path(self.path, shard)).get("digest"):
            raise CacheMismatchError(f"shard {shard} of {self.path} is not what was written: run `{self.fix}`")
        return block


def _verified_manifest(path: Location, fix: str) -> dict[str, Any]:
    """The manifest, once it agrees with itself, with the folder and with the shards' records."""
    if not (path / "manifest.json").exists():
        raise CacheIncompleteError(f"the cache {path} is not finished: run `{fix}`, it goes on where it stopped")
    manifest = read_json(path / "manifest.json")
    stated = {name: value for name, value in manifest.items() if name != "digest"}
    problem = None
    if manifest.get("digest") != digest_json(stated) or manifest.get("format") != FORMAT:
        problem = "its manifest was changed or is not of this version"
    elif digest_json(manifest["identity"])[:16] != path.name or read_json(path / "identity.json") != stated["identity"]:
        problem = "its manifest describes another cache"
    elif not _parts_stand(path, manifest):
        problem = "its parts are not those that its manifest was made for"
    if problem:
        raise CacheMismatchError(f"the cache {path} cannot be trusted, {problem}: run `{fix}` to check and mend it")
    return manifest


def _parts_stand(path: Location, manifest: Mapping[str, Any]) -> bool:
    """Whether ids, labels, split, contents and the shards' records are those of the manifest."""
    try:
        shards = -(-manifest["shape"][0] // open_array(path, "features").shards[0])  # type: ignore[index]
        return bool(manifest["content"] == content_digest(path, read_records(path, shards)))
    except CacheError:
        return False
