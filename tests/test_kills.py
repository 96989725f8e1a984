"""Runs that are killed again and again, and disks that are full or read-only.

``pytest -m slow tests/test_kills.py``, and with more kills ``-m exhaustive``.
"""

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from . import test_vertical_experiment as vertical
from .test_experiment import untimed
from .test_simulate import COMMAND, SNIPER, simulate

ROUNDS = {"horizontal": 20, "vertical": 25}
RUNS = {
    "horizontal": [*SNIPER, "floor=true", f"num_rounds={ROUNDS['horizontal']}"],
    "vertical": [*vertical.TINY, *vertical.EVERYTHING, f"num_epochs={ROUNDS['vertical']}"],
}
PARTS = (Path("clean_twin"), Path())

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
    """Return the overrides of an uninterrupted run, and its directory."""
    path = tmp_path_factory.mktemp(request.param)
    done = simulate(*RUNS[request.param], f"hydra.run.dir={path}")
    assert done.returncode == 0, done.stderr
    return RUNS[request.param], path


def lines(path: Path) -> int:
    """Count the rows of a run and of its twin."""
    files = [path / part / "metrics.jsonl" for part in PARTS]
    return sum(file.read_bytes().count(b"\n") for file in files if file.exists())


def kill_after(arguments: list[str], path: Path, rounds: int, delay: float) -> None:
    """Start a run, and kill it a while after it has done some more rounds."""
    with subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        goal = lines(path) + rounds
        deadline = time.monotonic() + 60
        while rounds and lines(path) < goal and time.monotonic() < deadline:
            assert process.poll() is None, "it ended before it was killed"
            time.sleep(0.002)
        time.sleep(delay)
        assert process.poll() is None, "it ended before it was killed"
        process.kill()


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
    """Every fifth kill falls in the first three seconds, the others soon after some rounds."""
    start, expected = whole
    path, draw = tmp_path / "run", random.Random(7)
    again = ["--resume", str(path)]
    done = 0
    for number in range(kills):
        started = (path / ".hydra" / "overrides.yaml").exists()
        arguments = again if started else [*start, f"hydra.run.dir={path}"]
        rounds = draw.randint(1, 3)
        delay = draw.uniform(0, 3) if number % 5 == 0 else draw.uniform(0, 0.1)
        kill_after(arguments, path, rounds if number % 5 else 0, delay)
        assert not (path / "summary.json").exists()
        # A resumed run drops at most the row whose model had not been written.
        assert lines(path) >= done - 2
        done = lines(path)
    assert done >= kills - 2
    complete = simulate(*again)
    assert complete.returncode == 0, complete.stderr
    assert "(resumed after " in complete.stdout
    same(path, expected)


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

    kill_after([*start, f"hydra.run.dir={path}"], path, 15, 0.1)
    done = intact(15)
    rows = path / "clean_twin" / "metrics.jsonl"
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

    for folder in (path, path / ".hydra", path / "clean_twin"):
        folder.chmod(0o500)
    line = poor(2**40, *again)
    assert "Permission denied" in line
    assert str(path) in line
    for folder in (path, path / ".hydra", path / "clean_twin"):
        folder.chmod(0o700)
    intact(done)

    complete = simulate(*again)
    assert complete.returncode == 0, complete.stderr
    same(path, expected)
