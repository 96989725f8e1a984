"""An attack is a few hooks at one seat; what it wants is a goal.

To write one, override what differs from honest training, and give the class a module in
``attacks`` and a yaml in ``conf/attack``.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Optional

import numpy as np
from flwr.app import ArrayRecord
from flwr.supercore import log
from numpy.typing import NDArray
from torch import Tensor, nn

from .training import cross_entropy_loss, round_seed

Memory = dict[str, NDArray[Any]]
Update = dict[str, NDArray[np.float64]]
CANNOT_ACT = "cannot-act"
"""Note of a round: for how many attackers an attack found nothing to do."""

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


@dataclass
class Seat:
    """Where an attacker sits, and what it remembers.

    Attributes
    ----------
    client : int
        Its number, stable over the run.
    rank : int
        Its place among the attackers, 0 to P - 1.
    attackers : int
        P.
    clients_per_attacker : float, optional
        n / P of the rounds that it takes part in: the clients asked for each attacker among them,
        on average. None: it was not told.
    round : int
        Counted from 1; 0 while data are prepared before any round.
    seed : int
        Of the run.
    memory : dict of str to array
        Lasts from round to round, in the node's ``context.state``. Replace values, do not
        change them in place.
    spare : callable of (class number), optional
        Samples of a class ``(m, ...)`` that no participant holds, alike for all attackers.
    scratch : dict
        Forgotten when the next round begins: for what a hook computes once a round.
    received : dict of str to Tensor
        The global model that this round began with, by name.
    model : torch.nn.Module or None
        The network, with the weights that it has at the moment.
    said : set of str
        What the log has of attacks that cannot act: each is said once.
    """

    client: int = 0
    rank: int = 0
    attackers: int = 1
    clients_per_attacker: float | None = None
    round: int = 0
    seed: int = 0
    memory: Memory = field(default_factory=dict)
    spare: Callable[[int], Tensor] | None = None
    scratch: dict[str, Any] = field(default_factory=dict)
    received: dict[str, Tensor] = field(default_factory=dict)
    model: nn.Module | None = None
    said: set[str] = field(default_factory=set)
    _idle: list[str] = field(default_factory=list, init=False)

    def refuse(self, attack: object, reason: str) -> None:
        """Say that an attack cannot act on this model or round; what was trained is sent."""
        text = f"{type(attack).__name__} cannot act: {reason}"
        if text not in self.said:
            self.said.add(text)
            log(logging.WARNING, "%s", text)
        self._idle.append(text)

    def idle(self) -> list[str]:
        """Return what has been refused since this was asked last."""
        said, self._idle = self._idle, []
        return said

    @property
    def round_seed(self) -> int:
        """The seed of this client's round."""
        return round_seed(self.seed, self.client, self.round)

    def rng(self) -> np.random.Generator:
        """Return a generator that this seat and round decide."""
        return np.random.default_rng(self.round_seed)


@dataclass
class View:
    """What attackers who collude see of a round.

    Attributes
    ----------
    round : int
        Counted from 1.
    center : array of shape (p,), float64
        Parameters of the model that was sent.
    own : array of shape (P, p), float64
        Updates of the P attackers that answered, by ascending node id; with knowledge
        ``"own"`` each is asked alone, and P is 1.
    honest : array of shape (m, p), float64, or None
        Updates of all others; None unless the attack's knowledge is ``"all"``.
    asked : int
        n, clients asked in the round.
    columns : dict of str to slice
        Where each parameter lies in a row.
    seed : int
        Of the run.
    memory : dict of str to array
        The colluders', from round to round.
    clean : array of shape (P, p), float64, or None
        What the attackers' clean data make of the model; None unless the attack `compares`.
    sent : ArrayRecord
        The model that was sent, whole.
    notes : dict
        For what is worth a column of the round: numbers and words, by name. `refuse` adds
        ``cannot-act``: how many attackers send what they trained.
    """

    round: int
    center: NDArray[np.float64]
    own: NDArray[np.float64]
    honest: NDArray[np.float64] | None
    asked: int
    columns: dict[str, slice]
    seed: int
    memory: Memory
    clean: NDArray[np.float64] | None = None
    sent: ArrayRecord = field(default_factory=ArrayRecord)
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def known(self) -> NDArray[np.float64]:
        """All updates that are known, the attackers' first, shape ``(P + m, p)``."""
        return self.own if self.honest is None else np.concatenate([self.own, self.honest])

    @property
    def alike(self) -> bool:
        """Whether all updates that are known are equal: their mean may then differ by rounding."""
        known = self.known
        return bool((known == known[0]).all())

    def refuse(self, attack: object, reason: str) -> NDArray[np.float64]:
        """Send what was trained, because an attack cannot act on this round; the log says why."""
        text = "%s cannot act in round %s: %s"
        log(logging.WARNING, text, type(attack).__name__, self.round, reason)
        self.notes[CANNOT_ACT] = len(self.own)
        return self.own

    def rng(self) -> np.random.Generator:
        """Return a generator that the run's seed and the round decide."""
        return np.random.default_rng([self.seed, self.round])


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
        honest = getattr(Attack, name)
        return [getattr(a, name) for a in self.layers() if getattr(type(a), name) is not honest]


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
