"""Where an attacker sits: what it knows, and what it remembers; and what colluders see together."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import ArrayRecord
from flwr.supercore import log
from numpy.typing import NDArray
from torch import Tensor, nn

from .training import round_seed

Memory = dict[str, NDArray[Any]]
Update = dict[str, NDArray[np.float64]]
CANNOT_ACT = "cannot-act"
"""Note of a round: for how many attackers an attack found nothing to do."""


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
    clients : tuple of int
        Numbers of the clients whose updates these are: the attackers', then the others'.
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
    clients: tuple[int, ...] = ()
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
