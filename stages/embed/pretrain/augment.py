"""Random views of whole batches, on the device that the batch is on."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from stages.embed.pretrain.recipes import Recipe

_N_DRAWS = 13
_NO_BLUR = 1e-2
"""Sigma in pixels at which the kernel is one pixel."""

# Hue turns the colour plane of YIQ (the NTSC matrix): gray stays gray, luma stays, which HSV does not promise.
_TO_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_FROM_YIQ = torch.linalg.inv(_TO_YIQ)


def augment(images: torch.Tensor, generator: torch.Generator, flippable: bool, recipe: Recipe) -> torch.Tensor:
    """One random view of each image, all in one batch: (n, 3, h, w) float in [0, 1] -> the same.

    A part of the area resized back, mirroring where `flippable`, colour jitter, gray, blur; how much of each is the
    recipe's. Chen et al. 2020, appendix A. Draws come from `generator`, on the CPU, so that a seed means the same on
    every device. Deviation: the jitters come in a fixed order, and hue turns in YIQ instead of HSV.
    """
    draws = torch.rand(_N_DRAWS, len(images), generator=generator).to(images.device, non_blocking=True)
    views = images
    if recipe.crop < 1 or flippable:
        views = _crop(views, draws[:5], recipe.crop, flippable)
    if recipe.jitter or recipe.hue or recipe.gray:
        views = _jitter(views, draws[5:11], recipe)
    if recipe.blur:
        views = _blur(views, draws[11:], recipe.blur, recipe.blur_sigma)
    return views.clamp(0, 1)


def _crop(images: torch.Tensor, draws: torch.Tensor, smallest: float, flippable: bool) -> torch.Tensor:
    """Random resized crop as one affine map per image: scale by the part's share, shift within the rest."""
    area, log_ratio = smallest + (1 - smallest) * draws[0], (2 * draws[1] - 1) * math.log(4 / 3)
    width = (area * log_ratio.exp()).sqrt().clamp(max=1)
    height = (area / log_ratio.exp()).sqrt().clamp(max=1)
    mirror = torch.where(draws[4] < 0.5, -1.0, 1.0) if flippable else torch.ones_like(width)
    zero = torch.zeros_like(width)
    across = torch.stack([width * mirror, zero, (2 * draws[2] - 1) * (1 - width)], dim=1)
    down = torch.stack([zero, height, (2 * draws[3] - 1) * (1 - height)], dim=1)
    grid = F.affine_grid(torch.stack([across, down], dim=1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _jitter(images: torch.Tensor, draws: torch.Tensor, recipe: Recipe) -> torch.Tensor:
    """Brightness, contrast, hue, saturation: scale the image, its distance to its mean, turn, scale to its gray."""
    applied = (draws[5] < recipe.jitter_share).float()
    factors = 1 + recipe.jitter * (2 * draws[:3] - 1) * applied
    brightness, contrast, saturation = factors.view(3, -1, 1, 1, 1)
    images = images * brightness
    mean = images.mean((1, 2, 3), keepdim=True)
    images = mean + (images - mean) * contrast
    if recipe.hue:
        images = _turn_hue(images, recipe.hue * (2 * draws[4] - 1) * applied)
    gray = images.mean(1, keepdim=True)
    saturation = torch.where(draws[3].view(-1, 1, 1, 1) < recipe.gray, 0.0, saturation)
    return gray + (images - gray) * saturation


def _turn_hue(images: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Rotate each image's colours by its own number of turns: one 3x3 matrix per image."""
    to_yiq, from_yiq = _TO_YIQ.to(images.device), _FROM_YIQ.to(images.device)
    cos, sin = torch.cos(2 * math.pi * turns), torch.sin(2 * math.pi * turns)
    zero, one = torch.zeros_like(cos), torch.ones_like(cos)
    turn = torch.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], dim=1).view(-1, 3, 3)
    matrix = from_yiq @ turn @ to_yiq
    return (matrix @ images.flatten(2)).view(images.shape)


def _blur(images: torch.Tensor, draws: torch.Tensor, share: float, largest: float) -> torch.Tensor:
    """Gaussian, sigma 0.1 to `largest` pixels, cut at two of those: columns, then rows, a kernel for each image."""
    n, channels, height, width = images.shape
    reach = min(math.ceil(2 * largest), height - 1, width - 1)
    sigma = torch.where(draws[0] < share, 0.1 + (largest - 0.1) * draws[1], _NO_BLUR)
    offsets = torch.arange(-reach, reach + 1, device=images.device)
    kernels = torch.exp(-0.5 * (offsets / sigma[:, None]) ** 2)
    kernels = (kernels / kernels.sum(1, keepdim=True)).repeat_interleave(channels, dim=0)
    one_image = F.pad(images, (reach,) * 4, mode="replicate").view(1, n * channels, height + 2 * reach, -1)
    columns = F.conv2d(one_image, kernels[:, None, :, None], groups=n * channels)
    return F.conv2d(columns, kernels[:, None, None, :], groups=n * channels).view(images.shape)
