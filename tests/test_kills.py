"""Runs that are killed at any of their steps on disk, and disks that are full or read-only.

``pytest -m slow tests/test_kills.py``; ``-m exhaustive`` kills at every single step.
"""

import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from . import test_vertical_experiment as vertical
from .test_experiment import untimed
from .test_simulate import COMMAND, SNIPER, simulate

ROUNDS = {"horizontal": "num_rounds", "vertical": "num_epochs"}
RUNS = {
    "horizontal": [*SNIPER, "floor=true"],
    "vertical": [*vertical.TINY, *vertical.EVERYTHING],
}
PARTS = (Path("clean_twin"), Path())

# Signals itself as it makes, opens to write, moves or removes something under a path for the n-th
# time. What it opens is opened before that, so that an emptied file is left behind.
DYING = """
import os, runpy, signal, sys

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
path, left, number = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
sys.argv[1:] = sys.argv[4:]

def step(event, arguments):
    global left
    if event not in ("open", "os.mkdir", "os.rename", "os.remove"):
        return
    if not str(arguments[0]).startswith(path):
        return
    if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
        return
    left -= 1
    if left == 0:
        try:
            if event == "open":
                os.open(arguments[0], arguments[2], 0o666)
        finally:
            os.kill(os.getpid(), number)

sys.addaudithook(step)
runpy.run_module("fl_backdoor.simulate", run_name="__main__", alter_sys=True)
"""

