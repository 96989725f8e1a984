"""A federation on Ray: worker processes answer, on this machine or on the nodes of a cluster.

Flower's Simulation Runtime is not used: its pool of workers is made once, so that after the death
of a node (flwr 1.41) messages fail though a worker is free, or wait without an end; and a message
passes three queues, so that small rounds take 3.4 times as long. Here any worker, node or object
store may go away: what was asked of it is asked again elsewhere, from the state that the client
had before.
"""

import logging
import math
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from flwr.app import Message
from flwr.clientapp import ClientApp
from flwr.supercore import log
from ray.exceptions import RayError, RayTaskError

from ..config import one_line
from ..errors import UserError
from ..schema import EngineConfig
from .engines import LocalGrid, error_reply
from .ray_workers import Place, start_ray

MOST_DEATHS = 2
"""Workers that may die over one message, on nodes that live on; then it has no reply."""

MOST_LOSSES = 5
"""Workers that may be lost over one message, those of dead nodes included."""

MOST_STARTS = 3
"""Workers in a row that may die as they start; then their place stays empty."""

PATIENCE = 20.0
"""Seconds without a reply after which a run says whom it waits for."""

PAUSE = 0.5
"""Seconds without messages after which workers are looked at before they are asked."""

MOMENT = 0.05
"""Seconds that looking for replies may take."""

MOST_NAMED = 20
"""Clients that it names."""


@dataclass(eq=False)
class _Question:
    """A message without a reply yet, its models in the object store."""

    message: Message
    records: dict[str, Any]
    deaths: int = 0
    losses: int = 0

    @property
    def node(self) -> int:
        return self.message.metadata.dst_node_id


