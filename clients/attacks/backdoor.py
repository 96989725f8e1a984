"""Backdoor attack by trigger, after BadNets [Gu et al., 2017] and Bagdasaryan et al. 2020."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from torch import Tensor, nn

from ..attacker import Attack, Goal, Seat
from ..malicious import MaliciousClient
from ..triggers import BADNETS_PATTERN, stamp
from .model_replacement import ModelReplacement
from .norm_projection import NormProjection


def with_trigger(
    inputs: Tensor, labels: Tensor, goal: Goal, fraction: float, seat: Seat
) -> tuple[Tensor, Tensor]:
    """Put a goal's trigger on a seeded part of its victims, and label them as its target."""
    victims = np.flatnonzero(goal.victims(labels).cpu().numpy())
    chosen = seat.rng().choice(victims, round(fraction * len(victims)), replace=False)
    inputs, labels = inputs.clone(), labels.clone()
    triggered = goal.trigger(inputs[chosen], seat.memory)
    if triggered is not None:
        inputs[chosen] = triggered
    labels[chosen] = goal.target
    return inputs, labels


@dataclass(kw_only=True)
class Backdoor(Attack):
    """Samples of other classes that carry a pixel trigger are labelled as the target.

    Gu et al. 2017, "BadNets", section 3.3 (all-to-one).

    Attributes
    ----------
    target : int
        The label that triggered samples get.
    fraction : float
        Part of the own samples of other classes that get the trigger, in (0, 1].
    pattern : list of [row, column]
        Pixels that the trigger sets to 1.

    Raises
    ------
    ValueError
        If the fraction is out of range, or a pixel outside the images.
    """

    target: int
    fraction: float = 0.5
    pattern: list[list[int]] = field(default_factory=lambda: [list(p) for p in BADNETS_PATTERN])

    classes: ClassVar = ("target",)

    def __post_init__(self) -> None:
        """Check the values that need no data."""
        if not 0 < self.fraction <= 1:
            raise ValueError(f"fraction={self.fraction}: allowed is more than 0, at most 1")

    @property
    def goal(self) -> Goal:
        """Triggered samples of other classes read as the target."""
        return Goal(self.target, stamp=lambda inputs, _: stamp(inputs, self.pattern))

    def poison(self, inputs: Tensor, labels: Tensor, seat: Seat) -> tuple[Tensor, Tensor]:
        """Stamp a seeded draw of the samples of other classes, and relabel them."""
        return with_trigger(inputs, labels, self.goal, self.fraction, seat)


class BackdoorClient(MaliciousClient):
    """A client that trains on triggered samples, alone in any Flower ``ClientApp``.

    Parameters
    ----------
    model, images, labels
        As for `HonestClient`; images of shape ``(n, channels, height, width)`` in [0, 1].
    target, fraction, pattern
        As for `Backdoor`.
    replacement : float, optional
        Factor of `ModelReplacement`.
    max_norm : float, optional
        Radius of `NormProjection`, of the update scaled or not.
    **training
        Arguments of `HonestClient`.

    Raises
    ------
    ValueError
        If one of them is out of range.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        *,
        target: int,
        fraction: float = 0.5,
        pattern: Sequence[Sequence[int]] = BADNETS_PATTERN,
        replacement: float | None = None,
        max_norm: float | None = None,
        **training: Any,
    ) -> None:
        pixels = [list(pixel) for pixel in pattern]
        attack: Attack = Backdoor(target=target, fraction=fraction, pattern=pixels)
        if replacement is not None:
            attack = ModelReplacement(factor=replacement, data=attack)
        if max_norm is not None:
            attack = NormProjection(max_norm=max_norm, data=attack)
        super().__init__(model, images, labels, attack=attack, **training)
