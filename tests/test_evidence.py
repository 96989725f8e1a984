"""The report of runs: its numbers are those of the run files, and unlike runs stand apart."""

import json
import math
import re
import shutil
import sys
from base64 import b64decode
from dataclasses import dataclass
from html.parser import HTMLParser
from io import BytesIO, StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import hypothesis
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console
from scipy import stats

import fl_backdoor.loop.loop as experiment
from clients.attacks.sign_flip import SignFlip
from fl_backdoor.compare import grouped
from fl_backdoor.errors import UserError
from fl_backdoor.files import flatten_config
from fl_backdoor.measure.caveats import caveats
from fl_backdoor.measure.rows import read_rows
from fl_backdoor.measure.runs import Run, frame
from fl_backdoor.measure.settings import result_keys
from fl_backdoor.report import figures, write_report
from fl_backdoor.report.__main__ import main
from fl_backdoor.report.estimate import Estimate
from fl_backdoor.report.matrix import NO_ATTACK, NO_FLOOR, Cell, Matrix, Section, sections
from fl_backdoor.report.page import _embedded, _section
from fl_backdoor.report.tidy import BESIDE, readable, settings

from .test_caveats import CONFIG, ROW, SUMMARY
from .test_experiment import tiny
from .test_vertical_experiment import Undrawn

FEW = [
    "dataset=digits",
    "model=mlp",
    "num_rounds=2",
    "floor=true",
    "num_clients=4",
    "attack.num_attackers=1",
    "training.batch_size=32",
    "training.learning_rate=0.5",
]


def run(path: Path, *overrides: str) -> tuple[dict[str, Any], str]:
    """Run an experiment of two rounds; return its summary and what it printed."""
    kept = [o for o in tiny.__globals__["TINY"] if not o.startswith(("dataset", "model", "num"))]
    screen = StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tiny.__globals__, "TINY", kept)
        config = tiny(*FEW, *overrides)
    return experiment.run(config, path, Undrawn(Console(file=screen, width=120))), screen.getvalue()


def planted(
    path: Path,
    config: dict[str, Any] | None = None,
    summary: dict[str, Any] | None = None,
    rows: int = 2,
) -> Path:
    """Write what a run leaves behind, or with ``summary={}`` what a killed one does."""
    path.mkdir(parents=True)
    lines = [json.dumps({"round": n + 1} | ROW) + "\n" for n in range(rows)]
    (path / "config.json").write_text(json.dumps(CONFIG | (config or {})))
    (path / "metrics.jsonl").write_text("".join(lines))
    if summary != {}:
        (path / "summary.json").write_text(json.dumps(SUMMARY | (summary or {})))
    return path


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave figures empty, which are most of the time that a report takes."""
    dot = Image.new("RGB", (1, 1))
    monkeypatch.setattr(figures, "save_figure", lambda _, path: dot.save(path, "PNG"))


def parts(*folders: Path) -> list[Section]:
    found, _ = readable(folders)
    return sections(*settings(found))


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run two defenses against a backdoor with two seeds, and an untargeted attack once."""
    folder = tmp_path_factory.mktemp("real")
    for strategy in ("fedavg", "sniper"):
        for seed in (0, 1):
            path = folder / f"{strategy}-{seed}"
            run(path, "attack=backdoor", f"strategy={strategy}", f"seed={seed}")
            arguments = [f"strategy={strategy}", f"seed={seed}"]
            (path / "command.json").write_text(json.dumps({"arguments": arguments}))
    run(folder / "flip", "attack=sign_flip", "strategy=fedavg", "seed=0")
    return folder


@pytest.fixture(scope="module")
def reported(real: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, list[str]]:
    """Report them; return the folder, its page, and what was said."""
    out = tmp_path_factory.mktemp("reported") / "out"
    said: list[str] = []
    page = write_report([real], out, said.append)
    return out, page.read_text(), said


def summary(path: Path) -> dict[str, Any]:
    return dict(json.loads((path / "summary.json").read_text()))


