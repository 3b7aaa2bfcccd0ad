"""A folder of image files on disk."""

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import ClassVar

import numpy as np
from jaxtyping import UInt8

from cache.errors import InputError, UnreadableImageError
from cache.files import UNREADABLE, digest_file
from stages.embed.images.base import DATASETS, DOWNLOADS, DataSet, ImageSet, digest_each
from stages.embed.images.decoding import decode

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm"})
SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@DATASETS.register("folder")
@dataclass(frozen=True, kw_only=True)
class Folder(DataSet):
    """Image files under a folder, at any depth; hidden files and folders are skipped.

    With top-level folders named train, val (valid, validation) or test, these are the splits and the folders in them
    the classes. Without, the top-level folders are the classes, and a labeled image is "test" when the sha256 of its
    id falls in the first fifth, so that adding images moves none from one split to the other. An image in no class
    folder is unlabeled. The id is the path relative to `path`.
    """

    argument: ClassVar[str] = "path"
    path: str

    @cached_property
    def slug(self) -> str:
        return path_slug("folder", self.path)

    def open(self, root: Path = DOWNLOADS) -> ImageSet:
        top = user_path(self.path)
        if not top.exists():
            raise InputError(f"there is no folder {self.path!r}: check the path in folder:PATH")
        if not top.is_dir():
            raise InputError(f"{self.path!r} is a file: folder:PATH takes the folder that holds the images")
        ids = sorted(_image_ids(top))
        if not ids:
            known = " ".join(sorted(extension[1:] for extension in EXTENSIONS))
            raise InputError(f"there is no image in {self.path!r}: put files ending in one of {known} there")
        places = _places(ids, self.path)
        class_names = tuple(sorted({name for _, name in places if name is not None}))
        index_of = {name: index for index, name in enumerate(class_names)}
        labels = np.array([-1 if name is None else index_of[name] for _, name in places], dtype=np.int64)
        return FolderImages(
            ids=ids,
            labels=labels,
            split=[part for part, _ in places],
            class_names=class_names,
            contents=file_contents(top, ids),
            root=top,
        )


@dataclass(frozen=True, kw_only=True)
class FolderImages(ImageSet):
    """root : the folder that the ids are relative to."""

    root: Path

    def load(self, index: int) -> UInt8[np.ndarray, "height width 3"]:
        """See `ImageSet`. Raises InputError or OSError where a file is no longer what was listed."""
        image_id = self.ids[index]
        try:
            content = (self.root / image_id).read_bytes()
        except OSError as error:
            if self.contents[index] != UNREADABLE:  # it could be read before: nothing to record of the image
                raise
            raise UnreadableImageError(f"image {image_id!r} cannot be read: {error.strerror}") from error
        if hashlib.sha256(content).hexdigest() != self.contents[index]:
            raise InputError(f"image {image_id!r} has changed since the work began: run the same command again")
        return decode(content, image_id)


def user_path(text: str) -> Path:
    """The path, with ~ expanded; an unknown ~user stays as it is, where `Path.expanduser` would raise."""
    return Path(os.path.expanduser(text))  # noqa: PTH111


def path_slug(kind: str, path: str) -> str:
    """`<kind>-<last part of the path>-<8 hex digits of the whole path>`, safe as a file name."""
    resolved = user_path(path).resolve()
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", resolved.name)[:40] or "root"
    return f"{kind}-{name}-{hashlib.sha256(os.fsencode(resolved)).hexdigest()[:8]}"


def in_test_fifth(image_id: str) -> bool:
    """Whether the sha256 of the id, read as a number, falls in the first fifth of its range."""
    return int.from_bytes(hashlib.sha256(image_id.encode()).digest()[:8], "big") < 2**64 // 5


def _image_ids(folder: Path, prefix: str = "", above: tuple[Path, ...] = ()) -> Iterator[str]:
    """Paths of the image files, relative to the first folder. A link to a folder that holds it is not followed."""
    here = folder.resolve()
    if here in above:
        return
    for entry in _entries(folder):
        if entry.name.startswith("."):
            continue
        if _is_folder(entry):
            yield from _image_ids(Path(entry.path), f"{prefix}{entry.name}/", (*above, here))
        elif (entry.is_symlink() or entry.is_file()) and Path(entry.name).suffix.lower() in EXTENSIONS:
            yield _valid_id(f"{prefix}{entry.name}")


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise InputError(f"the folder {str(folder)!r} cannot be listed: {error.strerror}") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads back to itself
        return False


def _valid_id(image_id: str) -> str:
    try:
        image_id.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"the file name {os.fsencode(image_id)!r} is not valid UTF-8: rename the file") from error
    return image_id


def _places(ids: list[str], path: str) -> list[tuple[str, str | None]]:
    """The split and the class name (None: unlabeled) of each image."""
    parts = [PurePosixPath(image_id).parts for image_id in ids]
    tops = {part[0] for part in parts if len(part) > 1}
    if not any(top.lower() in SPLIT_FOLDERS for top in tops):
        return [_place_by_hash(image_id, part) for image_id, part in zip(ids, parts, strict=True)]
    for image_id, part in zip(ids, parts, strict=True):
        if len(part) == 1 or part[0].lower() not in SPLIT_FOLDERS:
            raise InputError(
                f"{path!r} has split folders (train, val, test), but {image_id!r} is in none of them: move it into one"
            )
    return [(SPLIT_FOLDERS[part[0].lower()], part[1] if len(part) > 2 else None) for part in parts]


def _place_by_hash(image_id: str, parts: tuple[str, ...]) -> tuple[str, str | None]:
    if len(parts) == 1:
        return "train", None
    return "test" if in_test_fifth(image_id) else "train", parts[0]


def file_contents(root: Path, ids: Sequence[str]) -> list[str]:
    """sha256 of every file under `root`; UNREADABLE for one that cannot be opened."""

    def digest(index: int) -> str:
        try:
            return digest_file(root / ids[index])
        except OSError:
            return UNREADABLE

    return digest_each(len(ids), digest)
