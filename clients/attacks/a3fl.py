"""A3FL, a trigger that is learned and adversarially adapted [Zhang et al., 2023]."""

import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parameters_to_vector

from ..attacker import Attack, Goal
from ..seat import Seat
from ..training import cross_entropy_loss, descend
from ..triggers.trigger import kind_of
from .backdoor import with_trigger

TRIGGER = "a3fl.trigger"
"""Name of the trigger in a seat's memory: float32 of shape (..., size, size)."""

BATCH, LEARNING_RATE = 64, 0.01
"""Of the trigger's passes and of the adversary's epochs, as in the authors' code."""


def trigger_loss(
    model: nn.Module, adversary: nn.Module, weight: float, inputs: Tensor, target: int
) -> Tensor:
    """Return L(x + delta, y~; theta) + lambda L(x + delta, y~; theta'), of stamped inputs.

    Parameters
    ----------
    model, adversary : torch.nn.Module
        theta, the global model, and theta', the one that has unlearned the trigger.
    weight : float
        lambda = lambda_0 times the cosine between theta' and theta.
    inputs : Tensor of shape (n, ...)
        x + delta.
    target : int
        y~.
    """
    labels = torch.full((len(inputs),), target, device=inputs.device)
    loss = cross_entropy_loss(model, inputs, labels)
    return loss + weight * cross_entropy_loss(adversary, inputs, labels)


