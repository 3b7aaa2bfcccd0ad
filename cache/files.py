"""Files that are either whole or absent, and digests of JSON and arrays."""

import hashlib
import json
import shutil
import tempfile
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cache.errors import InputError
from cache.location import Location

PARTIAL = ".partial"
UNREADABLE = "unreadable"
"""Stands in place of the sha256 of what cannot be read, and is equal to nothing."""


def canonical_json(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces, NaN refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest_json(value: Any) -> str:
    """sha256 of a JSON value, hexadecimal."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def digest_array(array: np.ndarray) -> str:
    """sha256 of an array's dtype, shape and values, hexadecimal."""
    header = f"{array.dtype.str}{array.shape}".encode()
    return hashlib.sha256(header + np.ascontiguousarray(array).tobytes()).hexdigest()


def write_whole(path: Location, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file, then put it in place: a kill leaves the old file or the new one.

    In a folder that file is a neighbour of `path` and is renamed. An object store has no renaming but shows an upload
    only when it is whole.
    """
    if not isinstance(path, Path):
        with tempfile.TemporaryDirectory() as folder:
            upload = Path(folder) / "upload"
            write(upload)
            path.fs.put_file(str(upload), path.path)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}{PARTIAL}")
    try:
        write(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Location, value: Mapping[str, Any]) -> None:
    """Write JSON, whole or not at all."""
    text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n"
    write_whole(path, lambda temporary: temporary.write_bytes(text.encode()))


def copy_files(names: Sequence[str], source: Location, target: Location, replace: bool = False) -> None:
    """Copy files whole and in order, so that the last one says that all are there.

    Nothing where `source` lacks the last one, or `target` has it and they are not to be replaced.
    """
    if not (source / names[-1]).exists() or ((target / names[-1]).exists() and not replace):
        return
    for name in names:
        write_whole(target / name, partial(_write_bytes, content=(source / name).read_bytes()))


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def touch(path: Location) -> None:
    """Make the modification time of a file now."""
    if isinstance(path, Path):
        path.touch()
    else:
        path.write_bytes(path.read_bytes())


def remove(path: Location) -> None:
    """Remove a file, if nobody else has."""
    with suppress(FileNotFoundError):  # asked beforehand, an object store might answer before another removes it
        path.unlink()


def remove_tree(folder: Location) -> None:
    """Remove a folder and all that is in it."""
    if isinstance(folder, Path):
        shutil.rmtree(folder)
    else:
        folder.fs.rm(folder.path, recursive=True)


def require_writable(root: Location) -> None:
    """Raises InputError unless files can be made under `root`, so that no long work starts in vain."""
    probe = root / f".{uuid.uuid4().hex}{PARTIAL}"
    try:
        write_whole(probe, partial(_write_bytes, content=b""))
        probe.unlink()
    except OSError as error:
        reason = error.strerror or error
        raise InputError(
            f"the data root {str(root)!r} cannot be written ({reason}): choose another with DATA_ROOT=PATH"
        ) from error


def digest_file(path: Path) -> str:
    """sha256 of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_files(paths: Sequence[Path]) -> str:
    """sha256 over the digests of some files in order, hexadecimal."""
    return digest_json([digest_file(path) for path in paths])
