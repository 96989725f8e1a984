"""The suite from a program: the bits of the command line, results as numbers, text and frames."""

import importlib
import os
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import fl_backdoor
from fl_backdoor import compare_runs, load_results, run, run_sweep, write_report
from fl_backdoor.compose import combinations, composed, word
from fl_backdoor.errors import UserError
from fl_backdoor.results import Results, RunResult

from . import test_experiment as command

TINY: dict[str, Any] = {
    "engine": "local",
    "num_rounds": 2,
    "dataset.source": "bundled",
    "dataset.samples_per_class": 20,
    "dataset.test_samples_per_class": 40,
    "model.channels": [4, 8],
    "training.learning_rate": 0.3,
    "attack.poisoned_samples": 30,
}
SWEPT = {**TINY, "model.channels": [[4, 8]], "num_rounds": 1, "floor": False}


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return run("sniper_goal1", output=tmp_path_factory.mktemp("api") / "run", **TINY)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Two defenses, of which the second run of one cannot begin."""
    return run_sweep(
        "sniper_goal1", output=tmp_path_factory.mktemp("api") / "sweep",
        **SWEPT | {"strategy": ["fedavg", "sniper"], "attack.num_attackers": (3, 9)},
    )  # fmt: skip


def test_no_function_has_a_submodules_name() -> None:
    """Importing a submodule sets its name on the package, and would hide the function."""
    submodules = [
        module.name
        for module in pkgutil.walk_packages(fl_backdoor.__path__, "fl_backdoor.")
        if not module.name.endswith("__main__")
    ]
    assert "fl_backdoor.report.report" in submodules
    for name in submodules:
        importlib.import_module(name)
    assert not {f"fl_backdoor.{name}" for name in fl_backdoor.__all__} & set(submodules)
    for name in fl_backdoor.__all__:
        function = getattr(fl_backdoor, name)
        assert callable(function)
        assert function.__doc__
    with pytest.raises(AttributeError, match="no attribute 'sniper'"):
        fl_backdoor.sniper  # noqa: B018


def test_the_package_itself_imports_nothing_slow(isolated: Any) -> None:
    isolated("import fl_backdoor, sys; assert not {'torch', 'flwr', 'hydra'} & set(sys.modules)")


def test_a_module_runs_without_a_warning() -> None:
    """A package that has imported its own module would be warned of as that is run."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning:typer",
         "-m", "fl_backdoor.compare", "--help"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Example\n")


@pytest.mark.slow
def test_a_run_has_the_bits_of_the_command_line(result: RunResult, tmp_path: Path) -> None:
    command.run(
        tmp_path, "+experiment=sniper_goal1", *command.TINY, *command.TINY_ATTACK, "num_rounds=2"
    )
    for model in ("model.safetensors", "clean_twin/model.safetensors"):
        assert (tmp_path / model).read_bytes() == (result.path / model).read_bytes()
    assert composed("+experiment=sniper_goal1").floor  # its twin is asked for there


def test_a_result_reads_like_a_dict_and_prints_like_the_table(result: RunResult) -> None:
    assert result["main_accuracy"] == dict(result)["main_accuracy"]
    assert "rounds" in result
    assert len(list(result)) == len(result)
    text = str(result)
    assert "main accuracy" in text
    assert "What this does not show:" in text
    assert max(map(len, text.splitlines()[:-1])) <= 100
    assert "main accuracy" in result._repr_html_()
    assert result.config["attack.num_attackers"] == 3
    assert result.error == ""


def test_a_result_has_frames_figures_and_its_directory(result: RunResult) -> None:
    assert list(result.rounds.index) == [1, 2]
    assert result.rounds.loc[2, "main_accuracy"] == result["main_accuracy"]
    assert result.clean_twin is not None
    assert result.clean_twin["main_accuracy"] == result["main_accuracy_twin"]
    assert result.clean_twin.clean_twin is None
    assert {"rounds", "distances"} <= set(result.figures)
    assert all(path.stat().st_size for path in result.figures.values())
    assert Path(result) == result.path == Path(os.fspath(result))