def test_the_tables_hold_what_the_run_files_do(
    real: Path, reported: tuple[Path, str, list[str]]
) -> None:
    out, _, said = reported
    runs, rows = (pd.read_csv(out / f"{name}.csv") for name in ("runs", "rounds"))
    assert len(runs) == 5
    for _, row in runs.iterrows():
        own = summary(Path(row["run"]))
        for name in ("main_accuracy", "attack_success_rate", "attack_success_floor", "damage"):
            expected = None if own["at_chance"] and "rate" in name else own[name]
            assert row[name] == expected or (expected is None and math.isnan(row[name]))
        assert row["data_digest"] == own["data_digest"]
        assert row["peak_memory"] == own["peak_memory"] > 1e6
        of = rows[rows["run"] == row["run"]]
        files = read_rows(Path(row["run"]) / "metrics.jsonl", "round")
        assert of["main_accuracy"].tolist() == [r["main_accuracy"] for r in files]
        assert of["attackers"].astype(str).tolist() == ["0"] * 2
    for name, table in (("runs", runs), ("rounds", rows)):
        parquet = pd.read_parquet(out / f"{name}.parquet")
        assert list(parquet.columns) == list(table.columns)
        assert parquet["main_accuracy"].tolist() == table["main_accuracy"].tolist()
    assert said == [f"5 runs reported, 0 skipped: {out / 'index.html'}"]


def test_damage_is_what_the_attack_takes_of_the_main_accuracy(real: Path) -> None:
    own, aimed = summary(real / "flip"), summary(real / "fedavg-0")
    assert own["damage"] == own["main_accuracy_twin"] - own["main_accuracy"]
    assert own["damage"] == read_rows(real / "flip" / "metrics.jsonl", "round")[-1]["damage"]
    assert aimed["damage"] is None
    floor = aimed["attack_success_floor"]
    if not aimed["at_chance"]:
        above = aimed["attack_success_rate"] - floor
        assert aimed["attack_success_above_floor"] == above
    low, high = aimed["attack_success_floor_interval"]
    assert low <= floor <= high


def test_the_matrix_is_mean_and_spread_over_seeds(
    real: Path, reported: tuple[Path, str, list[str]]
) -> None:
    _, page, _ = reported
    for name in ("fedavg", "sniper"):
        both = [summary(real / f"{name}-{seed}") for seed in (0, 1)]
        for key, sign in (("main_accuracy", ""), ("attack_success_above_floor", "+")):
            values = pd.Series([100 * s[key] for s in both if s[key] is not None], dtype=float)
            if len(values) == 2:
                assert f"{values.mean():{sign}.1f} ± {values.std():.1f}" in page
    own = summary(real / "flip")
    assert f"{100 * own['damage']:+.1f}" in page


def test_the_page_has_what_a_reader_asks_for(
    real: Path, reported: tuple[Path, str, list[str]]
) -> None:
    out, page, _ = reported
    assert "How well do FedAvg and Sniper hold against Backdoor and SignFlip, over 2 seeds?" in page
    assert "Against targeted attacks" in page
    assert "Against untargeted attacks only FedAvg was tried (its worst is SignFlip: " in page
    own = summary(real / "flip")
    for text in (
        "python -m fl_backdoor.simulate strategy=sniper seed=1",
        own["data_digest"],
        f"torch {own['versions']['torch']}",
        "No adaptive attacker was tried against Sniper.",
        "One seed in 1 of 3 settings",
    ):
        assert text in page, text
    drawn = {path.stem for path in (out / "figures").iterdir()}
    assert {"1-targeted", "1-untargeted", "1-main-accuracy", "1-attack-success-rate"} < drawn
    assert len([name for name in drawn if "agreement" in name]) == 1
    for name in drawn:
        assert {(out / "figures" / name).with_suffix(end).exists() for end in (".png", ".svg")} == {
            True
        }


