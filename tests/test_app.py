"""The suite as a Flower app: the same bits as the command line."""

import json
import logging
import tomllib
import zipfile
from collections.abc import Iterable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.cli.build import build_fab_from_disk
from flwr.supercore.object_ref import validate

from clients import HonestClient, MaliciousClient
from fl_backdoor import __version__, app
from fl_backdoor.data import mnist
from fl_backdoor.errors import UserError
from fl_backdoor.federation import horizontal as module
from fl_backdoor.federation.engines import LocalGrid
from fl_backdoor.federation.horizontal import ATTACKERS, Federation, make_client_app
from fl_backdoor.federation.node import _settled
from fl_backdoor.federation.roll import Roll
from fl_backdoor.schema import Config

from . import test_experiment as horizontal
from . import test_vertical_experiment as vertical
from .test_mnist import write_mnist

pytestmark = pytest.mark.usefixtures("undrawn")

ROOT = Path(__file__).parents[1]
SNIPER = [*horizontal.TINY, *horizontal.TINY_ATTACK, "floor=true"]
TWO = ["num_clients=2", "attack.num_attackers=0", "dataset.source=auto"]
BAD = [
    ("snipper", "", "experiment=snipper: allowed are"),
    ("sniper_goal1", "num_round=3", "num_round"),
    ("sniper_goal1", "num_rounds=three", "three"),
    ("sniper_goal1", "num_rounds==3", "="),
    ("sniper_goal1", "attack=", "label_flipping"),
    ("sniper_goal1", "seed=0,1", "seed=0,1"),
    ("sniper_goal1", "name='a", "overrides=name='a"),
    ("sniper_goal1", "hydra.run.dir=x", "overrides=hydra.run.dir=x"),
    ("sniper_goal1", "attack.num_attackers=9", "attack.num_attackers=9"),
    ("", "protocol=vertical dataset=csv_parties dataset.files=[no.csv,nor.csv]", "no.csv"),
]


def run_config(experiment: str, overrides: str, output: str = "") -> dict[str, Any]:
    return {"experiment": experiment, "overrides": overrides, "output": output}


def grid_of(
    named: dict[str, Any],
    nodes: int,
    kind: type[LocalGrid] = LocalGrid,
    **node_config: dict[str, Any],
) -> LocalGrid:
    """Build a federation whose nodes run the app; ``node2={...}`` adds to the config of node 2."""
    grid = kind(app.client_app, nodes)
    for number, context in grid._contexts.items():
        context.run_config = named
        context.node_config |= node_config.get(f"node{number}", {})
    return grid


def serve(grid: LocalGrid, named: dict[str, Any]) -> None:
    app.server_app(grid, Context(1, 0, {}, RecordDict(), named))


def config_of(overrides: list[str]) -> Config:
    config = app.compose_config("sniper_goal1", " ".join(overrides))
    assert isinstance(config, Config)
    return config


@pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")  # as Flower has it
def test_the_bundle_holds_all_it_needs() -> None:
    """And Flower, which cannot ask the package for its version, has the same."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["version"] == __version__
    for component in project["tool"]["flwr"]["app"]["components"].values():
        assert validate(component, project_dir=ROOT) == (True, None)
    with zipfile.ZipFile(BytesIO(build_fab_from_disk(ROOT))) as bundle:
        names = set(bundle.namelist())
    needed = [p for f in ("fl_backdoor", "strategies", "clients") for p in (ROOT / f).rglob("*.py")]
    needed += (ROOT / "conf").rglob("*.yaml")
    paths = {path.relative_to(ROOT).as_posix() for path in needed}
    assert names == paths | {"pyproject.toml", ".info/CONTENT"}


def test_a_horizontal_run_has_the_bits_of_the_command_line(tmp_path: Path) -> None:
    named = run_config("sniper_goal1", " ".join(SNIPER), str(tmp_path / "app"))
    serve(grid_of(named, 10), named)
    horizontal.run(tmp_path / "simulate", "+experiment=sniper_goal1", *SNIPER)
    for part in (".", "clean_twin"):
        ours, theirs = (tmp_path / which / part for which in ("app", "simulate"))
        models = [(path / "model.safetensors").read_bytes() for path in (ours, theirs)]
        assert models[0] == models[1]
        assert horizontal.untimed(ours) == horizontal.untimed(theirs)


def test_a_vertical_run_has_the_bits_of_the_command_line(tmp_path: Path) -> None:
    overrides = [*vertical.TINY, *vertical.ATTACK]
    named = run_config("", " ".join(overrides), str(tmp_path / "app"))
    serve(grid_of(named, 2), named)
    vertical.run(tmp_path / "simulate", *overrides)
    ours, theirs = (tmp_path / which / "model.safetensors" for which in ("app", "simulate"))
    assert ours.read_bytes() == theirs.read_bytes()


def test_a_new_folder_where_the_process_is(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert app.run_directory("", "a").parent == tmp_path / "outputs" / "a"
    assert app.run_directory("b", "a") == tmp_path / "b"


@pytest.mark.parametrize(("experiment", "overrides", "said"), BAD)
def test_bad_input_is_one_line_on_the_server(
    experiment: str, overrides: str, said: str, tmp_path: Path
) -> None:
    named = run_config(experiment, overrides, str(tmp_path))
    with pytest.raises(UserError) as error:
        serve(grid_of(named, 2), named)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("experiment", "overrides", "said"), BAD)
def test_bad_input_is_one_line_from_a_client(experiment: str, overrides: str, said: str) -> None:
    node = Context(1, 1, {"partition-id": 0}, RecordDict(), run_config(experiment, overrides))
    reason = app.client_app(Message(RecordDict(), 1, "query"), node).error.reason
    assert said in reason
    assert "\n" not in reason


def test_flower_logs_bad_input_without_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("fl-backdoor-test")
    logger.addFilter(app._in_one_line)
    for error in (UserError("seed=-1: allowed is 0 or more"), ValueError("a fault")):
        logger.error("%s raised an exception", "ServerApp", exc_info=error)
    ours, other = caplog.records
    assert ours.getMessage() == "ServerApp raised an exception: seed=-1: allowed is 0 or more"
    assert not ours.exc_info
    assert other.exc_info


def test_nodes_decide_who_attacks(tmp_path: Path) -> None:
    """One of the roster of three is honest, another node attacks: three share the samples."""
    overrides = " ".join([*SNIPER, "num_rounds=1", "floor=false"])
    named = run_config("sniper_goal1", overrides, str(tmp_path))
    grid = grid_of(named, 10, node1={"attacker": False}, node8={"attacker": True})
    serve(grid, named)
    assert json.loads((tmp_path / "summary.json").read_text())["attackers"] == [1, 2, 7]
    config = config_of(SNIPER)
    roll = Roll(grid, config.num_clients, "MNIST stand-in", timeout=1)
    assert (roll.partitions, roll.attackers) == ({n: n - 1 for n in range(1, 11)}, (1, 2, 7))

    federation = Federation(config)
    federation.enlist((1, 2, 7))
    clients = [federation.client(number) for number in range(10)]
    assert [type(clients[n]) for n in (0, 7)] == [HonestClient, MaliciousClient]
    assert sum(len(client.images) for client in clients) == 10 * 40 + 30


class Fleeting(LocalGrid):
    """Node 10 is gone after the first round; another is in its place once that was seen."""

    patience = 1.0
    gone: Context | None = None

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        messages = list(messages)
        identifiers = super().push_messages(messages)
        if self.gone is None and messages[0].metadata.message_type == "train":
            self.gone = self._contexts.pop(10)
        return identifiers

    def get_node_ids(self) -> list[int]:
        nodes = list(self._contexts)
        if self.gone is not None:
            self.patience -= 1
            if self.patience == 0:
                self._contexts[11] = replace(self.gone, node_id=11, state=RecordDict())
        return nodes


@pytest.mark.parametrize(("least", "failed"), [(10, [[], [], []]), (9, [[], [9], []])])
def test_a_round_waits_for_as_many_as_it_needs(
    least: int, failed: list[list[int]], tmp_path: Path
) -> None:
    overrides = [*SNIPER, "floor=false", f"strategy.min_available_nodes={least}"]
    overrides += [f"strategy.min_train_nodes={least}"]
    named = run_config("sniper_goal1", " ".join(overrides), str(tmp_path))
    serve(grid_of(named, 10, Fleeting), named)
    assert [row["failed"] for row in horizontal.rows(tmp_path)] == failed


def test_a_round_does_not_wait_forever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what was done before is not lost: the run goes on once the nodes are there again."""
    overrides = " ".join([*SNIPER, "floor=false", "round_timeout=0.1"])
    named = run_config("sniper_goal1", overrides, str(tmp_path / "run"))
    monkeypatch.setattr(Fleeting, "patience", float("inf"))
    with pytest.raises(UserError, match=r"^round 2 needs 10 clients .*: only 9 nodes connected"):
        serve(grid_of(named, 10, Fleeting), named)
    assert len(horizontal.rows(tmp_path / "run")) == 1
    named["overrides"] += " resume=true"
    serve(grid_of(named, 10), named)
    horizontal.run(tmp_path / "whole", "+experiment=sniper_goal1", *SNIPER, "floor=false")
    models = [(tmp_path / which / "model.safetensors") for which in ("run", "whole")]
    assert models[0].read_bytes() == models[1].read_bytes()


