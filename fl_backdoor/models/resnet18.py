"""ResNet-18, with the parameter names of torchvision."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from .shapes import check_sizes, image_shape

_SMALL = 64
"""Pixels of a side, below which images get the stem that the paper has for CIFAR-10."""


def _convolution(before: int, after: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(before, after, size, stride=stride, padding=size // 2, bias=False)


class _Block(nn.Module):
    """Two convolutions of 3 x 3, to which their input is added (Fig. 2)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _convolution(before, after, 3, stride)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = _convolution(after, after, 3)
        self.bn2 = nn.BatchNorm2d(after)
        self.downsample: nn.Module | None = None
        if stride > 1 or before != after:
            self.downsample = nn.Sequential(
                _convolution(before, after, 1, stride), nn.BatchNorm2d(after)
            )

    def forward(self, images: Tensor) -> Tensor:
        hidden = functional.relu(self.bn1(self.conv1(images)))
        shortcut = images if self.downsample is None else self.downsample(images)
        return functional.relu(self.bn2(self.conv2(hidden)) + shortcut)


class ResNet18(nn.Module):
    """The residual network of 18 layers of He et al. 2016, Table 1; 11 million parameters.

    Its names are torchvision's, so that a state dict of torchvision's loads. Images below 64 pixels
    a side get a first convolution of 3 x 3 and no pooling, as the paper does for CIFAR-10 (section
    4.2): the one for ImageNet, 7 x 7 and pooling, would leave 8 of 32 pixels. So a state dict has
    to be of a network with the same beginning.

    Parameters
    ----------
    num_classes : int
        Outputs of the last layer; the softmax is part of the loss.
    input_shape : sequence of int
        Channels, height and width of the images.
    width : int
        Channels of the first stage; each of the three others has twice as many as the one before.

    Raises
    ------
    ValueError
        If inputs are no images, or there are no channels.
    """

    def __init__(
        self, num_classes: int, *, input_shape: Sequence[int] = (3, 32, 32), width: int = 64
    ) -> None:
        super().__init__()
        check_sizes(width=[width])
        channels, *sides = image_shape(self, input_shape)
        small = min(sides) < _SMALL
        self.conv1 = _convolution(channels, width, 3 if small else 7, 1 if small else 2)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = nn.Sequential(_Block(width, width, 1), _Block(width, width, 1))
        self.layer2 = nn.Sequential(_Block(width, 2 * width, 2), _Block(2 * width, 2 * width, 1))
        self.layer3 = nn.Sequential(
            _Block(2 * width, 4 * width, 2), _Block(4 * width, 4 * width, 1)
        )
        self.layer4 = nn.Sequential(
            _Block(4 * width, 8 * width, 2), _Block(8 * width, 8 * width, 1)
        )
        self.fc = nn.Linear(8 * width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # He et al. 2015, by the size of the output
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``(n, *input_shape)`` to logits ``(n, num_classes)``."""
        hidden = self.maxpool(functional.relu(self.bn1(self.conv1(images))))
        hidden = self.layer4(self.layer3(self.layer2(self.layer1(hidden))))
        logits: Tensor = self.fc(torch.mean(hidden, dim=(2, 3)))
        return logits
