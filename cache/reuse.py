"""Features that stand in earlier caches, so that an image that has not changed is not embedded again."""

import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float

from cache.catalog import list_caches, read_identity
from cache.errors import CacheIncompleteError, CacheMismatchError
from cache.features import FeatureCache, Identity, Listing
from cache.files import UNREADABLE, digest_json
from cache.layout import FORMAT
from cache.location import Location

MADE = ("backbone", "weights_digest", "preprocessing", "views", "view_seed", "precision", "dtype", "format")
"""What of an identity decides an image's features; beside it the architecture, the first half of the full name."""
BLOCKS_KEPT = 2


class EarlierFeatures:
    """Features of a new cache's rows, as far as other finished caches under its root hold them.

    Whatever the data set, a donor was made by the same network in the same way. An image is the same where both id and
    content agree: random views are seeded by the id. An image that a donor could not read is not taken from it.

    Cost: every donor shard in use is read twice, first to know that it is what was written, then to copy from it; some
    more where the two caches list their images in another order. Held in memory are two donor shards.
    """

    def __init__(self, root: Location, identity: Identity, listing: Listing, rows: Iterable[int]) -> None:
        """Look in every cache, the newest first. rows : those wanted of the new cache

        Warns of damaged donors, which are not used.
        """
        self._donors: list[FeatureCache] = []
        self._donor_of = np.full(len(listing.ids), -1)
        self._row_in_donor = np.full(len(listing.ids), -1)
        self._block = lru_cache(BLOCKS_KEPT)(lambda donor, shard: self._donors[donor].block(shard))
        made = _made(asdict(identity))
        wanted = {listing.ids[row]: row for row in rows if listing.contents[row] != UNREADABLE}
        for path in _newest_first(root) if wanted else []:
            if path != identity.folder(root) and _made(read_identity(path)) == made:
                self._take(path, wanted, listing.contents)

    def missing(self, rows: Iterable[int]) -> list[int]:
        """The rows that no donor has."""
        return [row for row in rows if self._donor_of[row] < 0]

    def fill(self, rows: range, features: Float[np.ndarray, "rows views dim"]) -> None:
        """Write the features that donors have of these rows into their places; the others stay as they are.

        Raises CacheMismatchError when a donor was damaged since it was looked at.
        """
        taken: dict[tuple[int, int], list[int]] = defaultdict(list)
        for place, row in enumerate(rows):
            donor, there = int(self._donor_of[row]), int(self._row_in_donor[row])
            if donor >= 0:
                taken[donor, there // self._donors[donor].shard_images].append(place)
        for (donor, shard), places in taken.items():
            within = self._row_in_donor[rows.start :][places] % self._donors[donor].shard_images
            features[places] = self._block(donor, shard)[within]

    def _take(self, path: Location, wanted: dict[str, int], contents: Sequence[str]) -> None:
        """Find wanted images in a donor, those of sound shards, and want them no more."""
        try:
            donor = FeatureCache(path, "make embed with the same arguments again")
            found = _same_images(donor, wanted, contents)
        except CacheIncompleteError:
            return
        except CacheMismatchError:
            _warn_of_damage(path)
            return
        sound = [shard for shard in found if _is_sound(donor, shard)]
        if len(sound) < len(found):
            _warn_of_damage(path)
        if sound:
            self._donors.append(donor)
        for row in (row for shard in sound for row in found[shard]):
            mine = wanted.pop(donor.ids[row])
            self._donor_of[mine], self._row_in_donor[mine] = len(self._donors) - 1, row


def finished_identities(root: Location) -> Iterator[dict[str, Any]]:
    """What the finished caches of the present format state, the newest first."""
    for path in _newest_first(root):
        identity = read_identity(path)
        if identity.get("format") == FORMAT and (path / "manifest.json").exists():
            yield identity


def _newest_first(root: Location) -> list[Location]:
    """The folders of all caches, the one last asked for first."""
    return sorted(list_caches(root), key=lambda path: (path / "identity.json").stat().st_mtime, reverse=True)


def _made(identity: Mapping[str, Any]) -> str:
    architecture = str(identity.get("full_name")).partition(".")[0]
    return digest_json([architecture, {name: identity.get(name) for name in MADE}])


def _same_images(donor: FeatureCache, wanted: Mapping[str, int], contents: Sequence[str]) -> dict[int, list[int]]:
    """Rows of the donor that hold wanted images, by its shards."""
    found: dict[int, list[int]] = defaultdict(list)
    pairs = zip(donor.ids, donor.contents, donor.readable, strict=True)
    for row, (image_id, content, readable) in enumerate(pairs):
        if readable and image_id in wanted and contents[wanted[image_id]] == content:
            found[row // donor.shard_images].append(row)
    return found


def _is_sound(donor: FeatureCache, shard: int) -> bool:
    try:
        donor.block(shard)
    except CacheMismatchError:
        return False
    return True


def _warn_of_damage(path: Location) -> None:
    warnings.warn(f"the features in {path} are damaged: what they hold is computed anew", stacklevel=2)
