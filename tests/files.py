"""Folders that tests make and compare."""

from pathlib import Path

import numpy as np
from PIL import Image


def photos(folder: Path, n: int = 90) -> Path:
    """Class folders of small images: two colours with noise, and another size in between."""
    rng = np.random.default_rng(0)
    for i in range(n):
        kind = ("red", "blue", "grün")[i % 3]
        pixels = rng.integers(0, 120, (10 + i % 2, 10, 3))
        pixels[..., i % 3] += 120
        path = folder / kind / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    """Relative path -> content of every file, without lock files: they hold nothing and are never removed."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file() and file.suffix != ".lock")
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}
