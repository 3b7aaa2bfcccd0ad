"""All feature caches under a root: listed, described, verified, removed, and found by what a user asks for."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cache.errors import CacheError, CacheMismatchError, CacheMissError, InputError
from cache.features import FeatureCache
from cache.files import digest_json, remove, remove_tree
from cache.layout import FORMAT, open_array, read_json
from cache.location import Location, files_under
from cache.locks import Lock


@dataclass(frozen=True, kw_only=True)
class Description:
    """A cache at a glance. shape : (n_images, n_views, dim); bytes : on disk; problem : why it says no more"""

    dataset: str
    full_name: str
    views: Sequence[str]
    shape: tuple[int, ...]
    bytes: int
    complete: bool
    problem: str | None = None


def list_caches(root: Location) -> list[Location]:
    """Folders of all caches, finished or not."""
    return sorted(path.parent for path in root.glob("*/*/*/identity.json"))


def read_identity(path: Location) -> dict[str, Any]:
    """The identity that a cache states, unchecked; empty where it cannot be read."""
    return read_json(path / "identity.json")


def describe_cache(path: Location) -> Description:
    """What a cache says of itself, unchecked."""
    identity, problem = read_identity(path), None
    try:
        shape = open_array(path, "features").shape
        views = [view["name"] for view in identity["views"]]
    except (CacheMismatchError, LookupError, TypeError) as error:
        shape, views = (), []
        problem = str(error) if isinstance(error, CacheMismatchError) else "identity.json is damaged"
    return Description(
        dataset=str(identity.get("dataset", "?")),
        full_name=str(identity.get("full_name", "?")),
        views=views,
        shape=shape,
        bytes=sum(files_under(path).values()),
        complete=(path / "manifest.json").exists(),
        problem=problem,
    )


def damage(path: Location) -> str | None:
    """Read everything and compare it with its record: what is wrong, or None."""
    try:
        for _ in FeatureCache(path, "the `make embed` that made it").blocks():
            pass
    except CacheError as error:
        return str(error)
    return None


def remove_cache(path: Location) -> None:
    """Remove a cache, its manifest first, so that no reader meets half of it.

    Raises InputError while somebody writes it. An object store cannot tell: see `FeatureWriter.finish`.
    """
    lock = Lock(path.with_name(f"{path.name}.lock"))
    if not lock.try_alone():
        raise InputError(f"the cache {path} is being written: wait for that `make embed`, or stop it")
    remove(path / "manifest.json")
    remove_tree(path)
    lock.release()


FIX = Callable[[Mapping[str, Any] | None], str]
"""The command that makes or mends a cache of some identity; of None, the one that the user described."""
CHOSEN = ("dataset", "backbone", "parameters", "weights", "views", "view_seed", "precision", "dtype")
"""What the user chooses of an identity. The rest follows from that and from the images."""


def find_cache(
    root: Location, dataset: str, backbone: str, parameters: Mapping[str, Any], key: str, fix: FIX
) -> FeatureCache:
    """The one finished cache of a data set and backbone, in the present format.

    parameters : hyperparameters the user named; caches made with others do not match
    key : its beginning, to choose where several match
    The newest tells the images at that place: caches of other images count only by their key, and of those that the
    user chose alike only the newest does. Unfinished caches count only where no finished one matches.
    Raises CacheMissError, CacheIncompleteError, CacheMismatchError, InputError (several match, or no such key).
    """
    matching: dict[str, Location] = {}
    identities: Iterable[Location] = (root / dataset).glob("*/*/identity.json")
    for path in sorted(identities, key=lambda path: path.stat().st_mtime):
        identity = read_identity(path.parent)
        named = {name: identity.get("parameters", {}).get(name) for name in parameters}
        if (identity.get("backbone"), identity.get("format"), named) == (backbone, FORMAT, dict(parameters)):
            chosen = path.parent.name if key else digest_json({name: identity.get(name) for name in CHOSEN})
            matching.pop(chosen, None)
            matching[chosen] = path.parent
    if not matching:
        raise CacheMissError(f"there are no features of {backbone!r} for {dataset!r} yet: run `{fix(None)}`")
    usable = [path for path in matching.values() if (path / "manifest.json").exists()] or list(matching.values())
    images = {path: read_identity(path).get("dataset_digest") for path in usable}
    usable = [path for path in usable if key or images[path] == images[usable[-1]]]
    found = [path for path in usable if path.name.startswith(key)]
    if len(found) != 1:
        keys = ", ".join(f"{path.name} ({path.parent.name})" for path in usable)
        what = f"{len(found)} feature caches" if found else f"no feature cache with key {key}"
        raise InputError(f"{what} of {backbone!r} for {dataset!r}: choose with KEY= one of {keys}")
    return FeatureCache(found[0], fix(read_identity(found[0])))
