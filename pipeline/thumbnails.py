"""Images on a page that needs no file beside it: small, as data URIs, and only those that were embedded."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from cache.errors import InputError
from cache.features import FeatureCache
from cache.location import Location, local_folder
from stages.embed.images import DATASETS, ImageSet

SIDE = 64
"""Pixels of a thumbnail's longer side; smaller images stay as they are."""
QUALITY = 75


@dataclass(frozen=True, kw_only=True)
class Thumbnail:
    """uri : a JPEG or PNG; name : of its class"""

    uri: str
    name: str
    image_id: str


@dataclass(frozen=True, kw_only=True)
class Strip:
    """The first images that a strategy queried, in order."""

    label: str
    thumbnails: tuple[Thumbnail, ...]


@lru_cache(maxsize=1)
def open_images(spec: str, data_root: Location) -> ImageSet:
    """The images of a data set that are on this machine. Raises InputError, DataUnavailableError; downloads nothing."""
    from stages.embed.images.download import offline

    with offline():
        images: ImageSet = DATASETS.build(spec).open(local_folder(data_root) / "datasets")
    return images


def strips_of(wanted: Mapping[str, Sequence[str]], images: ImageSet, cache: FeatureCache) -> list[Strip]:
    """A strip for each label, of the images of these ids.

    Raises InputError where an image is no longer what was embedded, UnreadableImageError.
    """
    rows = {image_id: row for row, image_id in enumerate(images.ids)}
    embedded = {image_id: row for row, image_id in enumerate(cache.ids)}

    def thumbnail(image_id: str) -> Thumbnail:
        row, source = embedded[image_id], rows.get(image_id)
        if source is None or images.contents[source] != cache.contents[row]:
            raise InputError(f"the image {image_id!r} is gone or has changed since it was embedded: run `{cache.fix}`")
        name = cache.class_names[cache.labels[row]]
        return Thumbnail(uri=data_uri(images.load(source)), name=name, image_id=image_id)

    return [Strip(label=label, thumbnails=tuple(map(thumbnail, ids))) for label, ids in wanted.items()]


def data_uri(pixels: UInt8[np.ndarray, "height width 3"], side: int = SIDE) -> str:
    """An image shrunk to `side` pixels, as PNG or JPEG, whichever is smaller."""
    image = Image.fromarray(pixels)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    files = []
    for kind in ("png", "jpeg"):
        buffer = io.BytesIO()
        image.save(buffer, format=kind, optimize=True, quality=QUALITY)
        files.append((buffer.tell(), kind, buffer.getvalue()))
    _, kind, content = min(files)
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