class Tags(HTMLParser):
    """Which tags are open, and what a page would load."""

    EMPTY: ClassVar = {"meta", "img", "br"}

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.loads += [str(value) for key, value in attributes if key in ("src", "href")]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_nothing_else(reported: tuple[Path, str, list[str]]) -> None:
    out, page, _ = reported
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert tags.loads
    assert all(load.startswith("data:image/png;base64,") for load in tags.loads)
    assert not re.search(r"url\(|@import|<script|https?:", page)
    assert 'name="viewport"' in page
    assert (out / "index.html").stat().st_size < 3_000_000


def test_figures_without_room_are_named(tmp_path: Path) -> None:
    for name in "abc":
        Image.new("RGB", (40, 30), (255, 127, 14)).save(tmp_path / name, "PNG")
    figures = [(tmp_path / name, "what") for name in "abc"]
    [[(image, _, _)]] = _embedded([figures[:1]], 3000)
    [[one, two, three]] = _embedded([figures], 2 * len(image))
    assert one == (image, "a", "what")
    assert two == (image, "b", "what")
    assert three == ("", "c", "what")
    with Image.open(BytesIO(b64decode(image.removeprefix("data:image/png;base64,")))) as shown:
        assert (shown.size, shown.convert("RGB").getpixel((39, 29))) == ((40, 30), (255, 127, 14))


@pytest.mark.parametrize("many", [1, 2, 4, 7])
def test_names_of_attacks_do_not_overlap(many: int) -> None:
    names = [f"LabelFlipping poisoned_samples={n}00 poisoning=fill" for n in range(many)]
    cell = Cell(Estimate(0.9, 0.0, 2), Estimate(0.5, 0.0, 2), 2, 0, 0)
    matrix = Matrix(NO_FLOOR, ["FedAvg"], names, {("FedAvg", name): cell for name in names})
    figure = figures._points(matrix)
    figure.canvas.draw()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_xticklabels()]
    assert len(boxes) == many
    assert not any(one.overlaps(other) for one, other in pairwise(boxes))
    assert all(figure.bbox.contains(*corner) for box in boxes for corner in (box.min, box.max))


def test_runs_that_differ_in_more_than_the_axes_are_split(tmp_path: Path) -> None:
    """Two sweeps of other lengths: no cell has runs of both, in the page and in comparisons."""
    fedavg = {"_target_": "strategies.FedAvg"}
    for seed in (0, 1):
        planted(tmp_path / f"a-{seed}", {"seed": seed, "num_rounds": 10})
        planted(tmp_path / f"b-{seed}", {"seed": seed, "num_rounds": 20, "strategy": fedavg})
        planted(tmp_path / f"c-{seed}", {"seed": seed, "num_rounds": 20}, {"main_accuracy": 0.1})
    short, long = parts(tmp_path)
    assert (short.reason, long.reason) == ({"num_rounds": "10"}, {"num_rounds": "20"})
    assert _section(short, [], more=True)["brief"] == "num_rounds=10"
    [matrix] = short.matrices
    assert matrix.cells["Krum", "LabelFlipping"].accuracy == Estimate(0.9, 0.0, 2)
    [matrix] = long.matrices
    assert set(matrix.cells) == {("FedAvg", "LabelFlipping"), ("Krum", "LabelFlipping")}
    assert matrix.cells["Krum", "LabelFlipping"].accuracy.mean == pytest.approx(0.1)


def test_a_seed_of_its_own_is_no_seed_of_the_run(tmp_path: Path) -> None:
    """Noise that follows the run's seed is averaged over it, two triggers are not."""
    krum = CONFIG["strategy"]
    for seed in (0, 1):
        planted(tmp_path / "a" / str(seed), {"seed": seed, "strategy": {**krum, "seed": seed}})
        attack = {"_target_": "clients.Backdoor", "trigger": {"seed": 5 + seed}}
        planted(tmp_path / "b" / str(seed), {"attack": attack})
    [same], [other] = parts(tmp_path / "a"), parts(tmp_path / "b")
    assert same.matrices[0].cells["Krum", "LabelFlipping"].runs == 2
    assert other.matrices[0].attacks == ["Backdoor seed=5", "Backdoor seed=6"]
    assert len(grouped(frame([Run.read(tmp_path / "b" / name) for name in "01"]))) == 2


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"training": {"learning_rate": 0.5}}, {}),
        ({}, {"data_digest": "other"}),
        ({}, {"versions": {"torch": "other"}}),
    ],
)
def test_what_else_differs_is_a_reason_to_split(
    tmp_path: Path, config: dict[str, Any], told: dict[str, Any]
) -> None:
    said = {"data_digest": "one", "versions": {"torch": "2"}}
    planted(tmp_path / "a", {"training": {"learning_rate": 0.1}}, said)
    planted(tmp_path / "b", {"training": {"learning_rate": 0.1}, "seed": 1} | config, said | told)
    assert len(parts(tmp_path)) == 2
    assert len({tuple(part.reason) for part in parts(tmp_path)}) == 1


