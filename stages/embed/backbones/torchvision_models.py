"""The networks of torchvision: each weights record of its own gives address, hash and preprocessing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cache.location import Location
from stages.embed.backbones.base import BACKBONES, Backbone, FrozenBackbone, Preprocessing
from stages.embed.images.base import ImageSet

if TYPE_CHECKING:
    import torch
    from torchvision.models import WeightsEnum

_OLD_DENSENET_NAME = re.compile(r"(denselayer\d+\.(?:norm|conv))\.(?=[12]\.)")
"""The published DenseNet files are older than the module names: their `norm.1` is `norm1` now."""


@dataclass(frozen=True, kw_only=True)
class TorchvisionBackbone(Backbone):
    """A network trained on ImageNet, registered under torchvision's name; features are what its last layer reads.

    The record of the published weights gives the preprocessing, also for a local file.

    version : the published weights; classifier : the last layer, which is left out
    views : for ResNets those of the thesis (002), section 5.1; for the others, by the rule given there, what their
        training saw: torchvision's recipe is a random crop and a mirror
    """

    version: ClassVar[str] = "IMAGENET1K_V1"
    classifier: ClassVar[str] = "fc"
    views: ClassVar[tuple[str, ...]] = ("identity", "hflip", "sharpen", "trivialaugment")

    def load(self, weights: str, images: ImageSet, weights_root: Location, device: str) -> FrozenBackbone:
        from torch import nn
        from torchvision.models import get_model, get_model_weights

        from stages.embed.backbones.weights import RANDOM, freeze, load_strictly, read_state, seeded_init, source_name

        published = get_model_weights(self.name)[self.version]
        with seeded_init():
            network = get_model(self.name, weights=None)
        dim = network.get_submodule(self.classifier).in_features
        network.set_submodule(self.classifier, nn.Identity())
        if weights != RANDOM:
            state = read_state(weights) if weights else _download(self.name, published)
            load_strictly(network, _renamed(state), weights or published.url, head=f"{self.classifier}.")
        full_name = f"{self.name}.{source_name(weights, published=self.version.lower())}"
        return freeze(
            network, full_name=full_name, preprocessing=recorded_preprocessing(published), dim=dim, device=device
        )


@BACKBONES.register("resnet18")
class ResNet18(TorchvisionBackbone):
    """ResNet-18 on ImageNet; after the average pool, 512. He et al. 2016; thesis (002), section 5.1."""


@BACKBONES.register("resnet34")
class ResNet34(TorchvisionBackbone):
    """ResNet-34 on ImageNet; after the average pool, 512. He et al. 2016."""


@BACKBONES.register("resnet50")
class ResNet50(TorchvisionBackbone):
    """ResNet-50 on ImageNet; after the average pool, 2048. He et al. 2016; thesis (002), section 5.1.

    IMAGENET1K_V2, the weights trained with TrivialAugment (Vryniotis 2021), as in the thesis, section 4.6.
    """

    version = "IMAGENET1K_V2"


@BACKBONES.register("vgg16")
class VGG16(TorchvisionBackbone):
    """VGG-16 on ImageNet; the second hidden layer after its ReLU, 4096. Simonyan and Zisserman 2015.

    The best-practices paper (000), section 7, uses "the features of its last layer", which leaves open which: this is
    the last one before the class scores, as for the other networks.
    """

    classifier = "classifier.6"
    views = ("identity", "hflip", "crop")


@BACKBONES.register("densenet201")
class DenseNet201(TorchvisionBackbone):
    """DenseNet-201 on ImageNet; after the average pool, 1920. Huang et al. 2017; best-practices (000), section A.2."""

    classifier = "classifier"
    views = ("identity", "hflip", "crop")


def recorded_preprocessing(published: WeightsEnum) -> Preprocessing:
    """What torchvision's weights record says."""
    record = published.transforms()
    return Preprocessing(
        resize=record.resize_size[0],
        crop=record.crop_size[0],
        interpolation=record.interpolation.value,
        mean=tuple(record.mean),
        std=tuple(record.std),
    )


def _download(name: str, published: WeightsEnum) -> dict[str, torch.Tensor]:
    """The published weights: from torch.hub's local cache where they are there, else from the network."""
    from stages.embed.backbones.hub import check_url
    from stages.embed.backbones.weights import download_errors

    check_url(name, str(published), published.url)
    with download_errors(name, str(published)):
        return published.get_state_dict(check_hash=True, map_location="cpu", weights_only=True)


def _renamed(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {_OLD_DENSENET_NAME.sub(r"\1", key): tensor for key, tensor in state.items()}
