"""Tests of `fl_backdoor.reproduce`: what a grid runs, over processes, and that it goes on."""

import json
import os
import signal
import subprocess
import sys
import weakref
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import StringIO
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from fl_backdoor import reproduce
from fl_backdoor.compose import combinations, composed
from fl_backdoor.config import load
from fl_backdoor.errors import UserError
from fl_backdoor.files import COMMAND, CONFIG, ERROR, METRICS, MODEL
from fl_backdoor.papers import plan as plans
from fl_backdoor.papers import pool
from fl_backdoor.papers.grids import PLANS
from fl_backdoor.papers.plan import Job, Part, Plan, jobs
from fl_backdoor.screen import in_words

from .conftest import until

TINY = {
    "seed": "range(2)",
    "dataset.source": "bundled",
    "dataset.digits": "[2,6]",
    "dataset.samples_per_class": "20",
    "dataset.test_samples_per_class": "40",
    "model.channels": "[4,8]",
    "num_clients": "4",
    "num_rounds": "1",
    "attack.num_attackers": "1",
}
TWO = Plan(
    "two",
    "Two parts",
    (
        Part("cao_grid", TINY | {"attack.poisoned_samples": "6"}),
        Part("cao_fig8", TINY | {"attack.poisoned_samples": "6"}, quick={"seed": "0"}),
    ),
    "little",
)


