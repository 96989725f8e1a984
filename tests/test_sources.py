"""Tests of the sources of rows: what is read, and the one line that each kind of bad input gets."""

import math
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import Dataset, TensorDataset

from fl_backdoor.data import base, hub
from fl_backdoor.data.bundled import BreastCancer, Digits
from fl_backdoor.data.csv_table import Csv
from fl_backdoor.data.huggingface import HuggingFace
from fl_backdoor.data.mnist import Mnist
from fl_backdoor.data.npz import Npz
from fl_backdoor.data.python import Python, build_source
from fl_backdoor.data.synthetic import Synthetic
from fl_backdoor.data.text import tokens
from fl_backdoor.errors import UserError

from .test_config import composed


@pytest.fixture(autouse=True)
def _own_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No file of a test is that of another: what is held is by name."""
    monkeypatch.setattr(base, "_LOADED", {})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def npz(folder: Path, **arrays: Any) -> Npz:
    np.savez(folder / "some.npz", **arrays)
    return Npz(file=str(folder / "some.npz"))


def four(**changed: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    whole = {
        "x_train": rng.standard_normal((20, 3)),
        "y_train": np.arange(20) % 2,
        "x_test": rng.standard_normal((6, 3)),
        "y_test": np.arange(6) % 2,
    }
    return whole | changed


def refused(call: Any) -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert str(caught.value).isprintable()
    return str(caught.value)


# Images


@given(
    shape=st.tuples(st.integers(4, 9), st.integers(4, 9)),
    channels=st.sampled_from([1, 3]),
    last=st.booleans(),
)
def test_channels_come_first_wherever_they_stood(
    tmp_path_factory: pytest.TempPathFactory, shape: tuple[int, int], channels: int, last: bool
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (26, channels, *shape), np.uint8)
    given_so = np.moveaxis(images, 1, 3) if last else images
    arrays = four(x_train=given_so[:20], x_test=given_so[20:])
    data = npz(tmp_path_factory.mktemp("npz"), **arrays).read()
    assert data.kind == "image"
    assert data.input_shape == (channels, *shape)
    assert data.train.inputs.dtype == torch.uint8  # until it is taken
    assert torch.equal(data.train[:][0], torch.from_numpy(images[:20]) / 255)


def test_channels_that_cannot_be_told_are_asked_for(tmp_path: Path) -> None:
    images = np.zeros((26, 3, 5, 3), np.uint8)
    source = npz(tmp_path, **four(x_train=images[:20], x_test=images[20:]))
    assert "dataset.channels=first or last" in refused(source.read)
    for channels, shape in (("first", (3, 5, 3)), ("last", (3, 3, 5))):
        source.channels = channels
        assert source.read().input_shape == shape
    images = np.zeros((26, 4, 5, 5), np.uint8)
    source = npz(tmp_path, **four(x_train=images[:20], x_test=images[20:]))
    assert "channels first, allowed are 1 or 3" in refused(source.read)


@pytest.mark.parametrize(
    ("values", "note"),
    [
        (np.linspace(0, 1, 26), "numbers from 0 to 1"),
        (
            np.linspace(-2, 2, 26),
            "numbers from -2 to 1.04 scaled to 0 to 1, 96 of 96 test values beyond that cut off;",
        ),
        (np.linspace(0, 255, 26), "scaled to 0 to 1"),
        (np.arange(26, dtype=np.int32), "numbers from 0 to 19 scaled to 0 to 1"),
    ],
)
def test_other_images_are_scaled_once_by_the_training_rows(
    tmp_path: Path, values: np.ndarray, note: str
) -> None:
    images = np.broadcast_to(values[:, None, None], (26, 4, 4))
    data = npz(tmp_path, **four(x_train=images[:20], x_test=images[20:])).read()
    assert note in data.description
    for split in (data.train, data.test):
        inputs, _ = split[:]
        assert inputs.dtype == torch.float32
        assert 0 <= float(inputs.min()) <= float(inputs.max()) <= 1
    if "scaled" in note:
        assert data.train[:][0].min() == 0
        assert data.train[:][0].max() == 1


# Labels


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (np.array([7, -2, 10]), ("-2", "7", "10")),
        (np.array(["dog", "cat", "ant"]), ("ant", "cat", "dog")),
        (np.array(["10", "9", "1.5"]), ("1.5", "9", "10")),
        (np.array([True, False]), ("False", "True")),
        (np.array([1.0, 0.0]), ("0", "1")),
        (np.array([3, 1], np.uint8), ("1", "3")),
    ],
)
def test_labels_of_any_kind_are_numbered_in_order(
    tmp_path: Path, labels: np.ndarray, classes: tuple[str, ...]
) -> None:
    train = np.resize(labels, 20)
    data = npz(tmp_path, **four(y_train=train[:, None], y_test=train[:6])).read()
    assert data.classes == classes
    asked = [str(int(label)) if labels.dtype == float else str(label) for label in train]
    assert data.labels.tolist() == asked


def test_rows_are_split_by_a_seed_in_every_class(tmp_path: Path) -> None:
    x = np.arange(100.0)[:, None]
    source = npz(tmp_path, x=x, y=np.repeat([0, 1], [80, 20]), owners=np.arange(100) // 10)
    data = source.read()
    assert data.train.labels.bincount().tolist() == [64, 16]
    assert data.test.labels.bincount().tolist() == [16, 4]
    rows = data.train.inputs[:, 0].long().numpy()
    assert data.owners is not None
    np.testing.assert_array_equal(data.owners, rows // 10)
    assert (np.diff(rows) > 0).all()
    assert torch.equal(source.read().train.inputs, data.train.inputs)
    source.split_seed = 1
    assert not torch.equal(source.read().train.inputs, data.train.inputs)


def test_tokens_are_integers(tmp_path: Path) -> None:
    words = np.random.default_rng(0).integers(0, 50, (26, 7))
    source = npz(tmp_path, **four(x_train=words[:20], x_test=words[20:]))
    data = source.read()
    assert (data.kind, data.vocabulary) == ("text", int(words.max()) + 1)
    assert data.train[:][0].dtype == torch.int64
    source.kind = "table"
    assert source.read().kind == "table"
    source.kind, source.vocabulary = "auto", 10
    assert "allowed are tokens 0 to 9" in refused(source.read)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x_train": np.where(np.eye(20, 3) > 0, math.nan, 1)}, "x_train, row 0, column 0: .*fini"),
        (
            {"x_test": np.full((6, 3), math.inf)},
            "x_test, row 0, column 0: allowed is a f",
        ),
        (
            {"x_test": np.zeros((6, 4))},
            r"x_test: rows of shape \(4,\), allowed is \(3,\), as",
        ),
        ({"y_train": np.arange(19) % 2}, "y_train: 19 labels, allowed is 20, as inputs"),
        ({"y_test": np.array([0, 1, 0, 1, 2, 0])}, "y_test, row 4: a label of no training row"),
        ({"y_train": np.zeros(20)}, "y_train: every training row is of one class, 0; allowed"),
        ({"y_train": np.full(20, 0.5)}, "y_train, row 0: allowed is a class: an integer"),
        ({"y_train": np.zeros((20, 2), int)}, r"y_train: shape \(20, 2\), allowed is \(rows,\)"),
        ({"y_train": np.resize(["a", ""], 20)}, "y_train, row 1: allowed is a text that is not em"),
        ({"y_train": np.zeros(20, complex)}, "y_train: labels of type complex128, allowed are"),
        ({"x_train": np.zeros((0, 3)), "y_train": np.zeros(0)}, "x_train: no rows, allowed is one"),
        ({"x_train": np.full((20, 3), "a")}, "x_train: inputs of type <U1, allowed are numbers"),
        ({"x_train": np.zeros(20)}, r"x_train: shape \(20,\), allowed are tables"),
        ({"x_train": np.zeros((20, 0))}, r"x_train: shape \(20, 0\), allowed are tables"),
        ({"x_train": np.array([[1], [1, 2]], object)}, "x_train: rows of different shapes or Pyt"),
        ({"owners": np.arange(3)}, r"owners of shape \(3,\) and type int64, allowed are 20"),
        ({"x_test": np.array(3.0)}, r"x_test: shape \(\), allowed are tables"),
        ({"y_train": np.array(3)}, "y_train: 1 labels, allowed is 20, as inputs"),
        ({"y_train": np.resize(["a", " NaN"], 20)}, "y_train, row 1: .* not empty, and not nan"),
        ({"x_train": np.full((20, 3), 1e39)}, "x_train, row 0, column 0: allowed is a finite"),
        ({"x_test": np.full((6, 3), math.inf, np.float16)}, "x_test, row 0, column 0: .* finite"),
        (
            {"x_train": np.zeros((20, 4, 4)), "x_test": np.zeros((6, 4, 4), np.uint8)},
            r"x_test: inputs of type uint8, allowed are floats or switches, as of .*\(float64\)",
        ),
        (
            {"x_train": np.zeros((20, 3), int)},
            r"x_test: inputs of type float64, allowed are integers, as of training rows \(int64\)",
        ),
    ],
)
def test_bad_arrays_are_named_in_one_line(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        npz(tmp_path, **four(**changed)).read()
    assert str(caught.value).startswith(f"dataset.file={tmp_path}/some.npz: ")
    assert str(caught.value).isprintable()


@pytest.mark.filterwarnings("error")
def test_a_row_is_counted_as_in_the_file_though_the_rows_are_split(tmp_path: Path) -> None:
    labels = np.arange(26) % 2
    for row in (5, 17, 25):
        for x, place in ((np.ones((26, 3)), "column 1"), (np.ones((26, 3, 2)), r"at \[1, 0\]")):
            x[(row, 1, 0)[: x.ndim]] = math.nan
            with pytest.raises(UserError, match=f"x, row {row}, {place}: allowed is a finite"):
                npz(tmp_path, x=x, y=labels).read()
        words = np.ones((26, 3), int)
        words[row, 2] = -1
        with pytest.raises(UserError, match=f"x, row {row}, column 2: allowed are tokens"):
            npz(tmp_path, x=words, y=labels).read()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"owners": np.arange(3)}, r"x: owners of shape \(3,\) .* allowed are 20 integers"),
        ({"owners": np.arange(30)}, r"x: owners of shape \(30,\) .* allowed are 20 integers"),
        ({"owners": np.array(3)}, r"x: owners of shape \(\) .* allowed are 20 integers"),
        ({"owners": np.resize(["a", "nan"], 20)}, "x: the owner of row 1 is empty or nan"),
        ({"x": np.array(3)}, r"x: shape \(\), allowed are tables"),
        ({"x": np.ones((0, 3)), "y": np.ones(0)}, "x: no rows, allowed is one or more"),
        ({"y": np.array(3)}, "y: 1 labels, allowed is 20, as inputs"),
    ],
)
def test_rows_are_checked_before_they_are_split(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    arrays = {"x": np.ones((20, 3)), "y": np.arange(20) % 2} | changed
    with pytest.raises(UserError, match=message):
        npz(tmp_path, **arrays).read()


@pytest.mark.parametrize(
    ("local", "directory", "value", "message"),
    [(6, 8, 1, "is encrypted"), (8, 10, 97, "compression method is not supported")],
)
def test_a_zip_that_cannot_be_unpacked_is_no_npz(
    tmp_path: Path, local: int, directory: int, value: int, message: str
) -> None:
    source = npz(tmp_path, x=np.ones((20, 3)), y=np.arange(20) % 2)
    content = bytearray(Path(source.file).read_bytes())
    content[local] = content[content.find(b"PK\x01\x02") + directory] = value
    Path(source.file).write_bytes(content)
    assert message in (said := refused(source.read))
    assert "allowed is an npz file" in said


def test_a_zip_of_other_files_is_no_npz(tmp_path: Path) -> None:
    path = tmp_path / "some.npz"
    large = BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": (2**50, 100)}
    np.lib.format.write_array_header_1_0(large, header)
    for content, message in ((b"text", "no array; allowed is one"), (large.getvalue(), "allocate")):
        with ZipFile(path, "w") as file:
            for name in ("x", "y"):
                file.writestr(f"{name}.npy", content)
        assert f"{path}: x: " in (said := refused(Npz(file=str(path)).read))
        assert message in said


def test_what_is_no_npz_is_named_and_never_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "some.npz"
    source = Npz(file=str(path))
    assert "No such file" in refused(source.read)
    for content in (b"", b"text", b"PK\x05\x06" + bytes(18), b"\x80\x04N."):
        path.write_bytes(content)
        assert "allowed is an npz file with x_train y_train x_test y_test, or" in refused(
            source.read
        )
    np.save(tmp_path / "one.npy", np.zeros(3))
    assert "cannot be read" in refused(Npz(file=str(tmp_path / "one.npy")).read)
    assert "holds x; allowed" in refused(npz(tmp_path, x=np.zeros(3)).read)
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    assert "cannot be read" in refused(source.read)
    lone = npz(tmp_path, x=np.zeros((3, 2)), y=np.array([0, 0, 1]))
    assert "some.npz: y: class 1 has one row; allowed are two" in refused(lone.read)


# CSV


def csv(folder: Path, text: str, **settings: Any) -> Csv:
    (folder / "some.csv").write_text(text)
    return Csv(file=str(folder / "some.csv"), **settings)


def rows(count: int = 40) -> str:
    lines = [
        f"{k},{k % 5 + 0.5},{['red', 'green', 'blue'][k % 3]},u{k // 4},{'ny'[k % 2]}"
        for k in range(count)
    ]
    return "\n".join(["id,size,color,user,label", *lines, ""])


def test_columns_become_numbers(tmp_path: Path) -> None:
    data = csv(tmp_path, rows(), id_column="id", owner_column="user").read()
    assert data.kind == "table"
    assert data.classes == ("n", "y")
    assert data.input_shape == (4,)  # size, blue, green, red
    inputs, _ = data.train[:]
    assert abs(float(inputs[:, 0].mean())) < 1e-6
    assert abs(float(inputs[:, 0].std(correction=0)) - 1) < 1e-6
    assert (inputs[:, 1:].sum(dim=1) == 1).all()
    assert data.owners is not None
    assert len(np.unique(data.owners)) == 10
    categories = csv(tmp_path, rows(), drop=["id", "user"], categorical=["size"]).read()
    assert categories.input_shape == (5 + 3,)


def test_test_rows_of_their_own_are_scaled_by_the_training_rows(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("label,x,color\nb,5,pink\na,0,red\n")
    source = csv(
        tmp_path, "x,color,label\n1,red,a\n3,blue,b\n", test_file=str(tmp_path / "test.csv")
    )
    data = source.read()
    assert data.train.inputs.tolist() == [[-1, 0, 1], [1, 1, 0]]
    assert data.test.inputs.tolist() == [[3, 0, 0], [-2, 0, 1]]
    assert data.test.labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        ("x,label\n1,a\nnan,b\n2,a\n3,b", {}, "column x, row 1: allowed is a finite number"),
        ("x,label\n1,a\n2,b\ninf,a\n3,b", {}, "column x, row 2: allowed is a finite number"),
        ("x,label\n1,a\n2,b\nso,a\n3,b", {}, "column x, row 2: allowed is a finite number"),
        ("x,label\n1,a\n,b\n2,a\n3,b", {}, "column x, row 1: allowed is a finite number"),
        ("x,label\nq,a\nr,b\nq,a\n,b", {}, "column x, row 3: allowed is not empty"),
        ("x,label\nq,a\nr,b\nq,a\nNaN,b", {}, "column x, row 3: allowed is not empty, and not n"),
        ("x,label\n1,a\n2,nan\n3,b\n4,nan", {}, "column label, row 1: .* and not nan"),
        ("x,i,label\n1,1,a\n1, ,b\n2,3,a", {"owner_column": "i"}, "column i, row 1: allowed is no"),
        ("x,label\n1,a\n2,b", {"owner_column": "user"}, "column user is missing, allowed is a h"),
        ("x,y\n1,a\n2,b", {}, "column label is missing, allowed is a header with it"),
        ("x,x,label\n1,2,a", {}, "two columns are named 'x', allowed are different names"),
        ("x,label\n1,a\n1,b\n2,a\n2,b", {"id_column": "x"}, "column x, row 1: an id that is th"),
        ("x,i,label\n1,1,a\n1,,b\n2,3,a", {"id_column": "i"}, "column i, row 1: allowed is not e"),
        ("x,i,label\n1,1,a\n1,,b\n2,3,a", {"owner_column": "i"}, "column i, row 1: allowed is no"),
        ("x,label\n1,a\n2,a\n3,a", {}, "every training row is of one class, a"),
        ("x,label\n1,a\n2,a\n3,b", {}, "column label: class b has one row; allowed are two"),
        ("x,label\n1,a\n2,\n3,b", {}, "column label, row 1: allowed is a text that is not emp"),
        ("x,label\n", {}, "no rows below the header"),
        ("", {}, "column label is missing"),
        ("label\na\nb\na\nb", {}, "no feature, allowed is one column or more"),
        ("x,label\n1,a\n2\n3,b\n4,a", {}, "column label, row 1: "),
        ("x,label\n1,a,9,9\n2,b", {}, "row 0: 4 cells, allowed are 2, as names"),
        ("x,label\n1,a\n\n2,b,9\n3,b", {}, "row 1: 3 cells, allowed are 2, as names"),
        ('x,label\n1,a\n"2,b\n3,b', {}, "cannot be read .*EOF inside string"),
    ],
)
def test_bad_csv_is_named_in_one_line(
    tmp_path: Path, text: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        csv(tmp_path, text, test_fraction=0.5, **settings).read()
    assert str(caught.value).startswith(f"dataset.file={tmp_path}/some.csv: ")
    assert str(caught.value).isprintable()


def test_a_column_of_names_is_no_category(tmp_path: Path) -> None:
    lines = [f"name {k},{'ab'[k % 2]}" for k in range(1_300)]
    source = csv(tmp_path, "\n".join(["who,label", *lines]))
    assert "column who has 1040 different texts; allowed are numbers" in refused(source.read)


# Python


class Pictures(Dataset[Any]):
    classes = ("off", "on", "never")

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> tuple[Image.Image, int]:
        return Image.new("RGB", (6, 5), (row, 0, 0)), row % 2


def pictures(train: int = 8, test: int = 4) -> tuple[Pictures, Pictures]:
    return Pictures(train), Pictures(test)


def ragged() -> tuple[Any, Any]:
    return [(np.zeros(3), 0), (np.zeros(4), 1)], pictures()[1]


class Named(Pictures):
    def __getitem__(self, row: int) -> Any:
        return np.zeros(3), ("on", "of")[row % 2]


def named() -> tuple[Named, Named]:
    return Named(4), Named(4)


def lone() -> TensorDataset:
    return TensorDataset(torch.zeros(3, 2), torch.zeros(3))


def broken() -> None:
    raise RuntimeError("so\nso")


def test_any_callable_that_returns_two_data_sets() -> None:
    node = {"_target_": f"{__name__}.pictures", "train": 10, "classes": ["on", "off"]}
    source = build_source("dataset", node)
    assert source.class_names == ("on", "off")
    data = source.load()
    assert data.input_shape == (3, 5, 6)
    assert data.train.inputs[:, 0, 0, 0].tolist() == list(range(10))
    assert data.labels.tolist() == ["off", "on"] * 5
    assert Python(function=f"{__name__}.pictures").load().classes == ("off", "on")
    function = f"dataset.function={__name__}.pictures"
    node = composed("dataset=python", function, "dataset.arguments={train: 6}").dataset
    assert len(build_source("dataset", node).load().train) == 6


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            "ragged",
            "ragged: train: rows that cannot be read .*; allowed are pairs of an",
        ),
        ("lone", "lone: returned TensorDataset; allowed are two data sets"),
        ("broken", "broken: so so"),
        ("missing", "missing: "),
        ("named", "named: train, row 1: allowed are the classes off, on, never, or their numbers"),
    ],
)
def test_a_callable_that_gives_something_else(function: str, message: str) -> None:
    source = Python(function=f"{__name__}.{function}")
    with pytest.raises(UserError, match=message) as caught:
        source.load()
    assert str(caught.value).startswith("dataset.function=")
    assert str(caught.value).isprintable()


# Bundled, invented


def test_bundled_data_are_what_they_say() -> None:
    digits = Digits().read()
    assert digits.input_shape == (1, 8, 8)
    assert len(digits.classes) == 10
    assert len(digits.train) + len(digits.test) == 1_797
    assert float(digits.train[:][0].max()) == 1
    cancer = BreastCancer().read()
    assert cancer.classes == ("benign", "malignant")
    assert cancer.input_shape == (30,)
    assert cancer.train[:][0].mean(dim=0).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"shape": [3, 8, 8]}, "image"),
        ({"shape": [12]}, "table"),
        ({"shape": [12], "vocabulary": 50, "signal": 0.3}, "text"),
    ],
)
def test_invented_data_say_so_and_can_be_learned(settings: dict[str, Any], kind: str) -> None:
    data = Synthetic(**settings, num_classes=4, owners=30, stands_for="some set").load()
    assert data.kind == kind
    assert data.description.startswith("synthetic (stand-in for some set), 2,000 train + 500 test")
    assert data.name.startswith("synthetic")
    assert data.owners is not None
    assert set(data.owners.tolist()) == set(range(30))
    inputs, labels = data.train[:]
    tests, answers = data.test[:]
    if kind == "text":
        inputs, tests = (torch.nn.functional.one_hot(x, 50).sum(1).float() for x in (inputs, tests))
    means = torch.stack([inputs[labels == c].flatten(1).mean(0) for c in range(4)])
    nearest = torch.cdist(tests.flatten(1), means).argmin(dim=1)
    assert (nearest == answers).float().mean() > 0.6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shape": [3, 8]}, r"dataset.shape=\[3, 8\]: allowed are \[channels"),
        ({"shape": [1, 8, 8], "vocabulary": 9}, "dataset.vocabulary=9: allowed with"),
        ({"train_rows": 9}, "dataset.train_rows=9: allowed is 10 or more, the number of classes"),
        ({"owners": 3_000}, "dataset.owners=3000: allowed is 1 to 2000"),
        ({"num_classes": 1}, "dataset.num_classes=1: allowed is 2 or more"),
    ],
)
def test_bad_shapes_are_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Synthetic(**settings)


def test_what_does_not_fit_into_memory_is_one_line() -> None:
    with pytest.raises(UserError, match=r"dataset: .*; allowed is what fits into memory"):
        Synthetic(shape=[3, 10**6, 10**6]).load()


def test_the_older_name_of_classes() -> None:
    assert Mnist().class_names == ("2", "6")
    assert Mnist(classes=None).class_names == tuple("0123456789")
    assert Mnist(digits=[3, 5]).class_names == ("3", "5")
    assert Mnist(classes=[5, "3"]).class_names == ("5", "3")
    assert Mnist(digits=[3, 5], classes=[3, 5]).class_names == ("3", "5")
    with pytest.raises(UserError, match=r"dataset.digits=\[3, 5\], dataset.classes=\[1, 2\]: two"):
        Mnist(digits=[3, 5], classes=[1, 2])
    with pytest.raises(UserError, match=r"dataset.digits=\[3, 5\], dataset.classes=None: two"):
        Mnist(digits=[3, 5], classes=None)
    with pytest.raises(UserError, match=r"dataset.classes=\['x', 1\]: allowed are two or more di"):
        Mnist(classes=["x", 1])


# Hugging Face


def test_words_are_ranked_by_the_training_texts() -> None:
    train, test = tokens(["The cat, the DOG", "a cat"], ["the bird a b c", ""], 5, 4)
    # cat and the twice: 2 and 3; then a.
    assert train.tolist() == [[3, 2, 3, 1], [4, 2, 0, 0]]
    assert test.tolist() == [[3, 1, 4, 1], [0, 0, 0, 0]]


def write_table(folder: Path) -> None:
    table = pd.DataFrame(
        {
            "a": np.arange(30.0),
            "b": np.resize(["x", "y"], 30),
            "who": np.arange(30) % 4,
            "label": np.resize(["no", "yes"], 30),
        }
    )
    table.to_parquet(folder / "train.parquet")


@pytest.mark.slow
def test_a_table_of_the_hub_is_split_and_encoded(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    write_table(folder)
    source = HuggingFace(
        name=str(folder),
        kind="table",
        input_columns=["a", "b"],
        owner_column="who",
        test_split=None,
    )
    data = source.load()
    assert data.input_shape == (3,)
    assert data.classes == ("no", "yes")
    assert (len(data.train), len(data.test)) == (24, 6)
    assert data.owners is not None
    assert len(set(data.owners.tolist())) == 4
    wrong = HuggingFace(name=str(folder), kind="table", input_columns=["c"], test_split=None)
    said = "dataset.input_columns=c: no column of train; allowed are a, b, who, label"
    assert refused(wrong.settle) == said
    assert data.description.endswith(
        f"standardised by the training rows; from the files in {folder}; 20% test rows by "
        "split_seed 0"
    )


def test_images_of_the_hub(tmp_path: Path) -> None:
    from datasets import ClassLabel, Features
    from datasets import Dataset as Rows
    from datasets import Image as Picture

    folder = tmp_path / "images"
    folder.mkdir()
    features = Features({"img": Picture(), "label": ClassLabel(names=["ship", "car"])})
    pixels = [Image.new("RGB", (5, 4), (k, 2 * k, 0)) for k in range(6)]
    for split in ("train", "test"):
        rows = Rows.from_dict({"img": pixels, "label": [k % 2 for k in range(6)]}, features)
        rows.to_parquet(str(folder / f"{split}.parquet"))
    data = HuggingFace(name=str(folder), input_columns=["img"]).load()
    assert data.classes == ("ship", "car")  # their order, not the alphabet's
    assert data.input_shape == (3, 4, 5)
    assert data.train.inputs[:, 1, 0, 0].tolist() == [0, 2, 4, 6, 8, 10]


def test_without_the_hub_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    text = refused(HuggingFace(name="uoft-cs/cifar10").settle)
    assert text.startswith("dataset.name=uoft-cs/cifar10: cannot be had (")
    assert f"and {tmp_path}/cache/fl-backdoor/hub/uoft-cs--cifar10-" in text
    monkeypatch.setattr(hub, "HUB_LIMIT", 0.1)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert "no answer within 0.1 seconds" in refused(HuggingFace(name="uoft-cs/cifar10").settle)
    with pytest.raises(UserError, match=r"dataset.input_columns=\[\]: allowed with dataset"):
        HuggingFace(name="x", input_columns=[])
    with pytest.raises(UserError, match=r"dataset.name=: allowed is a name on the hub"):
        HuggingFace(name="")
