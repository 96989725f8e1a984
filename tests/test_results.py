"""Tests of `fl_backdoor.loop.directory`: what survives a crash, and what bad files say."""

import errno
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from safetensors import safe_open

from fl_backdoor.errors import UserError
from fl_backdoor.files import stored_source
from fl_backdoor.loop.directory import RunDirectory

CONFIG = {"seed": 1, "resume": False, "engine": {"kind": "ray"}, "attack": {"pattern": [[1, 2]]}}

models = st.dictionaries(
    st.text("abz.01", min_size=1),
    st.sampled_from(["float32", "float64", "int64", "float16", "uint8"]).flatmap(
        lambda dtype: arrays_of.arrays(dtype, arrays_of.array_shapes(min_dims=0, min_side=0))
    ),
    max_size=6,
)


def model(number: int) -> ArrayRecord:
    arrays = {"w": np.full((2, 3), number, np.float32), "b": np.array(number)}
    return ArrayRecord({name: Array(array) for name, array in arrays.items()})


def remembered(number: int) -> dict[str, np.ndarray]:
    return {"w": np.full((2, 3), number, np.float32), "a": np.array(number)}


def resume(path: Path, **changes: Any) -> RunDirectory:
    return RunDirectory(path, CONFIG | {"resume": True} | changes, resume=True)


def value(run: RunDirectory) -> int:
    assert run.arrays is not None
    return int(run.arrays["b"].numpy())


