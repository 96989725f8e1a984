"""The engines give the same bits, and a local message behaves as one of Flower's."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import Tensor

from clients import LabelFlipping, Seat
from clients.seat import Update
from clients.vertical import LocalizedReplacement
from fl_backdoor.errors import UserError
from fl_backdoor.federation.engines import LocalGrid, launch
from fl_backdoor.loop.display import Display

from . import test_vertical_experiment as vertical
from .test_experiment import TINY_ATTACK, rows, run, tiny, untimed


@dataclass(kw_only=True)
class DeadlyAttack(LabelFlipping):
    """Kills its process in round 2, a number of times."""

    folder: str
    deaths: int

    def craft(self, update: Update, seat: Seat) -> Update:
        folder = Path(self.folder)
        died = len(list(folder.iterdir()))
        if seat.round == 2 and died < self.deaths:
            (folder / str(died)).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return update


@dataclass(kw_only=True)
class NodeAttack(LabelFlipping):
    """Kills a node of the cluster in round 2, wherever it runs itself."""

    raylet: int

    def craft(self, update: Update, seat: Seat) -> Update:
        if seat.round == 2:
            with suppress(ProcessLookupError):
                os.kill(self.raylet, signal.SIGKILL)
        return update


class FailingAttack(LocalizedReplacement):
    """Raises once, in the second epoch: the first has 5 batches and a message to end it."""

    def __init__(self, *, mark: str, **options: Any) -> None:
        super().__init__(**options)
        self.mark = Path(mark)

    def poison_activations(self, rows: Tensor, activations: Tensor) -> Tensor:
        if self.seat.step > 8 and not self.mark.exists():
            self.mark.touch()
            raise RuntimeError("out of memory")
        return super().poison_activations(rows, activations)


@pytest.fixture
def echo() -> ClientApp:
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        config = message.content.config_records["config"]
        if config.get("fail") == context.node_id:
            raise ZeroDivisionError("on purpose")
        count = int(str(context.state.metric_records.get("seen", MetricRecord({"n": 0}))["n"])) + 1
        context.state["seen"] = MetricRecord({"n": count})
        config["changed"] = True
        record = ConfigRecord({"node": context.node_id, "count": count, **context.node_config})
        return Message(RecordDict({"reply": record}), reply_to=message)

    return app


def ask(grid: LocalGrid, **config: int) -> list[Message]:
    content = RecordDict({"config": ConfigRecord(dict(config))})
    messages = [Message(content, node, "query") for node in grid.get_node_ids()]
    return list(grid.send_and_receive(messages))


def test_local_nodes_answer_in_order_and_keep_their_state(echo: ClientApp) -> None:
    grid = LocalGrid(echo, 3)
    ask(grid)
    replies = [r.content.config_records["reply"] for r in ask(grid)]
    assert [r["partition-id"] for r in replies] == [0, 1, 2]
    assert [r["num-partitions"] for r in replies] == [3, 3, 3]
    assert [r["count"] for r in replies] == [2, 2, 2]


def test_local_exception_is_an_error_reply(echo: ClientApp) -> None:
    replies = ask(LocalGrid(echo, 3), fail=2)
    assert [reply.has_error() for reply in replies] == [False, True, False]
    assert replies[1].metadata.src_node_id == 2
    assert "ZeroDivisionError: on purpose" in replies[1].error.reason


def test_local_clients_cannot_change_what_others_receive(echo: ClientApp) -> None:
    content = RecordDict({"config": ConfigRecord({})})
    grid = LocalGrid(echo, 2)
    list(grid.send_and_receive([Message(content, node, "query") for node in grid.get_node_ids()]))
    assert "changed" not in content.config_records["config"]


def test_local_replies_are_handed_out_once(echo: ClientApp) -> None:
    grid = LocalGrid(echo, 1)
    content = RecordDict({"config": ConfigRecord({})})
    identifiers = list(grid.push_messages([Message(content, 1, "query")]))
    assert len(list(grid.pull_messages(identifiers))) == 1
    assert list(grid.pull_messages(identifiers)) == []


@pytest.fixture(scope="module")
def ray_address() -> Iterator[str]:
    """Start one Ray cluster of two CPUs for all tests; starting one takes seconds."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False}
    )
    yield cluster.address
    cluster.shutdown()


