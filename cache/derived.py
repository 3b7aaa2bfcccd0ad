"""Arrays computed once from a feature cache and shared by every run: projections, neighbours, clusterings."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cache.errors import CacheMismatchError
from cache.files import digest_json, write_whole


@dataclass(frozen=True)
class DerivedStore:
    """Label-free arrays of one feature cache; each is written whole, and read memory-mapped by all workers.

    root : folder of all derived arrays; basis : what they are computed from (the cache's key and more)
    """

    root: Path
    basis: str

    def has(self, name: str, parameters: Mapping[str, Any]) -> bool:
        """Whether the array is there already."""
        return self._path(name, parameters).exists()

    def get(self, name: str, parameters: Mapping[str, Any], compute: Callable[[], np.ndarray]) -> np.ndarray:
        """The array of that name and parameters, computed on first use. `compute` must be deterministic."""
        path = self._path(name, parameters)
        if not path.exists():
            array = compute()
            write_whole(path, lambda temporary: _save(temporary, array))
        try:
            return np.load(path, mmap_mode="r")
        except (ValueError, EOFError) as error:
            raise CacheMismatchError(f"{path} is damaged: delete it and run again") from error

    def _path(self, name: str, parameters: Mapping[str, Any]) -> Path:
        return self.root / self.basis / f"{name}-{digest_json(dict(parameters))[:12]}.npy"


def _save(path: Path, array: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, array)
