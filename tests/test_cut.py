"""Tests of `fl_backdoor.data.vertical.cut`: blocks put side by side are the data."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_backdoor.data.vertical.cut import Cut
from fl_backdoor.errors import UserError

from .test_config import loaded

SYNTHETIC = "fl_backdoor.data.synthetic.Synthetic"


def source(*shape: int, **settings: Any) -> dict[str, Any]:
    rows = {"num_classes": 2, "train_rows": 20, "test_rows": 6}
    return {"_target_": SYNTHETIC, "shape": list(shape), **rows, **settings}


def whole(data: Cut) -> torch.Tensor:
    return data._data().train[:][0]


@settings(max_examples=20, deadline=None)
@given(
    shape=st.lists(st.integers(1, 5), min_size=3, max_size=3),
    by=st.sampled_from(["channels", "rows", "columns"]),
    parties=st.integers(1, 3),
)
def test_blocks_side_by_side_are_the_images(shape: list[int], by: str, parties: int) -> None:
    axis = ["channels", "rows", "columns"].index(by)
    if parties > shape[axis]:
        return
    data = Cut(source=source(*shape), by=by, parties=parties, trigger_party=0)
    sizes = [last - first + 1 for first, last in data._spans()]
    assert max(sizes) - min(sizes) <= 1
    blocks = []
    for party, size in enumerate(sizes):
        own = [20, *shape]
        own[axis + 1] = size
        blocks.append(data.block(party).train.reshape(own))
    assert torch.equal(torch.cat(blocks, dim=axis + 1), whole(data))


def test_a_table_is_cut_by_columns() -> None:
    data = Cut(source=source(7), blocks=[[0, 1], [2, 6]], trigger=[-1, 0])
    assert torch.equal(data.block(0).train, whole(data)[:, :2])
    assert torch.equal(data.block(1).train, whole(data)[:, 2:])
    assert data.trigger_columns() == [4, 0]
    assert data.description.endswith("; columns 0-1, 2-6")
    labels = data.labels()
    assert data.block(0).train_rows == data.block(1).train_rows == labels.train_rows


@pytest.mark.parametrize(
    ("by", "pixel"), [("rows", [3, 1]), ("columns", [1, 3]), ("channels", [2, 1, 1])]
)
def test_a_trigger_is_given_by_pixels_of_the_whole_image(by: str, pixel: list[int]) -> None:
    data = Cut(source=source(3, 4, 4, signal=0.0), by=by, trigger=[pixel], trigger_value=7.0)
    block = data.block(1)
    stamped = data.stamp(block.train)
    images = whole(data).clone()
    images[:, *(pixel if len(pixel) == 3 else [slice(None), *pixel])] = 7.0
    axis = ["channels", "rows", "columns"].index(by) + 1
    first, last = data._spans()[1]
    assert torch.equal(stamped, images.narrow(axis, first, last - first + 1).flatten(1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"by": "rows"}, "dataset.by=rows: allowed for a table is columns"),
        ({"by": "sides"}, "dataset.by=sides: allowed are channels, rows, columns"),
        ({"parties": 8}, "dataset.parties=8: allowed is 1 to 7 columns"),
        ({"blocks": [[0, 1], [3, 6]]}, "dataset.blocks=.*: column 2 is in no block; allowed are"),
        ({"trigger": [4]}, r"dataset.trigger=\[4\]: 4 is no feature of party 1; .* -3 to 2"),
        ({"trigger": [[0, 1]]}, r"\[0, 1\] is no feature of party 1"),
        ({"trigger_party": 2}, "dataset.trigger_party=2: allowed are 0 to 1"),
        ({"source": {"_target_": SYNTHETIC, "shape": [7], "wrong": 1}}, "dataset.source.wrong: un"),
        ({"source": source(7, train_rows=0)}, "^dataset.source.train_rows=0: allowed is"),
        (
            {"source": {"_target_": "fl_backdoor.data.npz.Npz", "file": "dataset.npz"}},
            r"^dataset.source.file=dataset.npz: cannot be read \(No such file",
        ),
        ({"source": source(7, vocabulary=9)}, "dataset.source: texts; allowed are tables and im"),
    ],
)
def test_bad_keys_are_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        Cut(**{"source": source(7), **settings}).trigger_columns()
    assert str(caught.value).isprintable()


def test_the_source_is_chosen_by_its_group() -> None:
    config = loaded("protocol=vertical", "dataset=cut", "dataset@dataset.source=breast_cancer")
    assert config.dataset["source"]["_target_"].endswith("BreastCancer")
    small = loaded(
        "protocol=vertical",
        "dataset=cut",
        "dataset@dataset.source=mnist",
        "dataset.source.digits=[3,5]",
    )
    assert small.dataset["source"]["classes"] == [3, 5]
