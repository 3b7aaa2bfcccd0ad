"""ResNets with the CIFAR stem, and the SimCLR weights that others trained for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from cache.errors import WeightsUnavailableError
from cache.location import Location
from stages.embed.backbones.base import BACKBONES, Backbone, FrozenBackbone, Preprocessing
from stages.embed.images.base import ImageSet

if TYPE_CHECKING:
    import torch

SIDE = 32
STATISTICS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
}
"""Mean and standard deviation of the training images, as SCAN, TypiClust and the hub's models all use them."""


@dataclass(frozen=True, kw_only=True)
class CifarResNet(Backbone):
    """A ResNet for 32x32 images with no weights of its own; after the average pool. Chen et al. 2020, appendix B.9.

    Takes state dicts of torchvision or timm and the checkpoints of the SCAN and TypiClust repositories.

    trained_on : cifar10 or cifar100, whose mean and standard deviation normalise the input
    views : what SimCLR's training on CIFAR saw, without its colour changes
    """

    arch: ClassVar[str]
    views: ClassVar[tuple[str, ...]] = ("identity", "hflip", "crop")
    trained_on: str = "cifar10"

    def __post_init__(self) -> None:
        if self.trained_on not in STATISTICS:
            raise ValueError(f"trained_on must be one of {', '.join(STATISTICS)}, got {self.trained_on!r}")

    def load(self, weights: str, images: ImageSet, weights_root: Location, device: str) -> FrozenBackbone:
        if not weights:
            raise WeightsUnavailableError(
                f"{self.name!r} has no published weights: give a file with WEIGHTS=path (a checkpoint of SCAN or "
                f"TypiClust, or any state dict that fits), or ask for random weights by name with WEIGHTS=random"
            )
        return _load(self.arch, weights, weights, self.trained_on, device, published="")


@BACKBONES.register("cifar_resnet18")
class CifarResNet18(CifarResNet):
    """ResNet-18 with the CIFAR stem, 512. He et al. 2016; SUPClust (001), section 4: SimCLR for CIFAR-10."""

    arch = "resnet18"


@BACKBONES.register("cifar_resnet34")
class CifarResNet34(CifarResNet):
    """ResNet-34 with the CIFAR stem, 512. He et al. 2016; Chen et al. 2020, appendix B.9."""

    arch = "resnet34"


@BACKBONES.register("cifar_resnet50")
class CifarResNet50(CifarResNet):
    """ResNet-50 with the CIFAR stem, 2048. He et al. 2016; Chen et al. 2020, appendix B.9."""

    arch = "resnet50"


@BACKBONES.register("resnet34_simclr_cifar100")
@dataclass(frozen=True, kw_only=True)
class ResNet34SimCLRCIFAR100(Backbone):
    """ResNet-34 with the CIFAR stem, trained with SimCLR on CIFAR-100; 512. SUPClust (001), section 4, footnote 1."""

    repository: ClassVar[str] = "edadaltocg/resnet34_simclr_cifar100"
    file: ClassVar[str] = "pytorch_model.bin"
    views: ClassVar[tuple[str, ...]] = CifarResNet.views

    def load(self, weights: str, images: ImageSet, weights_root: Location, device: str) -> FrozenBackbone:
        from stages.embed.backbones.hub import download_from_hub

        path = weights or download_from_hub(self.name, self.repository, self.repository, self.file)
        return _load("resnet34", weights, path, "cifar100", device, published="simclr_cifar100")


def resnet_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A checkpoint of SCAN or TypiClust in torchvision's names; any other state dict as it is.

    Theirs is `backbone.layer2.0.shortcut.0.weight` beside a `contrastive_head` or, after clustering, `cluster_head`s.
    """
    if not any(key.startswith("backbone.") for key in state):
        return state
    kept = {key: value for key, value in state.items() if not key.startswith(("contrastive_head.", "cluster_head."))}
    return {key.removeprefix("backbone.").replace(".shortcut.", ".downsample."): kept[key] for key in kept}


def _load(arch: str, weights: str, path: str, trained_on: str, device: str, published: str) -> FrozenBackbone:
    """weights : as the user gave them, which names the result; path : the file that they or the hub led to"""
    from stages.embed.backbones.cifar_stem import cifar_resnet
    from stages.embed.backbones.weights import RANDOM, freeze, load_strictly, read_state, seeded_init, source_name

    with seeded_init():
        network: Any = cifar_resnet(arch)
    if path != RANDOM:
        load_strictly(network, resnet_names(read_state(path)), path, head="fc.")
    mean, std = STATISTICS[trained_on]
    preprocessing = Preprocessing(resize=SIDE, crop=SIDE, interpolation="bilinear", mean=mean, std=std)
    full_name = f"cifar_{arch}.{source_name(weights, published=published)}"
    dim = 512 * network.layer4[-1].expansion
    return freeze(network, full_name=full_name, preprocessing=preprocessing, dim=dim, device=device)
