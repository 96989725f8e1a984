"""Models that the experiments train."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn


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
    image_size : int
        Height and width of the (single-channel) input.
    seed : int
        Weights are drawn from N(0, 0.02^2) with it; biases are 0 (section III.A).

    Raises
    ------
    ValueError
        If ``shrink`` is unknown, or the convolutions leave no pixel or no channel.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        shrink: Literal["stride", "max_pool"] = "stride",
        channels: Sequence[int] = (32, 64, 128, 256),
        image_size: int = 28,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if shrink not in ("stride", "max_pool"):
            raise ValueError(f"shrink = {shrink!r} must be 'stride' or 'max_pool'")
        whole = isinstance(channels, Sequence) and all(type(c) is int and c > 0 for c in channels)
        if not whole:
            raise ValueError(f"channels = {channels!r} must be 1 or more each, integers")
        layers: list[nn.Module] = []
        before, size = 1, image_size
        for after in channels:
            stride = 2 if shrink == "stride" else 1
            layers += [nn.Conv2d(before, after, 5, stride=stride, padding=2), nn.ReLU()]
            if shrink == "max_pool":
                layers.append(nn.MaxPool2d(2))
            before, size = after, (size + 1) // 2 if shrink == "stride" else size // 2
        if size < 1:
            raise ValueError(
                f"channels = {list(channels)}: {len(channels)} times {shrink} leave nothing of "
                f"{image_size} pixels"
            )
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(before * size**2, num_classes))

        generator = torch.Generator().manual_seed(seed)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.normal_(module.weight, std=0.02, generator=generator)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``(n, 1, image_size, image_size)`` to logits ``(n, num_classes)``."""
        logits: Tensor = self.layers(images)
        return logits
