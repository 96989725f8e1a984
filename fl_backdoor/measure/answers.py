"""A model run on the test set, and on what an attack is after."""

import torch
from torch import Tensor, nn

from ..federation.attacks import Attack
from .metrics import Answers


def answers(
    model: nn.Module, inputs: Tensor, labels: Tensor, attack: Attack, digits: list[int]
) -> Answers:
    """Run a model on the test set, and on what the attack is after.

    Parameters
    ----------
    model : torch.nn.Module
        The global model.
    inputs, labels : Tensor of shape (n, ...) and (n,)
        Test set.
    attack : Attack
        Says which samples count, and stamps the trigger.
    digits : list of int
        The digit that each label stands for.
    """
    model.eval()
    output = forward(model, inputs)
    victims = attack.victims(labels, digits)
    triggered = attack.triggered(inputs[victims])
    attacked = output[victims] if triggered is None else forward(model, triggered)
    return Answers(output, labels, digits.index(attack.target), attacked, len(digits))


def forward(model: nn.Module, inputs: Tensor) -> Tensor:
    """Return the outputs of a model, on the CPU."""
    device = next(model.parameters()).device
    with torch.inference_mode():
        parts = [model(part.to(device)).cpu() for part in torch.split(inputs, 250)]
    return torch.cat(parts) if parts else torch.empty(0, 1)
