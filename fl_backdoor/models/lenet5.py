"""LeNet-5 as it is used today."""

from collections.abc import Sequence

from torch import Tensor, nn

from .shapes import image_shape

_PAPERS = 32
"""Pixels of a side of the paper's images, in the middle of which it lays its digits."""


class LeNet5(nn.Module):
    """The network of LeCun et al. 1998, Fig. 2: two convolutions and three dense layers.

    With ReLU, max pooling and every map connected to every other, as libraries have it. Images
    below 32 pixels a side get the margin of 2 pixels that the paper's digits have.

    Parameters
    ----------
    num_classes : int
        Outputs of the last layer; the softmax is part of the loss.
    input_shape : sequence of int
        Channels, height and width of the images, 12 pixels or more.

    Raises
    ------
    ValueError
        If inputs are no images, or too small.
    """

    def __init__(self, num_classes: int, *, input_shape: Sequence[int] = (1, 28, 28)) -> None:
        super().__init__()
        channels, height, width = image_shape(self, input_shape, least=12)
        margin = 2 if min(height, width) < _PAPERS else 0

        def left(side: int) -> int:
            return ((side + 2 * margin - 4) // 2 - 4) // 2

        self.features = nn.Sequential(
            nn.Conv2d(channels, 6, 5, padding=margin),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(16 * left(height) * left(width), 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Linear(84, num_classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``(n, *input_shape)`` to logits ``(n, num_classes)``."""
        logits: Tensor = self.classifier(self.features(images))
        return logits