@pytest.mark.parametrize(
    "own",
    [
        [],
        pytest.param(
            ["num_clients=12", "cohort.clients_per_round=5", "cohort.dropout=0.2", "seed=1"],
            marks=pytest.mark.slow,
        ),
        # What the server computes itself.
        pytest.param(["strategy=fltrust", "root=held_out"], marks=pytest.mark.slow),
        pytest.param(["strategy=deepsight", "strategy.num_inputs=50"], marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_ray_and_local_give_the_same_bits(
    tmp_path: Path, ray_address: str, own: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers on Ray; the local engine is the run with one, and goes on where Ray stopped."""
    experiment = ["+experiment=sniper_goal1", *TINY_ATTACK, *own, "num_rounds=3"]
    ray = ["engine=ray", f"engine.address='{ray_address}'"]
    run(tmp_path / "local", *experiment)
    with monkeypatch.context() as patch:
        patch.setattr(Display, "round", lambda _, row: 1 / (row["round"] - 2))
        with pytest.raises(ZeroDivisionError):
            run(tmp_path / "ray", *experiment, *ray)
    run(tmp_path / "ray", *experiment, "resume=true")
    for name in ("model.safetensors", "clean_twin/model.safetensors"):
        local, other = ((tmp_path / engine / name).read_bytes() for engine in ("local", "ray"))
        assert local == other
    assert untimed(tmp_path / "local") == untimed(tmp_path / "ray")
    attackers = {client for row in rows(tmp_path / "local") for client in row["attackers"]}
    assert attackers == {0, 1, 2}


@pytest.mark.slow
def test_a_vertical_run_that_fails_on_ray_goes_on_locally_to_the_same_bits(
    tmp_path: Path, ray_address: str
) -> None:
    """On Ray: twin and first epoch, the parties' states moving between two workers."""
    experiment = [*vertical.EVERYTHING, "num_epochs=2"]
    vertical.run(tmp_path / "local", *experiment)
    failing = [
        *experiment,
        "attack._target_=tests.test_engines.FailingAttack",
        f"+attack.mark='{tmp_path / 'failed'}'",
    ]
    ray = ["engine=ray", f"engine.address='{ray_address}'"]
    message = vertical.fails(tmp_path / "ray", *failing, *ray)
    assert message.startswith("party 1: failed at epoch 2, batch 3 of 5: ")
    assert "out of memory" in message
    epochs = vertical.untimed(tmp_path / "local")
    assert vertical.untimed(tmp_path / "ray") == epochs[:1]
    vertical.run(tmp_path / "ray", *failing, "resume=true")
    assert vertical.untimed(tmp_path / "ray") == epochs
    for name in ("", "clean_twin"):
        assert vertical.model(tmp_path / "ray" / name) == vertical.model(tmp_path / "local" / name)


@pytest.mark.parametrize("key", ["cpus", "gpus"])
def test_ray_without_room_is_one_line(echo: ClientApp, ray_address: str, key: str) -> None:
    address = f"engine.address='{ray_address}'"
    engine = tiny("engine=ray", address, f"engine.{key}_per_client=64").engine
    with pytest.raises(UserError, match=rf"engine.{key}_per_client=64.*free"):
        launch(engine, echo, 2, lambda *_: None)


def test_a_ray_that_is_not_there_is_one_line(echo: ClientApp) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    engine = tiny("engine=ray", f"engine.address='{address}'").engine
    with pytest.raises(UserError, match=rf"engine.address={address}: nothing answers there"):
        launch(engine, echo, 2, lambda *_: None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("deaths", "failed"),
    [(1, [[], [], []]), (2, [[], [0], []])],
)
def test_a_worker_that_dies_is_replaced(
    tmp_path: Path, ray_address: str, deaths: int, failed: list[list[int]]
) -> None:
    """Dying once changes no bit; dying again costs the client its round, and nobody else."""
    folder = tmp_path / "deaths"
    folder.mkdir()
    attack = [*TINY_ATTACK, "attack.num_attackers=1"]
    deadly = [
        "engine=ray",
        f"engine.address='{ray_address}'",
        "attack._target_=tests.test_engines.DeadlyAttack",
        f"+attack.folder='{folder}'",
        f"+attack.deaths={deaths}",
    ]
    run(tmp_path / "deadly", *attack, *deadly)
    assert len(list(folder.iterdir())) == deaths
    assert [row["failed"] for row in rows(tmp_path / "deadly")] == failed
    if deaths == 1:
        run(tmp_path / "calm", *attack)
        model = (tmp_path / "calm" / "model.safetensors").read_bytes()
        assert (tmp_path / "deadly" / "model.safetensors").read_bytes() == model


@pytest.mark.slow
def test_a_node_killed_in_a_round_costs_no_reply_and_no_bit(tmp_path: Path) -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    node = cluster.add_node(num_cpus=1)
    killing = [
        "attack._target_=tests.test_engines.NodeAttack",
        f"+attack.raylet={node.all_processes['raylet'][0].process.pid}",
    ]
    experiment = ["+experiment=sniper_goal1", *TINY_ATTACK]
    run(tmp_path / "local", *experiment)
    run(
        tmp_path / "ray", *experiment, *killing, "engine=ray", f"engine.address='{cluster.address}'"
    )
    assert node.all_processes["raylet"][0].process.poll() is not None
    cluster.shutdown()
    for row in rows(tmp_path / "ray"):
        assert row["failed"] == row["invalid"] == []
    for name in ("model.safetensors", "clean_twin/model.safetensors"):
        local, ray = ((tmp_path / engine / name).read_bytes() for engine in ("local", "ray"))
        assert local == ray


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.usefixtures("ray_address")
def test_any_number_of_workers_gives_the_same_bits(tmp_path: Path, workers: int) -> None:
    """Each starts a Ray of its own, as the command line does, whatever Ray runs already."""
    experiment = ["+experiment=sniper_goal1", *TINY_ATTACK, "floor=false"]
    run(tmp_path / "local", *experiment)
    run(tmp_path / "ray", *experiment, "engine=ray", f"engine.num_workers={workers}")
    local, ray = ((tmp_path / e / "model.safetensors").read_bytes() for e in ("local", "ray"))
    assert local == ray
