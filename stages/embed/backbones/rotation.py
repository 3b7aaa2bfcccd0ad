"""Rotation prediction: every image is shown in four directions, and the network says which one it sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from stages.embed.backbones.base import BACKBONES
from stages.embed.backbones.self_supervised import SelfSupervised
from stages.embed.pretrain.recipes import Recipe

if TYPE_CHECKING:
    import torch
    from torch import nn


@BACKBONES.register("rotation")
@dataclass(frozen=True, kw_only=True)
class Rotation(SelfSupervised):
    """Predicting which of four rotations was applied. Gidaris et al. 2018; best practices (000), section 7.

    Deviation: features are taken after the last layer, as of the other backbones; Gidaris et al. found those of their
    second block better, since the last ones know most about rotation.
    """

    n_views: ClassVar[int] = 1

    def head(self, dim: int, recipe: Recipe) -> nn.Module:
        from torch import nn

        return nn.Linear(dim, 4)

    def outputs(self, network: nn.Module, head: nn.Module, views: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        return (head(network(four_rotations(views[0]))),)

    def loss(self, outputs: tuple[torch.Tensor, ...], recipe: Recipe) -> torch.Tensor:
        return rotation_loss(outputs[0])


def four_rotations(images: torch.Tensor) -> torch.Tensor:
    """(n, 3, s, s) -> (4n, 3, s, s): all images as they are, then turned left by 90, by 180 and by 270 degrees."""
    import torch

    return torch.cat([torch.rot90(images, turns, dims=(2, 3)) for turns in range(4)])


def rotation_loss(logits: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the direction, mean over images and directions; log 4 for a network that cannot tell.

    logits : (4n, 4), rows in the order of `four_rotations`
    Source: Gidaris et al. 2018, equations 1 and 2.
    """
    import torch
    import torch.nn.functional as F

    return F.cross_entropy(logits, torch.arange(4, device=logits.device).repeat_interleave(len(logits) // 4))
