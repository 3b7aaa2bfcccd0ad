"""SimCLR: two views of one image are drawn together, away from the views of all others."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from stages.embed.backbones.base import BACKBONES
from stages.embed.backbones.self_supervised import SelfSupervised
from stages.embed.pretrain.recipes import Recipe

if TYPE_CHECKING:
    import torch
    from torch import nn


@BACKBONES.register("simclr")
@dataclass(frozen=True, kw_only=True)
class SimCLR(SelfSupervised):
    """Contrastive pretraining. Chen et al. 2020; thesis (002), equation 2.1; recipes: SUPClust (001), appendix A.2.

    temperature : of the loss; the lower, the more the nearest negatives count
    """

    n_views: ClassVar[int] = 2
    temperature: float | None = None

    def head(self, dim: int, recipe: Recipe) -> nn.Module:
        """Chen et al. 2020, section 4.2: one hidden layer."""
        from torch import nn

        return nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, recipe.projection_dim))

    def outputs(self, network: nn.Module, head: nn.Module, views: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        import torch

        return (head(network(torch.cat(views))),)

    def loss(self, outputs: tuple[torch.Tensor, ...], recipe: Recipe) -> torch.Tensor:
        return nt_xent(outputs[0], recipe.temperature)


def nt_xent(projections: torch.Tensor, temperature: float) -> torch.Tensor:
    """Normalised temperature-scaled cross-entropy, mean over all 2n anchors.

    projections : (2n, dim); rows i and n + i are two views of one image, all other rows are negatives
    Source: thesis (002), equation 2.1; Chen et al. 2020, equation 1.
    """
    import torch
    import torch.nn.functional as F

    unit = F.normalize(projections, dim=1)
    similarity = (unit @ unit.T / temperature).fill_diagonal_(-math.inf)
    return F.cross_entropy(similarity, torch.arange(len(unit), device=unit.device).roll(len(unit) // 2))
