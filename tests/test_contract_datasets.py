"""One contract for every yaml of ``conf/dataset`` and of ``conf/partition``.

A source that needs files says here how the smallest are made; all others run as they are.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hydra.utils import get_class
from omegaconf import OmegaConf
from torch.utils.data import TensorDataset

from fl_backdoor.config import build
from fl_backdoor.data.base import Source
from fl_backdoor.data.partition import Auto, Partition, build_partition, unused
from fl_backdoor.data.synthetic import Synthetic
from fl_backdoor.data.vertical.base import VerticalData
from fl_backdoor.errors import UserError

from . import test_vertical_experiment as vertical
from .test_config import names, with_hydra


def two_blobs(rows: int = 60) -> tuple[TensorDataset, TensorDataset]:
    """Return two torch data sets, which `python` may be told to call."""
    drawn = torch.Generator().manual_seed(0)
    labels = torch.arange(rows) % 2
    inputs = torch.randn(rows, 3, generator=drawn) + labels[:, None]
    whole = TensorDataset(inputs, labels)
    return whole, TensorDataset(*whole[: rows // 2])


def write_npz(folder: Path) -> list[str]:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3 * 5
    np.savez(folder / "small.npz", x=rng.integers(0, 255, (60, 5, 5, 3), np.uint8), y=labels)
    return [f"dataset.file={folder / 'small.npz'}"]


def write_csv(folder: Path) -> list[str]:
    rng = np.random.default_rng(0)
    rows = [f"{a:.3f},{'rgb'[k % 3]},{['no', 'yes'][k % 2]}" for k, a in enumerate(rng.random(60))]
    (folder / "small.csv").write_text("\n".join(["size,color,label", *rows, ""]))
    return [f"dataset.file={folder / 'small.csv'}"]


def write_parquet(folder: Path) -> list[str]:
    rows = {
        "text": [f"word{k % 7} in row {k}" for k in range(60)],
        "label": [k % 3 for k in range(60)],
    }
    for split in ("train", "test"):
        pd.DataFrame(rows).to_parquet(folder / f"{split}.parquet")
    settings = ["kind=text", "input_columns=[text]", "length=4", "vocabulary=12"]
    return [f"dataset.{setting}" for setting in (f"name={folder}", *settings)]


SMALL: dict[str, Callable[[Path], list[str]]] = {
    "npz": write_npz,
    "csv": write_csv,
    "huggingface": write_parquet,
    "python": lambda _: [f"dataset.function={__name__}.two_blobs"],
    "synthetic": lambda _: ["dataset.train_rows=200", "dataset.test_rows=50"],
    "mnist": lambda _: ["dataset.source=bundled"],
    "mnist_rows": lambda _: ["protocol=vertical", "dataset.source=bundled"],
    "nuswide": lambda _: vertical.TINY[:5],
    "cut": lambda _: ["protocol=vertical"],
    "csv_parties": lambda folder: vertical.write_parties(folder),
}
SHARED = Synthetic(shape=[2], num_classes=3, train_rows=600, test_rows=3, owners=40).load()
NAMES = names("dataset")


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def container(node: Any) -> dict[str, Any]:
    values = OmegaConf.to_container(node, resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


@pytest.fixture(scope="module", params=NAMES)
def node(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    name = str(request.param)
    overrides = SMALL.get(name, lambda _: [])(tmp_path_factory.mktemp(name))
    return container(with_hydra(*overrides, f"dataset={name}").dataset)


def new(node: dict[str, Any]) -> Any:
    kind = Source if issubclass(get_class(node["_target_"]), Source) else VerticalData
    return build("dataset", node, kind)


@pytest.fixture(scope="module", params=names("partition"))
def partition(request: pytest.FixtureRequest) -> Partition:
    name = str(request.param)
    settings = ["partition.samples_per_class=4"] if name in ("auto", "per_class") else []
    config = with_hydra(f"partition={name}", "dataset=synthetic", *settings)
    return build_partition(container(config.partition), {})


def kind_of(partition: Partition) -> type[Partition]:
    return type(partition.chosen() if isinstance(partition, Auto) else partition)


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
    return data.class_names if isinstance(data, Source) else data.labels().names


def test_inputs_are_finite_and_labels_are_classes(node: dict[str, Any]) -> None:
    data = new(node)
    names = classes(data)
    assert len(set(names)) == len(names) >= 2
    for inputs, labels in splits(data).values():
        assert len(inputs) == len(labels) > 0
        text = isinstance(data, Source) and data.load().kind == "text"
        assert inputs.dtype == (torch.int64 if text else torch.float32)
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
    assert data.description.isprintable()
    assert data.description
    assert data.digest == new(node).digest
    assert len(data.digest) == 64


def test_a_source_says_what_a_model_gets(node: dict[str, Any]) -> None:
    source = new(node)
    if not isinstance(source, Source):
        return
    data = source.load()
    assert data is new(node).load()  # once a process
    inputs, _ = data.train[np.array([0, 1])]
    assert data.input_shape == inputs.shape[1:]
    assert data.kind == {1: "table", 3: "image"}[inputs.dim() - 1] or data.vocabulary
    if data.kind == "image":
        assert 0 <= float(inputs.min()) <= float(inputs.max()) <= 1
    assert source.class_names == data.classes


def test_classes_are_chosen_and_ordered_by_name(node: dict[str, Any]) -> None:
    source = new(node)
    if not isinstance(source, Source):
        return
    data, two = source.load(), [*reversed(source.class_names)][:2]
    some = new(node | {"classes": two})
    assert some.class_names == some.load().classes == tuple(two)
    rows = np.flatnonzero(np.isin(data.labels, two))
    few = rows[:50]
    assert torch.equal(some.load().train[: len(few)][0], data.train[few][0])
    assert some.load().labels.tolist() == data.labels[rows].tolist()
    for wrong in ([two[0]], [two[0], two[0]], [two[0], "nosuch"]):
        with pytest.raises(UserError, match=r"dataset\.classes=.*allowed are two or more diff"):
            new(node | {"classes": wrong}).load()


def test_test_rows_are_all_or_as_many_of_each_class(node: dict[str, Any]) -> None:
    source = new(node)
    if not isinstance(source, Source):
        return
    labels = source.load().test.labels
    every = new(node | {"test_samples_per_class": None}).draw_test(0)
    assert every.tolist() == list(range(len(labels)))
    few = new(node | {"test_samples_per_class": 2})
    drawn = few.draw_test(3)
    assert (labels[drawn].bincount() == 2).all()
    assert drawn.tolist() == few.draw_test(3).tolist()


def test_clients_share_no_row_and_a_seed_decides_who_has_which(partition: Partition) -> None:
    shares, again, other = (partition.shares(SHARED, 6, seed) for seed in (3, 3, 4))
    held = np.concatenate(shares)
    assert len(shares) == 6
    assert len(np.unique(held)) == len(held)
    assert 0 <= held.min() <= held.max() < len(SHARED.train)
    assert all((np.diff(share) > 0).all() for share in shares)
    assert all(map(np.array_equal, shares, again))
    assert not all(map(np.array_equal, shares, other))
    rest = unused(len(SHARED.train), shares)
    np.testing.assert_array_equal(np.union1d(held, rest), np.arange(len(SHARED.train)))


@pytest.mark.parametrize("least", [2, 12])
def test_no_client_has_fewer_rows_than_promised(partition: Partition, least: int) -> None:
    strict = replace(partition, min_samples=least)
    if (
        min(map(len, partition.draw(SHARED, 12, 0))) < least
        and kind_of(partition).repair is Partition.repair
    ):
        with pytest.raises(UserError, match=rf"min_samples={least}: client"):
            strict.shares(SHARED, 12, 0)
    else:
        assert min(map(len, strict.shares(SHARED, 12, 0))) >= least


def test_more_clients_than_rows_are_one_line(partition: Partition) -> None:
    for clients in (0, len(SHARED.train) + 1):
        with pytest.raises(
            UserError, match=rf"num_clients={clients}: allowed is 1 to 600"
        ) as caught:
            partition.shares(SHARED, clients, 0)
        assert str(caught.value).isprintable()
    with pytest.raises(UserError) as caught:
        replace(partition, min_samples=2).shares(SHARED, 500, 0)
    assert str(caught.value).isprintable()


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