# Root obeys permissions once CAP_DAC_OVERRIDE is out of its bounding set; others do anyhow.
POOR = """
import ctypes, os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


@pytest.fixture(scope="module", params=RUNS)
def whole(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[str], Path]:
    """Return the overrides of an uninterrupted run of 20 rounds or epochs, and its directory."""
    return undisturbed(request.param, 20, tmp_path_factory.mktemp(request.param))


def undisturbed(protocol: str, rounds: int, path: Path) -> tuple[list[str], Path]:
    overrides = [*RUNS[protocol], f"{ROUNDS[protocol]}={rounds}"]
    done = simulate(*overrides, f"hydra.run.dir={path}")
    assert done.returncode == 0, done.stderr
    return overrides, path


def lines(path: Path) -> int:
    """Count the rows of a run and of its twin."""
    files = [path / part / "metrics.jsonl" for part in PARTS]
    return sum(file.read_bytes().count(b"\n") for file in files if file.exists())


def dying(
    path: Path, step: int, number: signal.Signals, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run until the n-th step under a path, and signal it there."""
    return subprocess.run(
        [sys.executable, "-c", DYING, str(path), str(step), str(number.value), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def begun(path: Path) -> bool:
    return (path / "config.json").exists()


def same(path: Path, whole: Path) -> None:
    for part in PARTS:
        model = (whole / part / "model.safetensors").read_bytes()
        assert (path / part / "model.safetensors").read_bytes() == model
        assert untimed(path / part) == untimed(whole / part)


@pytest.mark.parametrize(
    "kills",
    [pytest.param(3, marks=pytest.mark.slow), pytest.param(10, marks=pytest.mark.exhaustive)],
)
def test_a_run_killed_many_times_ends_in_the_same_bits(
    whole: tuple[list[str], Path], tmp_path: Path, kills: int
) -> None:
    """Each time at a random step."""
    start, expected = whole
    path, draw = tmp_path / "run", random.Random(7)
    again = ["--resume", str(path)]
    done = 0
    for _ in range(kills):
        arguments = again if begun(path) else [*start, f"hydra.run.dir={path}"]
        ended = dying(path, draw.randint(1, 45), signal.SIGKILL, *arguments)
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        # A resumed run drops at most the row whose model had not been written.
        assert lines(path) >= done - 2
        done = lines(path)
    assert done
    complete = simulate(*again)
    assert complete.returncode == 0, complete.stderr
    assert "(resumed after " in complete.stdout
    same(path, expected)


@pytest.mark.exhaustive
@pytest.mark.parametrize("protocol", RUNS)
def test_a_run_killed_at_any_step_ends_in_the_same_bits(protocol: str, tmp_path: Path) -> None:
    """Killed as it starts, resumed and killed at the same step again, and resumed."""
    start, expected = undisturbed(protocol, 2, tmp_path / "whole")
    for step in range(1, 1000):
        path = tmp_path / f"run{step}"
        first = [*start, f"hydra.run.dir={path}"]
        ended = dying(path, step, signal.SIGKILL, *first)
        if ended.returncode == 0:
            break
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        for number in (signal.SIGKILL, None):
            arguments = ["--resume", str(path)] if begun(path) else first
            ended = dying(path, step if number else 0, signal.SIGKILL, *arguments)
            assert ended.returncode in (0, -signal.SIGKILL), ended.stderr
        assert ended.returncode == 0
        same(path, expected)
    assert step > 20


@pytest.mark.slow
def test_an_interrupted_run_says_how_to_go_on(tmp_path: Path) -> None:
    path = tmp_path / "run"
    first = [*SNIPER, f"hydra.run.dir={path}"]
    ended = dying(path / "config.json", 1, signal.SIGINT, *first)
    assert ended.returncode == 130
    assert ended.stderr == "interrupted\n"
    refused = simulate("--resume", str(path))
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"error: --resume {path}: no run has begun there")
    ended = dying(path / "metrics.jsonl", 2, signal.SIGINT, *first)
    assert ended.returncode == 130
    again = f"python -m fl_backdoor.simulate --resume {path}"
    assert ended.stderr == f"interrupted; go on from the last round with {again}\n"
    done = simulate("--resume", str(path))
    assert done.returncode == 0, done.stderr
    assert "(resumed after " in done.stdout


def poor(limit: int, *arguments: str) -> str:
    """Run where no file may exceed a size and permissions hold; return the line of its error."""
    done = subprocess.run(
        [sys.executable, "-c", POOR, str(limit), *COMMAND[1:], *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert "Traceback" not in done.stdout
    return line


@pytest.mark.slow
def test_a_full_or_read_only_disk_is_one_line_and_costs_no_finished_round(
    whole: tuple[list[str], Path], tmp_path: Path
) -> None:
    start, expected = whole
    path, again = tmp_path / "run", ["--resume", str(tmp_path / "run")]

    def intact(least: int) -> int:
        """Hold the finished rows, all but half of one, against the uninterrupted run's."""
        count = 0
        for part in PARTS:
            file = path / part / "metrics.jsonl"
            written = file.read_text().splitlines(keepends=True) if file.exists() else []
            rows = [json.loads(row) for row in written if row.endswith("\n")]
            assert [
                {k: v for k, v in row.items() if not k.startswith("seconds")} for row in rows
            ] == untimed(expected / part)[: len(rows)]
            count += len(rows)
        assert count >= least
        return count

    rows = path / "clean_twin" / "metrics.jsonl"
    ended = dying(rows, 16, signal.SIGKILL, *start, f"hydra.run.dir={path}")
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    done = intact(15)
    line = poor(rows.stat().st_size + 100, *again)  # half a row is written
    assert "File too large" in line
    assert str(rows) in line
    intact(done - 1)
    done = intact(14)

    full = path / "clean_twin" / "model.safetensors.tmp"
    full.symlink_to("/dev/full")
    line = poor(2**40, *again)
    assert "No space left on device" in line
    assert "model.safetensors" in line
    full.unlink()
    intact(done)

    for folder in (path, path / "clean_twin"):
        folder.chmod(0o500)
    line = poor(2**40, *again)
    assert "Permission denied" in line
    assert str(path) in line
    for folder in (path, path / "clean_twin"):
        folder.chmod(0o700)
    intact(done)

    complete = simulate(*again)
    assert complete.returncode == 0, complete.stderr
    same(path, expected)
