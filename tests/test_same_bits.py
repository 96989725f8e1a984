"""The comparison with the commit before the move: it finds differences, and there are none."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from benchmarks.same_bits import BASE, ROOT, verdict
from benchmarks.same_bits_cases import Case, cases

ROWS = [
    {"round": 1, "loss": 0.5, "failed": [], "strategy": {"clipped": [1, 2]}, "seconds_round": 1.0},
    {"round": 2, "loss": 0.4, "failed": [3], "strategy": {"clipped": [2]}, "seconds_round": 1.0},
]
OUT = """Data: x
  round 1/2  loss 0.5000  1.2 s
│ accuracy │ 95.6% │
│ seconds  │    43 │
Results: {}
"""
PLAIN = Case("plain", [])
OWN = Case("own", [], own_rule=True)


def model(number: int, order: tuple[str, ...] = ("w", "b"), **changes: Any) -> bytes:
    arrays = {"w": np.full((2, 3), number, np.float32), "b": np.array(number)} | changes
    note = json.dumps({"round": number, "order": order})
    return save(arrays, metadata={"fl-backdoor": note})


def leave(folder: Path) -> Path:
    """Write what a case leaves behind."""
    run, models = folder / "run", folder / "models"
    run.mkdir(parents=True)
    models.mkdir()
    for number in (1, 2):
        (models / f"{number}.safetensors").write_bytes(model(number))
    write_rows(folder, ROWS)
    summary = {"loss": 0.4, "seconds": 2.0, "versions": {"flwr": "1"}, "attack": {"_target_": "a"}}
    (run / "summary.json").write_text(json.dumps(summary))
    np.save(run / "distances.npy", np.array([[0.0, np.nan], [np.nan, 0.0]]))
    (folder / "out0").write_text(OUT.format(run))
    (folder / "err0").write_text("")
    (folder / "status0").write_text("0")
    return folder


def write_rows(folder: Path, rows: list[dict[str, Any]]) -> None:
    (folder / "run" / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))


def edit(name: str, old: str, new: str) -> Callable[[Path], None]:
    """Return a function that changes a file of a case."""

    def change(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return change


def replace(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path]:
    return leave(tmp_path / "old"), leave(tmp_path / "new")


ALIKE = {
    "nothing": lambda _: None,
    "time": edit("run/metrics.jsonl", '"seconds_round": 1.0', '"seconds_round": 2.0'),
    "time on screen": edit("out0", "1.2 s", "10.2 s"),
    "times in the table": edit("out0", "│    43", "│ 9"),
    "new metric": edit("run/metrics.jsonl", '"clipped"', '"kept": 1, "clipped"'),
    "new line": edit("out0", "Data: x\n", "Data: x\nKnowledge: own\n"),
    "versions": edit("run/summary.json", '"flwr": "1"', '"flwr": "2"'),
    "class of the attack": edit("run/summary.json", '"_target_": "a"', '"_target_": "b"'),
    "note of a model's file": replace("models/1.safetensors", model(1).replace(b"round", b"epoch")),
}
DIFFERENT = {
    "a bit of a model": (
        replace("models/2.safetensors", model(2, w=np.nextafter(np.full((2, 3), 2, "f4"), 3))),
        "models model w in round 2: an array before, one up to 2.38e-07 away now",
    ),
    "a counter": (replace("models/1.safetensors", model(1, b=np.array(2))), "model b in round 1"),
    "a dtype": (replace("models/1.safetensors", model(1, b=np.array(1.0))), "<i8() before, <f8()"),
    "the order of a model": (replace("models/1.safetensors", model(1, ("b", "w"))), "model names"),
    "an array more": (
        replace("models/1.safetensors", model(1, ("w", "b", "c"), c=np.ones(1))),
        "model names",
    ),
    "a model less": (lambda folder: (folder / "models/2.safetensors").unlink(), "in round 2"),
    "a metric": (edit("run/metrics.jsonl", "0.4", "0.40000000000000008"), "run:loss in round 2"),
    "a metric less": (edit("run/metrics.jsonl", "loss", "Loss"), "run:loss in round 1: 0.5 before"),
    "a nested metric": (
        edit("run/metrics.jsonl", "[1, 2]", "[1, 3]"),
        "run:strategy:clipped[1] in round 1: 2 before, 3 now",
    ),
    "a list": (edit("run/metrics.jsonl", "[1, 2]", "[1, 2, 3]"), "run:strategy:clipped in round 1"),
    "a row less": (lambda folder: write_rows(folder, ROWS[:1]), "run in round 2"),
    "the summary": (edit("run/summary.json", '"loss": 0.4', '"loss": 0.5'), "summary.json:loss"),
    "no summary": (lambda folder: (folder / "run/summary.json").unlink(), "summary.json"),
    "distances": (
        lambda folder: np.save(folder / "run/distances.npy", np.zeros((2, 2))),
        "distances.npy",
    ),
    "the table": (edit("out0", "95.6%", "95.7%"), "out0:accuracy 95.6%"),
    "a line less": (edit("out0", "Data: x\n", ""), "out0:Data: x"),
    "the exit status": (edit("status0", "0", "2"), "status0: 0 before, 2 now"),
}


@pytest.mark.parametrize("change", ALIKE)
def test_what_is_not_compared(change: str, trees: tuple[Path, Path]) -> None:
    ALIKE[change](trees[1])
    good, line = verdict(PLAIN, *trees)
    assert good, line
    assert line.endswith("2 rounds  equal")


@pytest.mark.parametrize("change", DIFFERENT)
def test_a_difference_is_found_and_named(change: str, trees: tuple[Path, Path]) -> None:
    make, said = DIFFERENT[change]
    make(trees[1])
    good, line = verdict(PLAIN, *trees)
    assert not good
    assert "DIFFERS: " in line
    assert said in line
    assert "\n" not in line


@given(data=st.data())
def test_any_changed_byte_of_an_array_is_found(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("trees")
    old, new = leave(path / "old"), leave(path / "new")
    content = bytearray(model(1))
    place = data.draw(st.integers(len(content) - 32, len(content) - 1))  # the 24 + 8 bytes of data
    content[place] ^= data.draw(st.integers(1, 255))
    (new / "models" / "1.safetensors").write_bytes(content)
    assert not verdict(PLAIN, old, new)[0]


def test_of_own_rules_only_what_they_do_not_decide_must_be_equal(trees: tuple[Path, Path]) -> None:
    DIFFERENT["a bit of a model"][0](trees[1])
    DIFFERENT["a nested metric"][0](trees[1])
    good, line = verdict(OWN, *trees)
    assert good
    assert line.endswith("(own rule: 1 of 2 rounds equal)")
    edit("run/metrics.jsonl", '"failed": []', '"failed": [1]')(trees[1])
    good, line = verdict(OWN, *trees)
    assert not good
    assert "run:failed in round 1" in line


def test_two_trees_that_fail_alike_are_not_equal(trees: tuple[Path, Path]) -> None:
    for folder in trees:
        for path in [*(folder / "models").iterdir(), folder / "run" / "metrics.jsonl"]:
            path.unlink()
        (folder / "err0").write_text("error: strategy=x\n")
    good, line = verdict(PLAIN, *trees)
    assert not good
    assert "no round: error: strategy=x before" in line


def test_every_case_has_a_folder_of_its_own(tmp_path: Path) -> None:
    folders = [case.folder for case in cases(tmp_path)]
    assert len(set(folders)) == len(folders) >= 12


@pytest.mark.slow
def test_a_few_runs_have_the_bits_of_before() -> None:
    base = ["git", "-C", str(ROOT), "cat-file", "-e", f"{BASE}^{{commit}}"]
    if subprocess.run(base, capture_output=True, check=False).returncode:
        pytest.skip(f"commit {BASE} is not here")
    few = ["fedavg", "noise around clipping around sniper", "hostile replies", "krum"]
    few += ["resumed, noise", "vertical, none, sum", "vertical, all defenses, clean twin"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.same_bits", "--only", *few],
        cwd=ROOT, capture_output=True, text=True, timeout=1800, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" rounds  equal") == len(few), done.stdout
