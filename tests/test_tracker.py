"""``tracker=``: the rows of a run in a tracker of experiments, beside the run directory."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from rich.console import Console

import fl_backdoor.loop.loop as experiment
from fl_backdoor.config import conf_directory, load
from fl_backdoor.errors import UserError
from fl_backdoor.loop.display import Display
from strategies.callbacks import Tracker, numbers

from . import test_callbacks as callbacks
from . import test_vertical_experiment as vertical
from .test_callbacks import Told, scalars
from .test_config import names
from .test_experiment import rows
from .test_watching import printed

told, missing = callbacks.told, callbacks.missing
SMALL = ["dataset=breast_cancer", "model=logistic", "attack=none", "num_clients=4", "floor=false"]
TRACKERS = sorted(set(names("tracker")) - {"none"})


def small(path: Path, *overrides: str) -> None:
    """Run a tiny experiment on a table; the keys of images are none of its."""
    given = ["engine=local", "num_rounds=3", *SMALL, *overrides]
    with initialize_config_dir(str(conf_directory()), version_base="1.3"):
        config = load(compose("config", given))
    experiment.run(config, path, Display(Console(quiet=True), figures=False))


def expected(path: Path, unit: str = "round") -> set[tuple[str, float, int]]:
    return {(name, value, row[unit]) for row in rows(path) for name, value in numbers(row).items()}


@pytest.mark.parametrize("name", TRACKERS)
def test_the_rows_of_a_run_are_those_that_the_tracker_gets(
    name: str, told: Told, tmp_path: Path
) -> None:
    """The twin's are its own; what the docs' command adds to an experiment is what is tried."""
    command = shlex.split(printed("tracker", "bash"))
    assert command[-1].partition("=")[0] == "tracker"
    assert command[-1].partition("=")[2] in TRACKERS
    small(tmp_path, f"tracker={name}", "floor=true")
    assert scalars(told) == expected(tmp_path)
    assert told[-1][0] in ("close", "end", "finish")
    assert json.loads((tmp_path / "config.json").read_text())["tracker"]["_target_"].startswith(
        "strategies.callbacks."
    )


def test_epochs_of_split_learning_are_tracked_as_well(told: Told, tmp_path: Path) -> None:
    vertical.run(tmp_path, "tracker=tensorboard")
    assert scalars(told) == expected(tmp_path, "epoch")


def test_a_resumed_run_sends_what_it_has_and_may_have_another_tracker(
    told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(tracker: Tracker, number: int, values: Any) -> None:
        if number == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Tracker, "write", stop)
        with pytest.raises(KeyboardInterrupt):
            small(tmp_path)
    small(tmp_path, "tracker=wandb", "resume=true")
    assert scalars(told) == expected(tmp_path)
    assert [call[2] for call in told if call[0] == "log"] == [1, 2, 3]


@pytest.mark.parametrize("name", TRACKERS)
def test_a_missing_package_is_one_line_before_anything_is_trained(
    name: str, missing: None, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"^tracker: \w+ needs another package: pip install \w"):
        small(tmp_path, f"tracker={name}")
    assert not list(tmp_path.iterdir())


def test_a_tracker_that_cannot_begin_is_one_line(
    told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**settings: Any) -> None:
        raise ConnectionError("nobody is there\nat all")

    callbacks.module("wandb", monkeypatch, init=refuse)
    with pytest.raises(UserError, match=r"^tracker: nobody is there at all$"):
        small(tmp_path, "tracker=wandb")
    assert not rows(tmp_path) if (tmp_path / "metrics.jsonl").exists() else True


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("tracker.project=p", "project"),
        ("tracker._target_=strategies.FedAvg", "tracker._target_=strategies.FedAvg: allowed are"),
        ("tracker._target_=strategies.callbacks.Nothing", "tracker._target_"),
    ],
)
def test_a_setting_that_is_none_of_its_own_is_named(
    wrong: str, said: str, told: Told, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="tracker") as caught:
        small(tmp_path, "tracker=mlflow", f"+{wrong}" if "_target_" not in wrong else wrong)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_tracker_that_fails_later_ends_nothing(
    told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("strategies.callbacks.TensorBoard.log", fail)
    small(tmp_path, "tracker=tensorboard")
    assert len(rows(tmp_path)) == 3
    said = [r.getMessage() for r in caplog.records if "Tracker.write" in r.getMessage()]
    assert [text.split(" (")[0] for text in said] == [
        "Tracker.write failed, and the training goes on without: OSError('disk full')",
        "Tracker.write failed 3 times",
    ]


def test_tracking_changes_no_bit_of_a_run(told: Told, tmp_path: Path) -> None:
    for name in ("none", "wandb"):
        small(tmp_path / name, f"tracker={name}")
    models = [(tmp_path / n / "model.safetensors").read_bytes() for n in ("none", "wandb")]
    assert models[0] == models[1]


def test_the_twin_warns_of_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where the run clips nobody for five rounds, it says so, and once."""
    clipping = ("strategy=norm_clipping", "strategy.max_norm=1000.0")
    small(tmp_path, "floor=true", "num_rounds=5", *clipping)
    assert sum("has clipped nobody" in r.getMessage() for r in caplog.records) == 1


@pytest.mark.slow
def test_tensorboard_of_a_run(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    small(tmp_path, "tracker=tensorboard")
    events = EventAccumulator(str(tmp_path / "tracker"))
    events.Reload()
    found = [(event.step, event.value) for event in events.Scalars("main_accuracy")]
    assert found == [(r["round"], pytest.approx(r["main_accuracy"])) for r in rows(tmp_path)]
