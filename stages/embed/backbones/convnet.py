"""A small convolutional network, cheap enough to pretrain on two CPU cores."""

import torch
from torch import nn


class ConvNet(nn.Module):
    """Six 3x3 convolutions with batch norm and ReLU, width doubled where the resolution halves, then the mean.

    width : channels of the first layers; the features have 4 * width
    size : side of the input in pixels; above 16 the first layer halves it too
    """

    def __init__(self, width: int, size: int):
        super().__init__()
        first_stride = 2 if size > 16 else 1
        self.layers = nn.Sequential(
            *_layer(3, width, first_stride),
            *_layer(width, width, 1),
            *_layer(width, 2 * width, 2),
            *_layer(2 * width, 2 * width, 1),
            *_layer(2 * width, 4 * width, 2),
            *_layer(4 * width, 4 * width, 1),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(n, 3, h, w) -> (n, 4 * width)."""
        return self.layers(images).mean((2, 3))


def _layer(channels_in: int, channels_out: int, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(channels_out), nn.ReLU(inplace=True)]
