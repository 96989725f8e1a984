"""Ray's cluster, and worker processes on it that may go away."""

import logging
import math
import os
import socket
import sys
import time
from contextlib import suppress
from typing import Any

import ray
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from ray._private import state, worker

from ..config import one_line
from ..errors import UserError
from ..folders import WORKER
from ..schema import EngineConfig
from .engines import answer, twin

SETTLING = 5.0
"""Seconds in which what another run has left must be free again."""

REACHING = 2.0
"""Seconds in which a machine that is there answers."""


class Worker:
    """Plays any client; what a ClientApp caches in its process stays there."""

    def __init__(self, client_app: ClientApp) -> None:
        self._client_app = client_app

    def node(self) -> str:
        """Return the id of the node that the process is on."""
        return str(ray.get_runtime_context().get_node_id())

    def answer(
        self, message: Message, context: Context, names: list[str], *records: Any
    ) -> tuple[Message, Context]:
        """Return the reply to a message of these records, and the client's context after it."""
        content = RecordDict(dict(zip(names, records, strict=True)))
        return answer(self._client_app, twin(message, _content=content), context), context


class Place:
    """A place for a worker: the one that dies there is replaced.

    Parameters
    ----------
    client_app : ObjectRef of ClientApp
        What workers run.
    engine : EngineConfig
        What each of them needs.

    Attributes
    ----------
    node : str or None
        The worker's node, by Ray's id; None until the worker has said so.
    future : ObjectRef or None
        What the worker is about to say; None while it has nothing to do.
    """

    def __init__(self, client_app: Any, engine: EngineConfig) -> None:
        needs = {"num_cpus": engine.cpus_per_client, "num_gpus": engine.gpus_per_client}
        self._new: Any = ray.remote(Worker).options(**needs).remote
        self._client_app = client_app
        self.start()

    def start(self) -> None:
        """Get a worker, as soon as some node has room."""
        self._worker = self._new(self._client_app)
        self.greet()

    def greet(self) -> None:
        """Let the worker say where it is."""
        self.node: str | None = None
        self.future: Any = self._worker.node.remote()

    def stop(self) -> None:
        """Kill the worker, also one that cannot be reached."""
        ray.kill(self._worker)
        self.node = self.future = None

    def ask(self, message: Message, records: dict[str, Any], context: Context) -> None:
        """Let the worker answer a message of these records, or of references to them."""
        envelope = twin(message, _content=RecordDict())
        self.future = self._worker.answer.remote(
            envelope, context, list(records), *records.values()
        )

    def on_living_node(self) -> bool:
        """Tell whether the node of a lost worker is still there.

        Ray itself may take half a minute to notice that it is not.
        """
        for node in ray.nodes():  # type: ignore[no-untyped-call]
            if node["NodeID"] == self.node and node["Alive"]:
                return _answers(node["NodeManagerAddress"], node["NodeManagerPort"])
        return False


def start_ray(engine: EngineConfig) -> int:
    """Start or join Ray and return the number of workers that its nodes have room for.

    Raises
    ------
    UserError
        If it cannot be reached, or has no room for a single worker.
    """
    # No usage reports, and no warning about GPUs that Ray does not have.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # What Ray says of its own workers would stand between the lines of the run, and does not
    # obey log_to_driver. A message that failed is reported by the strategy that misses it.
    worker.print_to_stdstream = lambda *_, **__: None
    if engine.address is not None and engine.num_workers is not None:
        raise UserError(
            f"engine.num_workers={engine.num_workers}: allowed is null with engine.address, "
            "where the cluster's size decides"
        )
    host, _, port = (engine.address or "").rpartition(":")
    if port.isdigit() and "/" not in host and not _answers(host, int(port)):
        # Ray would try for minutes, and say so in between.
        raise UserError(f"engine.address={engine.address}: nothing answers there")
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
            runtime_env={
                "env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), WORKER: "1"}
            },
        )
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        raise UserError(f"engine.address={engine.address}: {one_line(error)}") from error
    needs = {"cpus": engine.cpus_per_client}
    if engine.gpus_per_client:
        needs["gpus"] = engine.gpus_per_client
    # Places that others have for now are got later, so all count, unless there is none free.
    room = _room(needs, state.total_resources_per_node())  # type: ignore[no-untyped-call]
    deadline = time.monotonic() + SETTLING
    while True:
        free = state.available_resources_per_node()  # type: ignore[no-untyped-call]
        if _room(needs, free):
            return room
        if not room or time.monotonic() > deadline:
            ray.shutdown()
            raise UserError(_shortage(needs, free))
        time.sleep(0.1)


def _answers(host: str, port: int) -> bool:
    with suppress(OSError), socket.create_connection((host, port), REACHING):
        return True
    return False


def _room(needs: dict[str, float], nodes: dict[str, dict[str, float]]) -> int:
    """Count the workers that fit on nodes which have so much."""
    return sum(
        # Tenths of a CPU are no exact binary fractions.
        min(int(_of(node, kind) / need + 1e-6) for kind, need in needs.items())
        for node in nodes.values()
    )


def _shortage(needs: dict[str, float], nodes: dict[str, dict[str, float]]) -> str:
    """Say what no node has enough of."""
    most = {kind: max(_of(node, kind) for node in nodes.values()) for kind in needs}
    kind = next((kind for kind in needs if most[kind] < needs[kind]), "cpus")
    return (
        f"engine.{kind}_per_client={needs[kind]}: allowed are at most the {most[kind]:g} free "
        "on one node"
    )


def _of(node: dict[str, float], kind: str) -> float:
    return node.get({"cpus": "CPU", "gpus": "GPU"}[kind], 0.0)
