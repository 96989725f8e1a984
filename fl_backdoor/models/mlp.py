"""Dense layers for inputs of any shape."""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from .shapes import check_sizes


class MLP(nn.Module):
    """Dense layers with ReLU between them; without hidden ones it is multinomial regression.

    Parameters
    ----------
    num_classes : int
        Outputs of the last layer; the softmax is part of the loss.
    input_shape : sequence of int
        Shape of one input, whatever it is: it is laid flat.
    hidden : sequence of int
        Nodes of each hidden layer.

    Raises
    ------
    ValueError
        If a layer has no nodes.
    """

    def __init__(
        self, num_classes: int, *, input_shape: Sequence[int], hidden: Sequence[int] = (64,)
    ) -> None:
        super().__init__()
        check_sizes(hidden=hidden)
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in pairwise([math.prod(input_shape), *hidden]):
            layers += [nn.Linear(before, after), nn.ReLU()]
        last = hidden[-1] if hidden else math.prod(input_shape)
        self.layers = nn.Sequential(*layers, nn.Linear(last, num_classes))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs ``(n, *input_shape)`` to logits ``(n, num_classes)``."""
        logits: Tensor = self.layers(inputs)
        return logits