changes = st.sampled_from(
    [
        {"seed": 1},
        {"num_rounds": 20},
        {"partition.alpha": 0.1},
        {"attack._target_": "B"},
        {"attack.num_attackers": 0},
        {"attack.num_attackers": 2},
        {"attack.samples": 6},
        {"attack.data._target_": "D"},
        {"strategy._target_": "FedAvg"},
        {"strategy.num_malicious": 1},
        {"strategy.strategy._target_": "T"},
        {"strategy.strategy._target_": "U"},
    ]
)
"""Of one configuration, each in one key."""


@hypothesis.settings(max_examples=60)
@given(changed=st.lists(st.lists(changes, max_size=2), min_size=2, max_size=6))
def test_no_cell_and_no_row_has_unlike_runs(changed: list[list[dict[str, Any]]]) -> None:
    """Whatever they differ in: a cell's runs, and a comparison's, differ in the seed alone."""
    runs = []
    for number, some in enumerate(changed):
        config = flatten_config(CONFIG)
        for change in some:
            config |= change
        attackers = list(range(config["attack.num_attackers"]))
        runs.append(Run(Path(str(number)), config, SUMMARY | {"attackers": attackers}))
    runs, table = settings(runs)
    keys = [key for key in result_keys(table.drop(columns=[*BESIDE])) if key != "seed"]
    counted = 0
    for part in sections(runs, table):
        for (_, attack), cell in part.table.groupby(["defense", "attack"]):
            own = [k for k in keys if attack != NO_ATTACK or not k.startswith("attack.")]
            assert len(cell[own].fillna("-").drop_duplicates()) == 1
            counted += len(cell)
    assert counted >= len(table)
    assert len(grouped(table)) == len(table[keys].fillna("-").drop_duplicates())


def test_settings_of_an_attack_and_of_a_defense_are_axes(tmp_path: Path) -> None:
    """Their classes, and the keys in which those of a class differ; who attacks splits."""
    nobody = {"_target_": "x.NoAttack"}
    for samples in (50, 100):
        attack = {**CONFIG["attack"], "poisoned_samples": samples}
        planted(tmp_path / f"{samples}", {"attack": attack})
    many = {**CONFIG["attack"], "poisoned_samples": 50, "num_attackers": 2}
    planted(tmp_path / "many", {"attack": many})
    planted(tmp_path / "none", {"attack": nobody}, {"attackers": []})
    one, two = parts(tmp_path)
    assert (one.reason, two.reason) == (
        {"attack.num_attackers": "1"},
        {"attack.num_attackers": "2"},
    )
    assert one.matrices[0].attacks == [
        "LabelFlipping poisoned_samples=50",
        "LabelFlipping poisoned_samples=100",
    ]
    assert two.matrices[0].attacks == ["LabelFlipping"]
    for part in (one, two):  # nobody attacks in either
        assert NO_ATTACK in set(part.table["attack"])
        name, cell = part.matrices[0].clean["Krum"]
        assert (name, cell.runs) == ("Krum", 1)


def test_a_rule_that_is_told_of_nobody_is_named_so(tmp_path: Path) -> None:
    planted(tmp_path / "attacked")
    strategy = {**CONFIG["strategy"], "num_malicious": 0}
    config = {"attack": {"_target_": "x.NoAttack"}, "strategy": strategy}
    planted(tmp_path / "clean", config, {"attackers": []})
    [part] = parts(tmp_path)
    [matrix] = part.matrices
    assert matrix.defenses == ["Krum num_malicious=2"]
    assert matrix.clean["Krum num_malicious=2"][0] == "Krum num_malicious=0"


