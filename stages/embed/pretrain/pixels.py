"""The pool as one array of small squares, and the statistics of its channels."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import numpy as np
import torch
from torchvision.transforms.v2 import functional as transforms
from tqdm import tqdm

from cache.errors import InputError, UnreadableImageError
from stages.embed.images.base import ImageSet

RGB = tuple[float, float, float]


def pool_pixels(images: ImageSet, largest: int) -> torch.Tensor:
    """The readable images of split "train", their central squares resized to one size: (n, 3, size, size) uint8.

    largest : in pixels; the size is this, or the median of the images' shorter sides where that is smaller
    Warns how many could not be read. Raises InputError when fewer than two could.
    """
    pool = [index for index, split in enumerate(images.split) if split == "train"]
    squares, unreadable = [], []
    for index in tqdm(pool, desc="read images", disable=None, leave=False, delay=2):
        try:
            image = images.load(index)
            squares.append(_square(image, min(largest, *image.shape[:2])))
        except UnreadableImageError as error:
            unreadable.append(str(error))
    if unreadable:
        message = f"pretraining leaves out {len(unreadable)} of {len(pool)} images; the first: {unreadable[0]}"
        warnings.warn(message, stacklevel=2)
    if len(squares) < 2:
        raise InputError(f"pretraining needs at least two readable images of split 'train': found {len(squares)}")
    size = sorted(len(square) for square in squares)[len(squares) // 2]
    return torch.from_numpy(np.stack([_square(square, size) for square in squares])).permute(0, 3, 1, 2).contiguous()


def stack_squares(images: ImageSet, indices: Iterable[int], size: int) -> tuple[torch.Tensor, list[int]]:
    """Some images as `Preprocessing` shows them to the network, (n, 3, size, size) uint8; and the indices readable."""
    squares, readable = [], []
    for index in indices:
        try:
            squares.append(_square(images.load(index), size))
            readable.append(index)
        except UnreadableImageError:  # said once, by `pool_pixels` or by the embedding
            continue
    array = np.stack(squares) if squares else np.empty((0, size, size, 3), dtype=np.uint8)
    return torch.from_numpy(array).permute(0, 3, 1, 2).contiguous(), readable


def channel_statistics(pixels: torch.Tensor) -> tuple[RGB, RGB]:
    """Mean and standard deviation of each channel, of values in [0, 1], to four digits; (n, 3, h, w) uint8."""
    counts = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in pixels.transpose(0, 1)])
    share, values = counts.double() / counts.sum(1, keepdim=True), torch.arange(256, dtype=torch.float64) / 255
    mean = (share * values).sum(1, keepdim=True)
    std = (share * (values - mean) ** 2).sum(1).sqrt().clamp(min=1e-2)
    red, green, blue = torch.cat([mean, std[:, None]], dim=1).round(decimals=4).tolist()
    return (red[0], green[0], blue[0]), (red[1], green[1], blue[1])


def _square(image: np.ndarray, size: int) -> np.ndarray:
    """(height, width, 3) uint8 -> (size, size, 3), as `Preprocessing` does it."""
    if image.shape[:2] == (size, size):
        return image
    resized = transforms.resize(torch.from_numpy(image).permute(2, 0, 1), [size], antialias=True)
    return transforms.center_crop(resized, [size, size]).permute(1, 2, 0).numpy()
