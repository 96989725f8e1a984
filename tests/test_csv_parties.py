"""Tests of CSV files of parties: alignment, splits, and what is wrong with files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from fl_backdoor.config import build, conf_directory
from fl_backdoor.data.vertical.csv_parties import CsvParties
from fl_backdoor.errors import UserError

IDS = [f"r{i}" for i in range(40)]


def write(path: Path, header: str, rows: list[list[Any]]) -> str:
    lines = [header, *(",".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def guest(path: Path, ids: list[str] = IDS) -> str:
    """Write ids, labels no/yes and two features that tell the id."""
    rows = [[i, ["no", "yes"][int(i[1:]) % 2], int(i[1:]), -int(i[1:])] for i in ids]
    return write(path, "id,y,a,b", rows)


def host(path: Path, ids: list[str] = IDS) -> str:
    return write(path, "c,id", [[int(i[1:]) / 2, i] for i in ids])


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    return [guest(tmp_path / "guest.csv"), host(tmp_path / "host.csv", IDS[::-1])]


def test_parties_agree_on_rows_in_any_order_of_their_files(files: list[str]) -> None:
    data = CsvParties(files=files, standardize=False)
    a, b, labels = data.block(0), data.block(1), data.labels()
    assert a.train_rows == b.train_rows == labels.train_rows
    assert a.test_rows == b.test_rows == labels.test_rows
    assert a.train_rows.count + a.test_rows.count == 40
    assert (a.train.shape[1], b.train.shape[1]) == (2, 1)
    assert a.train.dtype == torch.float32
    assert torch.equal(a.train[:, 0], 2 * b.train[:, 0])
    assert labels.names == ("no", "yes")
    for features, codes in ((a.train, labels.train), (a.test, labels.test)):
        assert torch.equal(features[:, 0].long() % 2, codes)
        texts = [f"r{int(number)}" for number in features[:, 0]]
        assert texts == sorted(texts)


def test_a_missing_row_shows_in_the_rows(tmp_path: Path, files: list[str]) -> None:
    files[1] = host(tmp_path / "host.csv", IDS[1:])
    data = CsvParties(files=files)
    a, b = data.block(0), data.block(1)
    assert (a.train_rows, a.test_rows) != (b.train_rows, b.test_rows)


@settings(max_examples=20)
@given(st.sets(st.integers(0, 10_000), min_size=30, max_size=60), st.randoms())
def test_a_rows_split_depends_on_its_id_alone(
    tmp_path_factory: pytest.TempPathFactory, numbers: set[int], random: Any
) -> None:
    folder = tmp_path_factory.mktemp("csv")
    ids = [f"r{number}" for number in numbers]
    random.shuffle(ids)
    keys: dict[str, Any] = {"trigger_party": 0, "standardize": False, "test_fraction": 0.5}
    whole = CsvParties(files=[guest(folder / "all.csv", ids)], **keys).block(0)
    some = CsvParties(files=[guest(folder / "some.csv", ids[:20])], **keys).block(0)
    assert set(some.train[:, 0].tolist()) <= set(whole.train[:, 0].tolist())
    assert set(some.test[:, 0].tolist()) <= set(whole.test[:, 0].tolist())


def test_each_reads_its_own_file_only(tmp_path: Path, files: list[str]) -> None:
    gone = str(tmp_path / "gone.csv")
    assert CsvParties(files=[gone, files[1]]).block(1).train.shape[1] == 1
    assert CsvParties(files=[files[0], gone]).block(0).train.shape[1] == 2
    assert CsvParties(files=[gone, gone], labels_file=files[0]).labels().names == ("no", "yes")


def test_features_are_standardized_on_training_rows(tmp_path: Path) -> None:
    rows = [[i, i % 2, 1e9 + i, 0.1] for i in range(100)]
    file = write(tmp_path / "a.csv", "id,y,big,constant", rows)
    block = CsvParties(files=[file], trigger_party=0).block(0)
    assert block.train[:, 0].mean().item() == pytest.approx(0, abs=1e-6)
    assert block.train[:, 0].std(correction=0).item() == pytest.approx(1)
    assert not block.train[:, 1].any()
    assert not block.test[:, 1].any()


def test_test_rows_from_files_of_their_own(tmp_path: Path, files: list[str]) -> None:
    tests = [
        guest(tmp_path / "gt.csv", ["r3", "r1"]),
        host(tmp_path / "ht.csv", ["r1", "r3"]),
    ]
    data = CsvParties(files=files, test_files=tests, standardize=False)
    labels, block = data.labels(), data.block(0)
    assert (len(labels.train), labels.test.tolist()) == (40, [1, 1])
    assert block.test.tolist() == [[1, -1], [3, -3]]
    assert data.block(1).test_rows == block.test_rows == labels.test_rows
    assert data.description.endswith("test rows gt.csv, ht.csv")
    apart = CsvParties(
        files=files, test_files=tests, labels_file=files[0], test_labels_file=tests[0]
    )
    assert apart.labels().test_rows == labels.test_rows
    write(tmp_path / "gt.csv", "id,y,a", [["r1", "yes", 1]])
    gone = CsvParties(files=files, test_files=tests, test_fraction=0.3, standardize=False)
    with pytest.raises(UserError, match=r"dataset\.files=.*gt\.csv: column b is missing"):
        CsvParties(files=files, test_files=tests).block(0)
    write(tmp_path / "gt.csv", "id,y,a,b,z", [["r1", "perhaps", 1, 1, 1]])
    with pytest.raises(UserError, match=r"gt\.csv: column z is not in .*guest\.csv"):
        gone.block(0)
    with pytest.raises(UserError, match=r"gt\.csv: column y, row 0: a label of no training row"):
        gone.labels()


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (["10", "9"], ("9", "10")),
        (["b", "10", "9"], ("10", "9", "b")),
        (["inf", "2"], ("2", "inf")),
    ],
)
def test_classes_are_numbers_or_texts_in_order(
    tmp_path: Path, values: list[str], names: tuple[str, ...]
) -> None:
    rows = [[i, values[i % len(values)], 0] for i in range(60)]
    data = CsvParties(files=[write(tmp_path / "a.csv", "id,y,x", rows)], trigger_party=0)
    assert data.labels().names == names


def test_label_column_is_no_feature_anywhere(tmp_path: Path) -> None:
    rows = [[i, i % 3, i] for i in range(50)]
    files = [write(tmp_path / name, "id,y,x", rows) for name in ("a.csv", "b.csv")]
    data = CsvParties(files=files, labels_file=files[0])
    assert [data.block(party).train.shape[1] for party in (0, 1)] == [1, 1]
    assert data.labels().names == ("0", "1", "2")


def test_trigger_by_name_and_by_place(files: list[str]) -> None:
    data = CsvParties(files=files, trigger_party=0, trigger=["b", 0, -1])
    assert data.trigger_columns() == [1, 0, 1]
    for wrong in ("y", "id", "z", 2, -3, 0.5, True):
        with pytest.raises(UserError, match=r"dataset\.trigger=.* is no feature of party 0"):
            CsvParties(files=files, trigger_party=0, trigger=[wrong]).trigger_columns()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,y,a\n1,0,x\n", "column a, row 0: allowed is a finite number"),
        ("id,y,a\n1,0,1\n2,0,\n", "column a, row 1: allowed"),
        ("id,y,a\n1,0,nan\n", "column a, row 0: allowed"),
        ("id,y,a\n1,0,1e300\n", "column a, row 0: allowed"),
        ("id,y,a,b\n1,0,1\n", "column b, row 0: allowed"),
        ("id,y,a\n,0,1\n", "column id, row 0: allowed is not empty"),
        (
            "id,y,a\n1,0,1\n2,1,2\n1,1,2\n",
            "column id: the same id in rows 0 and 2, allowed is once",
        ),
        ("key,y,a\n1,0,1\n", "column id is missing"),
        ("id,y,a,a\n1,0,1,1\n", "two columns are named 'a'"),
        (",id,y,a\n0,1,0,1\n", "column 0 has no name"),
        ("id,y,a\n1,0,1,5\n", "row 0: 4 cells, allowed are 3"),
        ("id,y,a\n1,0,1\n1,0,1,5\n", "row 1: 4 cells, allowed are 3"),
        ("id,y\n1,0\n", "no feature"),
        ("id,y,a\n", "no rows"),
        ("", "column id is missing"),
        ("id,y,a\n1,0,\udcff\n", "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_bad_file_is_named(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "party.csv"
    if content is not None:
        path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match="party") as error:
        CsvParties(files=[str(path)], trigger_party=0).block(0)
    assert str(error.value).startswith(f"dataset.files={path}: {message}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        ("id,z,a", [[1, 0, 1]], r"column y is in 0 files"),
        ("id,y,a", [[i, "", 1] for i in range(9)], r"column y, row 0: allowed is not empty"),
        (
            "id,y,a",
            [[i, "same", 1] for i in range(60)],
            r"column y is the same in all training rows",
        ),
        ("id,y,a", [[1, 0, 1]], r"dataset\.test_fraction=0\.2: all 1 rows"),
    ],
)
def test_bad_labels_are_named(
    tmp_path: Path, header: str, rows: list[list[Any]], message: str
) -> None:
    file = write(tmp_path / "party.csv", header, rows)
    with pytest.raises(UserError, match=message):
        CsvParties(files=[file], trigger_party=0).labels()


def test_labels_in_two_files_are_ambiguous(files: list[str]) -> None:
    with pytest.raises(UserError, match=r"dataset\.files=.*column y is in 2 files"):
        CsvParties(files=[files[0], files[0]]).labels()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"files": []}, r"dataset\.files=\[\]: allowed are one or more"),
        ({"test_files": ["a"]}, r"dataset\.test_files=.*: 1 files; allowed are 2"),
        ({"test_labels_file": "a"}, r"dataset\.test_labels_file=a: allowed"),
        ({"test_files": ["a", "b"], "labels_file": "c"}, r"dataset\.test_labels_file=None"),
        ({"id_column": "y"}, r"dataset\.label_column=y: allowed"),
        ({"test_fraction": 1.0}, r"dataset\.test_fraction=1\.0: allowed"),
        ({"trigger_party": 2}, r"dataset\.trigger_party=2: allowed"),
    ],
)
def test_bad_keys_are_named(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        CsvParties(**{"files": ["a", "b"], **keys})


def test_config_group_has_the_defaults() -> None:
    node = OmegaConf.load(conf_directory() / "dataset" / "csv_parties.yaml")
    built = build("dataset", {**OmegaConf.to_container(node), "files": ["a", "b"]})
    assert built == CsvParties(files=["a", "b"])


def test_a_byte_order_mark_and_ids_like_numbers_are_text(tmp_path: Path) -> None:
    rows = "".join(f"{i:03},{i % 2},{i}\n" for i in range(50))
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbf" + f"id,y,x\nNA,1,99\n{rows}".encode())
    block = CsvParties(files=[str(path)], trigger_party=0, standardize=False).block(0)
    together = np.concatenate([block.train[:, 0], block.test[:, 0]])
    assert sorted(together.tolist()) == [*range(50), 99]
