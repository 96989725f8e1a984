"""Comparison of finished runs: what is grouped, what is averaged, what is drawn."""

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from fl_backdoor import compare
from fl_backdoor.compare import as_frame, grouped, main, show
from fl_backdoor.errors import UserError
from fl_backdoor.measure.runs import EARLY, collect, find
from fl_backdoor.measure.settings import differing, distinct


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


def read(*folders: Path) -> pd.DataFrame:
    ended, _ = find(list(folders))
    return distinct(collect(ended))


def shown(*folders: Path, width: int = 160) -> str:
    console = Console(width=width, force_terminal=True, markup=False, color_system=None)
    with console.capture() as captured:
        show(list(folders), console)
    return captured.get()


def change(path: Path, **config: object) -> None:
    """Set keys of a run's configuration."""
    file = path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    for seed, success in enumerate([0.1, 0.2, 0.3]):
        finished(tmp_path / f"300-{seed}", seed, 300, success)
        finished(tmp_path / f"500-{seed}", seed, 500, 2 * success)
    finished(tmp_path / "300-0" / "clean_twin", 0, 300, 0.0)
    return tmp_path


def test_seeds_are_averaged_and_twins_left_out(sweep: Path) -> None:
    groups = grouped(read(sweep))
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
    assert list(grouped(read(sweep)).index.names) == ["attack.poisoned_samples"]


def test_numbers_are_sorted_as_numbers(sweep: Path) -> None:
    finished(sweep / "1000", 0, 1000, 0.0)
    assert list(grouped(read(sweep)).index) == ["300", "500", "1000"]


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
        read(sweep)


def test_every_setting_that_differs_is_a_column(sweep: Path) -> None:
    finished(sweep / "other", 0, 300, 0.0, strategy="T")
    groups = grouped(read(sweep))
    assert set(groups.index.names) == {"attack.poisoned_samples", "strategy._target_"}
    assert len(groups) == 3


def test_table_shows_mean_and_spread_in_percent(sweep: Path) -> None:
    text = shown(sweep)
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
    with pytest.raises(UserError, match="no ended run"):
        read(tmp_path)
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


@pytest.fixture
def epochs(tmp_path: Path) -> Path:
    for gamma, seed in [(1, 0), (1, 1), (5, 0)]:
        vertical(tmp_path / f"{gamma}-{seed}", seed, gamma, 2)
    vertical(tmp_path / "5-1", 1, 5, 1, "party 0: activations are not finite")
    vertical(tmp_path / "9-0", 0, 9, 0, "party 1: failed")
    return tmp_path


def test_runs_that_ended_early_count_apart_and_measure_nothing(epochs: Path) -> None:
    groups = grouped(read(epochs))
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


def test_a_run_counts_once_however_often_it_is_given(sweep: Path) -> None:
    shutil.copytree(sweep / "500-1", sweep / "copy")
    text = shown(sweep, sweep, sweep / "300-0")
    assert "9 runs left out: of the same setting and seed as another" in text
    runs = read(sweep, sweep, sweep / "300-0")
    assert grouped(runs)[("seeds", "")].tolist() == [3, 3]
    assert "left out" not in shown(sweep / "300-0")


def test_of_the_same_runs_one_that_is_finished_counts(epochs: Path) -> None:
    vertical(epochs / "again", 1, 5, 2)
    groups = grouped(read(epochs))
    assert groups[("seeds", "")].tolist() == [2, 2, 0]
    assert groups[(EARLY, "")].tolist() == [0, 0, 1]


def test_an_error_beside_a_summary_is_of_an_earlier_attempt(sweep: Path) -> None:
    (sweep / "300-0" / "error.txt").write_text("full disk\n")
    assert grouped(read(sweep))[("seeds", "")].tolist() == [3, 3]


@pytest.mark.parametrize("name", ["typo", "config.json", "empty", "begun"])
def test_every_folder_must_hold_an_ended_run(sweep: Path, name: str) -> None:
    (sweep / "empty").mkdir()
    (sweep / "config.json").write_text("{}")
    (sweep / "begun").mkdir()
    (sweep / "begun" / "config.json").write_text("{}")
    with pytest.raises(UserError, match=f"^{sweep / name}: ") as raised:
        read(sweep / "300-0", sweep / name)
    assert ("1 unfinished" in str(raised.value)) == (name == "begun")


