"""Builders that many tests share."""

import copy
import functools
import gc
import logging
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.app.metadata import Metadata
from flwr.server.superlink.linkstate.utils import create_message_error_unavailable_res_message
from flwr.supercore.task_identity import TaskIdentity
from hydra._internal.config_repository import ConfigRepository
from hydra.plugins.config_source import ConfigResult
from hypothesis import HealthCheck, settings
from matplotlib.figure import Figure
from numpy.typing import NDArray

import fl_backdoor  # noqa: F401  (turns Flower's telemetry off before Flower is imported)
from benchmarks.bounds import byzfl_module
from fl_backdoor.config import conf_directory
from fl_backdoor.data import mnist
from fl_backdoor.federation.engines import LocalGrid
from strategies import Robust

# Each process computes with one thread, as the suite's own do: there is one for each core.
os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start
torch.set_num_threads(1)
# A test asks what a killed process leaves, never a machine without power: the disk may be late.
os.fsync = lambda _: None

# The same examples every time, however slow the machine.
settings.register_profile(
    "same",
    deadline=None,
    derandomize=True,
    # The fixtures in question build things and hold no state.
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("same")

FLOWER_HANDLERS = tuple(logging.getLogger("flwr").handlers)


def until(what: Callable[[], object], seconds: float, log: Callable[[], str] = str) -> None:
    """Wait for something; past the time fail with a log."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, log()
        time.sleep(0.1)


def to_record(arrays: Mapping[str, NDArray[Any]]) -> ArrayRecord:
    return ArrayRecord({name: Array(np.asarray(array)) for name, array in arrays.items()})


def make_reply(
    arrays: Mapping[str, NDArray[Any]] | ArrayRecord | None,
    *,
    node: int = 1,
    metrics: Mapping[str, Any] | None = None,
    message_type: str = "train",
    request: str = "",
) -> Message:
    """Build a train reply as a ClientApp sends it."""
    content = RecordDict()
    if arrays is not None:
        content["arrays"] = arrays if isinstance(arrays, ArrayRecord) else to_record(arrays)
    content["metrics"] = MetricRecord({"num-examples": 10, "loss": 0.5} | dict(metrics or {}))
    metadata = Metadata(
        run_id=1,
        message_id="",
        src_node_id=node,
        dst_node_id=0,
        reply_to_message_id=request,
        group_id="",
        created_at=1.0,
        ttl=10.0,
        message_type=message_type,
    )
    return Message(content=content, metadata=metadata)


def grid_of_calls(
    train: Callable[[ArrayRecord, int], Any], num_nodes: int = 3, key: str = "num-examples"
) -> LocalGrid:
    """Build a federation whose nodes answer with ``train(arrays, node)``: one record, or a dict."""

    def client(message: Message, context: Context) -> Message:
        records = RecordDict({"metrics": MetricRecord({key: 5, "loss": 0.5})})
        if message.metadata.message_type == "train":
            answer = train(message.content["arrays"], context.node_id)
            records.update(answer if type(answer) is dict else {"arrays": answer})
        return Message(records, reply_to=message)

    return LocalGrid(client, num_nodes)


def unavailable(message: Message) -> Message:
    """Answer as the SuperLink does for a node that is gone: as node 1, which is itself."""
    return create_message_error_unavailable_res_message(message.metadata, "node_unavail")


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over what is imported and collected by now: it stays."""
    gc.collect()
    gc.freeze()


def read_once() -> None:
    """Let Hydra parse each file of ``conf`` once: half of what it takes to compose."""
    kept: dict[str, ConfigResult] = {}
    load = ConfigRepository.load_config

    def load_once(repository: ConfigRepository, config_path: str) -> ConfigResult | None:
        # Hydra's own and the suite's, of no folder that a test may have filled.
        places = [source.path for source in repository.sources]
        if places != ["hydra.conf", str(conf_directory()), ""]:
            return load(repository, config_path)
        if config_path in kept:
            return copy.deepcopy(kept[config_path])
        loaded = load(repository, config_path)
        if loaded is not None and not loaded.is_schema_source:  # whose nodes get into the config
            kept[config_path] = copy.deepcopy(loaded)
        return loaded

    ConfigRepository.load_config = load_once  # type: ignore[method-assign]


read_once()  # before modules compose what they are parametrized by

# Tests ask for many choices of digits in turn.
mnist._of_digit = functools.cache(mnist._of_digit)


@pytest.fixture(autouse=True)
def _task_identity() -> None:
    """Messages need the identity of the task that sends them."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 0


@pytest.fixture(autouse=True)
def _same_draws() -> None:
    """Let what draws from the generators of a process, as Flower's sampling, draw the same."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  (what libraries draw from)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _flower_logger() -> Iterator[None]:
    """Give Flower's logger back as it was: a run in this process keeps its words for the screen."""
    yield
    logger = logging.getLogger("flwr")
    logger.handlers[:], logger.propagate = FLOWER_HANDLERS, True


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave figures empty, which take most of a tiny run: for tests of all else that it does."""
    monkeypatch.setattr(Figure, "savefig", lambda _, path, **__: Path(path).touch())


@pytest.fixture
def no_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep Flower's Bulyan and QFedAvg from a collection per reply, most of a test's time."""
    monkeypatch.setattr(gc, "collect", lambda: 0)


@pytest.fixture(scope="module")
def byzfl() -> Callable[[str], ModuleType]:
    """Import modules of byzfl without its __init__, which wants torchvision."""
    return byzfl_module


@pytest.fixture
def isolated(tmp_path: Path) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Run code in a Python that finds nothing but what is installed."""

    def run(code: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-I", "-c", code],
            cwd=tmp_path,
            env={**os.environ, "FLWR_TELEMETRY_ENABLED": "0"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done

    return run


@pytest.fixture
def reply() -> Callable[..., Message]:
    return make_reply


@pytest.fixture
def record() -> Callable[..., ArrayRecord]:
    return to_record


@pytest.fixture
def play() -> Callable[..., tuple[dict[str, NDArray[Any]], dict[str, Any]]]:
    """Play a round of a strategy: returns the new model, and what the strategy says of it.

    What it says of each client is in the order in which the models were given.
    """

    def round(
        strategy: Robust,
        sent: Mapping[str, NDArray[Any]],
        models: Sequence[Mapping[str, NDArray[Any]]],
        number: int = 1,
        nodes: Sequence[int] | None = None,
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        nodes = range(1, len(models) + 1) if nodes is None else nodes
        grid = LocalGrid(None, max(2, len(models)))  # type: ignore[arg-type]
        list(strategy.configure_train(number, to_record(sent), ConfigRecord(), grid))
        replies = [make_reply(m, node=node) for m, node in zip(models, nodes, strict=True)]
        arrays, _ = strategy.aggregate_train(number, replies)
        assert arrays is not None
        report = strategy.rounds[number]
        order = [report["nodes"].index(node) for node in nodes]
        told = {
            key: value
            if key.endswith("_nodes") or not isinstance(value, list)
            else [value[i] for i in order]
            for key, value in report.items()
        }
        return {name: array.numpy() for name, array in arrays.items()}, told

    return round


@pytest.fixture
def warned(caplog: pytest.LogCaptureFixture) -> Callable[[str], int]:
    """Count the warnings in which a rule says by its name that it cannot act."""
    caplog.set_level(logging.WARNING, "flwr")
    return lambda name: sum(r.getMessage().startswith(f"{name}: ") for r in caplog.records)


@pytest.fixture
def train_message() -> Callable[..., Message]:
    """Build the message that a strategy sends for training."""

    def build(arrays: ArrayRecord, server_round: int = 1) -> Message:
        config = ConfigRecord({"server-round": server_round})
        return Message(RecordDict({"arrays": arrays, "config": config}), 1, "train")

    return build
