"""Tests of `fl_backdoor.data.vertical.nuswide` and of the stand-in for its data."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from fl_backdoor.config import build, conf_directory
from fl_backdoor.data.vertical import number_files, nuswide, synthetic_nuswide
from fl_backdoor.data.vertical.nuswide import NusWide
from fl_backdoor.errors import UserError

CLASSES = ["sky", "sea", "dog"]
SIZES = {"Train": 30, "Test": 20}


@pytest.fixture(autouse=True)
def _no_caches(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("FL_BACKDOOR_DATA", raising=False)
    yield
    for cached in (nuswide._chosen, nuswide._block):
        cached.cache_clear()


def tables(split: str) -> dict[str, Any]:
    rng = np.random.default_rng(len(split))
    size = SIZES[split]
    labels = (rng.random((size, 3)) < 0.4).astype(int)
    labels[:2] = [[0, 1, 0], [1, 0, 1]]
    images = {
        name: rng.normal(size=(size, width)).round(3) for name, width in nuswide.IMAGE_FILES.items()
    }
    tags = (rng.random((size, 1000)) < 0.1).astype(int)
    return {"labels": labels, "images": images, "tags": tags}


def text(table: Any, separator: str, end: str) -> str:
    return "".join(separator.join(map(str, row)) + end for row in np.asarray(table).tolist())


def official(root: Path, tag_end: str = "\t\n") -> Path:
    """Write the official layout, with its separators at the ends of lines."""
    for folder in ("Groundtruth/TrainTestLabels", "Low_Level_Features", "NUS_WID_Tags"):
        (root / folder).mkdir(parents=True)
    for split in SIZES:
        table = tables(split)
        for column, name in enumerate(CLASSES):
            path = root / "Groundtruth" / "TrainTestLabels" / f"Labels_{name}_{split}.txt"
            path.write_text(text(table["labels"][:, [column]], "", "\n"))
        for name, values in table["images"].items():
            path = root / "Low_Level_Features" / f"{split}_Normalized_{name}.dat"
            path.write_text(text(values, " ", " \n"))
        path = root / "NUS_WID_Tags" / f"{split}_Tags1k.dat"
        path.write_text(text(table["tags"], "\t", tag_end))
    return root


def files(root: Path, **keys: Any) -> NusWide:
    return NusWide(**{"root": str(root), "classes": CLASSES, **keys})


@pytest.mark.parametrize(("tag_end", "chunk"), [("\t\n", 4096), ("\n", 7), ("\r\n", 1)])
def test_official_files_round_trip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tag_end: str, chunk: int
) -> None:
    monkeypatch.setattr(number_files, "_CHUNK", chunk)
    data = files(official(tmp_path, tag_end))
    labels, images, tags = data.labels(), data.block(0), data.block(1)
    assert labels.train_rows == images.train_rows == tags.train_rows
    assert labels.test_rows == images.test_rows == tags.test_rows
    for split, codes, features, bits in (
        ("Train", labels.train, images.train, tags.train),
        ("Test", labels.test, images.test, tags.test),
    ):
        table = tables(split)
        rows = table["labels"].sum(axis=1) == 1
        assert 0 < rows.sum() < len(rows)
        assert features.dtype == bits.dtype == torch.float32
        np.testing.assert_array_equal(codes, table["labels"][rows].argmax(axis=1))
        side_by_side = np.hstack([table["images"][name] for name in sorted(table["images"])])
        np.testing.assert_allclose(features, side_by_side[rows], rtol=1e-6)
        np.testing.assert_array_equal(bits, table["tags"][rows])
    ids = np.flatnonzero(tables("Train")["labels"].sum(axis=1) == 1)
    assert labels.train_rows == nuswide.Rows.of(ids.tolist())
    assert labels.names == tuple(CLASSES)
    assert data.description == (
        f"NUS-WIDE, one of sky sea dog, {len(labels.train)} train + {len(labels.test)} test rows, "
        f"from {tmp_path}"
    )


@pytest.mark.parametrize("chunk", [4096, 3])
def test_capped_rows_are_the_first_and_stay_aligned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(number_files, "_CHUNK", chunk)
    data = files(official(tmp_path), train_rows=5, test_rows=3)
    labels, blocks = data.labels(), [data.block(party) for party in range(2)]
    every = files(tmp_path, train_rows=None, test_rows=None)
    assert len(every.labels().train) > 5
    assert len(every.labels().test) > 3
    assert torch.equal(labels.train, every.labels().train[:5])
    assert torch.equal(labels.test, every.labels().test[:3])
    for split, cap, rows in (("Train", 5, labels.train_rows), ("Test", 3, labels.test_rows)):
        ids = np.flatnonzero(tables(split)["labels"].sum(axis=1) == 1)[:cap]
        assert rows == nuswide.Rows.of(ids.tolist())
    for party, block in enumerate(blocks):
        assert (block.train_rows, block.test_rows) == (labels.train_rows, labels.test_rows)
        assert torch.equal(block.train, every.block(party).train[:5])
        assert torch.equal(block.test, every.block(party).test[:3])
    assert "5 train + 3 test rows" in data.description


def test_cap_above_the_rows_or_none_keeps_all(tmp_path: Path) -> None:
    official(tmp_path)
    count = int((tables("Train")["labels"].sum(axis=1) == 1).sum())
    for cap in (count, count + 1, 1_000_000, None):
        data = files(tmp_path, train_rows=cap, test_rows=cap)
        assert data.labels().train_rows.count == data.block(1).train_rows.count == count


def test_capped_image_features_are_standardized_on_the_rows_kept(tmp_path: Path) -> None:
    scaled = files(official(tmp_path), train_rows=5, standardize=True).block(0)
    torch.testing.assert_close(scaled.train.mean(0), torch.zeros(634), atol=1e-5, rtol=0)


def test_each_party_reads_its_own_features_only_and_once(tmp_path: Path) -> None:
    data = files(official(tmp_path))
    for path in (tmp_path / "NUS_WID_Tags").iterdir():
        path.unlink()
    images = data.block(0)
    for path in (tmp_path / "Low_Level_Features").iterdir():
        path.unlink()
    assert files(tmp_path).block(0) is images
    assert len(data.labels().train) == images.train_rows.count
    with pytest.raises(UserError, match=r"NUS_WID_Tags/Train_Tags1k\.dat: is missing"):
        data.block(1)


def test_image_features_are_standardized_on_training_rows(tmp_path: Path) -> None:
    data = files(official(tmp_path), standardize=True)
    plain, scaled = files(tmp_path).block(0), data.block(0)
    mean, deviation = plain.train.mean(0), plain.train.std(0, correction=0)
    torch.testing.assert_close(scaled.train, (plain.train - mean) / deviation)
    torch.testing.assert_close(scaled.test, (plain.test - mean) / deviation)
    assert set(data.block(1).train.unique().tolist()) == {0, 1}


def test_rows_poisoned_by_nature_have_the_last_tag(tmp_path: Path) -> None:
    data = files(official(tmp_path))
    table = tables("Train")
    rows = table["labels"].sum(axis=1) == 1
    expected = np.flatnonzero(table["tags"][rows, -1])
    assert len(expected)
    assert data.poisoned("train", 0).tolist() == expected.tolist()


TAGS = "NUS_WID_Tags/Train_Tags1k.dat"
EDGES = "Low_Level_Features/Test_Normalized_EDH.dat"
SEA = "Groundtruth/TrainTestLabels/Labels_sea_Train.txt"
ZEROS = "0\t" * 999


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (TAGS, None, "is missing"),
        (EDGES, None, "is missing"),
        (SEA, None, "is missing"),
        (TAGS, "", "cannot be read"),
        (TAGS, f"{ZEROS}0\n" * 29, "29 rows, allowed is 30"),
        (TAGS, f"{ZEROS}0\n" * 31, "31 rows, allowed is 30"),
        (TAGS, f"{ZEROS}\n" * 30, "999 columns, allowed is 1000"),
        (TAGS, f"{ZEROS}2\n" * 30, "row 0, column 999: allowed is 0 or 1"),
        (TAGS, f"{ZEROS}257\n" * 30, "row 0, column 999: allowed is 0 or 1"),
        (TAGS, f"{ZEROS}-1\n" * 30, "row 0, column 999: allowed is 0 or 1"),
        (TAGS, f"{ZEROS}0\n" + f"{ZEROS}\n" * 29, "row 1 of 999 columns: allowed .* of 1000"),
        (TAGS, f"{ZEROS}0\n" + f"{ZEROS}0 0\n" * 29, "cannot be read"),
        (EDGES, "0.1 " * 72 + "\n", "72 columns, allowed is 73"),
        (EDGES, "0.1 " * 73 + "\n", "1 rows, allowed is 20"),
        (EDGES, "0.1 " * 72 + "x\n", "row 0, column 72: allowed is a finite"),
        (EDGES, "0.1 " * 72 + "nan\n", "row 0, column 72: allowed is a finite"),
        (EDGES, "0.1 " * 72 + "1e60\n", "row 0, column 72: allowed is a finite"),
        (SEA, "0\n" * 29, "29 rows, allowed is 30, as for sky"),
        (SEA, "0\n" * 29 + "2\n", "row 29, column 0: allowed is 0 or 1"),
        (SEA, "0 1\n" * 30, "2 columns, allowed is 1"),
    ],
)
def test_bad_file_is_named(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    path = official(tmp_path) / name
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    for data in (files(tmp_path), files(tmp_path, train_rows=1, test_rows=1)):
        with pytest.raises(
            UserError, match=rf"dataset\.root={tmp_path}: {name}: .*{message}"
        ) as error:
            (data.block(0), data.block(1))
        assert "\n" not in str(error.value)


def test_labels_without_a_row_are_refused(tmp_path: Path) -> None:
    for name in CLASSES:
        path = official(tmp_path / name) / "Groundtruth" / "TrainTestLabels"
        for label in CLASSES:
            (path / f"Labels_{label}_Train.txt").write_text("0\n" * 30)
        with pytest.raises(UserError, match="no Train row has exactly one of sky sea dog"):
            files(tmp_path / name).labels()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"source": "web"}, r"dataset\.source=web: allowed is auto, files, synthetic"),
        ({"source": "files"}, r"dataset\.source=files: needs dataset\.root"),
        ({"source": "synthetic", "root": "/r"}, r"dataset\.root=/r: allowed is null"),
        ({"classes": ["sky"]}, r"dataset\.classes=\['sky'\]: allowed are two"),
        ({"classes": ["sky", "sky"]}, r"dataset\.classes=.*: allowed are two"),
        ({"classes": ["sky", "sea"]}, r"dataset\.classes=.*: allowed with the synthetic"),
        ({"train_rows": 4}, r"dataset\.train_rows=4: allowed with .* stand-in are 5 to 60000"),
        ({"test_rows": 40_001}, r"dataset\.test_rows=40001: allowed with .* are 5 to 40000"),
        ({"root": "/r", "test_rows": 0}, r"dataset\.test_rows=0: allowed is 1 or more, or null"),
        ({"root": "/r", "train_rows": -1}, r"dataset\.train_rows=-1: allowed is 1 or more"),
        ({"trigger": [1000]}, r"dataset\.trigger=\[1000\]: 1000 is no feature of party 1"),
        ({"trigger": ["last"]}, r"dataset\.trigger=.*: last is no feature"),
        ({"trigger": [-635], "trigger_party": 0}, r"dataset\.trigger=.* -634 to 633"),
    ],
)
def test_bad_keys_are_named(keys: dict[str, Any], message: str) -> None:
    def use() -> tuple[Any, ...]:
        data = NusWide(**keys)
        return data.settle(), data.trigger_columns()

    with pytest.raises(UserError, match=message):
        use()


def test_source_is_settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert NusWide().settle() == {"source": "synthetic", "root": None}
    assert NusWide(root="/r").settle() == {"source": "files", "root": "/r"}
    monkeypatch.setenv("FL_BACKDOOR_DATA", str(tmp_path))
    assert NusWide().settle()["source"] == "synthetic"
    official(tmp_path / "nuswide")
    expected = {"source": "files", "root": str(tmp_path / "nuswide")}
    assert NusWide().settle() == NusWide(**expected).settle() == expected
    assert NusWide(source="synthetic").settle() == {"source": "synthetic", "root": None}


def test_config_group_has_the_defaults() -> None:
    node = OmegaConf.load(conf_directory() / "dataset" / "nuswide.yaml")
    assert build("dataset", OmegaConf.to_container(node)) == NusWide()


@pytest.mark.parametrize("split", ["train", "test"])
def test_stand_in_has_the_counts_of_table_1(split: str) -> None:
    rows = synthetic_nuswide.ROWS[split]
    classes = synthetic_nuswide.labels(split, rows)
    counts = np.bincount(classes).tolist()
    assert (
        counts
        == {
            "train": [6173, 5981, 12679, 12202, 22965],
            "test": [4213, 4082, 8296, 8172, 15237],
        }[split]
    )
    assert rows == {"train": 60_000, "test": 40_000}[split]
    assert np.bincount(classes[:1000], minlength=5).min() > 50


@settings(max_examples=20)
@given(train=st.integers(5, 400), test=st.integers(5, 400))
def test_small_stand_in_keeps_every_class_and_the_trigger(train: int, test: int) -> None:
    data = NusWide(source="synthetic", train_rows=train, test_rows=test)
    labels, block = data.labels(), data.block(1)
    assert (len(labels.train), len(labels.test)) == (train, test)
    assert labels.train.unique().tolist() == labels.test.unique().tolist() == [0, 1, 2, 3, 4]
    poisoned = data.poisoned("train", 0)
    assert labels.train[poisoned].unique().tolist() == [0, 1, 2, 3, 4]
    assert labels.test[data.poisoned("test", 0)].unique().tolist() == [1, 2, 3, 4]
    assert (block.train.shape, block.test.shape) == ((train, 1000), (test, 1000))
    assert block.train_rows == labels.train_rows


def test_stand_in_of_null_rows_has_its_full_size() -> None:
    labels = NusWide(source="synthetic", train_rows=None, test_rows=None).labels()
    assert (len(labels.train), len(labels.test)) == (60_000, 40_000)


def test_stand_in_is_the_same_whatever_was_drawn_before() -> None:
    data = NusWide(source="synthetic", train_rows=3000, test_rows=50)
    images, tags = data.block(0), data.block(1)
    again = nuswide._synthetic_block.__wrapped__
    for party, block in ((1, tags), (0, images)):
        assert torch.equal(again(party, False, 3000, 50).train, block.train)
        assert torch.equal(again(party, False, 3000, 50).test, block.test)
    assert images.train.dtype == tags.train.dtype == torch.float32
    assert images.train.shape == (3000, 634)
    assert not torch.equal(images.train[:50], images.test)
    assert set(tags.train.unique().tolist()) == {0, 1}
    assert 2 < tags.train.sum(1).mean() < 10
    assert NusWide(source="synthetic").settle()["root"] is None
    assert data.description.startswith("synthetic NUS-WIDE stand-in, 3,000 train + 50 test rows")


def test_stand_in_of_full_size_has_the_last_tags_of_table_1() -> None:
    tags = synthetic_nuswide.tags("test", 40_000)
    classes = synthetic_nuswide.labels("test", 40_000)
    assert np.bincount(classes[tags[:, -1] == 1], minlength=5).tolist() == [0, 8, 81, 4, 9]
