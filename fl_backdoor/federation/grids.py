"""Parts of a federation, and how soon replies are taken from it."""

import time
from collections.abc import Iterable

from flwr.app import Message
from flwr.serverapp import Grid

from clients.grids import GridProxy


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
