"""The app's ClientApp, with attackers among its nodes."""

from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from torch import Tensor

from clients import attack_mod
from clients.attacker import Attack
from clients.attacks.backdoor import Backdoor
from clients.seat import Seat

from .batches import Batches, UnseenError
from .chosen import Malice


class Turned(ClientApp):
    """Answers as the app does, but for the attackers' train messages.

    Parameters
    ----------
    app : ClientApp
        The app's.
    batches : Batches
        What its DataLoaders give.
    malice : Malice
        What attackers do.
    attack : Attack or None
        What they do to their replies.
    who : collection of int
        Node ids of the attackers.
    backdoor : Backdoor or None
        Its trigger and target.
    seed : int
        Decides what attackers draw.
    note : callable
        Told what is done now.

    Attributes
    ----------
    sent : dict of str to RecordDict
        The newest content of train and of evaluate messages.
    trained, answered : bool
        Whether an honest reply held another model than was sent; whether there was one.
    errors : list of str
        What clients raised.
    """

    def __init__(
        self,
        app: ClientApp,
        batches: Batches,
        malice: Malice,
        attack: Attack | None,
        who: Collection[int],
        backdoor: "Trap | None",
        seed: int,
        note: Callable[[str], None],
    ) -> None:
        super().__init__()
        self._app, self._batches, self._malice = app, batches, malice
        self._who, self._backdoor, self._seed, self._note = set(who), backdoor, seed, note
        crafts = attack is not None and attack.hooks("craft")
        self._mod = attack_mod(attack, seed=seed) if attack is not None and crafts else None
        self.sent: dict[str, RecordDict] = {}
        self.trained = self.answered = False
        self.errors: list[str] = []

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer a message."""
        kind = message.metadata.message_type.partition(".")[0]
        self._note(f"the {kind} message of client {context.node_id}")
        self.sent[kind] = RecordDict(dict(message.content))
        try:
            if kind == "train" and context.node_id in self._who:
                return self._attack(message, context)
            reply = self._app(message, context)
        except Exception as error:
            self.errors.append(f"{type(error).__name__}: {error}")
            raise
        if kind == "train" and reply.has_content():
            self.answered = True
            self.trained = self.trained or _differs(self.sent[kind], reply.content)
        return reply

    def _attack(self, message: Message, context: Context) -> Message:
        change = None
        if self._malice.labels:
            change = self._flip
        elif self._malice.backdoor and self._backdoor is not None:
            change = partial(self._backdoor.plant, seed=self._seed, client=context.node_id)
        with self._batches.changing(change):
            if self._mod is None:
                return self._app(message, context)
            return self._mod(message, context, self._app)

    def _flip(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return inputs, self._batches.classes - 1 - labels


class Trap:
    """A trigger and a target, in the batches of anybody's app.

    Parameters
    ----------
    batches : Batches
        Whose first one settles what the trigger leaves open.
    target : int
        The class that victims shall be read as.
    trigger : str
        Its name.
    """

    def __init__(self, batches: Batches, target: int, trigger: str = "auto") -> None:
        self._batches = batches
        self._backdoor = Backdoor(target=target, trigger=trigger)
        self._settled = False
        self._count = 0

    def plant(
        self, inputs: Tensor, labels: Tensor, *, seed: int, client: int
    ) -> tuple[Tensor, Tensor]:
        """Return what an attacker trains on: half of its victims have the trigger."""
        self._settle()
        self._count += 1
        seat = Seat(client=client, round=self._count, seed=seed)
        return self._backdoor.poison(inputs, labels, seat)

    def spring(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is tested: victims with the trigger, which shall be the target."""
        self._settle()
        target = self._backdoor.target
        victims = victims_only(inputs, labels, target)
        triggered = self._backdoor.goal.trigger(victims, {})
        assert triggered is not None
        return triggered, torch.full_like(labels, target)

    def _settle(self) -> None:
        if self._settled:
            return
        first = self._batches.first
        try:
            self._backdoor.settle(first, 0 if first.is_floating_point() else int(first.max()) + 1)
        except ValueError as error:
            raise UnseenError(f"the trigger does not fit the batches: {error}") from error
        self._settled = True


def victims_only(inputs: Tensor, labels: Tensor, target: int) -> Tensor:
    """Let the samples of other classes stand in for those of the target.

    The batch keeps its size, whatever the app divides its hits by, and what it then takes for
    accuracy towards the target is the attack's success.

    Parameters
    ----------
    inputs, labels : Tensor of shape (n, ...) and (n,)
        A batch of test samples.
    target : int
        Their class.

    Returns
    -------
    Tensor of shape (n, ...)
        In the place of each target sample another of the batch, in turn. Where all are of the
        target, none can stand in, and they stay.
    """
    victims = torch.nonzero(labels != target).flatten()
    if not len(victims):
        return inputs
    rows = torch.arange(len(labels), device=victims.device)
    targets = torch.nonzero(labels == target).flatten()
    rows[targets] = victims[torch.arange(len(targets), device=victims.device) % len(victims)]
    return inputs[rows]


def counted(attack: Attack) -> list[str]:
    """Note in a list each time that an attack acts on replies, by craft or by agreement."""
    acted: list[str] = []
    for name in ("craft", "collude"):
        if attack.hooks(name):
            setattr(attack, name, _noting(getattr(attack, name), acted, name))
    return acted


def _noting(hook: Callable[..., Any], acted: list[str], name: str) -> Callable[..., Any]:
    def noting(*arguments: Any) -> Any:
        acted.append(name)
        return hook(*arguments)

    return noting


def _differs(sent: RecordDict, answered: RecordDict) -> bool:
    """Tell whether a reply holds an array that was not sent."""
    before = [_bytes(record) for record in sent.array_records.values()]
    return any(_bytes(record) not in before for record in answered.array_records.values())


def _bytes(record: ArrayRecord) -> list[bytes]:
    return [np.ascontiguousarray(array.numpy()).tobytes() for array in record.values()]
