"""An attack is a few hooks at one seat; what it wants is a goal.

To write one, override what differs from honest training, and give the class a module in
``attacks`` and a yaml in ``conf/attack``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Optional

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from .seat import Seat, Update, View
from .training import cross_entropy_loss

KNOWLEDGE = ("own", "attackers", "all")
"""Whose updates an attacker may know, from the least to the most."""


@dataclass(frozen=True)
class Goal:
    """What an attack wants of the global model; the measures ask it.

    Attributes
    ----------
    target : int
        Class that victims shall be read as.
    source : int, optional
        Class whose samples are the victims. None: all classes but the target.
    stamp : callable of (inputs, memory), optional
        Puts the trigger on a copy of inputs ``(n, ...)``; ``memory`` is an attacker's, which
        may hold a trigger that was learned, or nothing yet. None: there is no trigger.
    learned : bool
        The trigger is what attackers remember: where nobody attacked there is none.
    picked : callable of (inputs, labels), optional
        Takes from test samples ``(n, ...)`` and ``(n,)`` those to be measured ``(v, ...)``, or
        brings its own. None: they are the victims, with the trigger.
    """

    target: int
    source: int | None = None
    stamp: Callable[[Tensor, Mapping[str, NDArray[Any]]], Tensor] | None = None
    learned: bool = False
    picked: Callable[[Tensor, Tensor], Tensor] | None = None

    def victims(self, labels: Tensor) -> Tensor:
        """Mark the samples that the attack success rate counts, shape ``(n,)``, bool."""
        return labels != self.target if self.source is None else labels == self.source

    def trigger(self, inputs: Tensor, memory: Mapping[str, NDArray[Any]]) -> Tensor | None:
        """Return inputs with the trigger, or None if the attack works without one."""
        return None if self.stamp is None else self.stamp(inputs, memory)


@dataclass(kw_only=True)
class Attack:
    """Hooks into an attacker's work. As it is, an attack does the honest thing in each.

    Attacks nest: one that changes models carries one that changes data, as ``data``, and so
    on. `hooks` gives those of all of them, the innermost first, so that a hook does its own
    part only; `loss` alone builds on the inner one, by ``super().loss(...)``.

    Attributes
    ----------
    data : Attack, optional
        The attack that this one carries.

    Notes
    -----
    A subclass may set:

    - ``classes``: names of its settings that are class numbers. A configuration names classes
      as the data set does, and they are translated.
    - ``knowledge``: whose updates `collude` sees, of `KNOWLEDGE`; see `Colluding`.
    - ``adaptive``: it reckons with the defense that it meets, and does its best against that.
    - ``each_round``: `poison` is called with the model that arrived in each round, not once
      before the first.

    Settings out of range are a ValueError ``name=value: allowed is ...``.
    """

    classes: ClassVar[tuple[str, ...]] = ()
    adaptive: ClassVar[bool] = False
    each_round: ClassVar[bool] = False

    data: Optional["Attack"] = None

    @property
    def knowledge(self) -> str:
        """Whose updates `collude` sees: an attacker's own."""
        return "own"

    @property
    def compares(self) -> bool:
        """Whether attackers who collude train on their clean data as well, for `View.clean`."""
        return False

    @property
    def goal(self) -> Goal | None:
        """What is attacked: that of the attack carried, None if the attack is untargeted."""
        return None if self.data is None else self.data.goal

    def check(self, clients: int, attackers: int) -> None:
        """Refuse a federation of n clients, P of them attackers, in which it cannot act.

        Raises
        ------
        ValueError
            Naming ``num_attackers`` and what is allowed.
        """

    def settle(self, inputs: Tensor, vocabulary: int) -> None:
        """Decide what depends on the data, once, before anybody attacks.

        Parameters
        ----------
        inputs : Tensor of shape (n, ...)
            Of the training set, alike in every process: all rows of tables and texts, one or more
            of images.
        vocabulary : int
            Of texts, how many different tokens there can be; else 0.

        Raises
        ------
        ValueError
            Naming the setting that does not fit the data.
        """

    def poison(self, inputs: Tensor, labels: Tensor, seat: Seat) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Return the data to train on, from those of shape ``(n, ...)`` and ``(n,)``."""
        return inputs, labels

    def loss(self, model: nn.Module, inputs: Tensor, labels: Tensor, seat: Seat) -> Tensor:
        """Return the mean loss of a batch: that of the attack carried, or cross entropy."""
        if self.data is None:
            return cross_entropy_loss(model, inputs, labels)
        return self.data.loss(model, inputs, labels, seat)

    def project(self, gradients: dict[str, Tensor], seat: Seat) -> None:
        """Replace gradients, by the names of parameters, before a step."""

    def constrain(self, parameters: dict[str, Tensor], seat: Seat) -> None:
        """Change parameters in place after a step; no gradient is recorded."""

    def craft(self, update: Update, seat: Seat) -> Update:  # noqa: ARG002
        """Return the update to send, of new arrays: trained minus received, parameters only."""
        return update

    def collude(self, view: View) -> NDArray[np.float64]:
        """Return the updates that the attackers send, shape ``(P, p)``."""
        return view.own

    def layers(self) -> list["Attack"]:
        """Return the attacks that are nested here, the innermost first."""
        return [*(self.data.layers() if self.data is not None else ()), self]

    def check_all(self, clients: int, attackers: int) -> None:
        """Refuse what one of the attacks that are nested here refuses; see `check`."""
        for layer in self.layers():
            layer.check(clients, attackers)

    def hooks(self, name: str) -> list[Callable[..., Any]]:
        """Return the hooks of a name that differ from the honest, the innermost first."""
        return [getattr(layer, name) for layer in self.hooked(name)]

    def hooked(self, name: str) -> list["Attack"]:
        """Return the layers whose hook of a name differs from the honest, the innermost first."""
        honest = getattr(Attack, name)
        return [layer for layer in self.layers() if getattr(type(layer), name) is not honest]


@dataclass(kw_only=True)
class Colluding(Attack):
    """Attackers who agree on what they send: `collude` is what a subclass adds.

    Attributes
    ----------
    knowledge : {"attackers", "all"}
        Whose updates they know: those that they trained themselves, or the honest ones as well.

    Notes
    -----
    ``least`` is how many updates a subclass must know to act.

    Raises
    ------
    ValueError
        If the knowledge is none of these.
    """

    least: ClassVar[int] = 1

    knowledge: str = "attackers"

    def __post_init__(self) -> None:
        """Check the knowledge."""
        if self.knowledge not in KNOWLEDGE[1:]:
            raise ValueError(f"knowledge={self.knowledge}: allowed are {', '.join(KNOWLEDGE[1:])}")

    def check(self, clients: int, attackers: int) -> None:
        """Refuse too few updates to know."""
        if (attackers if self.knowledge == "attackers" else clients) < self.least:
            raise ValueError(
                f"num_attackers={attackers}: allowed is {self.least} or more; attackers who know "
                "nobody else's updates compare their own"
            )


def knowledge(attack: Attack) -> str:
    """Return the most that an attack, or one that it carries, is allowed to know."""
    return max((layer.knowledge for layer in attack.layers()), key=KNOWLEDGE.index)
