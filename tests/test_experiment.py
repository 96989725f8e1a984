"""Tiny real runs: what they leave behind, that they repeat, and that they resume."""

import json
import re
from io import StringIO
from pathlib import Path
from typing import Any

import networkx
import pytest
from hydra import compose, initialize_config_dir
from rich.console import Console

import fl_backdoor.loop.loop as experiment
from clients import HonestClient
from fl_backdoor.config import conf_directory, load
from fl_backdoor.errors import UserError
from fl_backdoor.federation.engines import LocalGrid
from fl_backdoor.loop.display import Display, LastDisplay
from fl_backdoor.measure.metrics import Selection, detection
from fl_backdoor.schema import Config

pytestmark = pytest.mark.usefixtures("undrawn")

TINY = [
    "engine=local",
    "dataset.source=bundled",
    "dataset.samples_per_class=20",
    "dataset.test_samples_per_class=40",
    "model.channels=[4,8]",
    "num_rounds=3",
    "training.learning_rate=0.3",
]
TINY_ATTACK = ["attack.poisoned_samples=30"]


def tiny(*overrides: str) -> Config:
    with initialize_config_dir(str(conf_directory()), version_base="1.3"):
        config = load(compose("config", [*TINY, *overrides]))
    assert isinstance(config, Config)
    return config


def run(path: Path, *overrides: str) -> tuple[dict[str, Any], str]:
    """Run a tiny experiment; return its summary and what it printed."""
    screen = StringIO()
    summary = experiment.run(tiny(*overrides), path, Display(Console(file=screen, width=120)))
    return summary, screen.getvalue()


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def untimed(path: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in r.items() if not k.startswith("seconds")} for r in rows(path)]


@pytest.fixture(scope="module")
def sniper(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    path = tmp_path_factory.mktemp("sniper")
    return path, *run(path, "+experiment=sniper_goal1", *TINY_ATTACK)


def test_first_line_says_which_data(sniper: tuple[Path, dict[str, Any], str]) -> None:
    _, summary, screen = sniper
    first = screen.splitlines()[0]
    assert first.startswith("Data: MNIST stand-in")
    assert summary["data"] in first


def test_a_run_leaves_everything_behind(sniper: tuple[Path, dict[str, Any], str]) -> None:
    path, summary, screen = sniper
    names = {file.name for file in path.iterdir()}
    assert names == {
        ".lock",
        "config.json",
        "metrics.jsonl",
        "model.safetensors",
        "summary.json",
        "distances.npy",
        "rounds.png",
        "distances.png",
        "agreement.graphml",
        "agreement.png",
        "partition.png",
        "clean_twin",
    }
    assert json.loads((path / "summary.json").read_text()) == summary
    assert [row["round"] for row in rows(path)] == [1, 2, 3]
    assert summary["attackers"] == [0, 1, 2]
    assert summary["versions"].keys() == {"python", "fl-backdoor", "flwr", "torch", "numpy"}
    assert summary["seed"] == 0
    assert "attack success rate" in screen


def test_rows_agree_with_the_summary(sniper: tuple[Path, dict[str, Any], str]) -> None:
    path, summary, _ = sniper
    last, twin = rows(path)[-1], rows(path / "clean_twin")[-1]
    assert summary["main_accuracy"] == last["main_accuracy"]
    success = None if last["at_chance"] else last["attack_success_rate"]
    assert summary["attack_success_rate"] == success
    assert (summary["attack_success_interval"] is None) == last["at_chance"]
    assert summary["attack_success_floor"] == twin["attack_success_rate"]
    for row in rows(path):
        assert sorted(row["kept"] + row["dropped"] + row["invalid"]) == list(range(10))
        assert row["failed"] == []
        for group in ("honest_honest", "honest_attacker", "attacker_attacker", "global_honest"):
            low, mean, high = (row[f"distance_{group}_{how}"] for how in ("min", "mean", "max"))
            assert 0 < low <= mean <= high
        assert row["seconds_training"] > 0
        assert row["seconds_aggregation"] > 0
        assert row["seconds_waiting"] >= 0


@pytest.mark.parametrize("experiment", ["", "+experiment=sniper_goal1"])
def test_nobody_attacks(experiment: str, tmp_path: Path) -> None:
    """With no target there is no success rate; all else is as without attackers."""
    given = [experiment] if experiment else []
    given += ["num_rounds=1", "floor=false"]
    summary, screen = run(tmp_path / "none", *given, "attack=none")
    run(tmp_path / "honest", *given, *TINY_ATTACK, "attack.num_attackers=0")
    models = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("none", "honest")]
    assert models[0] == models[1]
    assert summary["attack_success_rate"] is None
    assert summary["attackers"] == []
    assert "no attackers; NoAttack" in screen


