"""One contract for every yaml of ``conf/dataset``: a new one is under it with what it needs.

A source that needs files says here how the smallest are made; all others run as they are.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import get_class

from fl_backdoor.config import build, conf_directory
from fl_backdoor.data.base import Source
from fl_backdoor.data.vertical.base import VerticalData
from fl_backdoor.errors import UserError

from . import test_vertical_experiment as vertical
from .test_config import with_hydra

SMALL: dict[str, Callable[[Path], list[str]]] = {
    "mnist": lambda _: ["dataset.source=bundled"],
    "mnist_rows": lambda _: ["protocol=vertical", "dataset.source=bundled"],
    "nuswide": lambda _: vertical.TINY[:5],
    "csv_parties": lambda folder: vertical.write_parties(folder),
}
NAMES = sorted(path.stem for path in (conf_directory() / "dataset").glob("*.yaml"))


@pytest.fixture(params=NAMES)
def node(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    name = str(request.param)
    overrides = SMALL.get(name, lambda _: [])(tmp_path)
    config = with_hydra(*overrides, f"dataset={name}")
    return dict(config["dataset"])


def new(node: dict[str, Any]) -> Any:
    kind = Source if issubclass(get_class(node["_target_"]), Source) else VerticalData
    return build("dataset", node, kind)


def splits(data: Any) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return inputs and labels of both splits, all parties' columns side by side."""
    if isinstance(data, Source):
        loaded = data.load()
        return {"train": loaded.train[:200], "test": loaded.test[:200]}
    blocks, labels = [data.block(k) for k in range(data.num_parties)], data.labels()
    return {
        "train": (torch.cat([block.train for block in blocks], dim=1), labels.train),
        "test": (torch.cat([block.test for block in blocks], dim=1), labels.test),
    }


def classes(data: Any) -> tuple[str, ...]:
    return data.classes if isinstance(data, Source) else data.labels().names


def test_inputs_are_finite_and_labels_are_classes(node: dict[str, Any]) -> None:
    data = new(node)
    names = classes(data)
    assert len(set(names)) == len(names) >= 2
    for inputs, labels in splits(data).values():
        assert len(inputs) == len(labels) > 0
        assert inputs.dtype == torch.float32
        assert inputs.isfinite().all()
        assert labels.dtype == torch.int64
        assert 0 <= int(labels.min()) <= int(labels.max()) < len(names)


def test_another_process_finds_the_same(node: dict[str, Any]) -> None:
    first, second = new(node), new(node | new(node).settle())
    for split, (inputs, labels) in splits(first).items():
        assert torch.equal(inputs, splits(second)[split][0])
        assert torch.equal(labels, splits(second)[split][1])


def test_what_it_says_of_itself_is_one_line(node: dict[str, Any]) -> None:
    data = new(node)
    text = data.load().description if isinstance(data, Source) else data.describe()
    assert text.isprintable()
    assert text


def test_clients_share_no_row_and_a_seed_decides_who_has_which(node: dict[str, Any]) -> None:
    data = new(node)
    if not isinstance(data, Source):
        return
    shares, again, other = data.shares(6, 3), data.shares(6, 3), data.shares(6, 4)
    held = np.concatenate(shares)
    assert len(shares) == 6
    assert len(np.unique(held)) == len(held)
    assert all(map(np.array_equal, shares, again))
    assert not all(map(np.array_equal, shares, other))
    assert len(data.load().digest) == 64


def test_parties_have_the_rows_of_the_labels_and_a_trigger(node: dict[str, Any]) -> None:
    data = new(node)
    if isinstance(data, Source):
        return
    labels = data.labels()
    for party in range(data.num_parties):
        block = data.block(party)
        assert (block.train_rows, block.test_rows) == (labels.train_rows, labels.test_rows)
    block = data.block(data.trigger_party)
    before = block.test[:5].clone()
    stamped = data.stamp(block.test[:5])
    assert torch.equal(block.test[:5], before)
    columns = data.trigger_columns()
    assert (stamped[:, columns] == data.trigger_value).all()
    others = [k for k in range(before.shape[1]) if k not in columns]
    assert torch.equal(stamped[:, others], before[:, others])


def test_unknown_keys_are_named_in_one_line(node: dict[str, Any]) -> None:
    with pytest.raises(UserError) as caught:
        new(node | {"nosuch": 1})
    assert "nosuch" in str(caught.value)
    assert str(caught.value).isprintable()