@pytest.fixture(autouse=True)
def in_threads(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Save the seconds that a process takes to import what is here already."""
    if request.node.get_closest_marker("slow"):
        return
    monkeypatch.setattr(pool, "ProcessPoolExecutor", lambda *_: ThreadPoolExecutor(1))


def screen() -> tuple[Console, StringIO]:
    text = StringIO()
    return Console(file=text, width=80), text


@given(
    st.lists(
        st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True), min_size=1, max_size=3
    )
)
def test_combinations_are_the_product_with_the_last_key_changing_first(
    values: list[list[int]],
) -> None:
    settings = {f"k{n}": ",".join(map(str, some)) for n, some in enumerate(values)}
    expected = [
        {f"k{n}": str(value) for n, value in enumerate(chosen)} for chosen in product(*values)
    ]
    assert list(combinations(settings)) == expected


def test_lists_and_ranges_are_values_as_for_hydra() -> None:
    found = list(combinations({"a": "range(2)", "b": "[2,6],[4,8]"}))
    assert [(one["a"], one["b"]) for one in found] == [
        ("0", "[2,6]"), ("0", "[4,8]"), ("1", "[2,6]"), ("1", "[4,8]"),
    ]  # fmt: skip


def test_a_run_of_two_parts_is_one_job_and_first_seeds_come_first(tmp_path: Path) -> None:
    found = jobs(TWO, tmp_path)
    said = [(job.part, dict(one.split("=", 1) for one in job.overrides)) for job in found]
    assert [(part, one["seed"], one["strategy"]) for part, one in said] == [
        ("cao_grid", "0", "fedavg"),
        ("cao_fig8", "0", "sniper"),
        ("cao_grid", "1", "fedavg"),
        ("cao_fig8", "1", "sniper"),
    ]
    assert {job.path.parent for job in found} == {tmp_path / "cao_grid"}
    assert len(jobs(TWO, tmp_path, seeds=3)) == 6
    assert [job.part for job in jobs(TWO, tmp_path, quick=True)] == ["cao_fig8"] * 2


def test_a_job_has_the_directory_that_hydra_would_give_it(tmp_path: Path) -> None:
    for job in jobs(PLANS["cao2019"], tmp_path)[:1]:
        config = composed(*job.overrides, with_hydra=True)
        assert job.path == tmp_path / config.name / config.hydra.job.override_dirname


@pytest.mark.parametrize("name", PLANS)
def test_every_quick_part_composes_on_stand_in_data(name: str, tmp_path: Path) -> None:
    every = jobs(PLANS[name], tmp_path, quick=True)
    assert len({job.path for job in every}) == len(every)
    for job in {job.part: job for job in every}.values():
        config = load(composed(*job.overrides))
        bundled = config.dataset["_target_"].startswith("fl_backdoor.data.bundled.")
        assert bundled or config.dataset["source"] in ("bundled", "synthetic")


def test_the_grid_of_cao_holds_only_readings_that_can_be_had(tmp_path: Path) -> None:
    for job in jobs(PLANS["cao2019"], tmp_path):
        chosen = dict(one.split("=", 1) for one in job.overrides)
        if chosen["attack.poisoning"] in ("replace", "copy"):
            held = 250 * int(chosen["attack.num_attackers"])
            assert int(chosen["attack.poisoned_samples"]) <= held


def arguments(out: Path, **changed: Any) -> Namespace:
    return Namespace(**{"out": out, "jobs": 2, "quick": False, "seeds": 1} | changed)


def test_a_grid_runs_ends_in_the_report_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    console, text = screen()
    assert reproduce.reproduce(TWO, arguments(tmp_path), console) == []
    said = text.getvalue()
    assert said.startswith("Two parts\n")
    assert "2 runs to train, 2 at a time: about 2 min." in said.replace("\n", " ")
    assert "2/2 runs, about 0 s left" in said
    page = tmp_path / "report" / "index.html"
    assert f"2 runs reported, 0 skipped: {page}" in said
    assert "Sniper" in page.read_text()
    for path in (tmp_path / "runs").rglob(CONFIG):
        command = json.loads((path.parent / COMMAND).read_bytes())
        assert f"seed={json.loads(path.read_bytes())['seed']}" in command["arguments"]

    monkeypatch.setattr(pool, "train", None)  # nobody trains
    console, text = screen()
    assert reproduce.reproduce(TWO, arguments(tmp_path), console) == []
    assert "0 runs to train" in text.getvalue()
    assert "2 runs reported" in text.getvalue()
    assert "1 runs, 1 there" in text.getvalue()


def test_what_fails_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    part = Part("cao_grid", TINY | {"attack.poisoning": "copy", "attack.poisoned_samples": "6,60"})
    every = jobs(Plan("one", "", (part,), ""), tmp_path, seeds=1)
    console, text = screen()
    (line,) = pool.work(every, 1, console)
    bad = next(job for job in every if "=60," in job.path.name)
    assert line.startswith(f"{bad.path}: attack.poisoned_samples=60: attacker 0 would flip 60")
    assert line in text.getvalue()
    assert (bad.path / ERROR).read_text() == line.partition(": ")[2] + "\n"
    assert pool.missing(every) == [bad]


@pytest.mark.slow
def test_processes_do_the_same_as_one(tmp_path: Path) -> None:
    found = [jobs(TWO, tmp_path / where, seeds=1) for where in ("processes", "here")]
    console, _ = screen()
    assert pool.work(found[0], 2, console) == []
    assert [pool.train(job) for job in found[1]] == ["", ""]
    for one, two in zip(*found, strict=True):
        same = [(job.path / MODEL).read_bytes() for job in (one, two)]
        assert same[0] == same[1]


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["--quick"]])
def test_a_command_that_is_killed_leaves_no_process(more: list[str], tmp_path: Path) -> None:
    """The two commands of docs/matrix.md, killed in their first runs."""
    command = [sys.executable, "-m", "fl_backdoor.reproduce", "matrix", "--jobs", "2", *more]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path)],
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until(lambda: any(tmp_path.rglob(METRICS)), 200)
        process.kill()
        process.wait()
        until(lambda: not living(process.pid), 30)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def living(group: int) -> bool:
    """Say whether any process of a group is there."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_part_of_a_run_is_read_from_its_rows(tmp_path: Path) -> None:
    job = Job("x", (), tmp_path, 1.0, tmp_path / "twins")
    assert pool._part(job) == 0
    (tmp_path / CONFIG).write_text('{"num_epochs": 4}')
    (tmp_path / METRICS).write_text('{"epoch": 1}\n{"epo')
    assert pool._part(job) == 0.25


@pytest.mark.parametrize(
    ("minutes", "words"),
    [(0, "0 s"), (0.5, "30 s"), (1.4, "84 s"), (2.4, "2 min"), (90, "90 min"), (150, "2.5 h")],
)
def test_times_in_words(minutes: float, words: str) -> None:
    assert in_words(minutes) == words


def test_the_estimate_is_the_guess_and_then_the_pace() -> None:
    assert pool._left(12, 0, 5, 2) == 6
    assert pool._left(12, 4, 6, 2) == 12


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["cao2020"], "did you mean cao2019?"),
        (["cao2019", "--jobs", "0"], "0: allowed is a number from 1"),
        (["cao2019", "--seeds", "x"], "x: allowed is a number from 1"),
    ],
)
def test_bad_input_is_one_line(
    given: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["reproduce", *given])
    with pytest.raises(SystemExit) as ended:
        reproduce.main()
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (UserError("a: b"), 2, "error: a: b\n"),
        (KeyboardInterrupt(), 130, "interrupted; the same command goes on"),
        (None, 2, "error: 1 run failed:\nx: y\n"),
    ],
)
def test_how_it_ends(
    error: BaseException | None,
    status: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def ends(*_: Any) -> list[str]:
        if error is not None:
            raise error
        return ["x: y"]

    monkeypatch.setattr(reproduce, "reproduce", ends)
    monkeypatch.setattr("sys.argv", ["reproduce", "cao2019", "--quick"])
    with pytest.raises(SystemExit) as ended:
        reproduce.main()
    assert ended.value.code == status
    assert said in capsys.readouterr().err


def test_a_sweep_is_read_once() -> None:
    plans.cached_sweep.cache_clear()
    jobs(TWO, Path("o"))
    jobs(TWO, Path("o"))
    assert plans.cached_sweep.cache_info().misses == 2


class Hanging:
    """Is freed by the collector only, as the models of a run are."""

    def __init__(self) -> None:
        self.itself = self


def test_a_job_begins_without_what_the_one_before_left(tmp_path: Path) -> None:
    left = weakref.ref(Hanging())
    assert pool.train(Job("x", ("strategy=none_such",), tmp_path, 1.0))
    assert left() is None
