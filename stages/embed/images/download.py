"""Published archives: fetched once, checked, unpacked, each step whole or not at all. Or put there by hand."""

import contextlib
import hashlib
import http.client
import shutil
import sys
import urllib.request
import uuid
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from cache.errors import DataUnavailableError, InputError
from cache.files import PARTIAL, write_whole

SILENCE_SECONDS = 10
_BLOCK = 1 << 20
_offline: ContextVar[bool] = ContextVar("offline", default=False)


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Within, nothing is downloaded: `fetch` raises DataUnavailableError for what is not on disk."""
    token = _offline.set(True)
    try:
        yield
    finally:
        _offline.reset(token)


@dataclass(frozen=True)
class Archive:
    """A file that a data set is published as. md5 : its published checksum, None where there is none."""

    url: str
    md5: str | None

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]


def fetch(archive: Archive, folder: Path, data_set: str) -> Path:
    """The archive in `folder`, downloaded unless it is there with the right checksum.

    Raises DataUnavailableError with the ways out.
    """
    path = folder / archive.name
    if path.is_file() and _is_genuine(archive, path):
        return path
    if _offline.get():
        raise DataUnavailableError(
            f"the data set {data_set!r} is not in {str(folder)!r}, and nothing is downloaded here: `make embed` does"
        )
    found = f" (the file there does not have its published MD5 checksum {archive.md5})" if path.is_file() else ""

    def receive(temporary: Path) -> None:
        retrieve(archive.url, temporary)
        if not _is_genuine(archive, temporary):
            raise OSError(f"what came does not have its published MD5 checksum {archive.md5}")

    try:
        write_whole(path, receive)
    except (OSError, http.client.HTTPException) as error:
        reason = str(getattr(error, "reason", error)).splitlines() or [type(error).__name__]
        raise DataUnavailableError(
            f"the data set {data_set!r} cannot be downloaded from {archive.url}: {reason[0].rstrip('. ')}; connect to "
            f"the internet, or put {archive.name} in {str(folder)!r} by hand{found}, or give your own copy of the "
            f"images with DATASET=folder:PATH or DATASET=parquet:PATH"
        ) from error
    return path


def retrieve(url: str, path: Path) -> None:
    """Download a file, with progress. Gives up when the server is silent for some seconds. Raises OSError."""
    request = urllib.request.Request(url, headers={"User-Agent": "alcove"})
    with urllib.request.urlopen(request, timeout=SILENCE_SECONDS) as answer, path.open("wb") as file:
        length = int(answer.headers.get("Content-Length") or 0)
        name = url.rpartition("/")[2]
        with tqdm(total=length or None, desc=name, unit="B", unit_scale=True, disable=None) as bar:
            while block := answer.read(_BLOCK):
                file.write(block)
                bar.update(len(block))
        if length and file.tell() != length:
            raise OSError(f"the connection ended after {file.tell()} of {length} bytes")


def unpack(archive: Path, result: Path) -> None:
    """Extract an archive so that `result`, the folder or file of that name in it, is there whole. Raises InputError."""
    from torchvision.datasets.utils import extract_archive

    temporary = result.with_name(f".{result.name}.{uuid.uuid4().hex}{PARTIAL}")
    try:
        temporary.mkdir(parents=True)
        tqdm.write(f"unpacking {archive.name}", file=sys.stderr)
        with damage_named(archive):
            extract_archive(archive, temporary)
        if not result.exists():  # another process may have been first
            (temporary / result.name).rename(result)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def damage_named(place: Path) -> Iterator[None]:
    """Turn whatever a reader raises about `place` into one sentence. Raises InputError."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise _damaged(place, error) from error
        raise InputError(f"{str(place)!r} cannot be read or unpacked: {error.strerror}") from error
    except Exception as error:  # torchvision, SciPy and pickle meet damaged bytes here, each with its own errors
        raise _damaged(place, error) from error


def _damaged(place: Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return InputError(f"{str(place)!r} is damaged or incomplete ({reason}): remove it and run the same command again")


def _is_genuine(archive: Archive, path: Path) -> bool:
    if archive.md5 is None:
        return True
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() == archive.md5
