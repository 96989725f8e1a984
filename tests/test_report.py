"""What a person sees: lines of rounds, figures, and only the warnings of this suite."""

import logging
import os
import subprocess
import sys
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from rich.console import Console

from fl_backdoor.loop.display import Display
from fl_backdoor.measure.figures import draw_curves, draw_distances
from fl_backdoor.measure.measures import Measure, measures, text
from fl_backdoor.screen import show_warnings
from strategies import FedAvg

ROW = {
    "round": 1,
    "loss": 0.5,
    "main_accuracy": 0.987,
    "attack_success_rate": 0.012,
    "attack_success_floor": 0.004,
    "dropped": [0, 1],
    "invalid": [],
    "failed": [],
    "seconds_round": 7.1,
}


@pytest.fixture
def screen() -> StringIO:
    return StringIO()


def test_a_round_is_one_line(screen: StringIO) -> None:
    display = Display(Console(file=screen, width=40), prefix="[3] ")
    display.begin("sniper_goal1", "round", 10, [])
    display.round(ROW)
    display.end()
    first, second = screen.getvalue().splitlines()
    assert first == "[3] sniper_goal1"
    for part in ("round  1/10", "98.7%", "1.2% (floor 0.4%)", "dropped 0 1", "7.1 s"):
        assert part in second


@pytest.mark.parametrize(
    ("value", "unit", "written"),
    [
        (None, "%", "-"),
        (0.0, "%", "0.0%"),
        (1.0, "%", "100.0%"),
        (0.5, "nats", "0.5000"),
        (1e30, "nats", "1e+30"),
        (12_345_678, "bytes", "12.3 MB"),
        (1234, "count", "1,234"),
        (56.7, "s", "57"),
        ([], "clients", "none"),
        ([1, 12], "clients", "1 12"),
        (0.0123456, "", "0.0123"),
    ],
)
def test_values_are_written_by_their_unit(value: object, unit: str, written: str) -> None:
    assert text(value, unit) == written


@pytest.mark.parametrize("kept", [None, [], [1, 2, 3]])
def test_distances_are_drawn(kept: list[int] | None, tmp_path: Path) -> None:
    distances = np.abs(np.subtract.outer(np.arange(4.0), np.arange(4.0)))
    distances[0, :] = distances[:, 0] = np.nan  # a client that did not answer
    draw_distances(distances, [0, 1, 2, 3], kept, [0], tmp_path / "distances.png")
    assert imread(tmp_path / "distances.png").std() > 0.1
    assert [path.name for path in tmp_path.iterdir()] == ["distances.png"]


def test_rounds_are_drawn_with_and_without_a_floor(tmp_path: Path) -> None:
    draw_curves([ROW], tmp_path / "floor.png", "x", "round", measures("round"))
    bare = ROW | {"attack_success_floor": None}
    draw_curves([bare], tmp_path / "bare.png", "x", "round", measures("round"))
    assert imread(tmp_path / "floor.png").std() > 0.05
    assert imread(tmp_path / "bare.png").std() > 0.05


def test_warnings_of_the_suite_show_and_flowers_own_do_not(screen: StringIO) -> None:
    logger = logging.getLogger("flwr")
    show_warnings(Console(file=screen, width=200))
    logger.error("a traceback of Flower's runtime")
    FedAvg().aggregate_train(1, [])
    assert "Round 1 keeps the old global model" in screen.getvalue()
    assert "traceback" not in screen.getvalue()
    assert not any(line.endswith(" ") for line in screen.getvalue().splitlines())  # not filled up


def test_names_are_printed_as_they_are_in_any_encoding() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from fl_backdoor.screen import Screen; Screen().print('[/x] ± :x:')",
        ],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )
    assert done.stdout == "[/x] \\xb1 :x:\n"


def test_the_work_goes_on_when_the_reader_has_gone() -> None:
    script = """
import sys
from fl_backdoor.screen import Screen
screen = Screen()
screen.print("first")
sys.stdin.readline()  # until the reader has gone
for _ in range(3):
    screen.print("more")
print("done", file=sys.stderr)
"""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=pipe, stdout=pipe, stderr=pipe, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "first\n"
        process.stdout.close()
        process.stdout = None
        _, errors = process.communicate("\n")
    assert (process.returncode, errors) == (0, "done\n")


def test_names_are_no_mathtext(tmp_path: Path) -> None:
    rows = [{"round": 1, "x": 0.5}]
    odd = Measure(name="x", title="$^", color="red")
    draw_curves(rows, tmp_path / "a.png", "$_$ 训练", "round", [odd])
    assert (tmp_path / "a.png").stat().st_size > 1000