def test_what_a_process_had_set_is_given_back(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(UserError, match=r"^attack\.num_attackers=9: allowed are"):
            run("sniper_goal1", output=tmp_path / "run", **TINY, **{"attack.num_attackers": 9})
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_a_run_is_continued(result: RunResult) -> None:
    """It is complete: nothing is trained, and nothing changes."""
    before = (result.path / "summary.json").read_bytes()
    again = run("sniper_goal1", output=result, resume=True, **TINY)
    assert dict(again) == dict(result)
    assert (result.path / "summary.json").read_bytes() == before
    with pytest.raises(UserError, match="holds a run already"):
        run("sniper_goal1", output=result, **TINY)


@pytest.mark.parametrize(
    ("experiment", "keys", "said"),
    [
        ("sniper_goal1", {"num_round": 3}, r"^num_round: unknown key; .*did you mean num_rounds\?"),
        ("snipper_goal1", {}, r"^experiment=snipper_goal1: .*did you mean sniper_goal1\?$"),
        ("sniper_goal1", {"strategy": "flme"}, r"^strategy=flme: .*did you mean flame\?$"),
        ("sniper_goal1", {"strategy": 3}, r"^strategy=3: allowed are adaptive_clipping, "),
        ("sniper_goal1", {"seed": object()}, r"^seed=<object object.*: allowed are numbers"),
        ("sniper_goal1", {"attack": None}, r"^attack=null: allowed are"),
        ("sniper_goal1", {"hydra.run.dir": "x"}, r"hydra\.run\.dir=x: allowed are keys"),
        ("sniper_goal1", {"seed": -1}, r"^seed=-1: allowed is 0 or more"),
        ("cao_fig4", {}, r"^experiment=cao_fig4: a sweep, .*run_sweep: "),
    ],
)
def test_bad_input_is_an_error_before_any_training(
    experiment: str, keys: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said):
        run(experiment, output=tmp_path / "run", **keys)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_sweep_compares_its_runs(sweep: Results) -> None:
    assert [result.config["strategy._target_"] for result in sweep] == [
        "strategies.FedAvg",
        "strategies.Sniper",
    ]
    assert len(sweep.notes) == 2
    assert all("attack.num_attackers=9: allowed are" in note for note in sweep.notes)
    text = str(sweep)
    assert "FedAvg" in text
    assert "ended early" in text
    assert "Sniper" in sweep._repr_html_()
    assert list(sweep.frame["strategy._target_"]) == ["FedAvg", "Sniper"]
    assert list(sweep.rounds["number"]) == [1, 1]
    assert [one.path for one in sweep[:1]] == [sweep[0].path]


@pytest.mark.slow
def test_a_sweep_goes_on_with_what_is_there(sweep: Results) -> None:
    out = sweep[0].path.parents[1]
    before = [(one.path / "summary.json").stat().st_mtime_ns for one in sweep]
    again = run_sweep("sniper_goal1", output=out, **SWEPT | {
        "strategy": ["fedavg", "sniper"], "attack.num_attackers": [3]})  # fmt: skip
    # The number of attackers is that of the sweep before, in the same words.
    assert [one.path for one in again] == [one.path for one in sweep]
    assert [(one.path / "summary.json").stat().st_mtime_ns for one in again] == before


@pytest.mark.slow
def test_results_are_loaded_compared_and_reported(
    result: RunResult, sweep: Results, tmp_path: Path
) -> None:
    folder = sweep[0].path.parents[1]
    loaded = load_results(folder)
    assert {one.path for one in loaded} == {one.path for one in sweep}
    assert load_results([result, folder])[0]["seed"] == 0
    table = compare_runs(sweep)
    assert list(table["strategy._target_"]) == ["FedAvg", "Sniper"]
    assert list(table["seeds"]) == [1, 1]
    pd.testing.assert_frame_equal(table, compare_runs(folder))
    page = write_report(str(folder), tmp_path / "page")
    assert page.read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: run_sweep("nope"), r"^experiment=nope: allowed are"),
        (lambda: run_sweep(seed=[]), r"^seed=\[\]: allowed are one value or more$"),
        (lambda: run_sweep(strategy=["fedavg", "krm"]), r"did you mean krum\?$"),
        (lambda: run_sweep(jobs=0), r"^jobs=0: allowed is 1 or more$"),
        (lambda: load_results("/nowhere"), "^/nowhere: "),
        (lambda: compare_runs(["/nowhere"]), "^/nowhere: "),
        (lambda: Results([]), "^no runs"),
    ],
)
def test_bad_input_of_a_sweep_is_an_error(call: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        call()


@pytest.mark.slow
def test_a_sweep_in_processes_has_the_same_bits(sweep: Results, tmp_path: Path) -> None:
    two = run_sweep("sniper_goal1", output=tmp_path, jobs=2, **SWEPT | {
        "strategy": ["fedavg", "sniper"], "attack.num_attackers": [3]})  # fmt: skip
    for one, other in zip(two, sweep, strict=True):
        assert (one.path / "model.safetensors").read_bytes() == (
            other.path / "model.safetensors"
        ).read_bytes()


@pytest.mark.parametrize(
    "value",
    [
        None, True, 3, -0.5, 1e-7, float("inf"), "flame", "a b", "it's", "null", "3", "x\\", "a/b",
        "a,b", [1, "a", None], [[2, 6]], {"first": 10, "last": [1, 2]}, "", "[1]", "ü", "a=b",
    ],
)  # fmt: skip
def test_a_value_arrives_as_it_is(value: Any) -> None:
    """In Hydra's words and back: a choice of one value, and a key of a configuration."""
    text = word("+attack.key", value)
    config = composed(f"+attack.key={text}").attack.key
    assert config == value
    (chosen,) = combinations({"+attack.key": text})
    assert composed(*(f"{key}={word}" for key, word in chosen.items())).attack.key == value


def test_numpys_numbers_are_numbers() -> None:
    assert word("key", np.float32(0.5)) == "0.5"
    assert word("key", np.arange(3)) == "[0,1,2]"
    assert word("key", range(2)) == "[0,1]"
