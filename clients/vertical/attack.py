"""What a malicious passive party does otherwise than an honest one: hooks, all of them honest."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn


class PartySeat(Protocol):
    """What an attack sees of the party whose attack it is: a `PassiveParty`.

    Attributes
    ----------
    party : int
        k, counted from 0.
    model : torch.nn.Module
        Bottom model G_k.
    parameters : list of Tensor
        What is trained of it: to be changed in place.
    features : mapping from "train" and "test" to Tensor
        Of shape (N, d) and (M, d).
    step : int
        Train messages so far.
    """

    party: int
    model: nn.Module
    parameters: list[Tensor]
    step: int

    @property
    def features(self) -> Mapping[str, Tensor]:
        """Features by split."""

    def draw(self, stream: int) -> int:
        """Derive a seed for the current step; stream 1 is for what an attack sends."""


@dataclass(kw_only=True, eq=False)
class PartyAttack:
    """Behave honestly; an attack overrides the hooks in which it does not.

    For a batch of training the hooks are called in the order `poison_activations` (before the
    batch is sent), `record`, `poison_gradient` and `parameter_gradients` (when its gradient
    comes back); at the end of an epoch `train_hook` and `report`; when triggered rows are
    evaluated `trigger_activations`. None of them may change its arguments.
    """

    seat: PartySeat = field(init=False, repr=False)
    """The party whose attack it is."""
    memory: dict[str, Tensor] = field(init=False, repr=False, default_factory=dict)
    """What it keeps from one message to the next: float32 of any shape. It is saved after
    every message and in checkpoints; everything else is lost with the process."""
    needs_scores: ClassVar[bool] = False
    """Whether it works only on gradients of class scores, as a summing top model sends them."""
    adaptive: ClassVar[bool] = False
    """Whether it reckons with the defense that it meets, and does its best against that."""

    def kept(self, name: str, *shape: int) -> Tensor:
        """Return what is in the memory, or zeros where there is nothing yet."""
        return self.memory[name] if name in self.memory else torch.zeros(shape)

    def describe(self) -> str:
        """Say in a few words what the party does, to follow its name."""
        return f"runs {type(self).__name__}"

    def join(self, seat: PartySeat) -> None:
        """Become the attack of a party; called once, by its constructor.

        Raises
        ------
        ValueError
            If the attack cannot act on this model or these features.
        """
        self.seat = seat

    def poison_activations(self, rows: Tensor, activations: Tensor) -> Tensor:  # noqa: ARG002
        """Return the activations (b, m) of train rows (b,) to send in training."""
        return activations

    def trigger_activations(self, activations: Tensor) -> Tensor:
        """Return the activations (b, m) to send for rows that are evaluated with the trigger.

        The party's stamp, if it has one, is in their features already; this is for triggers in
        the activations themselves.
        """
        return activations

    def record(self, rows: Tensor, activations: Tensor, gradient: Tensor) -> None:
        """See what came back for train rows (b,).

        Parameters
        ----------
        rows : Tensor of shape (b,)
            Which rows they are.
        activations : Tensor of shape (b, m)
            H^k of the rows as the model computed them, whatever was sent, with their graph.
        gradient : Tensor of shape (b, m)
            The dl_i/dH_i^k received.
        """

    def poison_gradient(self, rows: Tensor, gradient: Tensor) -> Tensor:  # noqa: ARG002
        """Return the gradient (b, m) of train rows (b,) to step along."""
        return gradient

    def parameter_gradients(
        self,
        rows: Tensor,  # noqa: ARG002
        activations: Tensor,
        gradient: Tensor,
    ) -> list[Tensor]:
        """Return the sum over rows of dl_i/dH_i^k times dH_i^k/dtheta_k (Eq. 5), one a parameter.

        Parameters
        ----------
        rows : Tensor of shape (b,)
            Which rows they are.
        activations : Tensor of shape (b, m)
            H^k of the rows, with its graph.
        gradient : Tensor of shape (b, m)
            dl_i/dH_i^k, poisoned or not.
        """
        trained = self.seat.parameters
        return list(torch.autograd.grad(activations, trained, gradient, materialize_grads=True))

    def train_hook(self) -> None:
        """Train on one's own, at the end of an epoch, the party's model or anything in memory.

        PyTorch's default generator is seeded by the party and the step meanwhile.
        """

    def report(self) -> dict[str, float]:
        """Return metrics of the epoch for the log of a simulation."""
        return {}

    def idle(self) -> str:
        """Say why there was nothing for it to do in the epoch that ends; empty if it did something.

        Read from what is in its memory, so that a run that was resumed says the same.
        """
        return ""


def check_least(least: float, **values: object) -> None:
    """Refuse settings that are no finite numbers, or less than they may be.

    Raises
    ------
    ValueError
        Naming the first.
    """
    for name, value in values.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not least <= value < float("inf"):  # type: ignore[operator]
            raise ValueError(f"{name}={value}: allowed is {least:g} or more")


def check_fields(attack: PartyAttack) -> None:
    """Refuse settings of an attack that is a dataclass: numbers less than 0, and counts of none.

    Raises
    ------
    ValueError
        If a field that is an int is not 1 or more, or one that is a float not 0 or more.
    """
    for setting in fields(attack):
        value = getattr(attack, setting.name, None)
        if setting.type is int and type(value) is not int:
            raise ValueError(f"{setting.name}={value}: allowed is a whole number, 1 or more")
        if setting.type in (int, float):
            check_least(1 if setting.type is int else 0, **{setting.name: value})
