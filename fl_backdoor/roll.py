"""Which client each node of a federation plays, and who of them attacks."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid
from flwr.supercore import log

from strategies.vertical.enrolment import ask, line

from .engines import wait_for_nodes
from .errors import UserError
from .grids import GridProxy


@dataclass(frozen=True)
class _Answer:
    node: int
    partition: int
    attacks: bool

    def __str__(self) -> str:
        return f"node {self.node} (partition-id={self.partition}, attacker={self.attacks})"


class Roll(GridProxy):
    """A federation with the nodes that take part, and nobody else, for strategies to choose from.

    Nodes come and go. One that connects during a run is asked which partition it holds, and plays
    that client once no other connected node does; the roster of attackers stays.

    Parameters
    ----------
    grid : Grid
        The federation.
    num_clients : int
        N. As many nodes must be connected, within the timeout, and hold the partitions 0 to N-1.
    timeout : float
        Seconds to wait for nodes, and for their answers.

    Attributes
    ----------
    partitions : dict of int to int
        The client that each node plays, or played before it was gone, by node id.
    attackers : tuple of int
        The clients that attack, ascending.

    Raises
    ------
    UserError
        If a node cannot take part, or the partitions are not 0 to N-1.
    """

    def __init__(self, grid: Grid, num_clients: int, timeout: float) -> None:
        super().__init__(grid)
        self._num_clients = num_clients
        self._timeout = timeout
        self._asked: set[int] = set()
        answers = []
        for answer in self._ask(wait_for_nodes(grid, num_clients, timeout, "num_clients")):
            if isinstance(answer, UserError):
                raise answer
            answers.append(answer)
        self.partitions = {answer.node: answer.partition for answer in answers}
        self.attackers = tuple(sorted(answer.partition for answer in answers if answer.attacks))
        if (held := sorted(self.partitions.values())) != list(range(num_clients)):
            raise UserError(
                f"num_clients={num_clients}: the nodes that answered hold partitions {held}"
            )

    def get_node_ids(self) -> Iterable[int]:
        """Return the connected nodes that take part, in the order of their clients."""
        online = set(self._grid.get_node_ids())
        for answer in self._ask(online - self._asked):
            if isinstance(answer, UserError):
                log(logging.WARNING, "%s", answer)
            elif answer.attacks != (answer.partition in self.attackers):
                log(logging.WARNING, "%s cannot take part: the roster says otherwise", answer)
            else:
                log(logging.INFO, "%s has come late", answer)
                self.partitions[answer.node] = answer.partition
        players: dict[int, int] = {}
        for node, partition in self.partitions.items():  # first come, first served
            if node in online:
                players.setdefault(partition, node)
        return [players[partition] for partition in sorted(players)]

    def _ask(self, nodes: Iterable[int]) -> list[_Answer | UserError]:
        """Ask each node once who it is; an error is in the place of an answer that is none."""
        messages = [Message(RecordDict(), node, MessageType.QUERY) for node in sorted(nodes)]
        self._asked |= {message.metadata.dst_node_id for message in messages}
        if not messages:
            return []
        replies = ask(self._grid, messages, self._timeout)
        return [self._read(node, reply) for node, reply in replies.items()]

    def _read(self, node: int, reply: Message) -> _Answer | UserError:
        if reply.has_error():
            return UserError(f"node {node} cannot take part: {line(reply.error.reason)}")
        record = reply.content.config_records.get("enrolment", ConfigRecord())
        partition, attacks = record.get("partition-id"), record.get("attacker")
        if type(partition) is not int or not 0 <= partition < self._num_clients:
            return UserError(
                f"node {node} cannot take part: partition-id={line(partition)}, allowed are "
                f"0 to {self._num_clients - 1}"
            )
        if type(attacks) is not bool:
            return UserError(
                f"node {node} cannot take part: attacker={line(attacks)}, allowed are true, false"
            )
        return _Answer(node, partition, attacks)
