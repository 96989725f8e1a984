"""Comparison of finished runs: what is grouped, what is averaged, what is drawn."""

import json
import math
import sys
from pathlib import Path

import pytest
from rich.console import Console

from fl_backdoor.compare import EARLY, collect, grouped, main, show, table
from fl_backdoor.errors import UserError


def finished(path: Path, seed: int, samples: int, success: float, strategy: str = "S") -> None:
    path.mkdir(parents=True)
    config = {
        "name": "x",
        "seed": seed,
        "strategy": {"_target_": strategy, "seed": seed},
        "attack": {"poisoned_samples": samples},
        "engine": {"kind": "local"},
    }
    summary = {
        "main_accuracy": 0.9,
        "attack_success_rate": success,
        "attack_success_floor": None,
        "defense_precision": 1.0,
        "defense_recall": 0.5,
    }
    (path / "config.json").write_text(json.dumps(config))
    (path / "summary.json").write_text(json.dumps(summary))


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    for seed, success in enumerate([0.1, 0.2, 0.3]):
        finished(tmp_path / f"300-{seed}", seed, 300, success)
        finished(tmp_path / f"500-{seed}", seed, 500, 2 * success)
    finished(tmp_path / "300-0" / "clean_twin", 0, 300, 0.0)
    return tmp_path


def test_seeds_are_averaged_and_twins_left_out(sweep: Path) -> None:
    groups = grouped(collect([sweep]))
    assert list(groups.index.names) == ["attack.poisoned_samples"]
    assert groups[("seeds", "")].tolist() == [3, 3]
    assert groups[("attack_success_rate", "mean")].tolist() == pytest.approx([0.2, 0.4])
    assert groups[("attack_success_rate", "std")].tolist() == pytest.approx([0.1, 0.2])
    assert all(map(math.isnan, groups[("attack_success_floor", "mean")]))


def test_no_seed_tells_settings_apart(sweep: Path) -> None:
    for path in sweep.glob("*/config.json"):
        config = json.loads(path.read_text())
        wrapped = {"strategy": config["strategy"], "_target_": "strategies.NormClipping"}
        path.write_text(json.dumps(config | {"strategy": wrapped}))
    assert list(grouped(collect([sweep])).index.names) == ["attack.poisoned_samples"]


def test_numbers_are_sorted_as_numbers(sweep: Path) -> None:
    finished(sweep / "1000", 0, 1000, 0.0)
    assert list(grouped(collect([sweep])).index) == ["300", "500", "1000"]


def test_runs_without_poisoned_samples_stay_out_of_the_figure(
    sweep: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finished(sweep / "trigger", 0, 0, 0.5, strategy="T")
    config = json.loads((sweep / "trigger" / "config.json").read_text())
    config["attack"] = {"pattern": [[1, 2]]}
    (sweep / "trigger" / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(sys, "argv", ["compare", str(sweep)])
    main()
    assert "attack_success.png" in capsys.readouterr().out


def test_a_damaged_run_is_one_line(sweep: Path) -> None:
    (sweep / "300-0" / "summary.json").write_text("{")
    with pytest.raises(UserError, match="300-0: not a whole run"):
        collect([sweep])


def test_every_setting_that_differs_is_a_column(sweep: Path) -> None:
    finished(sweep / "other", 0, 300, 0.0, strategy="T")
    groups = grouped(collect([sweep]))
    assert set(groups.index.names) == {"attack.poisoned_samples", "strategy._target_"}
    assert len(groups) == 3


def test_table_shows_mean_and_spread_in_percent(sweep: Path) -> None:
    console = Console(width=160, record=True, quiet=False, file=None)
    with console.capture() as captured:
        console.print(table(grouped(collect([sweep]))))
    text = captured.get()
    assert "20.00 ± 10.00" in text
    assert "40.00 ± 20.00" in text


def test_command_draws_the_figure(
    sweep: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["compare", str(sweep)])
    main()
    assert "attack_success.png" in capsys.readouterr().out
    assert (sweep / "attack_success.png").stat().st_size > 10_000


def test_nothing_to_compare_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="no finished run"):
        collect([tmp_path])
    monkeypatch.setattr(sys, "argv", ["compare", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def vertical(path: Path, seed: int, gamma: int, epochs: int, error: str | None = None) -> None:
    """Write what a vertical run of two epochs leaves behind when it ends, well or early."""
    path.mkdir(parents=True)
    config = {"name": "v", "seed": seed, "num_epochs": 2, "attack": {"gamma": gamma}}
    rates = {"main_accuracy": 0.9, "backdoor_accuracy": 0.8, "attack_success_rate": 0.1 * gamma}
    rows = [{"epoch": epoch, **rates} for epoch in range(1, epochs + 1)]
    (path / "config.json").write_text(json.dumps(config))
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if error is None:
        summary = rates | {"attack_success_floor": None}
        (path / "summary.json").write_text(json.dumps(summary))
    else:
        (path / "error.txt").write_text(error + "\n")


def shown(folder: Path) -> str:
    console = Console(width=160)
    with console.capture() as captured:
        show([folder], console)
    return captured.get()


@pytest.fixture
def epochs(tmp_path: Path) -> Path:
    for gamma, seed in [(1, 0), (1, 1), (5, 0)]:
        vertical(tmp_path / f"{gamma}-{seed}", seed, gamma, 2)
    vertical(tmp_path / "5-1", 1, 5, 1, "party 0: activations are not finite")
    vertical(tmp_path / "9-0", 0, 9, 0, "party 1: failed")
    return tmp_path


def test_runs_that_ended_early_count_apart_and_measure_nothing(epochs: Path) -> None:
    groups = grouped(collect([epochs]))
    assert list(groups.index.names) == ["attack.gamma"]
    assert list(groups.index) == ["1", "5", "9"]
    assert groups[("seeds", "")].tolist() == [2, 1, 0]
    assert groups[(EARLY, "")].tolist() == [0, 1, 1]
    means = groups[("attack_success_rate", "mean")].tolist()
    assert means[:2] == pytest.approx([0.1, 0.5])
    assert math.isnan(means[2])


def test_vertical_runs_are_drawn_over_their_epochs(epochs: Path) -> None:
    text = shown(epochs)
    for part in (EARLY, "backdoor accuracy", f"Figure: {epochs / 'epochs.png'}"):
        assert part in text
    assert (epochs / "epochs.png").stat().st_size > 10_000


def test_without_early_ends_there_is_no_column_of_them(epochs: Path) -> None:
    for path in epochs.rglob("error.txt"):
        path.with_name("summary.json").write_text((epochs / "1-0" / "summary.json").read_text())
        path.unlink()
    assert EARLY not in shown(epochs)


def test_a_sweep_in_which_every_run_ended_early_is_shown(tmp_path: Path) -> None:
    for seed in (0, 1):
        vertical(tmp_path / str(seed), seed, 5, 0, "party 1: failed")
    assert EARLY in shown(tmp_path)


def test_horizontal_runs_have_no_epochs_to_draw(sweep: Path) -> None:
    assert "epochs.png" not in shown(sweep)
    vertical(sweep / "vertical", 0, 5, 2)
    assert "epochs.png" not in shown(sweep)