def test_worst_cases_of_targeted_and_untargeted_attacks_stay_apart(tmp_path: Path) -> None:
    untargeted = {
        "attack_success_rate": None,
        "attack_success_floor": None,
        "main_accuracy_twin": 0.95,
    }
    rates = {"A": {"Krum": 0.8, "Sniper": 0.31}, "B": {"Krum": 0.15, "Sniper": 0.2}}
    for defense in ("Krum", "Sniper"):
        strategy = {"_target_": defense}
        for attack in ("A", "B"):
            values = {"attack_success_rate": rates[attack][defense]}
            config = {"strategy": strategy, "attack": {"_target_": attack}}
            planted(tmp_path / f"{defense}{attack}", config, values)
        accuracy = {"main_accuracy": {"Krum": 0.94, "Sniper": 0.6}[defense], "damage": None}
        config = {"strategy": strategy, "attack": {"_target_": "C"}}
        path = planted(tmp_path / f"{defense}C", config, untargeted | accuracy)
        kept = json.loads((path / "summary.json").read_text())
        del kept["damage"]  # as runs from before have it
        (path / "summary.json").write_text(json.dumps(kept))
    [part] = parts(tmp_path)
    aimed, other = part.matrices
    assert (aimed.attacks, other.attacks) == (["A", "B"], ["C"])
    assert aimed.worst("Krum") == ("A", Estimate(pytest.approx(0.7), None, 1))
    assert other.worst("Sniper") == ("C", Estimate(pytest.approx(0.35), None, 1))
    assert aimed.answer() == (
        "Against targeted attacks the best defense by its worst attack is Sniper (A: attack "
        "success above its floor +21.0 points); A beats most: 2 of 2 defenses, by 20 points or "
        "more."
    )
    assert "best defense by its worst attack is Krum (C: " in other.answer()
    shutil.rmtree(tmp_path / "SniperA")
    [part] = parts(tmp_path)
    assert "best defense by its worst attack is Krum (A" in part.matrices[0].answer()
    assert "Not ranked, as runs are missing: Sniper." in part.matrices[0].answer()


