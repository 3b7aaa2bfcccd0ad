"""ResNets without a classifier, for pretraining: with the stem for 32x32 images, or with torchvision's own."""

from torch import nn


def cifar_resnet(arch: str) -> nn.Module:
    """torchvision's `arch` (resnet18, resnet34, resnet50) with the CIFAR stem; (n, 3, h, w) -> (n, 512 or 2048).

    A 3x3 first convolution of stride 1 and no max-pool: Chen et al. 2020, appendix B.9.
    Weights are freshly initialised from torch's global generator; see `weights.seeded_init`.
    """
    network = plain_resnet(arch)
    network.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
    network.maxpool = nn.Identity()
    return network


def plain_resnet(arch: str) -> nn.Module:
    """torchvision's `arch`, for large images; (n, 3, h, w) -> (n, 512 or 2048). Weights as `cifar_resnet`."""
    import torchvision

    network = getattr(torchvision.models, arch)(weights=None)
    network.fc = nn.Identity()
    return network
