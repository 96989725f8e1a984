"""The protocols of others as experiments: as they are, and made tiny by ``size=smoke``."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from clients import HonestClient
from fl_backdoor import simulate
from fl_backdoor.federation.optimizer import client_settings
from fl_backdoor.federation.roster import build_roster
from fl_backdoor.loop.horizontal import Horizontal

from .test_config import PROTOCOLS, composed

FIGURES: dict[str, dict[str, Any]] = {
    "backfed_cifar10": {
        "num_clients": 100,
        "size": 10,
        "rounds": 600,
        "attackers": 10,
        "last": 300,
    },
    "flpoison_cifar10": {"num_clients": 20, "size": 20, "rounds": 300, "attackers": 4, "last": 300},
    "alignins_cifar10": {"num_clients": 20, "size": 20, "rounds": 150, "attackers": 4, "last": 150},
    "femnist": {"num_clients": 3596, "size": 30, "rounds": 600, "attackers": 360, "last": 200},
    "tabular": {"num_clients": 10, "size": 10, "rounds": 20, "attackers": 2, "last": 20},
    "text": {"num_clients": 100, "size": 10, "rounds": 30, "attackers": 10, "last": 30},
}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_has_its_figures(name: str) -> None:
    config = composed(f"+experiment={name}")
    roster = build_roster(config.attack)
    size = config.cohort["clients_per_round"] or config.num_clients
    rounds = range(1, config.num_rounds + 1)
    assert config.name == name
    assert config.floor
    assert {
        "num_clients": config.num_clients,
        "size": size,
        "rounds": config.num_rounds,
        "attackers": len(roster.draw(config.num_clients, config.seed)),
        "last": max(number for number in rounds if roster.attacks(number)),
    } == FIGURES[name]
    assert client_settings(config)["batch_size"] == config.training.batch_size


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_tiny_one_is_of_the_same_shape(name: str) -> None:
    """The same kind of data, model, optimizer, strategy and attack; it needs no network."""
    whole, tiny = (composed(f"+experiment={name}", f"size={size}") for size in ("full", "smoke"))
    for part in ("model", "optimizer", "strategy", "attack", "partition", "cohort"):
        node, other = getattr(whole, part), getattr(tiny, part)
        assert node["_target_"] == other["_target_"]
    experiment = Horizontal(tiny)
    experiment.check()
    described = experiment.describe_data()
    assert ("synthetic (stand-in for " in described) != ("real" in described)
    assert tiny.engine.kind == "local"
    assert isinstance(experiment.federation.client(0), HonestClient)


def test_learning_rates_of_flpoison_and_alignins_shrink() -> None:
    flpoison, alignins = (
        client_settings(composed(f"+experiment={name}_cifar10"))["schedule"]
        for name in ("flpoison", "alignins")
    )
    assert [flpoison(t) for t in (0, 249, 250, 299)] == pytest.approx([1, 1, 0.1, 0.1])
    assert alignins(100) == pytest.approx(0.99**100)


@pytest.mark.slow
@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_tiny_one_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["simulate", f"+experiment={name}", "size=smoke"])
    simulate.main()
    paths = sorted(tmp_path.rglob("summary.json"), key=lambda path: len(path.parts))
    summary = json.loads(paths[0].read_text())
    assert summary["rounds"] == 3
    assert summary["main_accuracy"] > 0