def test_many_defenses_are_a_grid_and_the_curves_are_of_the_best(
    undrawn: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twelve of them, of which the later letters do worse."""
    drawn: dict[str, Any] = {}
    monkeypatch.setattr(
        figures, "_save", lambda figure, place: drawn.setdefault(place.name, figure)
    )
    names = ["FedAvg", *"BCDEFGHIJKL"]
    for number, name in enumerate(names):
        rate = 0.9 if name == "FedAvg" else number / 20
        config = {"strategy": {"_target_": name}}
        planted(tmp_path / name, config, {"attack_success_rate": rate})
    [part] = parts(tmp_path)
    floor = SUMMARY["attack_success_floor"]
    rows = pd.DataFrame(
        {"run": str(tmp_path / name), "number": 1, "unit": "round", "main_accuracy": 0.9}
        for name in names
    )
    found = dict(figures.draw_section(part, rows, tmp_path / "1"))
    grid, curves = (drawn[name].axes[0] for name in ("1-targeted", "1-main-accuracy"))
    best_first = [*"BCDEFGHIJKL", "FedAvg"]
    assert [label.get_text() for label in grid.get_yticklabels()] == best_first
    told = [str(round(100 * (n / 20 - floor))) for n in range(1, 12)]
    assert [text.get_text() for text in grid.texts][:11] == told
    assert [line.get_label() for line in curves.lines] == ["FedAvg", *"BCDEFGH"]
    assert any("the best defenses" in said for said in found.values())


def test_a_long_name_breaks_where_what_is_inside_begins() -> None:
    assert figures._wrapped("AdaptiveClipping(NearestNeighborMixing(TrimmedMean))", 40) == (
        "AdaptiveClipping(NearestNeighborMixing(\nTrimmedMean))"
    )


def test_an_estimate_is_students(tmp_path: Path) -> None:
    values = [0.1, 0.4, 0.25]
    estimate = Estimate.of([*values, None])
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (estimate.seeds, estimate.mean) == (3, pytest.approx(0.25))
    assert estimate.half == pytest.approx((high - low) / 2)
    assert Estimate.of([0.5]).half is None
    assert Estimate.of([None]).text() == "-"
    assert Estimate(0.1, 0.01, 3).overlaps(Estimate(0.12, 0.01, 3))
    assert not Estimate(0.1, 0.01, 3).overlaps(Estimate(0.3, 0.01, 3))
    assert not Estimate(0.1, None, 1).overlaps(Estimate(0.1, 0.01, 3))


def test_a_run_that_was_moved_keeps_its_twin(real: Path, tmp_path: Path) -> None:
    shutil.copytree(real / "sniper-0", tmp_path / "elsewhere" / "run")
    before, after = (
        settings(readable([path])[0])[1].drop(columns=["run", "command"])
        for path in (real / "sniper-0", tmp_path / "elsewhere")
    )
    assert after.equals(before)
    assert after["attack_success_floor"].notna().all()


def test_two_sweeps_do_not_overwrite_each_others_figures(undrawn: None, tmp_path: Path) -> None:
    for name, rounds in (("a", 10), ("b", 20)):
        planted(tmp_path / name / "run", {"num_rounds": rounds})
    write_report([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    drawn = sorted(path.stem for path in (tmp_path / "out" / "figures").glob("*.svg"))
    assert drawn == ["1-main-accuracy", "1-targeted", "2-main-accuracy", "2-targeted"]
    assert not list(tmp_path.glob("[ab]/**/*.png"))


def test_a_last_row_that_is_half_written_harms_nothing(tmp_path: Path) -> None:
    path = planted(tmp_path / "a", summary={})
    (path / "error.txt").write_text("killed\n")
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"round": 3, "main_acc')
    [found], skipped = readable([tmp_path])
    assert [row["round"] for row in found.rows] == [1, 2]
    assert not skipped


def door(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int, str, str]:
    """Run the command; return its exit status and what it printed."""
    monkeypatch.setattr(sys, "argv", ["report", *map(str, arguments)])
    status: Any = 0
    try:
        main()
    except SystemExit as ended:
        status = ended.code
    return status, *capsys.readouterr()


def test_what_cannot_be_reported_is_named_and_skipped(
    undrawn: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs = tmp_path / "runs"
    planted(runs / "good")
    planted(runs / "again")
    planted(runs / "killed", summary={})
    planted(runs / "newer", summary={"format": 2})
    (planted(runs / "broken") / "summary.json").write_text("{")
    (planted(runs / "rows") / "metrics.jsonl").write_text("{}\n{}\n")
    (tmp_path / "empty").mkdir()
    (runs / "refused").mkdir()
    (runs / "refused" / "error.txt").write_text("attack.x: unknown key\n")
    out = tmp_path / "out"
    status, text, error = door(
        monkeypatch, capsys, runs, tmp_path / "empty", tmp_path / "none", "--out", out
    )
    assert (status, error) == (0, "")
    *lines, last = text.splitlines()
    (broken,) = (line for line in lines if line.startswith(f"skipped {runs / 'broken'}"))
    assert "not a whole run (summary.json: " in broken
    lines.remove(broken)
    assert {line.partition(": ")[0]: line.partition(": ")[2] for line in lines} == {
        f"skipped {runs / 'killed'}": "incomplete: neither summary.json nor error.txt",
        f"skipped {runs / 'newer'}": "not a whole run (summary.json: of format 2, of which this "
        "version reads 1)",
        f"skipped {runs / 'rows'}": "metrics.jsonl: line 1 is not the row of round 1",
        f"skipped {runs / 'refused'}": "attack.x: unknown key",
        f"skipped {tmp_path / 'empty'}": "no run in or below it",
        f"skipped {tmp_path / 'none'}": "cannot be read (No such file or directory)",
    }
    assert last == (
        f"1 run reported, 1 left out as of the same setting and seed as another, 7 skipped: "
        f"{out / 'index.html'}"
    )
    for line in lines:
        assert line.partition(" ")[2].partition(": ")[0] in (out / "index.html").read_text()


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("", "no round"),
        ('{"round": 1, "main_accuracy": 0.5}', "round 1 has no attackers"),
        (json.dumps({"round": 1} | ROW).replace("kept", "left"), "round 1 has no kept"),
        ({"main_accuracy": "high"}, "main_accuracy of round 1 is 'high'"),
        ({"main_accuracy": 7}, "main_accuracy of round 1 is 7, not from 0 to 1"),
        ({"attack_success_rate": []}, r"attack_success_rate of round 1 is \[\], not from 0 to 1"),
        ({"cohort": [[1]]}, r"cohort of round 1 is \[\[1\]\]"),
        ({"kept": 3}, "kept of round 1 is 3"),
        ({"strategy": None}, "strategy of round 1 is None"),
    ],
)
def test_rounds_that_are_none_are_named(
    undrawn: None, tmp_path: Path, row: str | dict[str, Any], reason: str
) -> None:
    """In a report the run is skipped; a comparison has its summary, and says what it lacks."""
    planted(tmp_path / "runs" / "good", {"seed": 1})
    text = row if isinstance(row, str) else json.dumps({"round": 1} | ROW | row)
    (planted(tmp_path / "runs" / "bad") / "metrics.jsonl").write_text(text + "\n" * bool(text))
    said: list[str] = []
    write_report(tmp_path / "runs", tmp_path / "out", said.append)
    assert re.fullmatch(rf"skipped \S*bad: metrics.jsonl: {reason}", said[0])
    lines = caveats([Run.read(tmp_path / "runs" / name) for name in ("good", "bad")])
    assert lines[0].startswith("The rounds cannot be read in 1 of 2 runs")


def test_a_run_without_its_configuration_is_named_and_its_twin_is_no_run(tmp_path: Path) -> None:
    planted(tmp_path / "run" / "clean_twin")
    planted(tmp_path / "other")
    for name in ("metrics.jsonl", "summary.json"):
        shutil.copy(tmp_path / "other" / name, tmp_path / "run")
    found, skipped = readable([tmp_path])
    assert [run.path for run in found] == [tmp_path / "other"]
    [(path, reason)] = skipped
    assert path == tmp_path / "run"
    assert reason.startswith("not a whole run (config.json: No such file")


def test_a_run_that_ended_before_its_first_round_is_reported(undrawn: None, tmp_path: Path) -> None:
    (planted(tmp_path / "run", rows=0, summary={}) / "error.txt").write_text("no nodes")
    page = write_report(tmp_path / "run", tmp_path / "out").read_text()
    assert "no nodes" in page
    assert pd.read_csv(tmp_path / "out" / "rounds.csv").empty


def test_two_rules_may_mean_different_things_by_a_name(undrawn: None, tmp_path: Path) -> None:
    for seed, clipped in enumerate(([1, 2], 0.5, None)):
        row = {"round": 1} | ROW | {"strategy": {"clipped": clipped}}
        run = planted(tmp_path / "runs" / str(seed), {"seed": seed})
        (run / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    write_report(tmp_path / "runs", tmp_path / "out")
    read = pd.read_parquet(tmp_path / "out" / "rounds.parquet")["strategy.clipped"]
    assert read.fillna("none").tolist() == ["1 2", "0.5", "none"]


def test_a_name_of_several_words_is_named_whole(undrawn: None, tmp_path: Path) -> None:
    """Of split learning, where several defenses stand together, or none."""
    row = json.dumps({"epoch": 1, "main_accuracy": 0.9}) + "\n"
    both = {"clipping": {"_target_": "x.Clipping"}, "noise": {"_target_": "x.Noise"}}
    louder = {"noise": {"_target_": "x.Noise", "variance": 0.1}}
    for number, defenses in enumerate(({}, both, both | louder)):
        own = {"num_epochs": 1, "strategy": {}, "defenses": defenses}
        run = planted(tmp_path / "runs" / str(number), own)
        (run / "metrics.jsonl").write_text(row)
    page = write_report(tmp_path / "runs", tmp_path / "out").read_text()
    assert "How well do Clipping + Noise and no defense hold against LabelFlipping" in page


def test_nothing_left_to_report_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, error = door(monkeypatch, capsys, tmp_path, "--out", tmp_path / "out")
    assert (status, error) == (2, f"error: {tmp_path}: nothing to report\n")
    assert not (tmp_path / "out").exists()
    status, _, error = door(monkeypatch, capsys, "", "--out", tmp_path / "out")
    assert (status, error) == (2, "error: '': not the name of a directory\n")


def test_a_folder_that_is_not_ours_is_refused(
    undrawn: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    planted(tmp_path / "run")
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    for name in ("index.html", "notes.txt"):
        (theirs / name).write_text("mine")
        for out in (theirs, theirs / name):
            status, _, error = door(monkeypatch, capsys, tmp_path / "run", "--out", out)
            assert status == 2
            assert error.startswith(f"error: --out={out}: allowed is a folder that is new, empty")
        (theirs / name).unlink()
    write_report([tmp_path / "run"], theirs)  # empty
    (theirs / "figures" / "9-targeted.png").touch()
    write_report([tmp_path / "run"], theirs)  # its own
    assert not (theirs / "figures" / "9-targeted.png").exists()


NASTY = "<script>alert('x')</script>&\"'"


def test_names_that_users_chose_are_escaped(undrawn: None, tmp_path: Path) -> None:
    place = tmp_path / NASTY.replace("/", "_")
    strategy = {"_target_": f"x.{NASTY}", "mode": NASTY}
    planted(place / "a", {"strategy": strategy, "name": NASTY}, {"data": f"stand-in {NASTY}"})
    planted(place / "b", {"num_rounds": NASTY, "seed": 1})
    (planted(place / "c", {"seed": NASTY}, {}) / "error.txt").write_text(NASTY)
    (place / "d").mkdir()
    (place / "d" / "error.txt").write_text(NASTY)
    (place / "a" / "command.json").write_text(json.dumps({"arguments": [NASTY]}))
    page = write_report([tmp_path], tmp_path / "out").read_text()
    assert "<script" not in page
    assert page.count("&lt;script&gt;") > 8
    tags = Tags()
    tags.feed(page)
    assert tags.open == []


@dataclass(kw_only=True)
class Adapting(SignFlip):
    """An attack that says it reckons with its defense."""

    adaptive: ClassVar = True


def test_an_attack_declares_whether_it_adapts(
    real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "some_attack", sys.modules[__name__])
    target = "attack._target_=some_attack.Adapting"
    own, _ = run(tmp_path, "attack=sign_flip", target, "strategy=sniper", "num_rounds=1")
    assert own["adaptive"]
    assert not summary(tmp_path / "clean_twin")["adaptive"]
    assert not summary(real / "sniper-0")["adaptive"]
    line = "No adaptive attacker was tried against Sniper."
    assert line not in caveats([Run.read(tmp_path)])
    assert line in caveats([Run.read(real / "sniper-0")])


def test_a_run_ends_with_what_it_does_not_show(tmp_path: Path) -> None:
    """Those that apply, and no others."""
    from fl_backdoor.loop.display import Display

    screen = StringIO()
    planted(tmp_path / "run", summary={"name": "x", "rounds": 2, "knowledge": "all"})
    Display(Console(file=screen, width=80)).caveats(tmp_path / "run")
    first, *lines = screen.getvalue().splitlines()
    assert first == "What this does not show:"
    assert "- Knows the updates of all honest clients: LabelFlipping." in lines
    assert lines == [f"- {line}" for line in caveats([Run.read(tmp_path / "run")])]
    assert not any("chance" in line for line in lines)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    planted(tmp_path / "run")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--out="):
        write_report([tmp_path / "run"], tmp_path / "file")
