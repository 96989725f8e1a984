"""Backdoor attack by trigger, after BadNets [Gu et al., 2017] and Bagdasaryan et al. 2020."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
from torch import Tensor, nn

from ..attacker import Attack, Goal
from ..malicious import MaliciousClient
from ..seat import Seat
from ..triggers import Pixels, chosen
from .model_replacement import ModelReplacement
from .norm_projection import NormProjection

HALF: Final = 0.5
"""Of the victims among an attacker's samples, where nothing else is said."""


def with_trigger(
    inputs: Tensor, labels: Tensor, goal: Goal, poisoned: float | int, seat: Seat
) -> tuple[Tensor, Tensor]:
    """Put a goal's trigger on a seeded part of its victims, and label them as its target.

    Parameters
    ----------
    inputs, labels : Tensor of shape (n, ...) and (n,)
        An attacker's samples.
    goal : Goal
        Says which of them are victims.
    poisoned : float or int
        Which share of the victims, or how many.
    seat : Seat
        Decides the draw.

    Raises
    ------
    ValueError
        If more are to be poisoned than there are.
    """
    victims = np.flatnonzero(goal.victims(labels).cpu().numpy())
    count = poisoned if isinstance(poisoned, int) else round(poisoned * len(victims))
    if count > len(victims):
        raise ValueError(
            f"poisoned_samples={count}: attacker {seat.rank} holds {len(victims)} samples of other "
            "classes; allowed is no more"
        )
    drawn = seat.rng().choice(victims, count, replace=False)
    inputs, labels = inputs.clone(), labels.clone()
    triggered = goal.trigger(inputs[drawn], seat.memory)
    if triggered is not None:
        inputs[drawn] = triggered
    labels[drawn] = goal.target
    return inputs, labels


@dataclass(kw_only=True)
class Backdoor(Attack):
    """Samples of other classes that carry a trigger are labelled as the target.

    Gu et al. 2017, "BadNets: Identifying Vulnerabilities in the Machine Learning Model Supply
    Chain", with one target for all other classes.

    *Knows* its own samples. *Cost*: a pass over the samples. *Known weaknesses*: its share of an
    average is small, and fades once the attacker stays away (see `ModelReplacement`, `Neurotoxin`).

    Attributes
    ----------
    target : int
        The label that triggered samples get.
    fraction : float, optional
        Part of the own samples of other classes that get the trigger, in (0, 1]. None: a half, or
        ``poisoned_samples``.
    poisoned_samples : int, optional
        Instead: how many of each attacker's.
    trigger : str or callable
        A name of `TRIGGERS`, one of these triggers, or any function of inputs ``(n, ...)`` that
        leaves them alone.
    pattern : list of [row, column], optional
        Instead: pixels that the trigger sets to 1.

    Raises
    ------
    ValueError
        If a value is out of range, two are given for one thing, or the trigger does not fit the
        data.
    """

    target: int
    fraction: float | None = None
    poisoned_samples: int | None = None
    trigger: Any = "auto"
    pattern: list[list[int]] | None = None

    classes: ClassVar = ("target",)

    def __post_init__(self) -> None:
        """Check the values that need no data."""
        fraction, number = self.fraction, self.poisoned_samples
        if fraction is not None and number is not None:
            raise ValueError(
                f"fraction={fraction}, poisoned_samples={number}: allowed is one of them"
            )
        if fraction is not None and not 0 < fraction <= 1:
            raise ValueError(f"fraction={fraction}: allowed is more than 0, at most 1")
        if number is not None and number < 0:
            raise ValueError(f"poisoned_samples={number}: allowed is 0 or more")
        if self.pattern is not None:
            if self.trigger not in ("auto", None):
                raise ValueError(
                    f"trigger={self.trigger}, pattern={self.pattern}: allowed is one of them"
                )
            self.trigger = Pixels(self.pattern)
        elif not isinstance(self.trigger, dict):  # of settings whoever reads them makes a trigger
            self.trigger = chosen(self.trigger)

    @property
    def goal(self) -> Goal:
        """Triggered samples of other classes read as the target."""
        return Goal(self.target, stamp=lambda inputs, _: self.trigger(inputs))

    def settle(self, inputs: Tensor, vocabulary: int) -> None:
        """Fit the trigger to the data."""
        self.trigger = self.trigger.settle(inputs, vocabulary)

    def poison(self, inputs: Tensor, labels: Tensor, seat: Seat) -> tuple[Tensor, Tensor]:
        """Stamp a seeded draw of the samples of other classes, and relabel them."""
        count = self.poisoned_samples
        poisoned = float(self.fraction or HALF) if count is None else count
        return with_trigger(inputs, labels, self.planted(inputs, seat), poisoned, seat)

    def planted(self, inputs: Tensor, seat: Seat) -> Goal:  # noqa: ARG002
        """Return the goal whose trigger this attacker puts on its inputs (n, ...): the attack's."""
        return self.goal


class BackdoorClient(MaliciousClient):
    """A client that trains on triggered samples, alone in any Flower ``ClientApp``.

    Parameters
    ----------
    model, images, labels
        As for `HonestClient`; images of shape ``(n, channels, height, width)`` are in [0, 1].
    target, fraction, poisoned_samples, trigger
        As for `Backdoor`. What a trigger leaves open is decided by this client's own samples, so
        attackers who shall share one on a table or texts must name it.
    pattern : sequence of (row, column), optional
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
        fraction: float | None = None,
        poisoned_samples: int | None = None,
        trigger: Any = "auto",
        pattern: Sequence[Sequence[int]] | None = None,
        replacement: float | None = None,
        max_norm: float | None = None,
        **training: Any,
    ) -> None:
        attack: Attack = Backdoor(
            target=target,
            fraction=fraction,
            poisoned_samples=poisoned_samples,
            trigger=trigger,
            pattern=None if pattern is None else [list(pixel) for pixel in pattern],
        )
        vocabulary = 0 if images.is_floating_point() else int(images.max()) + 1
        attack.settle(images, vocabulary)
        if replacement is not None:
            attack = ModelReplacement(factor=replacement, data=attack)
        if max_norm is not None:
            attack = NormProjection(max_norm=max_norm, data=attack)
        super().__init__(model, images, labels, attack=attack, **training)
