"""Arrays computed once from a feature cache and shared by every run: projections, neighbours, clusterings.

derived/KEY/BASIS/ARRAY-PARAMETERS.npy           one file per array
derived/KEY/BASIS/records/NAME-PARAMETERS.json   what was computed, and its arrays' digests; written last
derived/KEY/BASIS/records/NAME-PARAMETERS.lock   held by the process that computes
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cache.errors import CacheMismatchError
from cache.files import PARTIAL, digest_file, digest_json, remove, write_json, write_whole
from cache.locks import Lock

FORMAT = 1
"""Part of every record; arrays of another format are computed again."""

_verified: dict[Path, tuple[str, int, int, int]] = {}
"""Files this process has checked: their digest, size, and times of change in ns."""


@dataclass(frozen=True)
class DerivedStore:
    """Arrays made of one feature cache, read memory-mapped by all workers and never unchecked.

    A computation's arrays are there once its record is, so a kill leaves nothing usable or everything. In each process
    the first read of a file compares it with the record; it is read in full again only after it has changed.

    root : folder of all derived arrays of a cache, named by its key
    basis : what they are computed from (splits, variant, projection)
    """

    root: Path
    basis: str

    def has(self, name: str, parameters: Mapping[str, Any]) -> bool:
        """Whether the record and its arrays are there. Raises CacheMismatchError where the record is damaged."""
        arrays = self._recorded(name, parameters)
        return bool(arrays) and all(self._file(array, parameters).exists() for array in arrays)

    def get(self, name: str, parameters: Mapping[str, Any], compute: Callable[[], np.ndarray]) -> np.ndarray:
        """The one array of a computation. See `get_all`."""
        return self.get_all(name, parameters, lambda: {name: compute()})[name]

    def get_all(
        self, name: str, parameters: Mapping[str, Any], compute: Callable[[], Mapping[str, np.ndarray]]
    ) -> dict[str, np.ndarray]:
        """The arrays of a computation by their names, computed on first use, by one process while others wait for it.

        parameters : everything but the basis that changes a value
        compute : deterministic; may ask for other computations; an array's name is used by this computation only
        Raises CacheMismatchError where a file is not what was written.
        """
        if not self.has(name, parameters):
            with Lock(self._record(name, parameters).with_suffix(".lock")).alone():
                if not self.has(name, parameters):
                    self._write(name, parameters, compute())
        arrays = self._recorded(name, parameters)
        return {array: _load(self._file(array, parameters), said["digest"]) for array, said in arrays.items()}

    def _write(self, name: str, parameters: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        record = self._record(name, parameters)
        remove(record)
        said = {}
        for array, values in arrays.items():
            path = self._file(array, parameters)
            for left_by_a_kill in path.parent.glob(f".{path.name}.*{PARTIAL}"):
                remove(left_by_a_kill)
            write_whole(path, partial(_save, array=values))
            said[array] = {"digest": digest_file(path), "shape": list(values.shape), "dtype": values.dtype.str}
        stated = {"format": FORMAT, "of": self._identity(name, parameters), "arrays": said}
        write_json(record, {**stated, "digest": digest_json(stated)})

    def _recorded(self, name: str, parameters: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """What the record says of each array; nothing where there is none, or one of another format."""
        path = self._record(name, parameters)
        try:
            record = json.loads(path.read_bytes())
            intact = record.pop("digest") == digest_json(record)
        except FileNotFoundError:
            return {}
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise _damaged(path) from error
        if not intact:
            raise _damaged(path)
        if record["format"] != FORMAT:
            return {}
        if digest_json(record["of"]) != digest_json(self._identity(name, parameters)):
            raise _damaged(path)
        return dict(record["arrays"])

    def _identity(self, name: str, parameters: Mapping[str, Any]) -> list[Any]:
        return [self.root.name, self.basis, name, dict(parameters)]

    def _record(self, name: str, parameters: Mapping[str, Any]) -> Path:
        return self.root / self.basis / "records" / f"{_stem(name, parameters)}.json"

    def _file(self, array: str, parameters: Mapping[str, Any]) -> Path:
        return self.root / self.basis / f"{_stem(array, parameters)}.npy"


def _stem(name: str, parameters: Mapping[str, Any]) -> str:
    return f"{name}-{digest_json(dict(parameters))[:12]}"


def _save(path: Path, array: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def _load(path: Path, digest: str) -> np.ndarray:
    """The array, memory-mapped, once the file has been found to be the one of that digest."""
    stat = path.stat()
    state = (digest, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    if _verified.get(path) != state:
        if digest_file(path) != digest:
            raise _damaged(path)
        _verified[path] = state
    return np.load(path, mmap_mode="r").view(np.ndarray)  # np.memmap would slow down every operation on a part


def _damaged(path: Path) -> CacheMismatchError:
    return CacheMismatchError(f"{path} is not what was written: delete it and run again")
