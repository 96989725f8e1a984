"""A model run on the test set, and on what an attack is after."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clients import Goal
from clients.training import logits

from .metrics import Answers, part, predict


def answers(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    goal: Goal | None,
    memory: Mapping[str, NDArray[Any]],
    classes: int,
) -> Answers:
    """Run a model on the test set, and on what the attack is after.

    Parameters
    ----------
    model : torch.nn.Module
        The global model.
    inputs, labels : Tensor of shape (n, ...) and (n,)
        Test set.
    goal : Goal or None
        Says which samples count, and puts the trigger on them. None: the attack is untargeted.
    memory : mapping of str to array
        An attacker's, which may hold a trigger that was learned.
    classes : int
        C.
    """
    model.eval()
    output = forward(model, inputs)
    if goal is None:
        return Answers(output, labels, None, None, classes)
    if goal.picked is not None:
        attacked = forward(model, goal.picked(inputs, labels))
        return Answers(output, labels, goal.target, attacked, classes)
    victims = goal.victims(labels)
    triggered = goal.trigger(inputs[victims], memory)
    attacked = output[victims] if triggered is None else forward(model, triggered)
    return Answers(output, labels, goal.target, attacked, classes)


def forward(model: nn.Module, inputs: Tensor) -> Tensor:
    """Return the outputs of a model, on the CPU."""
    device = next(model.parameters()).device
    with torch.inference_mode():
        parts = [logits(model(part.to(device))).cpu() for part in torch.split(inputs, 250)]
    return torch.cat(parts) if parts else torch.empty(0, 1)


def accuracies(model: nn.Module, samples: Sequence[tuple[Tensor, Tensor]]) -> list[float]:
    """Return the accuracy of a model on each of some sets of inputs and labels."""
    model.eval()
    return [part(predict(forward(model, inputs)) == labels.cpu()) for inputs, labels in samples]
