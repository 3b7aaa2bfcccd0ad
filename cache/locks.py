"""Locks between processes of one machine, released by the system when a process dies, `kill -9` included.

An object store has none: an upload is seen whole or not at all, and nothing half-written is left to clear. Two writers
of one shard upload the same features, to the rounding of their processors; a shard and its record may then disagree,
which readers notice and the next `make embed` mends.
"""

import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cache.location import Location

try:
    import fcntl
except ImportError:  # not on Windows: there two processes must not write one cache
    fcntl = None  # type: ignore[assignment]


class Lock:
    """A lock file that many hold shared or one holds alone; in an object store, everybody at once."""

    def __init__(self, path: Location) -> None:
        self._file: int | None = None
        if not isinstance(path, Path):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        weakref.finalize(self, os.close, self._file)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until nobody else holds the lock, hold it alone, and give it up."""
        self._flock("LOCK_EX")
        try:
            yield
        finally:
            self.release()

    def try_alone(self) -> bool:
        """Hold the lock alone if nobody else holds it."""
        try:
            self._flock("LOCK_EX", wait=False)
        except BlockingIOError:
            return False
        return True

    def share(self) -> None:
        """Hold the lock beside others."""
        self._flock("LOCK_SH")

    def release(self) -> None:
        self._flock("LOCK_UN")

    def _flock(self, operation: str, wait: bool = True) -> None:
        if fcntl is not None and self._file is not None:
            fcntl.flock(self._file, getattr(fcntl, operation) | (0 if wait else fcntl.LOCK_NB))
