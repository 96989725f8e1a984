"""Where an experiment runs: in this process, or in Flower's Simulation Runtime on Ray.

The only module that touches what Flower deprecates or keeps internal: `run_simulation`
warns in flwr 1.41, a message needs the identity of the task that sends it and an id, and
records are copied without their checks.
"""

import itertools
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

from flwr.app import Context, Message, RecordDict
from flwr.app.error import Error
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid, ServerApp
from flwr.supercore import log
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from ..config import one_line
from ..errors import UserError
from ..schema import EngineConfig
from .grids import PromptGrid

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
    """

    def __init__(self, client_app: ClientApp, num_nodes: int) -> None:
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
                run_config={},
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
            identifier = f"message-{next(self._count)}"
            message.metadata.__dict__["_message_id"] = identifier
            self._replies[identifier] = self._deliver(message)
            identifiers.append(identifier)
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

    def _deliver(self, message: Message) -> Message:
        received = _twin(message, _content=_copied(message.content))
        try:
            context = self._contexts[message.metadata.dst_node_id]
            return self._client_app(received, context)
        except Exception as error:
            return error_reply(message, f"{type(error).__name__}: {error}")


def error_reply(message: Message, reason: str) -> Message:
    """Answer a message by the reason why a ClientApp cannot."""
    return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=message)


def _copied(content: RecordDict) -> RecordDict:
    """Copy the records, so that a client cannot change what others receive."""
    records = {name: _twin(record, _data=dict(record.items())) for name, record in content.items()}
    return _twin(content, _data=records)


def _twin(original: Something, **changes: object) -> Something:
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
    workers = _start_ray(engine)
    from flwr.simulation import run_simulation  # takes seconds, and local runs need none of it

    server_app = ServerApp()

    @server_app.main()
    def server(grid: Grid, context: Context) -> None:  # noqa: ARG001
        main(PromptGrid(grid), workers)

    resources = {
        "num_cpus": engine.cpus_per_client,
        "num_gpus": engine.gpus_per_client,
        # A worker process that dies is replaced and its message tried once more, then answered
        # by an error. Flower's pool would keep the dead one and fail every message after.
        "max_restarts": -1,
        "max_task_retries": 1,
    }
    run_simulation(
        server_app,
        client_app,
        num_supernodes=num_clients,
        backend_config={"client_resources": resources},  # type: ignore[dict-item]
    )


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


def _start_ray(engine: EngineConfig) -> int:
    """Start or join Ray and return the number of workers that fit."""
    # Ray reads these on import: no usage reports, and no warning about GPUs it does not have.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray
    from ray._private import worker

    # What Ray says of its own workers would stand between the lines of the run, and does not
    # obey log_to_driver. A message that failed is reported by the strategy that misses it.
    worker.print_to_stdstream = lambda *_, **__: None
    if engine.address is not None and engine.num_workers is not None:
        raise UserError(
            f"engine.num_workers={engine.num_workers}: allowed is null with engine.address, "
            "where the cluster's size decides"
        )
    cpus = None
    if engine.num_workers is not None:
        cpus = math.ceil(engine.num_workers * engine.cpus_per_client)
    try:
        ray.init(
            # Without an address Ray would join whatever cluster it finds on the machine.
            address=engine.address or "local",
            num_cpus=cpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            # Workers import the suite from where this process imports it.
            runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}},
        )
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        raise UserError(f"engine.address={engine.address}: {one_line(error)}") from error
    free: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
    rooms = {"cpus": free.get("CPU", 0) / engine.cpus_per_client}
    if engine.gpus_per_client:
        rooms["gpus"] = free.get("GPU", 0) / engine.gpus_per_client
    for kind, room in rooms.items():
        if room < 1:
            ray.shutdown()
            asked = getattr(engine, f"{kind}_per_client")
            has = free.get(kind[:-1].upper(), 0)
            raise UserError(
                f"engine.{kind}_per_client={asked}: allowed are at most the {has:g} free"
            )
    return int(min(rooms.values()))
