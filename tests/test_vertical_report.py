"""What a person sees of split learning: lines of epochs, tables and figures."""

from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord
from matplotlib.image import imread
from rich.console import Console

from fl_backdoor.loop.directory import RunDirectory
from fl_backdoor.loop.display import Display, tables
from fl_backdoor.measure.figures import draw_scores

ROW = {
    "epoch": 1,
    "loss": 0.5,
    "main_accuracy": 0.987,
    "backdoor_accuracy": 0.654,
    "attack_success_rate": 0.321,
    "attack_success_floor": 0.012,
    "seconds_epoch": 7.1,
}
SUMMARY = {
    "name": "x",
    "seed": 4,
    "epochs": 12,
    "main_accuracy": 0.987,
    "backdoor_accuracy": 0.654,
    "backdoor_accuracy_floor": 0.111,
    "attack_success_rate": 0.321,
    "attack_success_floor": 0.012,
    "label_inference_accuracy": 1.0,
    "g_rec_norm": 0.0123456,
    "bytes": 12_345_678,
    "round_trips": 1234,
    "seconds": 56.7,
    "target": "b",
    "classes": ["a", "b"],
    "poisoned_rows": {"train": [[3, 1000], [4, 2000]], "test": [[5, 30], [6, 40]]},
    "scores": [0.25, 0.75],
    "clean_scores": [0.9, 0.1],
}
BARE = {
    "backdoor_accuracy_floor": None,
    "attack_success_floor": None,
    "label_inference_accuracy": None,
    "g_rec_norm": None,
    "clean_scores": None,
}


@pytest.fixture
def screen() -> StringIO:
    return StringIO()


def cells(screen: StringIO) -> list[list[str]]:
    """Read the tables back: the cells of each line."""
    lines = screen.getvalue().replace("┃", "│").splitlines()
    return [[c.strip() for c in line.strip("│").split("│")] for line in lines if "│" in line]


def shown(summary: dict[str, Any], screen: StringIO) -> list[list[str]]:
    console = Console(file=screen, width=120)
    for table in tables(summary, "epoch"):
        console.print(table)
    return cells(screen)


def test_tables_hold_what_the_summary_says(screen: StringIO) -> None:
    assert shown(SUMMARY, screen) == [
        ["after epoch 12", ""],
        ["main accuracy", "98.7%"],
        ["backdoor accuracy", "65.4%"],
        ["its floor (clean twin)", "11.1%"],
        ["attack success rate", "32.1%"],
        ["its floor (clean twin)", "1.2%"],
        ["label inference accuracy", "100.0%"],
        ["norm of g_rec", "0.0123"],
        ["exchanged in training", "12.3 MB"],
        ["round trips", "1,234"],
        ["seconds", "57"],
        ["class", "train", "test", "score", "score, clean twin"],
        ["a", "3 / 1,000", "5 / 30", "25.0%", "90.0%"],
        ["b (target)", "4 / 2,000", "6 / 40", "75.0%", "10.0%"],
    ]
    assert "x, seed 4" in screen.getvalue()


def test_what_does_not_apply_is_a_dash(screen: StringIO) -> None:
    lines = shown(SUMMARY | BARE | {"scores": [None, None]}, screen)
    assert [line[-1] for line in lines].count("-") == 6
    assert ["b (target)", "4 / 2,000", "6 / 40", "-", "-"] in lines


@pytest.mark.parametrize("floor", [0.012, None])
def test_an_epoch_is_one_line(screen: StringIO, floor: float | None) -> None:
    display = Display(Console(file=screen, width=40), prefix="[3] ")
    display.begin("vertical_mnist", "epoch", 20, [ROW])
    display.round(ROW | {"attack_success_floor": floor})
    display.end()
    first, second = screen.getvalue().splitlines()
    assert first == "[3] vertical_mnist (resumed after 1 of 20)"
    for part in ("[3]   epoch  1/20", "98.7%", "65.4%", "32.1%", "7.1 s"):
        assert part in second
    assert ("(floor 1.2%)" in second) == (floor is not None)


@pytest.mark.parametrize("bare", [{}, BARE, {"scores": [None, None]}])
def test_figures_are_written(tmp_path: Path, screen: StringIO, bare: dict[str, Any]) -> None:
    config = {"name": "v", "seed": 4, "num_epochs": 2}
    directory = RunDirectory(tmp_path, config, resume=False, unit="epoch")
    for epoch in (1, 2):
        row = ROW | {"epoch": epoch} | {k: v for k, v in bare.items() if k in ROW}
        directory.append(row, ArrayRecord({"w": Array(np.zeros(2))}))
    directory.finish(SUMMARY | bare)
    Display(Console(file=screen)).result(SUMMARY | bare, directory)
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["epochs.png", "scores.png"]
    for path in tmp_path.glob("*.png"):
        assert imread(path).std() > 0.05
    assert "Results: " in screen.getvalue()


def test_scores_are_bars_as_high_as_they_are(tmp_path: Path) -> None:
    """Seen in the pixels: red bars of 25% and 75% are a third of each other."""
    draw_scores(SUMMARY | {"clean_scores": None}, tmp_path / "scores.png")
    image = imread(tmp_path / "scores.png")[..., :3]
    middle = image.shape[0] // 2  # the legend may stand anywhere: bars reach the lowest rows
    red = (np.abs(image - np.array([214, 39, 40]) / 255) < 0.02).all(axis=2)
    heights = red[:, red[middle:].any(axis=0)].sum(axis=0)
    assert heights.max() / heights.min() == pytest.approx(3, rel=0.1)


def test_a_sweep_prints_no_tables(tmp_path: Path, screen: StringIO) -> None:
    directory = RunDirectory(tmp_path, {"seed": 4}, resume=False, unit="epoch")
    directory.append(ROW, ArrayRecord({"w": Array(np.zeros(2))}))
    display = Display(Console(file=screen), prefix="[0] ")
    display.draw = lambda *_: None  # type: ignore[method-assign]
    display.result(SUMMARY, directory)
    assert screen.getvalue().splitlines() == [f"[0] Results: {tmp_path}"]