def fails(path: Path) -> str:
    """Return the one line that resuming is refused with."""
    with pytest.raises(UserError) as error:
        resume(path)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the folder of a run after three rounds."""
    run = RunDirectory(tmp_path / "a" / "run", CONFIG, resume=False)
    for number in (1, 2, 3):
        run.append({"round": number, "loss": 0.1 * number, "kept": None}, model(number))
    return run.path


@settings(max_examples=40)
@given(arrays=models, fortran=st.booleans(), loss=st.floats())
def test_model_and_rows_come_back_bit_by_bit_and_in_order(
    tmp_path_factory: pytest.TempPathFactory,
    arrays: dict[str, np.ndarray],
    fortran: bool,
    loss: float,
) -> None:
    path = tmp_path_factory.mktemp("run")
    if fortran:
        arrays = {name: np.asfortranarray(array) for name, array in arrays.items()}
    record = ArrayRecord({name: Array(array) for name, array in arrays.items()})
    RunDirectory(path, CONFIG, resume=False).append({"round": 1, "loss": loss}, record)
    run = resume(path)
    assert run.rounds_done == 1
    kept = loss if math.isfinite(loss) else None  # JSON has no NaN and no infinity
    assert repr(run.rows) == repr([{"round": 1, "loss": kept}])
    assert run.arrays is not None
    assert list(run.arrays) == list(arrays)  # noise is drawn in this order
    for name, array in arrays.items():
        back = run.arrays[name].numpy()
        assert (back.dtype, back.shape) == (array.dtype, array.shape)
        assert back.tobytes() == array.tobytes()
    shutil.rmtree(path)


def test_a_run_goes_on_where_it_ended(path: Path) -> None:
    run = resume(path)
    assert (run.rounds_done, value(run), run.complete) == (3, 3, False)
    run.append({"round": 4}, model(4))
    run.save_distances(np.eye(2))
    run.finish({"name": "a", "seed": 0})
    again = resume(path)
    assert (again.rounds_done, value(again), again.complete) == (4, 4, True)
    assert again.summary() == {"name": "a", "seed": 0}
    assert [row["round"] for row in again.rows] == [1, 2, 3, 4]
    np.testing.assert_array_equal(np.load(path / "distances.npy"), np.eye(2))
    assert {file.name for file in path.iterdir()} == {
        ".lock",
        "config.json",
        "metrics.jsonl",
        "model.safetensors",
        "distances.npy",
        "summary.json",
    }


@pytest.mark.parametrize("extra", ['{"round": 4}\n', '{"round": 4, "lo', "\n", '{"round": 4}\n{"'])
def test_a_row_without_its_model_is_dropped(path: Path, extra: str) -> None:
    rows = (path / "metrics.jsonl").read_text()
    (path / "metrics.jsonl").write_text(rows + extra)
    run = resume(path)
    assert (run.rounds_done, value(run)) == (3, 3)
    assert (path / "metrics.jsonl").read_text() == rows
    run.append({"round": 4}, model(4))
    assert resume(path).rounds_done == 4


class FullDisk:
    """Let a function work a number of times, then raise as a full disk does."""

    def __init__(self, function: Callable[..., Any], works: int) -> None:
        self.function, self.left = function, works

    def __call__(self, *arguments: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.function(*arguments)


# In order: the row is written, the model is written, the model gets its name.
@pytest.mark.parametrize(("name", "works"), [("fsync", 0), ("fsync", 1), ("replace", 0)])
@pytest.mark.parametrize("first", [True, False])
def test_a_full_disk_costs_the_last_round_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, works: int, first: bool
) -> None:
    run = RunDirectory(tmp_path, CONFIG, resume=False)
    if not first:
        run.append({"round": 1}, model(1))
    number = run.rounds_done + 1
    with monkeypatch.context() as patch:
        patch.setattr(os, name, FullDisk(getattr(os, name), works))
        with pytest.raises(OSError, match="No space left"):
            run.append({"round": number}, model(number))
    run = resume(tmp_path)
    assert run.rounds_done == number - 1
    assert run.arrays is None if first else value(run) == 1
    for again in (number, number + 1):
        run.append({"round": again}, model(again))
    assert value(resume(tmp_path)) == number + 1


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_a_full_disk_leaves_old_files_whole(
    path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    run = resume(path)
    run.save_distances(np.eye(2))
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    monkeypatch.setattr(os, name, FullDisk(None, 0))  # type: ignore[arg-type]
    for write in (lambda: run.save_distances(np.ones((2, 2))), lambda: run.finish({"a": 1})):
        with pytest.raises(OSError, match="No space left"):
            write()
    with pytest.raises(OSError, match="No space left"):
        RunDirectory(path.parent / "new", CONFIG, resume=False)
    assert {file: (path / file).read_bytes() for file in before} == before
    assert not run.complete
    monkeypatch.undo()
    assert resume(path).rounds_done == 3
    assert resume(path.parent / "new").rounds_done == 0


def test_a_run_is_not_overwritten(path: Path) -> None:
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    with pytest.raises(UserError) as error:
        RunDirectory(path, CONFIG, resume=False)
    assert str(error.value) == (
        f"hydra.run.dir={path}: holds a run already; resume=true, beside what it was started with, "
        "continues it"
    )
    (path / "config.json").unlink()
    del before["config.json"]
    for again in (True, False):
        with pytest.raises(UserError, match=r"config\.json: missing, though the"):
            RunDirectory(path, CONFIG, resume=again)
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before


def test_resume_in_an_empty_folder_starts_a_run(tmp_path: Path) -> None:
    run = resume(tmp_path)
    assert (run.rounds_done, run.arrays) == (0, None)
    assert json.loads((tmp_path / "config.json").read_text()) == CONFIG | {"resume": True}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 2}, "seed=2: the run to resume in {} has 1"),
        (
            {"attack": {"pattern": [[1, 3]]}},
            "attack.pattern=[[1, 3]]: the run to resume in {} has [[1, 2]]",
        ),
        ({"model": {"shrink": "stride"}}, "model.shrink=stride: the run to resume in {} has None"),
    ],
)
def test_a_different_configuration_is_named(
    path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as error:
        resume(path, **changes)
    assert str(error.value) == message.format(path)


def test_another_engine_may_resume(path: Path) -> None:
    assert resume(path, engine={"kind": "local", "num_workers": 1}).rounds_done == 3


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-20])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def binary(file: Path) -> None:
    file.write_bytes(b"\xff\xfe\n\xff\n\xff\n")


def folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize("spoil", [cut, empty, binary, folder])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_spoilt_file_is_named(path: Path, name: str, spoil: Callable[[Path], None]) -> None:
    spoil(path / name)
    assert fails(path).startswith(f"{path / name}: cannot be read (")


def test_a_model_of_somebody_else_is_named(path: Path) -> None:
    from safetensors.numpy import save_file

    for metadata in (None, {"format": "pt"}, {"round": "x", "order": "[]"}):
        save_file({"w": np.zeros(2)}, path / "model.safetensors", metadata=metadata)
        assert fails(path).startswith(f"{path / 'model.safetensors'}: cannot be read (")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (b"\xff\n\xff\n\xff\n", "cannot be read ("),
        (b'{"round": 1}\n{"rou\n{"round": 3}\n', "cannot be read ("),
        (b"1\n2\n3\n", "cannot be read ("),
        (None, "cannot be read ("),
        (b"", "0 rows, but {} is of round 3"),
        (b'{"round": 1}\n{"round": 2}\n', "2 rows, but {} is of round 3"),
        (b'{"round": 1}\n{"round": 1}\n{"round": 2}\n', "3 rows, but {} is of round 3"),
    ],
)
def test_spoilt_or_missing_rows_are_named(path: Path, rows: bytes | None, message: str) -> None:
    file = path / "metrics.jsonl"
    file.unlink()
    if rows is not None:
        file.write_bytes(rows)
    assert fails(path).startswith(f"{file}: {message.format(path / 'model.safetensors')}")


def test_a_spoilt_summary_is_named(path: Path) -> None:
    run = resume(path)
    for content in (b'{"rounds"', b"", b"\xff", b"3"):
        (path / "summary.json").write_bytes(content)
        with pytest.raises(UserError, match=r"summary.json: cannot be read \(") as error:
            run.summary()
        assert "\n" not in str(error.value)


def test_a_complete_run_without_its_model_keeps_its_rows(path: Path) -> None:
    resume(path).finish({})
    (path / "model.safetensors").unlink()
    rows = (path / "metrics.jsonl").read_bytes()
    assert fails(path) == f"{path / 'model.safetensors'}: missing, though the run is complete"
    assert (path / "metrics.jsonl").read_bytes() == rows


@pytest.mark.parametrize("below", ["", "run", "deep/run"])
def test_a_file_in_place_of_the_folder_is_named(tmp_path: Path, below: str) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(UserError) as error:
        RunDirectory(file / below, CONFIG, resume=False)
    assert str(error.value).startswith(f"hydra.run.dir={file / below}: not writable (")
    assert "\n" not in str(error.value)
    assert file.read_text() == "mine"


def test_a_value_that_is_not_finite_is_null_however_deep(path: Path) -> None:
    row = {"round": 4, "strategy": {"loss": float("nan"), "norms": [1.0, float("inf")]}}
    resume(path).append(row, model(4))
    assert resume(path).rows[-1]["strategy"] == {"loss": None, "norms": [1.0, None]}


def test_what_the_strategy_remembers_is_of_the_last_round(path: Path) -> None:
    run = resume(path)
    assert not run.memory
    run.append({"round": 4}, model(4), remembered(40))
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    run.append({"round": 5}, model(5), remembered(50))
    assert [file.name for file in path.glob("strategy*")] == ["strategy-5.safetensors"]
    assert str(resume(path).memory) == str(remembered(50))
    # Killed in round 5 before its model was there, or in round 4 after it was.
    for name, content in before.items():
        (path / name).write_bytes(content)
    run = resume(path)
    assert (value(run), str(run.memory)) == (4, str(remembered(40)))
    run.append({"round": 5}, model(5), remembered(50))
    assert [file.name for file in path.glob("strategy*")] == ["strategy-5.safetensors"]


@given(
    rounds=st.lists(
        st.dictionaries(st.sampled_from("abcd"), st.booleans()), min_size=1, max_size=7
    ),
    resumed=st.integers(0, 6),
    killed=st.booleans(),
)
def test_only_what_changed_is_written_and_all_of_it_comes_back(
    tmp_path_factory: pytest.TempPathFactory,
    rounds: list[dict[str, bool]],
    resumed: int,
    killed: bool,
) -> None:
    """In each round some keys are there; True: with a new value. A kill leaves a file too many."""
    path = tmp_path_factory.mktemp("run")
    run = RunDirectory(path, CONFIG, resume=False)
    for number, keys in enumerate(rounds, start=1):
        memory = {
            key: np.array([number, ord(key)]) if new else run.memory.get(key, np.array([-number]))
            for key, new in keys.items()
        }
        before = {key: id(value) for key, value in run.memory.items()}
        run.append({"round": number}, model(number), memory)
        file = path / f"strategy-{number}.safetensors"
        assert file.exists() == bool(memory)
        if memory:
            with safe_open(file, framework="numpy") as opened:
                written = set(opened.keys())
            assert written == {k for k, value in memory.items() if id(value) != before.get(k)}
        if number == resumed:
            if killed and number < len(rounds):
                (path / f"strategy-{number + 1}.safetensors").write_bytes(b"half")
            run = resume(path)
        assert list(run.memory) == list(memory)
        for key, kept in memory.items():
            np.testing.assert_array_equal(run.memory[key], kept)
    places = set(run._places.values()) | {len(rounds)} if run.memory else set()
    assert {f.name for f in path.glob("strategy*")} == {f"strategy-{n}.safetensors" for n in places}
    shutil.rmtree(path)


def test_a_root_that_is_given_stands(tmp_path: Path) -> None:
    stored = {"source": "idx", "root": "/old"}
    (tmp_path / "config.json").write_text(json.dumps({"dataset": stored}))
    assert stored_source(tmp_path, {"source": "auto", "root": None}) == stored
    assert stored_source(tmp_path, {"source": "auto", "root": "/new"}) == {}


def test_two_processes_do_not_write_into_one_run(path: Path) -> None:
    """The other one is refused as long as this one is there, and does no harm."""
    other = (
        f"from tests.test_results import resume; from pathlib import Path; resume(Path('{path}'))"
    )
    run = resume(path)
    command = [sys.executable, "-c", other]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.stderr.endswith(
        f"UserError: hydra.run.dir={path}: another process is at work there\n"
    )
    run.append({"round": 4}, model(4))
    del run
    subprocess.run(command, check=True)
    assert resume(path).rounds_done == 4


def test_what_went_wrong_in_between_is_forgotten_once_the_run_is_complete(path: Path) -> None:
    (path / "error.txt").write_text("refused\n")
    resume(path).finish({"name": "a", "seed": 0})
    assert not (path / "error.txt").exists()
    (path / "error.txt").write_text("refused\n")
    assert resume(path).complete
    assert not (path / "error.txt").exists()


@pytest.mark.parametrize("content", [b"", b"text", b"\x93NUMPY\x01\x00v\x00{}"])
def test_spoilt_distances_are_named(path: Path, content: bytes) -> None:
    (path / "distances.npy").write_bytes(content)
    with pytest.raises(UserError, match=r"distances\.npy: cannot be read$"):
        resume(path).distances()
