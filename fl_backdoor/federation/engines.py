"""Where an experiment runs: in this process, or in worker processes on Ray.

The only module that touches what Flower keeps internal: a message needs the identity of the task
that sends it and an id, and records are copied without their checks.
"""

import itertools
import logging
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

from flwr.app import Context, Message, RecordDict
from flwr.app.error import Error
from flwr.app.user_config import UserConfig
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore import log
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from ..errors import UserError
from ..schema import EngineConfig

Something = TypeVar("Something")


class LocalGrid(Grid):
    """A federation inside this process: a message is a function call.

    Nodes 1 to n hold the partitions 0 to n-1 and keep their Context between messages. An
    exception in the ClientApp becomes an error reply, as in Flower's own runtimes.

    Parameters
    ----------
    client_app : ClientApp
        Answers the messages of every node.
    num_nodes : int
        n.
    run_config : mapping, optional
        Of the app.
    """

    def __init__(
        self, client_app: ClientApp, num_nodes: int, run_config: UserConfig | None = None
    ) -> None:
        self._client_app = client_app
        self._replies: dict[str, Message] = {}
        self._count = itertools.count()
        self._run = Run.create_empty(run_id=1)
        self._contexts = {
            node: Context(
                run_id=1,
                node_id=node,
                node_config={"partition-id": node - 1, "num-partitions": num_nodes},
                state=RecordDict(),
                run_config=dict(run_config or {}),
            )
            for node in range(1, num_nodes + 1)
        }
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 0

    def set_run(self, run: Run) -> None:
        """Set the run that messages belong to."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run that messages belong to."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Create a message to a node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes, in the order of their partitions."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Deliver messages; each is answered before the next is delivered."""
        identifiers = []
        for message in messages:
            identifiers.append(self._identify(message))
            received = twin(message, _content=_copied(message.content))
            context = self._contexts[message.metadata.dst_node_id]
            self._replies[identifiers[-1]] = answer(self._client_app, received, context)
        return identifiers

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies to messages, once."""
        return [self._replies.pop(i) for i in message_ids if i in self._replies]

    def send_and_receive(
        self,
        messages: Iterable[Message],
        *,
        timeout: float | None = None,  # noqa: ARG002
    ) -> Iterable[Message]:
        """Deliver messages and return their replies; a call cannot time out."""
        return self.pull_messages(self.push_messages(messages))

    def _identify(self, message: Message) -> str:
        identifier = f"message-{next(self._count)}"
        message.metadata.__dict__["_message_id"] = identifier
        return identifier


def answer(client_app: ClientApp, message: Message, context: Context) -> Message:
    """Return a client's reply to a message, or the error that it raised."""
    try:
        return client_app(message, context)
    except Exception as error:
        return error_reply(message, f"{type(error).__name__}: {error}")


def error_reply(message: Message, reason: str) -> Message:
    """Answer a message by the reason why a ClientApp cannot."""
    return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=message)


def _copied(content: RecordDict) -> RecordDict:
    """Copy the records, so that a client cannot change what others receive."""
    records = {name: twin(record, _data=dict(record.items())) for name, record in content.items()}
    return twin(content, _data=records)


def twin(original: Something, **changes: object) -> Something:
    """Copy a message or a record, without the checks that it has passed once.

    They would take longer than all else that a message costs here.
    """
    twin = object.__new__(type(original))
    twin.__dict__.update(original.__dict__, **changes)
    return twin


def launch(
    engine: EngineConfig,
    client_app: ClientApp,
    num_clients: int,
    main: Callable[[Grid, int], None],
    grid: Grid | None = None,
) -> None:
    """Run a server's main function against a federation of clients.

    Parameters
    ----------
    engine : EngineConfig
        Where to run.
    client_app : ClientApp
        What every node runs.
    num_clients : int
        Nodes; each gets its partition id, 0 to num_clients - 1, in its node config.
    main : callable of (Grid, int)
        The server's side; it gets the number of clients that can train at the same time.
    grid : Grid, optional
        A federation that is already there, whose nodes run the ClientApp. None: launch one.

    Raises
    ------
    UserError
        If Ray cannot be reached or has no room for a single client.
    """
    if grid is not None:
        main(grid, num_clients)
        return
    if engine.kind == "local":
        main(LocalGrid(client_app, num_clients), 1)
        return
    from .ray_grid import on_ray  # takes seconds, and local runs need none of it

    with on_ray(engine, client_app, num_clients) as (ray_grid, workers):
        main(ray_grid, workers)


def wait_for_nodes(
    look: Callable[[], Iterable[int]], count: int, timeout: float, what: str
) -> list[int]:
    """Wait until `look` finds enough nodes, and return their ids.

    Raises
    ------
    UserError
        Beginning with `what`, which needs so many.
    """
    deadline = time.monotonic() + timeout
    before = -1
    while len(nodes := list(look())) < count:
        if len(nodes) != before:
            before = len(nodes)
            log(logging.INFO, "%s: %s nodes connected, waiting for more", what, before)
        if time.monotonic() > deadline:
            raise UserError(f"{what}: only {len(nodes)} nodes connected")
        time.sleep(0.1)
    return nodes
