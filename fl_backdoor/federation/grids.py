"""A federation that is there, behind another's back."""

import time
from collections.abc import Iterable

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run


class GridProxy(Grid):
    """Does what another grid does.

    Parameters
    ----------
    grid : Grid
        The federation.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    def set_run(self, run: Run) -> None:
        """Set the run that messages belong to."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """The run that messages belong to."""
        return self._grid.run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Create a message to a node."""
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Return the connected nodes."""
        return self._grid.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Deliver messages."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies to messages, once."""
        return self._grid.pull_messages(message_ids)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Deliver messages and return their replies."""
        return self._grid.send_and_receive(messages, timeout=timeout)


class PartOfGrid(GridProxy):
    """Has some of the nodes only, whoever comes and goes.

    Parameters
    ----------
    grid : Grid
        The federation.
    nodes : list of int
        The ids of the nodes.
    """

    def __init__(self, grid: Grid, nodes: list[int]) -> None:
        super().__init__(grid)
        self._nodes = nodes

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes."""
        return list(self._nodes)


class PromptGrid(GridProxy):
    """Takes replies soon after they are there.

    Flower looks for them every 3 s in a federation, and every 0.1 s in a simulation, which would
    be felt in short rounds. Here it is every 5 ms at first, then ever more rarely, at last every
    second.
    """

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Deliver messages and return the replies that come within the timeout."""
        begun = time.monotonic()
        missing = {identifier for identifier in self.push_messages(messages) if identifier}
        replies: list[Message] = []
        while missing:
            received = list(self.pull_messages(missing))
            missing -= {reply.metadata.reply_to_message_id for reply in received}
            replies += received
            waited = time.monotonic() - begun
            if timeout is not None and waited > timeout:
                break
            if missing:
                time.sleep(min(0.005 + waited / 100, 1))
        return replies
