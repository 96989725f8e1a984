"""Workers on Ray that die, hang or never start, and clients that are asked again."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fl_backdoor.errors import UserError
from fl_backdoor.schema import EngineConfig

pytestmark = pytest.mark.slow

CLIENTS = 4

Ask = Callable[..., dict[int, Any]]


class Foreign(ClientApp):
    """Cannot be read where its package is missing, as on a node without it."""

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return missing, ()


def missing() -> None:
    raise ModuleNotFoundError("No module named 'something'")


def odd_app() -> ClientApp:
    """Return an app of which a message says what goes wrong, and at which client."""
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        said = message.content.config_records["config"]
        seen = context.state.metric_records.get("seen", MetricRecord({"n": 0}))
        context.state["seen"] = MetricRecord({"n": int(str(seen["n"])) + 1})
        if said.get("client") == context.node_config["partition-id"]:
            folder = Path(str(said.get("folder")))
            if "die" in said and len(list(folder.iterdir())) < int(str(said["die"])):
                (folder / str(os.getpid())).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if "exit" in said:
                raise SystemExit(3)
            if "sleep" in said:
                (folder / str(os.getpid())).touch()
                time.sleep(600)
        time.sleep(0.1)  # so that each worker gets some
        import ray

        reply = ConfigRecord(
            {
                "count": context.state.metric_records["seen"]["n"],
                "on": ray.get_runtime_context().get_node_id(),
                "pid": os.getpid(),
                "round": said.get("server-round", 0),
                "model": len(message.content.array_records),
                **context.node_config,
            }
        )
        return Message(RecordDict({"reply": reply}), reply_to=message)

    return app


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Start two nodes of one CPU each."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="module")
def grid(cluster: Any) -> Iterator[Any]:
    """Return a federation on them."""
    from fl_backdoor.federation.ray_grid import on_ray

    engine = EngineConfig("ray", None, 1.0, 0.0, cluster.address)
    with on_ray(engine, odd_app(), CLIENTS) as (grid, workers):
        assert workers == 2
        yield grid


@pytest.fixture
def ask(grid: Any) -> Ask:
    def send(timeout: float | None = None, **config: Any) -> dict[int, Any]:
        """Ask all clients the same; return what they say, or the reason why not."""
        content = RecordDict({"config": ConfigRecord(config), "model": ArrayRecord()})
        messages = [Message(content, node, "query") for node in grid.get_node_ids()]
        replies = grid.send_and_receive(messages, timeout=timeout)
        return {
            reply.metadata.src_node_id - 1: reply.error.reason
            if reply.has_error()
            else reply.content["reply"]
            for reply in replies
        }

    return send


def until_both_nodes_answer(ask: Ask) -> dict[int, Any]:
    """Ask until each has clients: workers start when they can."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        replies = ask()
        if len({said["on"] for said in replies.values()}) == 2:
            return replies
    raise TimeoutError


def test_both_nodes_play_clients_that_keep_their_state(ask: Ask) -> None:
    first, second = until_both_nodes_answer(ask), ask()
    assert first.keys() == second.keys() == set(range(CLIENTS))
    for client, said in first.items():
        assert said["partition-id"] == client
        assert (said["num-partitions"], said["model"]) == (CLIENTS, 1)
        assert second[client]["count"] == said["count"] + 1


@pytest.mark.parametrize("deaths", [1, 2])
def test_a_client_whose_worker_dies_is_asked_once_more(
    ask: Ask, deaths: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = ask()
    replies = ask(client=1, die=deaths, folder=str(tmp_path))
    assert len(list(tmp_path.iterdir())) == deaths
    assert "client 1: its Ray worker is gone, asked again" in caplog.messages
    if deaths == 1:  # with the state that it had before
        assert replies[1]["count"] == before[1]["count"] + 1
    else:
        assert replies.pop(1) == "2 Ray workers died over it"
        assert "client 1: no reply, 2 Ray workers died over it" in caplog.messages
    assert all(said["count"] == before[client]["count"] + 1 for client, said in replies.items())


def test_a_client_that_ends_its_process_every_time_has_no_reply(ask: Ask) -> None:
    replies = ask(client=2, exit=True)
    assert replies.pop(2) == "2 Ray workers died over it"
    assert all("count" in said for said in replies.values())


def test_workers_that_die_in_a_pause_are_nobodys_fault(ask: Ask, caplog: Any) -> None:
    before = ask()
    for pid in {said["pid"] for said in before.values()}:
        os.kill(pid, signal.SIGKILL)
    time.sleep(0.6)
    after = ask()
    assert [said["count"] for said in after.values()] == [s["count"] + 1 for s in before.values()]
    assert caplog.messages == []


def test_who_hangs_is_named_given_up_and_the_worker_replaced(
    ask: Ask,
    grid: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = ask()
    monkeypatch.setattr(grid, "_patience", 0.6)
    replies = ask(timeout=10, client=3, sleep=True, folder=str(tmp_path), **{"server-round": 4})
    assert replies.keys() == {0, 1, 2}
    assert "round 4 waits for client 3" in caplog.messages
    after = ask()
    assert after[3]["count"] == before[3]["count"] + 1
    (hanging,) = (int(file.name) for file in tmp_path.iterdir())
    assert hanging not in {said["pid"] for said in after.values()}


def test_a_node_that_is_gone_is_not_missed_and_the_next_one_is_used(ask: Ask, cluster: Any) -> None:
    before = until_both_nodes_answer(ask)
    (node,) = cluster.worker_nodes
    cluster.remove_node(node, allow_graceful=False)
    after = ask()
    assert len(after) == CLIENTS
    assert len({said["on"] for said in after.values()}) == 1
    for client, said in after.items():
        assert said["count"] == before[client]["count"] + 1
    cluster.add_node(num_cpus=1)
    until_both_nodes_answer(ask)


def test_an_app_that_no_worker_can_read_is_one_line(grid: Any, caplog: Any) -> None:
    from fl_backdoor.federation.ray_grid import RayGrid

    foreign = RayGrid(Foreign(), 1, EngineConfig("ray", None, 0.0, 0.0, None), 1)
    with pytest.raises(UserError, match="engine=ray: no worker can be started"):
        foreign.send_and_receive([Message(RecordDict(), 1, "query")])
    assert any("No module named 'something'" in message for message in caplog.messages)