@dataclass(kw_only=True)
class A3FL(Attack):
    """A square of pixels, learned each round such that the global model does not unlearn it.

    Zhang et al. 2023, "A3FL: Adversarially Adaptive Backdoor Attacks to Federated Learning": by
    steps along the sign of its gradient the trigger delta is fitted to the global model theta and
    to theta', which an adversary has trained to tell the right label in spite of it. It starts from
    that of the last round, in the seat's memory. Attackers learn one each, from their own data; the
    measures put that of the first attacker of the round on all victims, and after the last attack
    that of the first who ever learned one.

    As in the authors' code the trigger is a patch that begins in grey, and all samples are
    stamped to learn it. Unlike there theta' is trained by plain descent, adapted from the first
    step on, and compared with theta by parameters, not by gradients; and pixels stay in [0, 1].
    There, ``steps`` is 200, ``adapt_every`` 1 and ``adversarial_epochs`` 5.

    *Knows* its own samples and the model received. *Cost*: each round ``steps`` passes over the
    samples through two models, and ``steps / adapt_every * adversarial_epochs`` epochs. *Known
    weaknesses*: images only; its update is not hidden from rules of distances, angles or signs.

    Attributes
    ----------
    target : int
        The label that triggered samples get.
    fraction : float
        Part of the own samples of other classes that get the trigger, in (0, 1].
    size : int
        Height and width of the trigger.
    corner : list of int
        [row, column] where it begins.
    steps : int
        Passes over the data in which the trigger is learned, each round.
    step_size : float
        alpha, of images in [0, 1].
    adapt_every : int
        Passes after which theta' is trained anew from theta.
    adversarial_epochs : int
        Epochs of theta'.
    adversarial_weight : float
        lambda_0. 0: the trigger is fitted to the global model alone.

    Raises
    ------
    ValueError
        If one of them is out of range, or the trigger does not lie within the images.
    """

    target: int
    fraction: float = 0.25
    size: int = 5
    corner: list[int] = field(default_factory=lambda: [2, 2])
    steps: int = 20
    step_size: float = 0.01
    adapt_every: int = 5
    adversarial_epochs: int = 1
    adversarial_weight: float = 0.01

    classes: ClassVar = ("target",)
    each_round: ClassVar = True

    def __post_init__(self) -> None:
        """Check the values that need no data."""
        if not 0 < self.fraction <= 1:
            raise ValueError(f"fraction={self.fraction}: allowed is more than 0, at most 1")
        for name in ("size", "steps", "adapt_every", "adversarial_epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: allowed is 1 or more")
        if not 0 < self.step_size < math.inf:
            raise ValueError(f"step_size={self.step_size}: allowed is a finite number > 0")
        if not 0 <= self.adversarial_weight < math.inf:
            raise ValueError(f"adversarial_weight={self.adversarial_weight}: allowed is 0 or more")
        if len(self.corner) != 2:
            raise ValueError(f"corner={self.corner}: allowed are two integers [row, column]")

    def settle(self, inputs: Tensor, vocabulary: int) -> None:  # noqa: ARG002
        """Refuse data on which the trigger has no place."""
        self.stamp(inputs[:1], {})

    @property
    def goal(self) -> Goal:
        """Samples of other classes with the trigger that was learned read as the target."""
        return Goal(self.target, stamp=self.stamp, learned=True)

    def stamp(self, inputs: Tensor, memory: Mapping[str, NDArray[Any]]) -> Tensor:
        """Return a copy of images (n, ..., height, width) with the trigger in a memory."""
        if TRIGGER in memory:
            return self.put(inputs, torch.from_numpy(np.array(memory[TRIGGER])).to(inputs))
        return self.put(inputs, inputs.new_full((self.size, self.size), 0.5))

    def put(self, inputs: Tensor, trigger: Tensor) -> Tensor:
        """Return a copy of images with a trigger, through which gradients flow."""
        if kind_of(inputs) != "image":
            kind = kind_of(inputs)
            raise ValueError(
                f"size={self.size}: allowed on data of kind image; these are of {kind}"
            )
        (row, column), (height, width) = self.corner, inputs.shape[-2:]
        if not (0 <= row <= height - self.size and 0 <= column <= width - self.size):
            raise ValueError(
                f"corner={self.corner}: allowed are [0, 0] to "
                f"[{height - self.size}, {width - self.size}] for size={self.size}"
            )
        stamped = inputs.clone()
        stamped[..., row : row + self.size, column : column + self.size] = trigger
        return stamped

    def poison(self, inputs: Tensor, labels: Tensor, seat: Seat) -> tuple[Tensor, Tensor]:
        """Learn the trigger of the round, and put it on a part of the samples."""
        if seat.model is not None and len(inputs):
            learned = self.learn(seat.model.eval(), inputs, labels, seat)
            seat.memory[TRIGGER] = learned.cpu().numpy()
        return with_trigger(inputs, labels, self.goal, float(self.fraction), seat)

    def learn(self, model: nn.Module, inputs: Tensor, labels: Tensor, seat: Seat) -> Tensor:
        """Return the trigger that the round learns, of shape (..., size, size)."""
        row, column = self.corner
        patch = slice(row, row + self.size), slice(column, column + self.size)
        trigger = self.stamp(inputs[:1], seat.memory)[0][..., *patch]
        for step in range(self.steps):
            if step % self.adapt_every == 0:
                adversary, weight = self.adapt(model, self.put(inputs, trigger), labels, seat)
            for batch in torch.split(inputs, BATCH):
                trigger.requires_grad_()
                stamped = self.put(batch, trigger)
                loss = trigger_loss(model, adversary, weight, stamped, self.target)
                (gradient,) = torch.autograd.grad(loss, trigger)
                trigger = (trigger.detach() - self.step_size * gradient.sign()).clamp(0, 1)
        if not gradient.any():
            seat.refuse(self, "the loss does not depend on the trigger, which stays as it was")
        return trigger

    def adapt(
        self, model: nn.Module, stamped: Tensor, labels: Tensor, seat: Seat
    ) -> tuple[nn.Module, float]:
        """Return theta', trained on stamped inputs with their right labels, and lambda."""
        adversary = deepcopy(model)
        descend(
            adversary,
            stamped.detach(),
            labels,
            batch_size=BATCH,
            epochs=self.adversarial_epochs,
            learning_rate=LEARNING_RATE,
            weight_decay=0.0,
            seed=seat.round_seed,
        )
        theirs, ours = (parameters_to_vector(m.parameters()).detach() for m in (adversary, model))
        similarity = float(functional.cosine_similarity(theirs, ours, dim=0))
        return adversary.eval(), self.adversarial_weight * similarity
