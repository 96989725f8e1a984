"""What the active party makes of the passive parties' activations: Liu, Yi, Chen 2020, Fig. 2."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .enrolment import MAX_OUTPUTS


class SumTop(nn.Module):
    """Add the activations, H_i = sum_k H_i^k (Eq. 4): nothing to train (Fig. 2 a).

    Parameters
    ----------
    widths : sequence of int
        m_k, the outputs of each passive party: all alike, and a score for each class. Scores
        beyond the classes are part of the softmax and never a label.
    num_classes : int
        C.
    seed : int
        Unused, since there are no weights.

    Raises
    ------
    ValueError
        If the parties' outputs differ, or are fewer than the classes.
    """

    def __init__(self, widths: Sequence[int], num_classes: int, *, seed: int = 0) -> None:  # noqa: ARG002
        super().__init__()
        if len(set(widths)) != 1 or widths[0] < num_classes:
            raise ValueError(
                f"the parties send {', '.join(map(str, widths))} values a row; SumTop adds scores, "
                f"as many from each and at least one for each of {num_classes} classes "
                "(bottom.projection=true)"
            )

    def forward(self, activations: Sequence[Tensor]) -> Tensor:
        """Map activations, one ``(b, m)`` a party, to logits ``(b, m)``."""
        first, *others = activations
        return sum(others, start=first)


class DenseTop(nn.Module):
    """Concatenate, a dense layer with ReLU, the output layer: trainable (Fig. 2 b, section 6.2).

    Parameters
    ----------
    widths : sequence of int
        m_k, the outputs of each passive party.
    num_classes : int
        C.
    hidden : int (default: 32)
        Nodes of the dense layer.
    seed : int
        Weights are drawn from Glorot's uniform distribution with it; biases are 0.

    Raises
    ------
    ValueError
        If ``hidden`` is no integer of 1 to 65,536.
    """

    def __init__(
        self, widths: Sequence[int], num_classes: int, *, hidden: int = 32, seed: int = 0
    ) -> None:
        super().__init__()
        check_nodes(hidden=hidden)
        self.layers = nn.Sequential(
            nn.Linear(sum(widths), hidden), nn.ReLU(), nn.Linear(hidden, num_classes)
        )
        init_glorot(self.layers, seed)

    def forward(self, activations: Sequence[Tensor]) -> Tensor:
        """Map activations, one ``(b, m_k)`` a party, to logits ``(b, C)``."""
        logits: Tensor = self.layers(torch.cat(list(activations), dim=1))
        return logits


def check_nodes(**nodes: object) -> None:
    """Refuse a size of a layer that is no integer of 1 to 65,536.

    Raises
    ------
    ValueError
        Naming the argument and its value.
    """
    for name, value in nodes.items():
        if type(value) is not int or not 1 <= value <= MAX_OUTPUTS:
            raise ValueError(
                f"{name} = {value!r} must be an integer of 1 or more, at most {MAX_OUTPUTS}"
            )


def init_glorot(layers: nn.Sequential, seed: int) -> None:
    """Draw the weights of dense layers from Glorot's uniform distribution; biases become 0."""
    generator = torch.Generator().manual_seed(seed)
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight, generator=generator)
            nn.init.zeros_(layer.bias)