def stopped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[str, str]:
    """Run the command, which must end with one line of error, and return what it printed."""
    monkeypatch.setattr(sys, "argv", ["compare", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    out, error = capsys.readouterr()
    assert error.count("\n") == 1
    return out, error


def test_no_name_is_not_the_working_directory(
    sweep: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(sweep)
    _, error = stopped(monkeypatch, capsys, str(sweep), "")
    assert error.startswith("error: '': not the name")


def test_a_folder_that_cannot_be_read_is_named(
    sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def locked(path: str) -> Iterator[os.DirEntry[str]]:
        if path.endswith("500-1"):  # permissions do not keep root out
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)
    with pytest.raises(UserError, match=r"500-1: cannot be read \(Permission denied\)"):
        read(sweep)


def test_unfinished_runs_are_said_and_not_counted(sweep: Path) -> None:
    (sweep / "300-0" / "summary.json").unlink()
    assert f"1 run is unfinished: {sweep / '300-0'}\n" in shown(sweep, sweep)
    (sweep / "300-1" / "summary.json").unlink()
    unfinished = f"{sweep / '300-0'} {sweep / '300-1'}"
    assert f"2 runs are unfinished: {unfinished}\n" in shown(sweep)
    assert grouped(read(sweep))[("seeds", "")].tolist() == [1, 3]


def test_linked_runs_are_found_and_cycles_end(sweep: Path) -> None:
    links, elsewhere = sweep / "links", sweep.with_name(f"{sweep.name}-elsewhere")
    links.mkdir()
    (sweep / "500-1").rename(elsewhere)
    (links / "run").symlink_to(elsewhere)
    (links / "up").symlink_to(sweep)
    (links / "itself").symlink_to(links / "itself")
    ended, unfinished = find([sweep])
    assert len(ended) == 6
    assert links / "run" in ended
    assert not unfinished


def test_a_clean_twin_counts_where_its_own_folder_is_given(
    sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, twin = sweep / "300-0", sweep / "300-0" / "clean_twin"
    assert find([run]) == ([run], [])
    assert find([twin]) == ([twin], [])
    assert list(grouped(read(run, twin)).index.names) == ["clean_twin"]
    (sweep / "clean_twin").mkdir()
    shutil.copytree(run, sweep / "clean_twin" / "run")
    assert sweep / "clean_twin" / "run" in find([sweep])[0]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("config.json", b"[]", "no mapping"),
        ("config.json", b'{"name": "x"}', "no seed"),
        ("config.json", b"\x80\x81\x82\x83\x84", "codec can't decode"),
        ("summary.json", b'"x"', "no mapping"),
        ("summary.json", b"null", "no mapping"),
        ("summary.json", b"[" * 100_000, "recursion"),
        ("summary.json", b"{}", "no main_accuracy"),
        ("summary.json", b'{"main_accuracy": "\\u001b"}', "main_accuracy is"),
        ("summary.json", b'{"main_accuracy": true}', "main_accuracy is True"),
        ("summary.json", b'{"main_accuracy": NaN}', "main_accuracy is nan"),
        ("summary.json", b'{"main_accuracy": 1, "defense_recall": []}', "defense_recall is"),
    ],
)
def test_what_is_no_run_is_one_line(sweep: Path, name: str, content: bytes, reason: str) -> None:
    (sweep / "300-0" / name).write_bytes(content)
    with pytest.raises(UserError) as raised:
        read(sweep)
    text = str(raised.value)
    assert text.startswith(f"{sweep / '300-0'}: not a whole run ({name}: ")
    assert reason in text
    assert text.isprintable()
    assert len(text) < 400


@pytest.mark.parametrize("rest", ['{"epoch": 3, "main_acc', '{"epoch": 3, "ma\n', "{}"])
def test_a_last_epoch_that_is_half_written_is_left_out(epochs: Path, rest: str) -> None:
    with (epochs / "5-1" / "metrics.jsonl").open("a") as file:
        file.write(rest)
    assert "epochs.png" in shown(epochs)


@pytest.mark.parametrize(
    "row",
    ["[]", "{}", "{", '{"epoch": 7}', '{"epoch": 1}', '{"epoch": 1, "main_accuracy": "x", REST'],
)
def test_a_wrong_epoch_is_one_line_behind_the_table(
    epochs: Path, row: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = row.replace("REST", '"backdoor_accuracy": null, "attack_success_rate": null}')
    file = epochs / "1-0" / "metrics.jsonl"
    file.write_text(f"{row}\n{file.read_text()}")
    out, error = stopped(monkeypatch, capsys, str(epochs))
    assert "10.00" in out
    assert error.startswith(f"error: {file}: ")


def test_a_finished_run_has_its_epochs(epochs: Path) -> None:
    (epochs / "1-0" / "metrics.jsonl").unlink()
    with pytest.raises(UserError, match=r"1-0/metrics\.jsonl: cannot be read"):
        shown(epochs)


def test_measures_that_no_epoch_has_are_not_drawn(epochs: Path) -> None:
    for file in epochs.rglob("metrics.jsonl"):
        file.write_text(file.read_text().replace("0.8", "null"))
    assert "epochs.png" in shown(epochs)


def test_a_figure_that_cannot_be_written_comes_behind_the_table(
    sweep: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (sweep / "attack_success.png").mkdir()
    out, error = stopped(monkeypatch, capsys, str(sweep))
    assert "20.00" in out
    assert "Figure" not in out
    assert error == f"error: {sweep / 'attack_success.png'}: cannot be written (Is a directory)\n"


def test_poisoned_samples_that_are_no_number_come_behind_the_table(
    sweep: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    change(sweep / "300-0", attack={"poisoned_samples": "x"})
    out, error = stopped(monkeypatch, capsys, str(sweep))
    assert "20.00" in out
    assert "attack.poisoned_samples is no whole number" in error


def test_an_interrupt_is_status_130(
    sweep: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(compare, "show", interrupted)
    monkeypatch.setattr(sys, "argv", ["compare", str(sweep)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_full_disk_below_standard_output_is_one_line(sweep: Path) -> None:
    command = [sys.executable, "-m", "fl_backdoor.compare", str(sweep)]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr == "error: [Errno 28] No space left on device\n"


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Three keys and five measures."""
    for attackers in (1, 10):
        for strategy in ("x.Sniper", "x.GaussianNoise"):
            for samples in (300, 10_000):
                for seed, success in enumerate([0.1, 1.0]):
                    path = tmp_path / f"{attackers}-{strategy}-{samples}-{seed}"
                    finished(path, seed, samples, success, strategy)
                    change(path, attack={"poisoned_samples": samples, "num_attackers": attackers})
                    summary = json.loads((path / "summary.json").read_text())
                    summary["attack_success_floor"] = 0.01
                    (path / "summary.json").write_text(json.dumps(summary))
    return tmp_path


MEAN = ["90.00", "55.00", "1.00", "100.00", "50.00"]
SPREAD = ["±", "0.00", "±", "63.64", "±", "0.00", "±", "0.00", "±", "0.00"]


@pytest.mark.parametrize("width", [120, 100, 80])
def test_a_narrow_terminal_gets_one_table_of_stacked_words(many: Path, width: int) -> None:
    lines = shown(many, width=width).splitlines()
    table = [line for line in lines if not line.startswith("Figure")]
    assert max(map(len, table)) <= width
    (row,) = (i for i, line in enumerate(table) if line.split()[:3] == ["Gaussian", "10", "300"])
    assert table[row].split()[3:] == ["2", *MEAN]
    assert table[row + 1].split() == ["Noise", *SPREAD]


@pytest.mark.parametrize("width", [60])
def test_a_narrower_one_gets_the_measures_in_parts(many: Path, width: int) -> None:
    lines = shown(many, width=width).splitlines()
    table = [line for line in lines if not line.startswith("Figure")]
    assert max(map(len, table)) <= width
    rows = [line.split()[3:] for line in table if line.split()[:3] == ["Sniper", "10", "300"]]
    assert len(rows) > 1
    assert [cell for _, *cells in rows for cell in cells] == MEAN
    assert {seeds for seeds, *_ in rows} == {"2"}


@pytest.mark.parametrize("width", [80, 40])
def test_where_keys_leave_no_room_settings_are_numbered(many: Path, width: int) -> None:
    """So that no number is cut in the middle: here by keys of which there are many, and long."""
    for file in many.glob("*/config.json"):
        config = json.loads(file.read_text())
        samples = config["attack"]["poisoned_samples"]
        rates = {f"rate_{k}_of_something_quite_long": samples / 7**k for k in range(1, 7)}
        change(file.parent, training=rates)
    lines = shown(many, width=width).splitlines()
    assert max(map(len, [line for line in lines if not line.startswith("Figure")])) <= width
    assert "rate_1_of_something_quite_long=42.857142857142854" in "".join("".join(lines).split())
    rows = [line.split() for line in lines if line.split()[:2] == ["8", "2"]]
    assert [cell for row in rows for cell in row[2:]] == MEAN


def test_nothing_is_cut_however_narrow_the_terminal(many: Path) -> None:
    for width in (30, 20, 10):
        text = shown(many, width=width)
        assert "…" not in text
        table = [line for line in text.splitlines() if not line.startswith("Figure")]
        assert max(map(len, table)) <= width
        for digit in "".join(MEAN):
            assert digit in text


def test_a_wide_console_gets_whole_words(many: Path) -> None:
    text = shown(many)
    assert "num_attackers ┃ poisoned_samples" in text
    assert "55.00 ± 63.64" in text


def test_both_protocols_are_told_apart(sweep: Path) -> None:
    assert "protocol" not in differing(read(sweep))
    vertical(sweep / "vertical", 0, 5, 2)
    runs = read(sweep)
    assert next(iter(differing(runs))) == "protocol"
    groups = grouped(runs)
    assert groups.index.get_level_values("protocol").tolist() == ["horizontal"] * 2 + ["vertical"]
    vertical(sweep / "v" / "1", 0, 1, 2)
    vertical(sweep / "v" / "5", 0, 5, 2)
    assert list(differing(read(sweep / "v"))) == ["attack.gamma"]


@pytest.mark.parametrize(
    ("name", "drawn"),
    [
        ("$x_{", "$x_{"),
        ("日本", "日本"),
        ("_hidden", "_hidden"),
        ("\ud800\x1b", r"\ud800?"),
        ("long " * 60, "long long"),
    ],
)
def test_names_are_drawn_as_they_are(
    sweep: Path, tmp_path: Path, name: str, drawn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    legends: list[str] = []
    save = compare.save_figure

    def kept(figure: Any, path: Path) -> None:
        (legend,) = figure.legends
        legends.append("".join(text.get_text() for text in legend.get_texts()))
        save(figure, path)

    monkeypatch.setattr(compare, "save_figure", kept)
    change(sweep / "500-0", strategy={"_target_": "S", "mode": name})
    runs = read(sweep)
    compare.draw_poisoned(grouped(runs), sweep / "attack_success.png")
    for seed in (0, 1):
        vertical(tmp_path / "v" / str(seed), seed, 5, 2)
        change(tmp_path / "v" / str(seed), dataset={"name": (name, "other")[seed]})
    compare.draw_epochs(read(tmp_path / "v"), sweep / "epochs.png")
    assert [drawn in legend for legend in legends] == [True, True]


def test_a_figure_has_place_for_many_settings(sweep: Path) -> None:
    for number in range(60):
        finished(sweep / f"strategy-{number}", 0, 300, 0.5, strategy=f"Long_{number}" * 10)
    assert "Figure" in shown(sweep)  # without a warning of matplotlib's


def test_runs_that_differ_in_more_than_their_defense_say_so(tmp_path: Path) -> None:
    """Two sweeps: what else differs is a column, though the defense tells their runs apart."""
    for seed in (0, 1):
        for name, rounds, rate in (("A", 10, 0.1), ("B", 20, 0.2)):
            path = tmp_path / name / str(seed)
            finished(path, seed, 300, 0.5, strategy=name)
            change(path, num_rounds=rounds, training={"rate": rate}, optimizer={"rate": rate})
    keys = differing(read(tmp_path))
    assert keys == {"strategy._target_": [], "num_rounds": [], "training.rate": ["optimizer.rate"]}
    text = shown(tmp_path)
    assert "num_rounds" in text
    assert "As training.rate: optimizer.rate" in text
    assert text.count("│") == 2 * text.splitlines()[3].count("│")


def test_a_key_that_the_class_implies_is_no_column(sweep: Path) -> None:
    """One that only some defenses have, with one value; with two values it is one."""
    for number, threshold in enumerate([0.5, 0.5, 0.7]):
        finished(sweep / f"T-{number}", number, 300, 0.1, strategy="T")
        change(sweep / f"T-{number}", strategy={"_target_": "T", "threshold": threshold})
    keys = ["strategy._target_", "attack.poisoned_samples"]
    assert list(differing(read(sweep))) == [*keys, "strategy.threshold"]
    change(sweep / "T-2", strategy={"_target_": "T", "threshold": 0.5})
    assert list(differing(read(sweep))) == keys
    # Both classes have it, and not the same: the class does not excuse that.
    change(sweep / "300-0", strategy={"_target_": "S", "threshold": 0.6})
    assert "strategy.threshold" in differing(read(sweep))


@pytest.mark.parametrize(
    "said", [{"data_digest": "1"}, {"data": "stand-in"}, {"versions": {"torch": "3"}}]
)
def test_other_data_and_other_versions_are_columns(sweep: Path, said: dict[str, Any]) -> None:
    for number, file in enumerate(sorted(sweep.glob("*/summary.json"))):
        own = {"data_digest": "0", "data": "real", "versions": {"torch": "2"}}
        summary = json.loads(file.read_text()) | own | (said if number == 0 else {})
        file.write_text(json.dumps(summary))
    key = next(iter(said)) if "versions" not in said else "versions.torch"
    assert list(differing(read(sweep))) == ["attack.poisoned_samples", key]
    # A run that failed could not say them, and is no other setting for that.
    (sweep / "300-2" / "summary.json").unlink()
    (sweep / "300-2" / "error.txt").write_text("failed\n")
    assert list(differing(read(sweep))) == ["attack.poisoned_samples", key]


def test_the_table_as_csv_has_full_keys(
    sweep: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["compare", str(sweep), "--csv"])
    main()
    out = pd.read_csv(StringIO(capsys.readouterr().out))
    assert list(out["attack.poisoned_samples"]) == [300, 500]
    assert list(out["attack_success_rate_mean"]) == pytest.approx([0.2, 0.4])
    assert list(out["attack_success_rate_std"]) == pytest.approx([0.1, 0.2])
    assert list(out["seeds"]) == [3, 3]
    assert "attack_success_floor_mean" not in out
    assert not (sweep / "attack_success.png").exists()


def test_failed_runs_are_named_with_the_reason(epochs: Path) -> None:
    """Those that never began as well."""
    (epochs / "refused").mkdir()
    (epochs / "refused" / "error.txt").write_text("attack.gamma=x: allowed is a number\n")
    text = shown(epochs)
    assert f"{epochs / '5-1'} ended early: party 0: activations are not finite\n" in text
    assert f"{epochs / 'refused'} ended early: attack.gamma=x: allowed is a number\n" in text


def test_success_on_a_model_at_chance_is_none(sweep: Path) -> None:
    """An untrained model that calls everything the target class is no success."""
    for file in sweep.glob("300-*/summary.json"):
        summary = json.loads(file.read_text())
        file.write_text(json.dumps(summary | {"at_chance": True, "attack_success_rate": 1.0}))
    assert grouped(read(sweep))[("attack_success_rate", "mean")].isna().tolist() == [True, False]
    assert "100.00" not in shown(sweep).replace("100.00 ± 0.00", "")  # precision


def test_a_newer_format_is_named(sweep: Path) -> None:
    file = sweep / "300-0" / "summary.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 2}))
    with pytest.raises(UserError, match="of format 2, of which this version reads 1"):
        read(sweep)


def test_a_mean_of_some_seeds_says_so(sweep: Path) -> None:
    file = sweep / "500-1" / "summary.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"at_chance": True}))
    text = shown(sweep)
    assert "40.00 ± 28.28 (2 of 3)" in text
    assert text.count(" of 3)") == 1
    frame = as_frame(read(sweep)).set_index("attack.poisoned_samples")
    assert frame.loc["500", "attack_success_rate_seeds"] == 2
    assert frame["attack_success_rate_seeds"].notna().sum() == 1
    assert "main_accuracy_seeds" not in frame
