"""Tests of MNIST in bands: who gets which pixels, and where the trigger is."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from fl_backdoor.config import build, conf_directory
from fl_backdoor.data import mnist
from fl_backdoor.data.base import Data, Split
from fl_backdoor.data.vertical import mnist_rows
from fl_backdoor.data.vertical.mnist_rows import MnistRows
from fl_backdoor.errors import UserError


def digits(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (count, 1, 28, 28), generator=generator, dtype=torch.uint8)
    return images, torch.arange(count) % 10


def data_of(train: int, test: int, description: str) -> Data:
    splits = Split(*digits(train, 0)), Split(*digits(test, 1))
    return Data("MNIST", *splits, tuple("0123456789"), description)


IMAGES = data_of(40, 20, "forty digits")


@pytest.fixture(autouse=True, scope="module")
def _no_mnist() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mnist_rows, "load_mnist", lambda *_: IMAGES)
        mnist_rows._images.cache_clear()
        mnist_rows._block.cache_clear()
        yield
    mnist_rows._images.cache_clear()
    mnist_rows._block.cache_clear()


def cut(lasts: set[int]) -> list[list[int]]:
    """Blocks that end at these rows and at the image's last."""
    ends = sorted({*lasts, 27})
    return [[first, last] for first, last in zip([0, *(e + 1 for e in ends)], ends, strict=False)]


@given(st.sets(st.integers(0, 26), max_size=27))
def test_blocks_put_side_by_side_are_the_images(lasts: set[int]) -> None:
    data = MnistRows(blocks=cut(lasts), trigger_party=0)
    assert data.num_parties == len(lasts) + 1
    blocks = [data.block(party) for party in range(data.num_parties)]
    train = torch.cat([block.train for block in blocks], dim=1)
    test = torch.cat([block.test for block in blocks], dim=1)
    assert train.dtype == torch.float32
    assert torch.equal(train, IMAGES.train.inputs.flatten(1) / 255)
    assert torch.equal(test, IMAGES.test.inputs.flatten(1) / 255)
    labels = data.labels()
    assert {block.train_rows for block in blocks} == {labels.train_rows}
    assert {block.test_rows for block in blocks} == {labels.test_rows}


@given(
    lasts=st.sets(st.integers(0, 26), max_size=5),
    pixels=st.lists(
        st.tuples(st.integers(0, 27), st.integers(0, 27)), min_size=1, max_size=4, unique=True
    ),
    data=st.data(),
)
def test_trigger_is_where_it_is_in_the_image(
    lasts: set[int], pixels: list[tuple[int, int]], data: st.DataObject
) -> None:
    blocks = cut(lasts)
    party = data.draw(st.integers(0, len(blocks) - 1))
    first, last = blocks[party]
    rows = MnistRows(
        blocks=blocks, trigger_party=party, trigger=[list(p) for p in pixels], trigger_value=9
    )
    outside = [row for row, _ in pixels if not first <= row <= last]
    if outside:
        with pytest.raises(UserError, match=r"dataset\.trigger=.*is no pixel of party"):
            rows.trigger_columns()
        return
    stamped = rows.stamp(rows.block(party).train).unflatten(1, (-1, 28))
    assert {(r + first, c) for r, c in (stamped[0] == 9).nonzero().tolist()} == set(pixels)


def test_defaults_are_the_papers() -> None:
    data = MnistRows()
    assert data.trigger_columns() == [11 * 28 + 27, 13 * 28 + 25, 12 * 28 + 26, 13 * 28 + 27]
    assert (data.trigger_party, data.poisoned_train, data.poisoned_test) == (1, 600, 100)
    assert data.labels().names == tuple("0123456789")
    assert data.description == "forty digits; pixel rows 0-13, 14-27"


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([[0, 13], [13, 27]], "row 13 is in two blocks"),
        ([[0, 13], [15, 27]], "row 14 is in no block"),
        ([[1, 13], [14, 27]], "row 0 is in no block"),
        ([[0, 13], [14, 26]], "row 27 is in no block"),
        ([[0, 13], [14, 28]], "row 28 is not there"),
        ([[14, 27], [0, 13]], "row 0 is in no block"),
        ([[0, 13], [27, 14]], r"\[27, 14\] is not"),
        ([[0, 13], [14]], r"\[14\] is not"),
        ([], "row 0 is in no block"),
    ],
)
def test_bad_blocks_are_named(blocks: list[list[int]], message: str) -> None:
    with pytest.raises(UserError, match=rf"dataset\.blocks=.*: {message}.*; allowed are") as error:
        MnistRows(blocks=blocks)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("pixel", [[13, 0], [28, 0], [14, 28], [14, -1], [14], 14, ["14", 0]])
def test_bad_trigger_is_named(pixel: Any) -> None:
    with pytest.raises(UserError, match=r"dataset\.trigger=.*allowed are .* rows 14 to 27"):
        MnistRows(trigger=[pixel]).trigger_columns()


def test_a_row_of_mnist_is_none_of_its_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = []
    for name in ("MNIST", "MNIST stand-in"):
        mnist_rows._images.cache_clear()
        monkeypatch.setattr(mnist_rows, "load_mnist", lambda *_, n=name: replace(IMAGES, name=n))
        rows.append(MnistRows(source="idx", root=name).labels())
    for split in ("train_rows", "test_rows"):
        mnist, other = (getattr(labels, split) for labels in rows)
        assert mnist.count == other.count
        assert mnist.digest != other.digest


def test_config_group_has_the_defaults() -> None:
    node = OmegaConf.load(conf_directory() / "dataset" / "mnist_rows.yaml")
    assert build("dataset", OmegaConf.to_container(node)) == MnistRows()


def test_source_is_settled_as_for_mnist(tmp_path: Path) -> None:
    assert MnistRows(source="bundled").settle() == {"source": "bundled", "root": None}
    assert MnistRows(root=str(tmp_path)).settle() == {"source": "idx", "root": str(tmp_path)}
    with pytest.raises(UserError, match=r"dataset\.source=web"):
        MnistRows(source="web").settle()


def test_bundled_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mnist_rows, "load_mnist", mnist.load_mnist)
    mnist_rows._images.cache_clear()
    data = MnistRows(source="bundled")
    block = data.block(1)
    assert block.train.shape == (60_000, 392)
    assert (block.train.min(), block.train.max()) == (0, 1)
    assert data.block(1) is block
    assert len(data.poisoned("train", 0)) == 600
    assert len(data.poisoned("test", 0)) == 100
    assert "pixel rows 0-13, 14-27" in data.description
    mnist._load.cache_clear()
