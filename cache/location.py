"""Where data lies: a folder of this machine or a prefix of an object store, such as s3://bucket/prefix.

What several machines share lies at the location itself: features, runs, weights pretrained here. What can be made
again from that, and is read by memory map, lies in a folder of this machine: see `local_folder`.
"""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fsspec.asyn import AsyncFileSystem, sync
from upath import UPath

from cache.errors import AlcoveError, InputError, StoreUnavailableError

Location = Path | UPath

_S3 = {
    "max_concurrency": 1,  # with more, it asks for the size before every read
    "config_kwargs": {"connect_timeout": 4, "retries": {"mode": "standard", "total_max_attempts": 3}},
}
_OPTIONS: dict[str, dict[str, Any]] = {"s3": _S3, "s3a": _S3}
_PATIENCE = 15.0
"""Seconds until a store that says nothing is given up, before any work."""
_CLIENTS = ("botocore", "aiobotocore", "aiohttp", "fsspec")


def location(text: str) -> Location:
    """A path as it is, a URL as a place in its object store. Nothing is asked of the store yet.

    Listings are never kept: other machines write there too.
    Raises InputError where the scheme is unknown, its package is missing, or no bucket is named.
    """
    scheme, separator, rest = text.partition("://")
    if not separator or scheme == "file":
        return Path(rest or text)
    if not rest.strip("/") or ".." in rest.split("/"):
        raise InputError(f"the data root {text!r} names no place in an object store: write s3://BUCKET/PREFIX")
    try:
        place = UPath(text.rstrip("/"), use_listings_cache=False, **_OPTIONS.get(scheme, {}))
        _ = place.fs
    except ImportError as error:
        fix = "pip install 'alcove[s3]'" if scheme in _OPTIONS else str(error)
        raise InputError(f"the data root {text!r} needs a package that is not installed: {fix}") from error
    except ValueError as error:
        raise InputError(f"the data root {text!r} is of no known kind: use a folder or s3://BUCKET/PREFIX") from error
    return place


def local_folder(place: Location) -> Path:
    """The folder of this machine that goes with a place: itself, or for an object store one of its own.

    That is $ALCOVE_LOCAL/s3/bucket/prefix, by default in $XDG_CACHE_HOME/alcove or ~/.cache/alcove.
    """
    if isinstance(place, Path):
        return place
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("ALCOVE_LOCAL") or Path(cache, "alcove"), place.protocol, *place.path.split("/"))


def files_under(folder: Location, unreadable: Callable[[OSError], None] | None = None) -> dict[str, int]:
    """Every file below a folder, as a relative path with slashes, and its size in bytes.

    unreadable : is told of folders and files that cannot be looked at, which are left out
    """
    sizes: dict[str, int] = {}
    if not isinstance(folder, Path):
        found = folder.fs.find(folder.path, detail=True)
        return {name.removeprefix(folder.path).lstrip("/"): about["size"] for name, about in found.items()}
    for place, _, names in os.walk(folder, onerror=unreadable):
        for name in names:
            file = Path(place, name)
            try:
                about = file.stat()
            except FileNotFoundError:  # a writer at work has renamed it
                continue
            except OSError as error:
                if unreadable:
                    unreadable(error)
                continue
            if stat.S_ISREG(about.st_mode):
                sizes[file.relative_to(folder).as_posix()] = about.st_size
    return sizes


def zarr_node(path: Location) -> Any:
    """What Zarr opens an array or group from."""
    if isinstance(path, Path):
        return path
    from zarr.storage import FsspecStore

    return FsspecStore.from_url(str(path), storage_options=dict(path.storage_options))


@contextmanager
def reaching(root: Location) -> Iterator[None]:
    """Around all work on a data root: makes sure that its bucket is there, and says in one sentence what its client
    raises. Raises StoreUnavailableError."""
    if isinstance(root, Path):
        yield
        return
    try:
        _look(root)
        yield
    except AlcoveError:
        raise
    except Exception as error:
        if not _from_client(error):
            raise
        raise StoreUnavailableError(_sentence(error, root)) from error


def _look(root: UPath) -> None:
    """Raises what the store's client raises, and StoreUnavailableError where the bucket is not there."""
    bucket = root.path.split("/")[0]
    try:
        if isinstance(root.fs, AsyncFileSystem):
            sync(root.fs.loop, root.fs._info, bucket, timeout=_PATIENCE)
        else:
            root.fs.info(bucket)
    except FileNotFoundError as error:
        raise StoreUnavailableError(
            f"the bucket {bucket!r} of {str(root)!r} does not exist: create it, or choose another with DATA_ROOT=URL"
        ) from error


def _from_client(error: BaseException | None) -> bool:
    """Whether an object store's client raised it, or it stands for what the client raised."""
    if isinstance(error, PermissionError | FileNotFoundError) and error.filename is None:
        return True
    while error is not None:
        if type(error).__module__.partition(".")[0] in _CLIENTS:
            return True
        error = error.__cause__ or error.__context__
    return False


def _sentence(error: Exception, root: UPath) -> str:
    reason = " ".join(str(error).split()).rstrip(".") or f"no answer within {_PATIENCE:.0f} s"
    if isinstance(error, FileNotFoundError):
        return f"something was removed from {str(root)!r} during the work ({reason}): run the same command again"
    if isinstance(error, PermissionError) or any(word in type(error).__name__ for word in ("Credential", "Token")):
        return (
            f"the object store refuses access to {str(root)!r} ({reason}): set AWS_ACCESS_KEY_ID and "
            f"AWS_SECRET_ACCESS_KEY, with AWS_SESSION_TOKEN where they are temporary, or AWS_PROFILE"
        )
    return (
        f"the object store of {str(root)!r} does not answer as it should ({reason}): check the network, and "
        f"AWS_ENDPOINT_URL where the store is not Amazon's"
    )
