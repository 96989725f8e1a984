"""Which client each node of a federation plays, and who of them attacks."""

import logging
import time
from dataclasses import dataclass

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid
from flwr.supercore import log

from strategies.checks import line
from strategies.replies import is_from_grid

from ..errors import UserError
from .engines import wait_for_nodes


@dataclass(frozen=True)
class _Claim:
    partition: int
    attacks: bool

    def __str__(self) -> str:
        return f"partition-id={self.partition}, attacker={str(self.attacks).lower()}"


class Roll:
    """The nodes that take part in a run, and the client that each of them plays.

    Nodes come and go. One that connects during a run is asked which partition it holds, without
    waiting for its answer, and plays that client as soon as no other connected node does. One that
    was gone is asked again. The roster of attackers stays.

    Parameters
    ----------
    grid : Grid
        The federation.
    num_clients : int
        N. The run begins when connected nodes hold the partitions 0 to N-1.
    data : str
        What the partitions are of; nodes with other data cannot take part.
    timeout : float
        Seconds to wait for nodes.

    Attributes
    ----------
    grid : Grid
        The federation.
    partitions : dict of int to int
        The client that each node plays, or played before it was gone, by node id.
    attackers : tuple of int
        The clients that attack, ascending.

    Raises
    ------
    UserError
        If a node cannot take part, or the partitions are not 0 to N-1.
    """

    def __init__(self, grid: Grid, num_clients: int, data: str, timeout: float) -> None:
        self.grid = grid
        self._num_clients = num_clients
        self._data = data
        self._timeout = timeout
        self._asked: set[int] = set()
        self._questions: dict[str, int] = {}
        claims = self._begin()
        self.attackers = tuple(sorted(c.partition for c in claims.values() if c.attacks))
        self._claims = {node: claim.partition for node, claim in claims.items()}
        self.partitions = dict(self._claims)

    def players(self) -> list[int]:
        """Return the connected nodes that take part, in the order of their clients."""
        online, answers = self._look()
        for node, answer in answers.items():
            if isinstance(answer, UserError):
                log(logging.WARNING, "%s", answer)
            elif answer.attacks != (answer.partition in self.attackers):
                log(logging.WARNING, "node %s (%s): the run began otherwise", node, answer)
            else:
                log(logging.INFO, "node %s (%s) has come late", node, answer)
                self._claims[node] = answer.partition
        self._claims = {node: p for node, p in self._claims.items() if node in online}
        players: dict[int, int] = {}
        for node, partition in self._claims.items():  # first come, first served
            players.setdefault(partition, node)
        self.partitions |= {node: partition for partition, node in players.items()}
        return [players[partition] for partition in sorted(players)]

    def gather(self, least: int, what: str) -> list[int]:
        """Wait until at least so many take part, and return them.

        Raises
        ------
        UserError
            Beginning with `what`, if they are not there in time.
        """
        return wait_for_nodes(self.players, least, self._timeout, what)

    def _begin(self) -> dict[int, _Claim]:
        """Wait until there is a node for every client, and nobody twice."""
        key = f"num_clients={self._num_clients}"
        deadline = time.monotonic() + self._timeout
        wait_for_nodes(self.grid.get_node_ids, self._num_clients, self._timeout, key)
        claims: dict[int, _Claim] = {}
        while True:
            online, answers = self._look()
            for node, answer in answers.items():
                if isinstance(answer, UserError):
                    raise answer
                claims[node] = answer
            claims = {node: claim for node, claim in claims.items() if node in online}
            held = sorted(claim.partition for claim in claims.values())
            if held == list(range(self._num_clients)):
                return claims
            everybody = len(claims) == len(online) >= self._num_clients
            if everybody or time.monotonic() > deadline:
                raise UserError(f"{key}: the nodes that answered hold partitions {held}")
            time.sleep(0.1)

    def _look(self) -> tuple[set[int], dict[int, _Claim | UserError]]:
        """See who is connected, ask those who have just come, and hear who has answered."""
        online = set(self.grid.get_node_ids())
        self._asked &= online
        new = sorted(online - self._asked)
        messages = [Message(RecordDict(), node, MessageType.QUERY) for node in new]
        sent = set(self.grid.push_messages(messages)) if messages else set()
        for message in messages:
            if message.metadata.message_id in sent:
                self._questions[message.metadata.message_id] = message.metadata.dst_node_id
                self._asked.add(message.metadata.dst_node_id)
        answers: dict[int, _Claim | UserError] = {}
        for reply in self.grid.pull_messages(set(self._questions)) if self._questions else ():
            node = self._questions.pop(reply.metadata.reply_to_message_id, None)
            if node is None:
                continue
            if is_from_grid(reply):
                self._asked.discard(node)
            else:
                answers[node] = self._read(node, reply)
        return online, dict(sorted(answers.items()))

    def _read(self, node: int, reply: Message) -> _Claim | UserError:
        if reply.has_error():
            return UserError(f"node {node} cannot take part: {line(reply.error.reason)}")
        record = reply.content.config_records.get("enrolment", ConfigRecord())
        partition, attacks = record.get("partition-id"), record.get("attacker")
        data = record.get("data")
        if type(partition) is not int or not 0 <= partition < self._num_clients:
            return UserError(
                f"node {node} cannot take part: partition-id={line(partition)}, allowed are "
                f"0 to {self._num_clients - 1}"
            )
        if type(attacks) is not bool:
            return UserError(
                f"node {node} cannot take part: attacker={line(attacks)}, allowed are true, false"
            )
        if data != self._data:
            return UserError(
                f"node {node} cannot take part: its data is {line(data)}, the server's {self._data}"
            )
        return _Claim(partition, attacks)
