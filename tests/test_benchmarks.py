"""Every benchmark at its smallest size: it runs, and what it claims besides time holds."""

import re
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import data_sets, memory, rounds, rules, small_clients, startup, vertical, write

ROOT = Path(__file__).parents[1]
ALONE = ["--sizes", "8", "--width", "600"]
"""The rules alone, at their smallest."""


def test_rules_measures_every_strategy_against_the_mean() -> None:
    ratios = rules.main(["--clients", "7", "--repeats", "1", "--channels", "2,2", *ALONE])
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


def test_memory_plays_a_round_of_any_rule_and_a_run_of_any_crowd() -> None:
    held = memory.server("gaussian_noise", 6, 4, 2)
    assert held.replies == 4 * held.model
    assert held.bound == 9 * held.model + 1.5 * held.model
    assert memory.server("fedadam", 6, 4, 2).remembered > 0
    crowd = memory.crowd(12, 3, 2, "dataset.train_rows=60", "dataset.test_rows=20")
    assert crowd.peak > 0


@pytest.mark.slow
def test_memory_measures_each_in_a_process_of_its_own() -> None:
    least = ["--clients", "6", "--cohort", "4", "--width", "16", "--rules", "fedavg"]
    crowds = ["--crowds", "10,20", "--owners", "100", "--rounds", "1"]
    assert memory.main([*least, *crowds])["fedavg"] > 0


@pytest.mark.slow
def test_startup_runs_all_its_commands() -> None:
    assert startup.main(["--repeats", "1"]).keys() == {"help", "tiny run", "later job"}


@pytest.mark.slow
def test_rounds_makes_the_steps_of_the_bare_loop() -> None:
    small = ["model.channels=[2]", "dataset.samples_per_class=10", "dataset.source=bundled"]
    one = ["engine=local", "engine.num_workers=1", "dataset.test_samples_per_class=10"]
    assert rounds.main(["--rounds", "1", "--workers", "1", "--repeats", "1", *small, *one]) > 0


@pytest.mark.parametrize("name", ["clique", "rules", "small_clients"])
def test_what_a_benchmark_prints_is_written_under_its_command(name: str, tmp_path: Path) -> None:
    least = {
        "clique": ["--size", "30"],
        "rules": ["--clients", "7", "--repeats", "1", "--channels", "2,2", *ALONE],
        "small_clients": ["--clients", "3", "--rounds", "1", "--repeats", "1"],
    }[name]
    page = tmp_path / "page.md"
    page.write_text(write.PAGE.read_text())
    write.main([name, *least], page)
    stored = write.block(name, write.PAGE.read_text())[0].splitlines()
    printed = write.block(name, page.read_text())[0].splitlines()
    assert printed[1] == " ".join([f"$ python -m benchmarks.{name}", *least])
    # The page in the repository has the lines that are printed today, with other figures.
    assert labels(printed) <= labels(stored)


def labels(lines: list[str]) -> set[str]:
    return {" ".join(re.sub(r"[\d.,]+|none|yes|no", "", line).split()) for line in lines[2:]}


def test_the_docs_have_every_benchmark() -> None:
    text = write.PAGE.read_text()
    for path in (ROOT / "benchmarks").glob("[a-z]*.py"):
        if path.stem not in ("same_bits_driver", "write") and hasattr(
            import_module(f"benchmarks.{path.stem}"), "main"
        ):
            assert f"python -m benchmarks.{path.stem}" in text, path.stem


def test_the_table_of_three_data_sets_is_that_of_its_rows() -> None:
    """`python -m benchmarks.data_sets` makes it so."""
    text = data_sets.PAGE.read_text()
    assert data_sets.rebuilt(text, pd.read_csv(data_sets.TABLE)) == text
