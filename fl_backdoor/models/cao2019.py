"""Models that the experiments train."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from .shapes import check_sizes, image_shape


class Cao2019CNN(nn.Module):
    """The network of Cao et al. 2019, Table I: four 5x5 convolutions and one dense layer.

    The paper does not say how the feature maps shrink. ``stride`` halves them in every
    convolution (28, 14, 7, 4, 2), ``max_pool`` convolves at full size and pools by 2 after
    each (28, 14, 7, 3, 1). Both have about 1.08 million parameters; ``stride`` is the default
    because a step costs half as much and the distances between local models are those that
    the paper's threshold of 0.5 separates.

    Parameters
    ----------
    num_classes : int
        Outputs of the dense layer; the softmax is part of the loss.
    shrink : {"stride", "max_pool"}
        How the feature maps get smaller.
    channels : sequence of int
        Filters of the convolutions.
    input_shape : sequence of int
        Channels, height and width of the images; the paper's are MNIST's.
    seed : int
        Weights are drawn from N(0, 0.02^2) with it; biases are 0 (section III.A).

    Raises
    ------
    ValueError
        If ``shrink`` is unknown, inputs are no images, or the convolutions leave no pixel or no
        channel.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        shrink: Literal["stride", "max_pool"] = "stride",
        channels: Sequence[int] = (32, 64, 128, 256),
        input_shape: Sequence[int] = (1, 28, 28),
        seed: int = 0,
    ) -> None:
        super().__init__()
        if shrink not in ("stride", "max_pool"):
            raise ValueError(f"shrink = {shrink!r} must be 'stride' or 'max_pool'")
        check_sizes(channels=channels)
        layers: list[nn.Module] = []
        before, *sides = image_shape(self, input_shape)
        for after in channels:
            stride = 2 if shrink == "stride" else 1
            layers += [nn.Conv2d(before, after, 5, stride=stride, padding=2), nn.ReLU()]
            if shrink == "max_pool":
                layers.append(nn.MaxPool2d(2))
            before, sides = after, [(n + 1) // 2 if shrink == "stride" else n // 2 for n in sides]
        pixels = math.prod(sides)
        if pixels < 1:
            raise ValueError(
                f"channels = {list(channels)}: {len(channels)} times {shrink} leave nothing of "
                f"{min(input_shape[1:])} pixels"
            )
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(before * pixels, num_classes))

        generator = torch.Generator().manual_seed(seed)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.normal_(module.weight, std=0.02, generator=generator)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``(n, *input_shape)`` to logits ``(n, num_classes)``."""
        logits: Tensor = self.layers(images)
        return logits