def test_clean_twin_is_the_run_without_attackers(
    sniper: tuple[Path, dict[str, Any], str], tmp_path: Path
) -> None:
    path, _, _ = sniper
    honest = ["attack.num_attackers=0", "attack.poisoned_samples=0", "floor=false"]
    run(tmp_path, "+experiment=sniper_goal1", *honest)
    twin = path / "clean_twin" / "model.safetensors"
    assert (tmp_path / "model.safetensors").read_bytes() == twin.read_bytes()


def test_same_seed_same_bits_and_another_seed_others(
    sniper: tuple[Path, dict[str, Any], str], tmp_path: Path
) -> None:
    path, _, _ = sniper
    run(tmp_path / "same", "+experiment=sniper_goal1", *TINY_ATTACK)
    run(tmp_path / "other", "+experiment=sniper_goal1", *TINY_ATTACK, "seed=1", "floor=false")
    model = (path / "model.safetensors").read_bytes()
    assert (tmp_path / "same" / "model.safetensors").read_bytes() == model
    assert untimed(tmp_path / "same") == untimed(path)
    assert (tmp_path / "other" / "model.safetensors").read_bytes() != model


@pytest.mark.parametrize("stop_after", [0, 3, 5])
def test_an_interrupted_run_resumes_to_the_same_bits(
    sniper: tuple[Path, dict[str, Any], str],
    tmp_path: Path,
    stop_after: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path, summary, _ = sniper
    with monkeypatch.context() as patch:
        kept: list[int] = []
        append = experiment.RunDirectory.append

        def interrupted(self: Any, row: Any, *arrays: Any) -> None:
            if len(kept) == stop_after:
                raise KeyboardInterrupt
            append(self, row, *arrays)
            kept.append(row["round"])

        patch.setattr(experiment.RunDirectory, "append", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, "+experiment=sniper_goal1", *TINY_ATTACK)
    resumed, _ = run(tmp_path, "+experiment=sniper_goal1", *TINY_ATTACK, "resume=true")
    assert untimed(tmp_path) == untimed(path)
    model = (path / "model.safetensors").read_bytes()
    assert (tmp_path / "model.safetensors").read_bytes() == model
    ignored = {"seconds", "peak_memory"}
    assert {k: v for k, v in resumed.items() if k not in ignored} == {
        k: v for k, v in summary.items() if k not in ignored
    }


def test_a_complete_run_is_shown_again_but_not_overwritten(
    sniper: tuple[Path, dict[str, Any], str],
) -> None:
    path, summary, _ = sniper
    again, _ = run(path, "+experiment=sniper_goal1", *TINY_ATTACK, "resume=true")
    assert again == summary
    with pytest.raises(UserError, match="resume=true"):
        run(path, "+experiment=sniper_goal1", *TINY_ATTACK)
    with pytest.raises(UserError, match="seed=5"):
        run(path, "+experiment=sniper_goal1", *TINY_ATTACK, "resume=true", "seed=5")


@pytest.mark.parametrize(
    "overrides",
    [
        ["+experiment=single_participant"],
        ["+experiment=baseline"],
        ["+experiment=backdoor_noise", "dataset.digits=[1,2,3]", "attack.replacement=3"],
        ["strategy=krum", *TINY_ATTACK],
        ["strategy=multikrum", *TINY_ATTACK],
        ["strategy=bulyan", "attack.num_attackers=1", *TINY_ATTACK],
        ["strategy=fedmedian", *TINY_ATTACK],
        ["strategy=fedtrimmedavg", *TINY_ATTACK],
        ["strategy=norm_clipping", "strategy@strategy.strategy=sniper", *TINY_ATTACK],
        ["dataset.partition=dirichlet", "dataset.samples_per_partition=40", *TINY_ATTACK],
        ["attack.roster=random", "attack.poisoning=replace", *TINY_ATTACK],
    ],
    ids=lambda overrides: overrides[0],
)
def test_other_settings_run(overrides: list[str], tmp_path: Path) -> None:
    summary, _ = run(tmp_path, *overrides, "num_rounds=1", "floor=false")
    assert 0 <= summary["main_accuracy"] <= 1
    (row,) = rows(tmp_path)
    assert 0 <= row["attack_success_rate"] <= 1
    assert summary["attack_success_rate"] == (
        None if row["at_chance"] else row["attack_success_rate"]
    )
    assert summary["attack_success_floor"] is None


def test_a_client_that_raises_is_reported_and_the_round_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = HonestClient.fit

    def failing(self: HonestClient, server_round: int) -> float:
        if self.partition == 4 and server_round == 2:
            raise RuntimeError("out of memory")
        return fit(self, server_round)

    monkeypatch.setattr(HonestClient, "fit", failing)
    run(tmp_path, "+experiment=sniper_goal1", *TINY_ATTACK, "floor=false")
    assert [row["failed"] for row in rows(tmp_path)] == [[], [4], []]


def test_a_run_without_a_valid_reply_is_no_success_and_keeps_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(self: HonestClient, message: object, context: object) -> float:
        raise RuntimeError("no GPU")

    monkeypatch.setattr(HonestClient, "train", failing)
    with pytest.raises(UserError, match="no reply of any round was valid: there is no result"):
        run(tmp_path, "+experiment=fedavg_goal1", *TINY_ATTACK, "floor=false")
    assert len(rows(tmp_path)) == 3
    assert rows(tmp_path)[0]["failed"] == list(range(10))
    assert rows(tmp_path)[0]["distance_honest_honest_mean"] is None


def test_the_result_is_shown_before_the_federation_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which may crash; the only run of a process ends it there, with status 0."""

    def left(*arguments: Any) -> None:
        launch(*arguments)
        pytest.fail("the federation was left")

    def end(status: int) -> None:
        raise SystemExit(status)

    launch = experiment.launch
    monkeypatch.setattr(experiment, "launch", left)
    monkeypatch.setattr("os._exit", end)
    screen = StringIO()
    display = LastDisplay(Console(file=screen, width=120))
    with pytest.raises(SystemExit) as ended:
        experiment.run(tiny(*TINY_ATTACK, "num_rounds=1"), tmp_path, display)
    assert ended.value.code == 0
    assert screen.getvalue().endswith(f"Results: {tmp_path}\n")
    assert (tmp_path / "summary.json").exists()


FLOWERS = ["strategy._target_=flwr.serverapp.strategy.Bulyan", "~strategy.weighted"]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["+strategy.fraction_train=0.5"], "strategy.fraction_train=0.5"),
        (["strategy.min_available_nodes=20"], "strategy.min_available_nodes=20"),
        (["strategy.min_train_nodes=abc"], "strategy.min_train_nodes=abc"),
        (["strategy.weighted=abc"], "weighted = 'abc'"),
        (["strategy=krum", "strategy.num_malicious=-1"], "num_malicious = -1"),
        (["strategy=bulyan", "strategy.num_malicious=2"], "allows 0 to 1"),
        (["strategy=bulyan", "num_clients=2", "attack.num_attackers=0"], "allows none"),
        ([*FLOWERS, "+strategy.num_malicious_nodes=2"], "num_malicious_nodes=2"),
        (["strategy=krum", "strategy.num_malicious=4"], "allows 0 to 3"),
        (["strategy=multikrum", "strategy.num_selected=11"], "allows 1 to 10"),
    ],
)
def test_settings_that_could_never_train_are_refused(
    overrides: list[str], said: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        run(tmp_path, *TINY_ATTACK, *overrides)
    assert not list(tmp_path.glob("metrics.jsonl"))


def test_a_client_that_does_not_answer_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver = LocalGrid.pull_messages

    def lossy(self: LocalGrid, message_ids: Any) -> list[Any]:
        replies = list(deliver(self, message_ids))
        lost = [
            r for r in replies if r.metadata.src_node_id == 6 and "train" in r.metadata.message_type
        ]
        return [reply for reply in replies if reply not in lost]

    monkeypatch.setattr(LocalGrid, "pull_messages", lossy)
    run(tmp_path, "+experiment=sniper_goal1", *TINY_ATTACK, "floor=false", "num_rounds=1")
    (row,) = rows(tmp_path)
    assert row["failed"] == [5]
    assert 5 not in row["kept"] + row["dropped"] + row["invalid"]


def test_a_model_that_diverges_leaves_valid_json(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no reply of any round was valid"):
        run(tmp_path, *TINY_ATTACK, "training.learning_rate=1e30", "num_rounds=2")
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)


def test_a_resumed_run_keeps_the_data_it_was_started_with(
    sniper: tuple[Path, dict[str, Any], str],
) -> None:
    path, summary, _ = sniper
    overrides = [o for o in TINY if not o.startswith("dataset.source")]
    with initialize_config_dir(str(conf_directory()), version_base="1.3"):
        names = ["+experiment=sniper_goal1", *overrides, *TINY_ATTACK, "resume=true"]
        config = load(compose("config", names))
    assert isinstance(config, Config)
    assert config.dataset["source"] == "auto"
    assert experiment.run(config, path, Display(Console(quiet=True))) == summary


def flowers(rule: str, memory: str) -> list[str]:
    target = f"strategy._target_=flwr.serverapp.strategy.{rule}"
    return ["~strategy.weighted", target, f"+strategy.{memory}"]


@pytest.mark.parametrize(
    "rule",
    [
        flowers("FedAvgM", "server_momentum=0.9"),
        flowers("FedAdam", "beta_1=0.9"),
        ["strategy=fedyogi", "strategy@strategy.strategy=norm_clipping", "optimizer.momentum=0.9"],
    ],
    ids=lambda rule: rule[-1],
)
def test_a_rule_with_a_memory_resumes_to_the_same_bits(
    rule: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its momentum or moments are kept; in this one the second of four rounds is the last."""
    setting = [*TINY_ATTACK, "floor=false", "num_rounds=4", *rule]
    run(tmp_path / "whole", *setting)
    with monkeypatch.context() as patch:
        patch.setattr(experiment.Display, "round", lambda _, row: 1 / (row["round"] - 2))
        with pytest.raises(ZeroDivisionError):
            run(tmp_path / "parts", *setting)
    assert [file.name for file in (tmp_path / "parts").glob("strategy-*")] == [
        "strategy-2.safetensors"
    ]
    run(tmp_path / "parts", *setting, "resume=true")
    assert untimed(tmp_path / "parts") == untimed(tmp_path / "whole")


def test_a_strategy_of_flowers_own_is_repeatable(tmp_path: Path) -> None:
    """Flower asks the nodes in an order that no seed decides."""
    own = ["strategy._target_=flwr.serverapp.strategy.FedAvg", "~strategy.weighted"]
    for name in ("one", "other"):
        run(tmp_path / name, *TINY_ATTACK, *own, "floor=false", "num_rounds=2")
    assert untimed(tmp_path / "one") == untimed(tmp_path / "other")
    models = [(tmp_path / n / "model.safetensors").read_bytes() for n in ("one", "other")]
    assert models[0] == models[1]


def test_a_round_without_a_valid_reply_counts_against_the_defense(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All clients send NaN in the first of two rounds; in the other Sniper drops three."""
    fit = HonestClient.fit

    def diverging(self: HonestClient, server_round: int) -> float:
        loss = fit(self, server_round)
        if server_round == 1:
            next(self.model.parameters()).data.fill_(float("nan"))
        return loss

    monkeypatch.setattr(HonestClient, "fit", diverging)
    overrides = ["floor=false", "num_rounds=2", "attack.num_attackers=3"]
    summary, _ = run(tmp_path, "+experiment=sniper_goal1", *TINY_ATTACK, *overrides)
    first, second = rows(tmp_path)
    assert (first["dropped"], first["invalid"]) == (None, list(range(10)))
    keys = ("dropped", "invalid", "attackers", "cohort", "failed")
    found = detection(Selection(*(row[key] for key in keys)) for row in (first, second))
    assert (summary["defense_precision"], summary["defense_recall"]) == found[:2]


@pytest.mark.parametrize("wanted", ["auto", "always", "never"])
def test_distances_are_measured_where_they_are_wanted(
    tmp_path: Path, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their limit is a constant: here it is below what this run has."""
    monkeypatch.setattr("fl_backdoor.measure.replies.NEAR", 10)
    run(tmp_path, *TINY_ATTACK, f"measure.distances={wanted}", "num_rounds=1")
    (row,) = rows(tmp_path)
    measured = wanted == "always"
    assert (row["distance_honest_honest_mean"] is not None) == measured
    assert row["update_norm_honest_mean"] > 0
    assert (tmp_path / "distances.npy").exists() == measured
    assert (tmp_path / "distances.png").exists() == measured


def test_agreement_graphs_of_all_rounds(
    sniper: tuple[Path, dict[str, Any], str], tmp_path: Path
) -> None:
    """Their nodes are the clients, and those that the rule kept are a clique of it."""
    overrides = ["+experiment=sniper_goal1", *TINY_ATTACK, "floor=false", "measure.graphs=all"]
    run(tmp_path, *overrides)
    files = {path.name for path in tmp_path.glob("agreement*.graphml")}
    assert files == {f"agreement{end}.graphml" for end in ("", "-1", "-2", "-3")}
    assert {path.stem for path in tmp_path.glob("agreement*.png")} == {
        path.stem for path in tmp_path.glob("agreement*.graphml")
    }
    for row in rows(tmp_path):
        graph = networkx.read_graphml(tmp_path / f"agreement-{row['round']}.graphml", int)
        assert sorted(graph) == list(range(10))
        kept = [node for node in graph if graph.nodes[node]["kept"]]
        assert kept == row["kept"]
        assert graph.subgraph(kept).size() == len(kept) * (len(kept) - 1) // 2
        attacking = [node for node in graph if graph.nodes[node]["attacker"]]
        assert attacking == row["attackers"]
    last = (tmp_path / "agreement.graphml").read_bytes()
    assert last == (tmp_path / "agreement-3.graphml").read_bytes()
    assert last == (sniper[0] / "agreement.graphml").read_bytes()
