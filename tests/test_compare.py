"""Comparison of finished runs: what is grouped, what is averaged, what is drawn."""

import json
import math
import sys
from pathlib import Path

import pytest
from rich.console import Console

from fl_backdoor.compare import collect, grouped, main, table
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
