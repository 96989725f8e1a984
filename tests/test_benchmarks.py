"""Every benchmark at its smallest size: it runs, and what it claims besides time holds."""

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from benchmarks import rules, small_clients, startup, vertical

ROOT = Path(__file__).parents[1]


def test_rules_measures_every_strategy_against_the_mean() -> None:
    ratios = rules.main(["--clients", "7", "--repeats", "1", "--channels", "2,2"])
    assert ratios.pop("plain mean") == 1
    assert {"FedAvg", "Sniper", "Krum", "Bulyan", "Median"} <= ratios.keys()
    assert all(np.isfinite(ratio) and ratio > 0 for ratio in ratios.values())


def test_small_clients_train_in_one_process() -> None:
    arguments = ["--clients", "3", "--rounds", "1", "--repeats", "1"]
    assert small_clients.main(arguments).keys() == {"local"}


def test_split_learning_ends_at_the_weights_of_the_bare_loop() -> None:
    ratios, _ = vertical.local_against_bare(640, 1)
    assert ratios
    assert all(ratio.same for ratio in ratios)


@pytest.mark.slow
def test_startup_runs_all_its_commands() -> None:
    assert startup.main(["--repeats", "1"]).keys() == {"help", "tiny run"}


def test_the_docs_name_every_benchmark() -> None:
    text = (ROOT / "docs" / "benchmarks.md").read_text()
    for path in (ROOT / "benchmarks").glob("*.py"):
        module = import_module(f"benchmarks.{path.stem}")
        if hasattr(module, "main") and path.stem != "same_bits_driver":
            assert f"python -m benchmarks.{path.stem}" in text, path.stem