class RayGrid(LocalGrid):
    """Nodes as `LocalGrid` has them, played by worker processes.

    A client is asked where it was asked before while all have work so: what it has built and
    poisoned is there. Contexts stay in this process and travel with the messages.

    Parameters
    ----------
    client_app : ClientApp
        Answers the messages of every node.
    num_nodes : int
        n.
    engine : EngineConfig
        What a worker needs.
    workers : int
        How many nodes can answer at the same time.

    Raises
    ------
    UserError
        When replies are waited for, if no worker can be started.
    """

    def __init__(
        self, client_app: ClientApp, num_nodes: int, engine: EngineConfig, workers: int
    ) -> None:
        super().__init__(client_app, num_nodes)
        app = ray.put(client_app)
        self._places = [Place(app, engine) for _ in range(workers)]
        self._open: dict[str, _Question] = {}
        self._asked: dict[Place, _Question] = {}
        self._again: deque[_Question] = deque()
        self._waiting: dict[Place | None, deque[_Question]] = {
            place: deque() for place in (None, *self._places)
        }
        self._homes: dict[int, Place] = {}
        self._failures = dict.fromkeys(self._places, 0)
        self._heard = time.monotonic()
        self._patience = PATIENCE

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Deliver messages; a model that many of them carry is stored once."""
        identifiers = []
        stored: dict[int, Any] = {}
        if not self._open:
            self._wake()
        for message in messages:
            records: dict[str, Any] = dict(message.content)
            for name, record in message.content.array_records.items():
                if id(record) not in stored:
                    stored[id(record)] = ray.put(record)
                records[name] = stored[id(record)]
            question = _Question(message, records)
            identifiers.append(self._identify(message))
            self._open[identifiers[-1]] = question
            self._waiting[self._homes.get(question.node)].append(question)
        self._hand_out()
        return identifiers

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies to messages, once; wait a moment for them."""
        identifiers = list(message_ids)
        self._work(identifiers, MOMENT)
        return super().pull_messages(identifiers)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Deliver messages and return the replies that come within the timeout.

        Who has not answered by then is given up; a worker that is still at it is replaced.
        """
        identifiers = list(self.push_messages(messages))
        self._work(identifiers, math.inf if timeout is None else timeout)
        for identifier in identifiers:
            if identifier in self._open:
                self._give_up(self._open.pop(identifier))
        return super().pull_messages(identifiers)

    def _wake(self) -> None:
        """See who is there after a pause, so that who died in it is nobody's fault."""
        now = time.monotonic()
        if now - self._heard > PAUSE:
            for place in self._places:
                if place.node is not None:
                    place.greet()
        self._heard = now

    def _work(self, identifiers: list[str], seconds: float) -> None:
        """Wait for replies for so long, and keep the workers busy."""
        deadline = time.monotonic() + seconds
        while any(identifier in self._open for identifier in identifiers):
            futures = {place.future: place for place in self._places if place.future is not None}
            if not futures:
                raise UserError("engine=ray: no worker can be started")
            left = deadline - time.monotonic()
            try:
                done, _ = ray.wait(list(futures), timeout=max(0.0, min(left, 1.0)))
                for future in done:
                    self._hear(futures[future])
            except OSError as error:
                raise UserError(
                    f"engine=ray: Ray has ended on this machine ({one_line(error)})"
                ) from error
            if left <= 0:
                return
            self._say_if_silent()

    def _hand_out(self) -> None:
        """Give messages to workers that have none."""
        for place in self._places:
            if place.node is None or place.future is not None:
                continue
            questions = self._again or self._waiting[place]
            if not questions and not (questions := max(self._waiting.values(), key=len)):
                return
            question = questions.popleft()
            self._asked[place] = question
            self._homes[question.node] = place
            place.ask(question.message, question.records, self._contexts[question.node])

    def _hear(self, place: Place) -> None:
        """Take what a worker says: first where it is, then replies."""
        question, future = self._asked.pop(place, None), place.future
        place.future = None
        try:
            said = ray.get(future)
        except RayError as error:
            if question is not None and isinstance(error, RayTaskError):  # the worker lives
                self._answer(question, error_reply(question.message, one_line(error)))
            else:
                self._replace(place, question, error)
        else:
            self._failures[place] = 0
            if question is None:
                place.node = said
            else:
                reply, self._contexts[question.node] = said
                self._answer(question, reply)
        self._hand_out()

    def _answer(self, question: _Question, reply: Message) -> None:
        identifier = question.message.metadata.message_id
        del self._open[identifier]
        self._replies[identifier] = reply
        now = time.monotonic()
        # Clients may take long: what was usual so far is no silence.
        self._patience = max(self._patience, 2 * (now - self._heard))
        self._heard = now

    def _replace(self, place: Place, question: _Question | None, error: RayError) -> None:
        """Start another worker, and ask again what a lost one was asked."""
        node_lives = question is not None and place.on_living_node()
        place.stop()
        if question is None:
            self._failures[place] += 1
            if self._failures[place] == MOST_STARTS:
                log(logging.WARNING, "A Ray worker cannot be started: %s", one_line(error))
                return
        place.start()
        if question is None:
            return
        question.losses += 1
        question.deaths += node_lives
        if question.deaths < MOST_DEATHS and question.losses < MOST_LOSSES:
            self._again.append(question)
            log(logging.WARNING, "%s: its Ray worker is gone, asked again", _names([question]))
        else:
            reason = f"{question.losses} Ray workers died over it"
            log(logging.WARNING, "%s: no reply, %s", _names([question]), reason)
            self._answer(question, error_reply(question.message, reason))

    def _give_up(self, question: _Question) -> None:
        """Forget a message, and replace a worker that is at it."""
        for questions in (self._again, *self._waiting.values()):
            if question in questions:
                questions.remove(question)
        for place in self._places:
            if self._asked.get(place) is question:
                del self._asked[place]
                place.stop()
                place.start()

    def _say_if_silent(self) -> None:
        if time.monotonic() - self._heard < self._patience:
            return
        self._patience *= 2
        questions = list(self._open.values())
        again = [question for question in questions if question.losses]
        parts = [_names(again) + " (Ray worker gone, asked again)"] if again else []
        if rest := [question for question in questions if not question.losses]:
            parts.append(_names(rest))
        if not any(place.node for place in self._places):
            parts = ["Ray workers: none is there"]
        log(logging.WARNING, "%s waits for %s", _round(questions[0]), ", ".join(parts))


@contextmanager
def on_ray(
    engine: EngineConfig, client_app: ClientApp, num_nodes: int
) -> Iterator[tuple[RayGrid, int]]:
    """Start or join Ray; give a federation on it, and how many nodes can answer at a time.

    Raises
    ------
    UserError
        If Ray cannot be reached or has no room for a single worker.
    """
    workers = min(start_ray(engine), num_nodes)
    try:
        yield RayGrid(client_app, num_nodes, engine, workers), workers
    finally:
        ray.shutdown()


def _names(questions: list[_Question]) -> str:
    """Write "clients 3 and 7"."""
    numbers = [str(question.node - 1) for question in questions]
    if len(numbers) > MOST_NAMED:
        numbers[MOST_NAMED:] = [f"{len(numbers) - MOST_NAMED} more"]
    *first, last = numbers
    return f"clients {', '.join(first)} and {last}" if first else f"client {last}"


def _round(question: _Question) -> str:
    """Name the round that Flower's strategies put into every train message."""
    for config in question.message.content.config_records.values():
        if isinstance(number := config.get("server-round"), int):
            return f"round {number}"
    return question.message.metadata.message_type
