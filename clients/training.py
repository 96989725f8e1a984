"""Minibatch gradient descent as every client does it, with a place for an attack's hooks."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]
Named = dict[str, Tensor]
NewOptimizer = Callable[[list[Tensor], float], Optimizer]
"""Makes the optimizer of a round, given parameters and learning rate."""
Step = Callable[[list[Tensor], tuple[Tensor, ...]], None]
"""Moves parameters by their gradients."""


def round_seed(seed: int, client: int, server_round: int) -> int:
    """Derive the seed of a client's round; round 0 is the preparation of the data."""
    sequence = np.random.SeedSequence([seed, client, server_round])
    return int(sequence.generate_state(1, np.uint64)[0] >> 1)


def logits(output: Any) -> Tensor:
    """Return the logits in what a model returns: it, its first, or its ``logits``.

    Raises
    ------
    ValueError
        If they are not there.
    """
    found = output
    if isinstance(output, dict):  # before attributes: the outputs of transformers are both
        found = output.get("logits")
    elif hasattr(output, "logits"):
        found = output.logits
    elif isinstance(output, tuple | list) and output:
        found = output[0]
    if not isinstance(found, Tensor):
        raise ValueError(
            f"the model returns a {type(output).__name__}: allowed are logits (n, C), a tuple that "
            "begins with them, or a mapping that has them as 'logits'"
        )
    return found


def cross_entropy(output: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross entropy of logits ``(n, C)`` and class numbers ``(n,)``.

    Raises
    ------
    ValueError
        If a label is none of the classes; it does not say which.
    """
    try:
        return functional.cross_entropy(output, labels)
    except IndexError:  # without torch's text: it quotes the label, and travels to the server
        raise ValueError("a label is none of the model's classes") from None


def cross_entropy_loss(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross entropy of a batch."""
    return cross_entropy(logits(model(inputs)), labels)


def descend(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    batch_size: int,
    epochs: int,
    learning_rate: float,
    weight_decay: float,
    seed: int,
    optimizer: NewOptimizer | None = None,
    loss: Loss = cross_entropy_loss,
    correct: Sequence[Callable[[Named], None]] = (),
    project: Callable[[Named], None] | None = None,
    constrain: Callable[[Named], None] | None = None,
) -> float:
    """Train a model in place and return the mean loss over the last epoch's batches.

    Without an optimizer the steps are those of ``torch.optim.SGD`` to the bit, in a third to a
    half less time. With BatchNorm, which cannot normalize a batch of one, a last batch of one row
    joins the batch before it; every other model gets the batches that ``torch.split`` makes.

    Parameters
    ----------
    model : torch.nn.Module
        Only parameters that require a gradient, and get one, move.
    inputs, labels : Tensor of shape (n, ...) and (n,)
        On the model's device.
    batch_size, epochs, learning_rate, weight_decay, optimizer
        As for `HonestClient`.
    seed : int
        Decides shuffling and dropout; all generators are afterwards what they were.
    loss : callable of (model, inputs, labels)
        Mean loss of a batch.
    correct : sequence of callable
        Each may replace the gradients, given by the parameters' names, before each step.
    project : callable, optional
        An attack's, which comes after them.
    constrain : callable, optional
        May change the parameters, given by name, in place after each step.

    Raises
    ------
    ValueError
        If no parameter trains, or BatchNorm has one row only.
    """
    named: Named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not named:
        raise ValueError("the model has no parameter that requires a gradient: nothing trains")
    merges = any(isinstance(module, _BatchNorm) for module in model.modules())
    if merges and len(labels) == 1:
        raise ValueError("the model has BatchNorm, which needs 2 samples or more: the client has 1")
    if optimizer is None:
        move = _plain(learning_rate, weight_decay)
    else:
        move = _general(optimizer(list(named.values()), learning_rate))
    projects = [*correct, project] if project is not None else [*correct]
    model.train()
    losses: list[Tensor] = []
    with _seeded(seed, inputs.device):
        for _ in range(epochs):
            losses.clear()
            for batch in _batches(len(labels), batch_size, merges):
                batch = batch.to(inputs.device)
                value = loss(model, inputs[batch], labels[batch])
                _step(value, named, move, projects, constrain)
                losses.append(value.detach())
    return float(torch.stack(losses).mean()) if losses else 0.0


def _batches(count: int, size: int, merges: bool) -> list[Tensor]:
    batches = list(torch.split(torch.randperm(count), size))
    if merges and len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def _step(
    value: Tensor,
    named: Named,
    move: Step,
    projects: Sequence[Callable[[Named], None]],
    constrain: Callable[[Named], None] | None,
) -> None:
    parameters = list(named.values())
    gradients = torch.autograd.grad(value, parameters, allow_unused=True)
    with torch.no_grad():
        if projects or any(gradient is None for gradient in gradients):
            pairs = zip(named, gradients, strict=True)
            found = {name: gradient for name, gradient in pairs if gradient is not None}
            for project in projects:
                project(found)
            parameters = [named[name] for name in found]
            gradients = tuple(found.values())
        move(parameters, gradients)
        if constrain is not None:
            constrain(named)


def _plain(learning_rate: float, weight_decay: float) -> Step:
    """Return the step of SGD without momentum."""

    def move(parameters: list[Tensor], gradients: tuple[Tensor, ...]) -> None:
        if weight_decay:
            gradients = torch._foreach_add(gradients, parameters, alpha=weight_decay)
        torch._foreach_add_(parameters, gradients, alpha=-learning_rate)

    return move


def _general(optimizer: Optimizer) -> Step:
    """Return the step of any optimizer of torch's."""
    optimizer.zero_grad()

    def move(parameters: list[Tensor], gradients: tuple[Tensor, ...]) -> None:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
        for parameter in parameters:
            parameter.grad = None

    return move


class Seeded:
    """Draw from torch's generator of the CPU seeded anew, and leave it as it was.

    The draws are those of ``torch.manual_seed``, which seeds all devices there are: 0.2 to 0.8 ms.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def __enter__(self) -> None:
        self._before = torch.get_rng_state()
        torch.default_generator.manual_seed(self._seed)

    def __exit__(self, *_: object) -> None:
        torch.set_rng_state(self._before)


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the generators that training on a device draws from, and give them back as they were."""
    if device.type == "cpu":
        with Seeded(seed):
            yield
    else:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            yield