def test_a_run_is_not_resumed_with_other_attackers(tmp_path: Path) -> None:
    overrides = " ".join([*SNIPER, "num_rounds=1", "floor=false"])
    named = run_config("sniper_goal1", overrides, str(tmp_path))
    serve(grid_of(named, 10), named)
    (tmp_path / "summary.json").unlink()
    named = run_config("sniper_goal1", f"{overrides} resume=true", str(tmp_path))
    with pytest.raises(UserError, match=r"^attackers=\[1, 2\] by node config: .* has \[0, 1, 2\]$"):
        serve(grid_of(named, 10, node1={"attacker": False}), named)
    serve(grid_of(named, 10), named)
    assert (tmp_path / "summary.json").exists()


def test_nodes_do_not_attack_in_excess(tmp_path: Path) -> None:
    named = run_config("sniper_goal1", " ".join(SNIPER), str(tmp_path))
    with pytest.raises(UserError, match=r"^attack\.num_attackers=4: allowed are 0 to 3 of 10"):
        serve(grid_of(named, 10, node10={"attacker": True}), named)


@pytest.mark.parametrize(
    ("node_config", "said"),
    [
        ({"attacker": "yes"}, "node config attacker=yes: allowed are true, false"),
        ({"partition-id": 10}, "node config partition-id=10: allowed are 0 to 1"),
        ({"data-root": "/nowhere"}, "dataset.root=/nowhere"),
    ],
)
def test_a_bad_node_config_names_the_node(
    node_config: dict[str, Any], said: str, tmp_path: Path
) -> None:
    named = run_config("sniper_goal1", " ".join([*SNIPER, *TWO]), str(tmp_path))
    grid = grid_of(named, 2, node2=node_config)
    with pytest.raises(UserError) as error:
        Roll(grid, 2, "MNIST stand-in", timeout=1)
    assert str(error.value).startswith(f"node 2 cannot take part: {said}")
    assert "\n" not in str(error.value)


def test_a_node_with_other_digits_than_the_server_cannot_take_part(tmp_path: Path) -> None:
    """MNIST here, its stand-in there: the same number would be another image."""
    named = run_config("sniper_goal1", " ".join([*SNIPER, *TWO]), str(tmp_path))
    grid = grid_of(named, 2, node2={"data-root": str(write_mnist(tmp_path, sizes=(4000, 20)))})
    said = "^node 2 cannot take part: its data is MNIST, the server's MNIST stand-in$"
    with pytest.raises(UserError, match=said):
        Roll(grid, 2, "MNIST stand-in", timeout=1)


@pytest.mark.parametrize("overrides", ["", "attack.gamma=5"])
def test_of_a_sweep_one_setting_must_be_chosen(overrides: str) -> None:
    with pytest.raises(
        UserError, match=r"^experiment=vertical_fig4_mnist: a sweep, .*seed=0, 1, 2$"
    ):
        app.compose_config("vertical_fig4_mnist", overrides)
    config = app.compose_config("vertical_fig4_mnist", "attack.gamma=5 seed=2")
    assert (config.attack["gamma"], config.seed) == (5, 2)


def test_a_node_reads_its_own_data(monkeypatch: Any) -> None:
    """And looks for it once a run, whatever process the next message is in."""
    _settled.cache_clear()
    asked = []

    def resolve(root: str | None, source: str) -> tuple[str, str | None]:
        if source == "auto":  # what is settled is not looked for
            asked.append((source, root))
        return ("bundled", None) if root is None else ("idx", root)

    monkeypatch.setattr(mnist, "resolve_source", resolve)
    _settled.cache_clear()
    overrides = [*SNIPER, "dataset.source=auto"]
    client_app = make_client_app(config_of(overrides))
    node = Context(1, 1, {"partition-id": 3}, RecordDict(), {})
    query = Message(RecordDict(), 1, "query")
    for _ in range(2):
        assert client_app(query, node).content["enrolment"]["partition-id"] == 3  # type: ignore[index]
        module._federation.cache_clear()
        _settled.cache_clear()
    assert asked == [("auto", None)]
    node = Context(1, 2, {"partition-id": 4, "data-root": "/nowhere"}, RecordDict(), {})
    with pytest.raises(UserError, match=r"^dataset\.root=/nowhere: "):
        client_app(query, node)
    assert asked == [("auto", None), ("auto", "/nowhere")]


def test_the_roster_comes_with_the_train_message(train_message: Any) -> None:
    config = config_of([*SNIPER, "num_rounds=1"])
    client_app, federation = make_client_app(config), Federation(config)
    federation.enlist((5,))
    message = train_message(ArrayRecord(federation.initial_state()))
    message.content["config"][ATTACKERS] = [5]
    node = Context(1, 6, {"partition-id": 5}, RecordDict(), {})
    expected = federation.client(5).train(message, node).content["arrays"]
    assert client_app(message, node).content["arrays"] == expected
