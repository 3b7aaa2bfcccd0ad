"""SimCLR: pretraining a network on the unlabeled pool. Chen et al. 2020; the loss is equation 2.1 of the thesis (002).

The papers train a ResNet-18 for 500 epochs on a GPU (SUPClust seed 001, appendix A.2). This is the same objective at a
size for two CPU cores: a few hundred steps, small images, Adam instead of SGD.
"""

from __future__ import annotations

import math
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.transforms.v2 import functional as transforms
from tqdm import tqdm

from cache.errors import InputError, UnreadableImageError
from stages.embed.images.base import ImageSet

RGB = tuple[float, float, float]
_WARM_UP = 0.05
_WEIGHT_DECAY = 1e-4
_PROJECTION_DIM = 128
_PLAIN_LINE_SECONDS = 10


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides the result, besides the network and the images.

    steps : optimiser steps; each sees `batch_size` images (fewer where the pool is smaller) twice
    learning_rate : Adam's highest, after a linear warm-up over the first 5%, before a cosine to zero
    temperature : of the loss
    seed : of every draw
    """

    steps: int
    batch_size: int
    learning_rate: float
    temperature: float
    seed: int


def nt_xent(projections: torch.Tensor, temperature: float) -> torch.Tensor:
    """Normalised temperature-scaled cross-entropy, mean over all 2n anchors.

    projections : (2n, dim); rows i and n + i are two views of one image, all other rows are negatives
    Source: thesis (002), equation 2.1; Chen et al. 2020, equation 1.
    """
    unit = F.normalize(projections, dim=1)
    similarity = (unit @ unit.T / temperature).fill_diagonal_(-math.inf)
    return F.cross_entropy(similarity, torch.arange(len(unit), device=unit.device).roll(len(unit) // 2))


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


def channel_statistics(pixels: torch.Tensor) -> tuple[RGB, RGB]:
    """Mean and standard deviation of each channel, of values in [0, 1], to four digits; (n, 3, h, w) uint8."""
    counts = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in pixels.transpose(0, 1)])
    share, values = counts.double() / counts.sum(1, keepdim=True), torch.arange(256, dtype=torch.float64) / 255
    mean = (share * values).sum(1, keepdim=True)
    std = (share * (values - mean) ** 2).sum(1).sqrt().clamp(min=1e-2)
    red, green, blue = torch.cat([mean, std[:, None]], dim=1).round(decimals=4).tolist()
    return (red[0], green[0], blue[0]), (red[1], green[1], blue[1])


def augment(images: torch.Tensor, generator: torch.Generator, flippable: bool) -> torch.Tensor:
    """One random view of each image, all in one batch: (n, 3, h, w) float in [0, 1] -> the same.

    Crop of 0.3 to 1 of the area resized back, mirroring where `flippable`, brightness, contrast and saturation
    changed by up to 40%, gray with probability 0.2, blur with probability 0.5. Chen et al. 2020, appendix A, weaker
    for small images. Draws come from `generator`, on the CPU, so that a seed means the same on every device.
    """
    draws = torch.rand(11, len(images), generator=generator).to(images.device)
    views = _crop(images, draws[:5], flippable)
    views = _jitter(views, draws[5:9])
    return _blur(views, draws[9:]).clamp(0, 1)


def train(network: nn.Module, pixels: torch.Tensor, recipe: Recipe, flippable: bool, device: str) -> list[float]:
    """Train `network` in place on views of `pixels`; the loss of every step.

    network : maps normalised images (n, 3, h, w) to features (n, dim)
    pixels : (n, 3, h, w) uint8
    The global random generators are left alone. Raises InputError when the loss is no longer a finite number.
    """
    generator = torch.Generator().manual_seed(recipe.seed)
    dim = network.eval()(pixels[:1].float()).shape[1]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(recipe.seed)
        projection = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, _PROJECTION_DIM))
    trained = nn.Sequential(network, projection).to(device).train()
    optimizer = torch.optim.AdamW(trained.parameters(), lr=recipe.learning_rate, weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _schedule(step / recipe.steps))
    mean, std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in channel_statistics(pixels))
    losses: list[float] = []
    for _ in _progress(recipe.steps, losses):
        chosen = torch.randperm(len(pixels), generator=generator)[: recipe.batch_size]
        batch = pixels[chosen].to(device).float() / 255
        views = torch.cat([augment(batch, generator, flippable) for _ in range(2)])
        loss = nt_xent(trained((views - mean) / std), recipe.temperature)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise InputError(f"pretraining diverged at step {len(losses)}: lower learning_rate={recipe.learning_rate}")
    return losses


def _square(image: np.ndarray, size: int) -> np.ndarray:
    """(height, width, 3) uint8 -> (size, size, 3), as `Preprocessing` does it."""
    if image.shape[:2] == (size, size):
        return image
    resized = transforms.resize(torch.from_numpy(image).permute(2, 0, 1), [size], antialias=True)
    return transforms.center_crop(resized, [size, size]).permute(1, 2, 0).numpy()


def _crop(images: torch.Tensor, draws: torch.Tensor, flippable: bool) -> torch.Tensor:
    """Random resized crop as one affine map per image: scale by the part's share, shift within the rest."""
    area, log_ratio = 0.3 + 0.7 * draws[0], (2 * draws[1] - 1) * math.log(4 / 3)
    width = (area * log_ratio.exp()).sqrt().clamp(max=1)
    height = (area / log_ratio.exp()).sqrt().clamp(max=1)
    mirror = torch.where(draws[4] < 0.5, -1.0, 1.0) if flippable else torch.ones_like(width)
    zero = torch.zeros_like(width)
    across = torch.stack([width * mirror, zero, (2 * draws[2] - 1) * (1 - width)], dim=1)
    down = torch.stack([zero, height, (2 * draws[3] - 1) * (1 - height)], dim=1)
    grid = F.affine_grid(torch.stack([across, down], dim=1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _jitter(images: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """Brightness, contrast, saturation: scale the image, its distance to its mean, its distance to its gray."""
    brightness, contrast, saturation = (0.6 + 0.8 * draws[:3]).view(3, -1, 1, 1, 1)
    images = images * brightness
    mean = images.mean((1, 2, 3), keepdim=True)
    images = mean + (images - mean) * contrast
    gray = images.mean(1, keepdim=True)
    saturation = torch.where(draws[3].view(-1, 1, 1, 1) < 0.2, 0.0, saturation)
    return gray + (images - gray) * saturation


def _blur(images: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """Gaussian, sigma 0.1 to 1 pixel, 5 pixels wide: columns, then rows, each image with its own kernel."""
    n, channels, height, width = images.shape
    sigma = torch.where(draws[0] < 0.5, 0.1 + 0.9 * draws[1], 1e-2)  # 1e-2: the kernel is one pixel, so no blur
    offsets = torch.arange(-2, 3, device=images.device)
    kernels = torch.exp(-0.5 * (offsets / sigma[:, None]) ** 2)
    kernels = (kernels / kernels.sum(1, keepdim=True)).repeat_interleave(channels, dim=0)
    one_image = F.pad(images, (2, 2, 2, 2), mode="replicate").view(1, n * channels, height + 4, width + 4)
    columns = F.conv2d(one_image, kernels.view(-1, 1, 5, 1), groups=n * channels)
    return F.conv2d(columns, kernels.view(-1, 1, 1, 5), groups=n * channels).view(images.shape)


def _schedule(progress: float) -> float:
    """Share of the highest learning rate: linear warm-up, then cosine to zero."""
    if progress < _WARM_UP:
        return max(progress / _WARM_UP, 0.02)
    return 0.5 * (1 + math.cos(math.pi * (progress - _WARM_UP) / (1 - _WARM_UP)))


def _progress(steps: int, losses: list[float]) -> Iterator[int]:
    """Count the steps: a bar on a terminal, elsewhere a line now and then."""
    bar = tqdm(range(steps), desc="pretrain", unit="step", disable=None)
    spoken = time.monotonic()
    for step in bar:
        yield step
        bar.set_postfix_str(f"loss {losses[-1]:.3f}", refresh=False)
        if bar.disable and time.monotonic() - spoken > _PLAIN_LINE_SECONDS:
            spoken = time.monotonic()
            print(f"pretrain: step {step + 1} of {steps}, loss {losses[-1]:.3f}", file=sys.stderr, flush=True)
