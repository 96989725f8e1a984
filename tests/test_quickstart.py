"""The changes that the README and docs/flower.md show, made to Flower's quickstart app, and run.

The template is in ``tests/quickstart`` as Flower documents it, on data that needs no download:
``flwr new`` fetches the original from Flower's hub.
"""

import re
import shutil
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.serverapp import strategy as flowers
from flwr.serverapp.strategy import Strategy

import strategies
from clients import LabelFlippingClient, ModelReplacement, malicious
from fl_backdoor.federation.engines import LocalGrid

ROOT = Path(__file__).parents[1]
TEMPLATE = ROOT / "tests" / "quickstart"
PACKAGE = TEMPLATE / "pytorchexample"
SERVER = (PACKAGE / "server_app.py").read_text()
CLIENT = (PACKAGE / "client_app.py").read_text()
CONFIG = tomllib.loads((TEMPLATE / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]
NODES = 7
ATTACKERS = {2, 5}  # by partition


def block(name: str, page: str = "docs/flower.md") -> list[str]:
    """Return the lines of a code block of a page."""
    found = re.search(
        rf"<!-- test: {name} -->\n```\w+\n(.*?)```", (ROOT / page).read_text(), re.DOTALL
    )
    assert found, name
    return found[1].splitlines()


def apply(diff: list[str], text: str) -> str:
    """Apply a diff without line numbers, of which every line must be found once and in order."""
    lines, position = text.splitlines(), 0
    for sign, line in ((change[0], change[1:]) for change in diff if change):
        if sign == "+":
            lines.insert(position, line)
            position += 1
            continue
        assert lines.count(line) == 1, f"not in the template: {line!r}"
        position = lines.index(line, position)
        if sign == "-":
            del lines[position]
        else:
            position += 1
    return "\n".join(lines) + "\n"


def server_diffs() -> dict[str, list[str]]:
    """Return the page's diff of the server, and with each line that it offers instead."""
    diff = block("server diff")
    alternatives = [f"+    {line}" for line in block("server alternatives")]
    diffs = [diff, *([*diff[:-1], line] for line in alternatives)]
    return {re.search(r"strategy = (\w+)", diff[-1])[1]: diff for diff in diffs}


SERVER_DIFFS = server_diffs()


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Return a function that runs the app and returns strategy, result and the saved model."""
    monkeypatch.syspath_prepend(TEMPLATE)
    monkeypatch.chdir(tmp_path)
    for module in ("pytorchexample", "pytorchexample.task"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    started = []
    start = Strategy.start

    def spy(strategy, *args, **kwargs):
        started.append((strategy, start(strategy, *args, **kwargs)))
        return started[-1][1]

    monkeypatch.setattr(Strategy, "start", spy)

    def run(server=SERVER, client=CLIENT, attackers=ATTACKERS):
        apps = {}
        for name, text in {"server": server, "honest": CLIENT, "malicious": client}.items():
            exec(text, namespace := {"__name__": name})
            apps[name] = namespace["app"]

        def node(message, context):
            """Give a node its own ClientApp, and the run config that a LocalGrid does not."""
            context.run_config = CONFIG
            malicious = context.node_config["partition-id"] in attackers
            return apps["malicious" if malicious else "honest"](message, context)

        torch.manual_seed(0)
        apps["server"](LocalGrid(node, NODES), Context(1, 0, {}, RecordDict(), CONFIG))
        strategy, result = started.pop()
        saved = torch.load("final_model.pt")
        assert ArrayRecord(saved) == result.arrays
        return strategy, result, torch.cat([array.flatten() for array in saved.values()])

    return run


def test_the_template_runs_unchanged(run):
    strategy, result, _ = run()
    assert type(strategy) is flowers.FedAvg
    assert list(result.train_metrics_clientapp) == [1, 2, 3]
    assert result.evaluate_metrics_clientapp[3]["eval_acc"] > 0.9


@pytest.mark.parametrize("name", SERVER_DIFFS)
def test_two_lines_put_a_strategy_into_the_server_app(name, run):
    diff = SERVER_DIFFS[name]
    assert sum(line.startswith("+") for line in diff) == 2
    strategy, result, _ = run(apply(diff, SERVER))
    assert type(strategy) is getattr(strategies, name)
    assert list(result.train_metrics_clientapp) == [1, 2, 3]
    for metrics in result.train_metrics_clientapp.values():
        assert metrics["invalid"] == 0
        assert metrics.get("rule-failed", 0) == 0
    assert result.evaluate_metrics_clientapp[3]["eval_acc"] > 0.9


def test_all_strategies_that_the_readme_names_are_tried():
    assert set(SERVER_DIFFS) == {"Sniper", "NormClipping", "GaussianNoise", "Aggregator"}
    whole = [line for line in SERVER_DIFFS["Sniper"] if "+from strategies" not in line]
    first = block("server diff", "README.md")
    assert [line for line in first if "+from strategies" not in line] == whole
    assert "+from strategies import Sniper" in first


@pytest.mark.parametrize("line", ["-app = ClientApp(mods=[])", " app = ClientApp()  # mine"])
def test_a_diff_that_does_not_fit_the_template_is_an_error(line):
    with pytest.raises(AssertionError, match="not in the template"):
        apply([line], CLIENT)


def test_one_line_makes_the_client_app_malicious(run):
    """And whom it harms: 7 nodes, 2 of them attackers, their updates ten times as long."""
    diff = block("client diff")
    assert sum(line.startswith("+") for line in diff) == 2  # the line and its import
    malicious = apply(diff, CLIENT)
    _, _, honest = run()

    def harm(server, attackers=ATTACKERS):
        strategy, _, model = run(server, malicious, attackers)
        return float(torch.dist(model, honest) / honest.norm()), strategy

    assert harm(SERVER, attackers=set())[0] < 0.1
    assert harm(SERVER)[0] > 1
    damage, strategy = harm(apply(SERVER_DIFFS["Sniper"], SERVER))
    assert damage < 0.2
    for report in strategy.rounds.values():
        assert set(report["dropped_nodes"]) >= {k + 1 for k in ATTACKERS}
    damage, strategy = harm(apply(SERVER_DIFFS["NormClipping"], SERVER))
    assert damage < 0.2
    for report in strategy.rounds.values():
        assert set(report["clipped_nodes"]) >= {k + 1 for k in ATTACKERS}


@pytest.mark.slow
def test_the_copied_folder_is_enough(tmp_path, isolated):
    """Only ``strategies`` lies beside the app; the rest of the suite cannot be imported."""
    app = tmp_path / "quickstart-pytorch"
    without_caches = shutil.ignore_patterns("__pycache__")
    shutil.copytree(TEMPLATE, app, ignore=without_caches)
    shutil.copytree(ROOT / "strategies", app / "strategies", ignore=without_caches)
    for name, diff in SERVER_DIFFS.items():
        (app / "pytorchexample" / f"{name}.py").write_text(apply(diff, SERVER))
    code = f"""
import importlib, itertools, sys
sys.path.insert(0, {str(app)!r})
for package in ("fl_backdoor", "clients"):
    sys.modules[package] = None
    try:
        importlib.import_module(package)
    except ImportError:
        continue
    raise AssertionError(package)

from flwr.app import Context, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from pytorchexample.client_app import app as client_app

TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 0
count = itertools.count()

class Grid:
    def get_node_ids(self):
        return range(1, {NODES} + 1)

    def send_and_receive(self, messages, timeout=None):
        for message in messages:
            message.metadata.__dict__["_message_id"] = f"message-{{next(count)}}"
            node = message.metadata.dst_node_id
            numbers = {{"partition-id": node - 1, "num-partitions": {NODES}}}
            yield client_app(message, Context(1, node, numbers, RecordDict(), {CONFIG}))

for name in {list(SERVER_DIFFS)}:
    server_app = importlib.import_module(f"pytorchexample.{{name}}").app
    server_app(Grid(), Context(1, 0, {{}}, RecordDict(), {CONFIG}))
assert sys.modules["strategies"].__file__.startswith({str(app)!r})
"""
    done = isolated(code)
    for name in SERVER_DIFFS:
        assert re.search(rf"├──> {name}(: | around )", done.stderr + done.stdout)  # its summary
    assert (tmp_path / "final_model.pt").exists()


def simple(message, context):
    """Train like a plain app, whose metrics have other names than those of this suite."""
    model = torch.nn.Linear(4, 3)
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    with torch.no_grad():
        model.bias += 0.01 * context.node_id
    content = RecordDict({"arrays": ArrayRecord(model.state_dict())})
    content["metrics"] = MetricRecord({"train_loss": 1.0, "num-examples": 30})
    return Message(content, reply_to=message)


@pytest.mark.parametrize("kind", [strategies.Sniper, strategies.FedAvg, flowers.FedAvg])
@pytest.mark.parametrize("how", ["client", "wrapped"])
def test_an_attacker_takes_part_in_an_app_with_metrics_of_its_own(how, kind):
    """Whether it is a client of the suite, or the app's own train with an attack around it."""
    model = torch.nn.Linear(4, 3)
    attacker = malicious(simple, ModelReplacement(factor=10))
    if how == "client":
        inputs, labels = torch.randn(30, 4), torch.arange(30) % 3
        attacker = LabelFlippingClient(
            model,
            inputs,
            labels,
            source=1,
            target=2,
            poisoned_samples=5,
            metrics={"num-examples": "num-examples", "train-loss": "train_loss"},
        ).train

    def node(message, context):
        return (attacker if context.node_id == 1 else simple)(message, context)

    start = ArrayRecord(model.state_dict())
    strategy = kind(fraction_evaluate=0.0)
    result = strategy.start(grid=LocalGrid(node, 3), initial_arrays=start, num_rounds=2)
    assert len(result.train_metrics_clientapp) == 2
    for metrics in result.train_metrics_clientapp.values():
        assert not metrics.get("invalid-nodes")
        assert "train_loss" in metrics
    honest = kind(fraction_evaluate=0.0).start(
        grid=LocalGrid(simple, 3), initial_arrays=start, num_rounds=2
    )
    if kind is not strategies.Sniper:
        assert result.arrays != honest.arrays
