"""Files that are either whole or absent, and digests of JSON and arrays."""

import hashlib
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cache.errors import InputError

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


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary neighbour of `path`, then rename it: a kill leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}{PARTIAL}")
    try:
        write(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON, whole or not at all."""
    text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n"
    write_whole(path, lambda temporary: temporary.write_bytes(text.encode()))


def require_writable(root: Path) -> None:
    """Raises InputError unless files can be made under `root`, so that no long work starts in vain."""
    probe = root / f".{uuid.uuid4().hex}{PARTIAL}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"the data root {str(root)!r} cannot be written ({error.strerror}): choose another with DATA_ROOT=PATH"
        ) from error


def digest_file(path: Path) -> str:
    """sha256 of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_files(paths: Sequence[Path]) -> str:
    """sha256 over the digests of some files in order, hexadecimal."""
    return digest_json([digest_file(path) for path in paths])
