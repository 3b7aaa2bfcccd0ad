"""SimSiam: each view predicts the other one, without negatives; a stopped gradient keeps it from collapsing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from stages.embed.backbones.base import BACKBONES
from stages.embed.backbones.self_supervised import SelfSupervised
from stages.embed.pretrain.recipes import Recipe

if TYPE_CHECKING:
    import torch
    from torch import nn


@BACKBONES.register("simsiam")
@dataclass(frozen=True, kw_only=True)
class SimSiam(SelfSupervised):
    """Prediction between two views. Chen and He 2021; recipe: SSL meets AL (003), sections 3.2 and 4.

    Each view passes the network on its own, so that batch norm sees one kind of view at a time, as in the original.
    """

    n_views: ClassVar[int] = 2

    def head(self, dim: int, recipe: Recipe) -> nn.Module:
        """Two projection layers (as Chen and He do for CIFAR) and a predictor with a bottleneck of a quarter."""
        from torch import nn

        out = recipe.projection_dim
        projector = nn.Sequential(
            *_hidden(dim, out), nn.Linear(out, out, bias=False), nn.BatchNorm1d(out, affine=False)
        )
        predictor = nn.Sequential(*_hidden(out, max(out // 4, 1)), nn.Linear(max(out // 4, 1), out))
        return nn.ModuleDict({"projector": projector, "predictor": predictor})

    def outputs(self, network: nn.Module, head: nn.Module, views: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        from torch import nn

        assert isinstance(head, nn.ModuleDict)
        projections = [head["projector"](network(view)) for view in views]
        return (*(head["predictor"](projection) for projection in projections), *projections)

    def loss(self, outputs: tuple[torch.Tensor, ...], recipe: Recipe) -> torch.Tensor:
        return negative_cosine(*outputs)


def negative_cosine(p1: torch.Tensor, p2: torch.Tensor, z1: torch.Tensor, z2: torch.Tensor) -> torch.Tensor:
    """-(cos(p1, z2) + cos(p2, z1)) / 2, mean over the images; in [-1, 1].

    p1, p2 : (n, dim) predictions; z1, z2 : (n, dim) projections of the two views, which get no gradient from here
    Source: SSL meets AL (003), equations 1 and 2; Chen and He 2021, equations 3 and 4 (the stopped gradient).
    """
    import torch.nn.functional as F

    first = F.cosine_similarity(p1, z2.detach(), dim=1).mean()
    second = F.cosine_similarity(p2, z1.detach(), dim=1).mean()
    return -(first + second) / 2


def _hidden(dim: int, out: int) -> list[nn.Module]:
    from torch import nn

    return [nn.Linear(dim, out, bias=False), nn.BatchNorm1d(out), nn.ReLU(inplace=True)]
