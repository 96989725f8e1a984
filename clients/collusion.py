"""Where attackers of a federation meet, which Flower has no channel for."""

import logging
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Message
from flwr.serverapp import Grid
from flwr.supercore import log
from numpy.typing import NDArray

from .arrays import Arrays, decoded, encode
from .attacker import Attack, knowledge
from .grids import GridProxy
from .honest import server_round
from .memory import CLEAN, give_attack_memory, take_attack_memory, take_idle
from .seat import CANNOT_ACT, Memory, Update, View
from .updates import centers

SHARED = "colluders"


@dataclass
class _Batch:
    """The train messages of one round."""

    asked: int
    round: int
    sent: ArrayRecord
    missing: set[str] = field(default_factory=set)
    own: dict[int, Message] = field(default_factory=dict)
    honest: dict[int, Message] = field(default_factory=dict)
    clean: dict[int, Arrays] = field(default_factory=dict)


class Colluders(GridProxy):
    """A federation in which the attackers send what they agree on.

    Works around anybody's strategy, wherever the clients are: honest replies pass untouched,
    and the parameters in the attackers' train replies are replaced by the model received plus
    what `Attack.collude` returns; statistics and counters stay as each attacker sent them.
    An attacker whose reply is an error, not finite, or has other arrays than the first one's, takes
    no part; in a round in which so few or so many answer that the attack refuses to act
    (`Attack.check`), a warning says so and each sends what it trained. The attackers' memory is
    kept here too: it goes out with their messages, and no strategy sees it in their replies.

    With ``push_messages`` and ``pull_messages``, the attackers' replies come once all those
    that the attack may know of are there.

    Parameters
    ----------
    grid : Grid
        The federation.
    attack : Attack
        What they do, and what they know: see `Attack.knowledge`.
    who : collection of int, or callable
        The attackers' node ids, or whether a node id is one of theirs.
    number : callable, optional
        The stable number of a node's client, by which rows are sorted and memories are kept:
        node ids are drawn anew by each simulation. None: the node id.
    seed : int (default: 0)
        Decides what the attack draws.

    Attributes
    ----------
    memory : dict of str to array
        Of attackers (``"3/trigger"``, by the client's number) and of all of them together
        (``"colluders/history"``). To resume, give it back before the next round.
    notes : dict
        What the attack says of the round, by name; ``cannot-act``: for how many attackers it, or an
        attack that it carries, found nothing to do.

    Examples
    --------
    In a ``ServerApp``, where ``LittleIsEnough`` is an `Attack` with the hook ``collude``::

        FedAvg().start(grid=Colluders(grid, LittleIsEnough(), who={3, 5}), ...)
    """

    def __init__(
        self,
        grid: Grid,
        attack: Attack,
        who: Collection[int] | Callable[[int], bool],
        *,
        number: Callable[[int], int] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(grid)
        self.attack = attack
        self.knowledge = knowledge(attack)
        self.memory: Memory = {}
        self.notes: dict[str, Any] = {}
        self._attacks = who if callable(who) else who.__contains__
        self._number = number or (lambda node: node)
        self._seed = seed
        self._layers = attack.hooked("collude")
        self._batches: dict[str, tuple[_Batch, int]] = {}
        self._idle: set[int] = set()

    def memory_of(self, client: int | str) -> Memory:
        """Return the memory of a client, by its number."""
        prefix = f"{client}/"
        return {k.removeprefix(prefix): v for k, v in self.memory.items() if k.startswith(prefix)}

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Deliver messages."""
        messages = list(messages)
        batch = self._begin(messages)
        identifiers = list(super().push_messages(messages))
        if batch is not None:
            for identifier, message in zip(identifiers, messages, strict=True):
                node = message.metadata.dst_node_id
                if identifier and _is_train(message):
                    self._batches[identifier] = batch, node
                    if self.knowledge == "all" or self._attacks(node):
                        batch.missing.add(identifier)
        return identifiers

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies to messages, once; the attackers' when all are there."""
        passed = []
        for reply in super().pull_messages(message_ids):
            identifier = reply.metadata.reply_to_message_id
            if identifier not in self._batches:
                passed.append(reply)
                continue
            batch, node = self._batches.pop(identifier)
            batch.missing.discard(identifier)
            if not self._sort(batch, node, reply):
                passed.append(reply)
            if not batch.missing:
                passed += self._agreed(batch)
                batch.own = {}
        return passed

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Deliver messages and return their replies."""
        messages = list(messages)
        batch = self._begin(messages)
        replies = list(super().send_and_receive(messages, timeout=timeout))
        if batch is None:
            return replies
        for reply in replies:
            self._sort(batch, reply.metadata.src_node_id, reply)
        self._agreed(batch)
        return replies

    def _begin(self, messages: list[Message]) -> _Batch | None:
        """Look at the messages of a round, and send the attackers their memory."""
        train = [message for message in messages if _is_train(message)]
        if train:
            self.notes, self._idle = {}, set()
        theirs = [message for message in train if self._attacks(message.metadata.dst_node_id)]
        if not theirs:
            return None
        for message in theirs:
            number = self._number(message.metadata.dst_node_id)
            give_attack_memory(message, self.memory_of(number))
        sent = next(iter(theirs[0].content.array_records.values()), ArrayRecord())
        return _Batch(len(train), server_round(theirs[0]), sent)

    def _sort(self, batch: _Batch, node: int, reply: Message) -> bool:
        """Tell whether a reply is held back until the attackers have agreed."""
        if not reply.has_content():
            return False
        number = self._number(node)
        if not self._attacks(node):
            if self.knowledge == "all" and self._layers:
                batch.honest[number] = reply
            return False
        for name, array in (take_attack_memory(reply) or {}).items():
            self.memory[f"{number}/{name}"] = array
        if take_idle(reply):
            self._count([number])
        if clean := take_attack_memory(reply, CLEAN):
            batch.clean[number] = clean
        if not self._layers:
            return False
        batch.own[number] = reply
        return True

    def _agreed(self, batch: _Batch) -> list[Message]:
        """Replace what the attackers send, and return their replies."""
        replies = [batch.own[number] for number in sorted(batch.own)]
        honest = [batch.honest[number] for number in sorted(batch.honest)]
        groups = [[reply] for reply in replies] if self.knowledge == "own" else [replies]
        for group in groups:
            if group:
                self._collude(batch, group, honest)
        return replies

    def _collude(self, batch: _Batch, replies: list[Message], honest: list[Message]) -> None:
        received = decoded(batch.sent)
        start = centers(received, decoded(_model(replies[0])))
        columns, end = {}, 0
        for name, array in start.items():
            columns[name] = slice(end, end := end + array.size)
        alike, own = _finite(replies, start, columns)
        if len(alike) < len(replies):
            text = "%s cannot act on %s of %s replies: not of the arrays received, or not finite"
            left = len(replies) - len(alike)
            log(logging.WARNING, text, type(self.attack).__name__, left, len(replies))
            self._count(set(self._numbers(replies)) - set(self._numbers(alike)))
        if not alike:
            return
        numbers = self._numbers(alike)
        try:
            self.attack.check_all(batch.asked, len(alike))
        except ValueError as error:
            text = "%s cannot act in round %s: %s"
            log(logging.WARNING, text, type(self.attack).__name__, batch.round, error)
            self._count(numbers)
            return
        clean = [batch.clean[number] for number in numbers if number in batch.clean]
        others, theirs = _finite(honest, start, columns)
        view = View(
            round=batch.round,
            center=_row(start, columns),
            own=own,
            honest=theirs if self.knowledge == "all" else None,
            asked=batch.asked,
            columns=columns,
            seed=self._seed,
            memory=self.memory_of(SHARED),
            clean=_updates(clean, start, columns) if len(clean) == len(own) else None,
            sent=batch.sent,
            clients=(*numbers, *self._numbers(others)),
        )
        trained = view.own
        for layer in self._layers:
            # Each sees what it may know itself, and not what another of them may.
            seen = view if layer.knowledge == "all" else replace(view, honest=None)
            sent = np.asarray(layer.collude(seen), dtype=np.float64)
            if sent.shape != trained.shape:
                raise ValueError(
                    f"{type(self.attack).__name__}.collude returns shape {sent.shape}: allowed is "
                    f"{trained.shape}, an update for each attacker"
                )
            view = replace(view, own=sent)
        rest = {k: v for k, v in self.memory.items() if not k.startswith(f"{SHARED}/")}
        self.memory = rest | {f"{SHARED}/{name}": array for name, array in view.memory.items()}
        if view.notes.pop(CANNOT_ACT, 0):
            self._count(numbers)
        self.notes |= view.notes
        for reply, row, before in zip(alike, view.own, trained, strict=True):
            if not np.array_equal(row, before):  # else to the bit as it was sent
                record = ArrayRecord(dict(_model(reply)))
                for name, array in start.items():
                    part = row[columns[name]].reshape(array.shape)
                    record[name] = encode((array + part).astype(record[name].dtype))
                _replace_model(reply, record)

    def _numbers(self, replies: list[Message]) -> list[int]:
        return [self._number(reply.metadata.src_node_id) for reply in replies]

    def _count(self, attackers: Iterable[int]) -> None:
        """Count attackers for whom an attack finds nothing to do."""
        self._idle.update(attackers)
        self.notes[CANNOT_ACT] = len(self._idle)


def _is_train(message: Message) -> bool:
    return message.metadata.message_type.partition(".")[0] == "train"


def _model(reply: Message) -> ArrayRecord:
    return next(iter(reply.content.array_records.values()), ArrayRecord())


def _replace_model(reply: Message, record: ArrayRecord) -> None:
    name = next(iter(reply.content.array_records))
    reply.content[name] = record


def _fits(reply: Message, start: Update) -> bool:
    """Tell whether a reply has the parameters that the attackers agree on."""
    model = _model(reply)
    return bool(start) and all(
        name in model and tuple(model[name].shape) == array.shape for name, array in start.items()
    )


def _finite(
    replies: list[Message], start: Update, columns: dict[str, slice]
) -> tuple[list[Message], NDArray[np.float64]]:
    """Return the replies that fit and have finite updates, and these, shape (m, p)."""
    fitting = [reply for reply in replies if _fits(reply, start)]
    updates = _updates([decoded(_model(reply)) for reply in fitting], start, columns)
    finite = np.isfinite(updates).all(axis=1)
    if finite.all():  # else it would be copied
        return fitting, updates
    return [fitting[i] for i in np.flatnonzero(finite)], updates[finite]


def _row(arrays: Update, columns: dict[str, slice]) -> NDArray[np.float64]:
    return np.concatenate([arrays[name].ravel() for name in columns])


def _updates(models: list[Arrays], start: Update, columns: dict[str, slice]) -> NDArray[np.float64]:
    rows = np.empty((len(models), sum(array.size for array in start.values())))
    for row, trained in zip(rows, models, strict=True):
        for name, place in columns.items():
            row[place] = (trained[name] - start[name]).ravel()
    return rows
