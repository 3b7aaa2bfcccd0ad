"""ResNet-18 from torchvision."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from stages.embed.backbones.base import BACKBONES, Backbone, FrozenBackbone, Preprocessing
from stages.embed.images.base import ImageSet

if TYPE_CHECKING:
    from torch import nn
    from torchvision.models import ResNet


@BACKBONES.register("resnet18")
@dataclass(frozen=True, kw_only=True)
class ResNet18(Backbone):
    """ResNet-18 trained on ImageNet; features after the average pool, 512. He et al. 2016; thesis (002), section 5.1.

    Weights: torchvision's IMAGENET1K_V1, whose own record gives the preprocessing, also for a local file.
    """

    views: ClassVar[tuple[str, ...]] = ("identity", "hflip", "sharpen", "trivialaugment")

    def load(self, weights: str, images: ImageSet, weights_root: Path, device: str) -> FrozenBackbone:
        from torchvision.models import ResNet18_Weights

        from stages.embed.backbones.weights import RANDOM, freeze

        network = self._network(weights)
        source = {"": "imagenet1k_v1", RANDOM: RANDOM}.get(weights, Path(weights).stem)
        record = ResNet18_Weights.IMAGENET1K_V1.transforms()
        preprocessing = Preprocessing(
            resize=record.resize_size[0],
            crop=record.crop_size[0],
            interpolation=record.interpolation.value,
            mean=tuple(record.mean),
            std=tuple(record.std),
        )
        return freeze(network, full_name=f"resnet18.{source}", preprocessing=preprocessing, dim=512, device=device)

    def _network(self, weights: str) -> nn.Module:
        from torch import nn
        from torchvision.models import resnet18

        from stages.embed.backbones.weights import RANDOM, load_strictly, read_state, seeded_init

        with seeded_init():
            network = resnet18(weights=None) if weights else _download()
        network.fc = nn.Identity()
        if weights not in ("", RANDOM):
            load_strictly(network, read_state(weights), weights, head="fc.")
        return network


def _download() -> ResNet:
    """The published weights: from torch.hub's local cache where they are there, else from the network."""
    import torch
    from torchvision.models import ResNet18_Weights, resnet18

    from stages.embed.backbones.weights import check_reachable, download_errors

    weights = ResNet18_Weights.IMAGENET1K_V1
    if not (Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name).is_file():
        check_reachable("resnet18", str(weights), weights.url)
    with download_errors("resnet18", str(weights)):
        return resnet18(weights=weights)
