"""Tests of `fl_backdoor.data.partition`: who holds what, and that only the seed decides it.

What every partition promises is in `test_contract_datasets`; here is what each one means.
"""

import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fl_backdoor.data.base import Data, Indices, Split
from fl_backdoor.data.partition import (
    Auto,
    Dirichlet,
    Exponential,
    Iid,
    Linear,
    Natural,
    Partition,
    Pathological,
    PerClass,
    Shards,
    Square,
    build_partition,
    class_counts,
    pool,
    unused,
)
from fl_backdoor.data.partition.base import topped_up
from fl_backdoor.errors import UserError

from .test_config import composed

LABELS = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], 400))
OWNERS = np.random.default_rng(1).integers(0, 9, len(LABELS))
NAMES = ("2", "5", "7")


def data_of(
    labels: NDArray[Any], owners: NDArray[np.int64] | None = None, names: tuple[str, ...] = NAMES
) -> Data:
    numbers = torch.from_numpy(np.asarray(labels, dtype=np.int64))
    split = Split(torch.zeros(len(numbers), 1), numbers)
    return Data("some", split, split, names, "some rows", owners)


DATA = data_of(LABELS, OWNERS)


def same(a: list[Indices], b: list[Indices]) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@given(
    classes=st.integers(1, 10),
    num_clients=st.integers(1, 12),
    samples_per_class=st.integers(1, 20),
    spare=st.integers(0, 5),
    seed=st.integers(0, 2**32),
)
def test_per_class_counts_are_exact_and_shares_disjoint(
    classes: int, num_clients: int, samples_per_class: int, spare: int, seed: int
) -> None:
    size = num_clients * samples_per_class + spare
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(classes), size))
    data = data_of(labels, names=tuple("0123456789"[:classes]))
    shares = PerClass(samples_per_class=samples_per_class).shares(data, num_clients, seed)
    assert (class_counts(labels, shares, classes) == samples_per_class).all()
    rest = unused(len(labels), shares)
    assert len(rest) == spare * classes
    np.testing.assert_array_equal(np.sort(np.concatenate([*shares, rest])), np.arange(len(labels)))
    assert sorted(pool(data, shares, 0, seed)) == [row for row in rest if labels[row] == 0]


@pytest.mark.parametrize("kind", [Iid, Dirichlet, Linear, Square])
@settings(max_examples=10)
@given(num_clients=st.integers(1, 12), seed=st.integers(0, 2**32))
def test_shares_cover_the_set_without_loss(
    kind: type[Partition], num_clients: int, seed: int
) -> None:
    shares = kind().shares(DATA, num_clients, seed)
    assert len(shares) == num_clients
    np.testing.assert_array_equal(np.sort(np.concatenate(shares)), np.arange(len(LABELS)))
    if kind is Iid:
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_iid_is_the_partitioner_of_flwr_datasets_on_shuffled_rows() -> None:
    from datasets import Dataset
    from flwr_datasets.partitioner import IidPartitioner

    partitioner = IidPartitioner(7)
    shuffled = np.random.default_rng(3).permutation(len(LABELS))
    partitioner.dataset = Dataset.from_dict({"index": shuffled})
    theirs = [np.sort(partitioner.load_partition(client)["index"]) for client in range(7)]
    assert same(Iid().shares(DATA, 7, 3), theirs)


def test_nothing_else_is_drawn_from() -> None:
    before = random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index] # noqa: NPY002
    for kind in (Iid, Dirichlet, Shards, Pathological, Linear, Natural):
        kind().shares(DATA, 4, 1)
    after = random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index] # noqa: NPY002
    assert before == after


def test_every_client_is_a_natural_user() -> None:
    shares = Natural().shares(DATA, 9, 0)
    assert sorted(OWNERS[share[0]] for share in shares) == list(range(9))
    for share in shares:
        np.testing.assert_array_equal(share, np.flatnonzero(OWNERS[share[0]] == OWNERS))
    capped = Natural(max_samples=5).shares(DATA, 9, 0)
    assert [len(share) for share in capped] == 9 * [5]
    assert all(set(few) <= set(share) for few, share in zip(capped, shares, strict=True))


def test_users_with_too_few_rows_are_not_drawn() -> None:
    owners = np.array([4, 4, 4, 9, 7, 7])
    data = data_of(np.array([0, 1, 2, 0, 1, 2]), owners)
    for seed in range(5):
        shares = Natural(min_samples=2).shares(data, 2, seed)
        assert {int(owners[share[0]]) for share in shares} == {4, 7}
    with pytest.raises(UserError, match=r"num_clients=3: allowed is 1 to 2, the users with part"):
        Natural(min_samples=2).shares(data, 3, 0)


def test_shares_of_growing_size() -> None:
    sizes = {
        kind: np.array(list(map(len, kind().shares(DATA, 8, 0))))
        for kind in (Linear, Square, Exponential)
    }
    for size in sizes.values():
        assert (np.diff(size) >= 0).all()
        assert size.sum() == len(LABELS)
    k = np.arange(1, 9)
    assert np.abs(sizes[Linear] - k / k.sum() * 1200).max() < 8
    assert np.abs(sizes[Square] - k**2 / (k**2).sum() * 1200).max() < 8
    assert sizes[Exponential][-1] > 0.6 * 1200
    assert sizes[Exponential][0] >= 1
    assert min(map(len, Exponential().shares(DATA, 60, 0))) == 1


def test_shards_and_pathological_clients_hold_few_classes() -> None:
    counts = class_counts(LABELS, Pathological(classes_per_client=2).shares(DATA, 6, 1), 3)
    assert ((counts > 0).sum(axis=1) == 2).all()
    assert (counts.sum(axis=0) == 400).all()
    shares = Shards(shards=2).shares(DATA, 30, 1)
    assert {len(share) for share in shares} == {40}
    assert (class_counts(LABELS, shares, 3) > 0).sum(axis=1).max() <= 3


def test_small_alpha_skews_more_than_large() -> None:
    def largest_class_share(alpha: float) -> float:
        counts = class_counts(LABELS, Dirichlet(alpha=alpha).shares(DATA, 5, 3), 3)
        return float((counts.max(axis=1) / counts.sum(axis=1)).mean())

    assert largest_class_share(0.3) > 0.6
    assert largest_class_share(1000.0) < 0.4


@pytest.mark.parametrize("alpha", [1e-300, 0.01, 1e300])
def test_whoever_a_skewed_draw_leaves_out_is_given_rows(alpha: float) -> None:
    shares = Dirichlet(alpha=alpha, min_samples=3).shares(DATA, 50, 0)
    assert min(map(len, shares)) >= 3
    np.testing.assert_array_equal(np.sort(np.concatenate(shares)), np.arange(len(LABELS)))


@given(
    sizes=st.lists(st.integers(0, 12), min_size=1, max_size=8),
    least=st.integers(1, 6),
    seed=st.integers(0, 99),
)
def test_topping_up_moves_as_few_rows_as_it_must(sizes: list[int], least: int, seed: int) -> None:
    before = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
    if sum(sizes) < least * len(sizes):
        with pytest.raises(UserError, match=rf"min_samples={least}: .* allowed is 1 to"):
            topped_up(before, least, np.random.default_rng(seed))
        return
    after = topped_up(before, least, np.random.default_rng(seed))
    assert min(map(len, after)) >= least
    assert sorted(np.concatenate(after)) == list(range(sum(sizes)))
    moved = sum(len({*new} - {*old}) for old, new in zip(before, after, strict=True))
    assert moved == sum(max(0, least - size) for size in sizes)
    assert same(after, topped_up(before, least, np.random.default_rng(seed)))


@pytest.mark.parametrize("kind", [Iid, Dirichlet])
def test_max_samples_keeps_a_random_part(kind: type[Partition]) -> None:
    whole = kind(min_samples=100).shares(DATA, 4, 1)
    capped = kind(min_samples=100, max_samples=100).shares(DATA, 4, 1)
    for all_of_it, share in zip(whole, capped, strict=True):
        assert len(share) == 100
        assert set(share) <= set(all_of_it)
        assert len(set(LABELS[share])) >= 2


@pytest.mark.parametrize(
    ("partition", "num_clients", "message"),
    [
        (Iid(), 0, "num_clients=0: allowed is 1 to 1200"),
        (Dirichlet(), 1201, "num_clients=1201: allowed is 1 to 1200"),
        (
            PerClass(samples_per_class=101),
            4,
            "partition.samples_per_class=101: class 2 has 400 .* 4 part.*, allowed is 1 to 100",
        ),
        (PerClass(), 401, "partition.samples_per_class=250: .* none: lower num_clients"),
        (
            PerClass(samples_per_class=3, min_samples=10),
            4,
            "partition.min_samples=10: client 0 has 9, and more would break .*=per_class promises",
        ),
        (Iid(min_samples=301), 4, "partition.min_samples=301: 4 clients share 1200 .* 1 to 300"),
        (Iid(min_samples=3, max_samples=2), 4, "partition.max_samples=2: allowed is partition.min"),
        (Shards(shards=400), 4, "partition.shards=400: 4 clients share 1200 .* 1 to 300"),
        (Pathological(classes_per_client=4), 4, "classes_per_client=4: allowed is 1 to 3, the cl"),
        (Pathological(), 700, "partition.classes_per_client=2: a class has fewer samples than"),
        (Exponential(), 701, "num_clients=701: allowed with partition=exponential is 1 to 700"),
        (Natural(), 10, "num_clients=10: allowed is 1 to 9"),
        (
            Natural(min_samples=1000),
            4,
            f"partition.min_samples=1000: allowed are 1 to {np.bincount(OWNERS).max()}, the most",
        ),
    ],
)
def test_what_does_not_fit_is_named_in_one_line(
    partition: Partition, num_clients: int, message: str
) -> None:
    with pytest.raises(UserError, match=message) as error:
        partition.shares(DATA, num_clients, 0)
    assert "\n" not in str(error.value)


def test_natural_needs_users() -> None:
    with pytest.raises(UserError, match=r"partition=natural: allowed where the data has natural"):
        Natural().shares(data_of(LABELS), 4, 0)


def test_the_scarcest_class_is_named() -> None:
    data = data_of(np.array([0] * 30 + [1] * 20), names=("1", "8"))
    with pytest.raises(UserError, match=r"class 8 has 20 samples for 3 participants, .* 1 to 6"):
        PerClass(samples_per_class=7).shares(data, 3, 0)


def built(*overrides: str) -> Partition:
    config = composed(*overrides)
    return build_partition(config.partition, config.dataset)


def test_older_keys_choose_as_they_did() -> None:
    assert built() == Auto(scheme="per_class")
    older = built(
        "dataset.partition=dirichlet", "dataset.alpha=2", "dataset.samples_per_partition=9"
    )
    assert isinstance(older, Auto)
    assert older.chosen() == Dirichlet(alpha=2, max_samples=9)
    assert built("partition=dirichlet", "dataset.alpha=2") == Dirichlet(alpha=2)
    assert built("partition=dirichlet", "partition.alpha=3") == Dirichlet(alpha=3)
    assert built("partition=per_class", "dataset.samples_per_class=7").samples_per_class == 7  # type: ignore[attr-defined]
    # Either says the same.
    assert isinstance(built("partition=iid", "dataset.partition=iid"), Iid)
    assert built("partition=iid", "dataset.samples_per_partition=4").max_samples == 4
    per_class = Auto(scheme="per_class", samples_per_class=5, max_samples=3)
    assert per_class.chosen() == PerClass(samples_per_class=5)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["partition=dirichlet", "partition.alpha=3", "dataset.alpha=2"],
            "dataset.alpha=2, partition.alpha=3: two values",
        ),
        (
            ["partition=iid", "dataset.partition=dirichlet"],
            "dataset.partition=dirichlet, partition=iid: both choose; allowed is one of them",
        ),
        (["dataset.partition=shards"], "dataset.partition=shards: allowed are per_class, iid, dir"),
        (["dataset.alpha=0"], "dataset.alpha=0.0: allowed is more than 0"),
        (["dataset.alpha=nan"], "dataset.alpha=nan: allowed is more than 0"),
        (["partition=dirichlet", "partition.alpha=0"], "partition.alpha=0.0: allowed is more than"),
        (["dataset.samples_per_partition=0"], "dataset.samples_per_partition=0: .*, or null"),
        (["dataset.samples_per_class=0"], "dataset.samples_per_class=0: allowed is 1 or more"),
        (["partition.min_samples=0"], "partition.min_samples=0: allowed is 1 or more"),
        (["+partition.wrong=1"], "partition.wrong: unknown key"),
    ],
)
def test_keys_at_fault_are_named_as_they_were_given(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        built(*overrides)
    assert str(error.value).isprintable()


def test_a_share_of_3400_users_is_the_obvious_one() -> None:
    owners = np.random.default_rng(0).permutation(np.arange(50_000) % 3_400)
    data = data_of(np.arange(50_000) % 3, owners)
    shares = Natural().shares(data, 3_400, 0)
    assert len({int(owners[share[0]]) for share in shares}) == 3_400
    for share in shares[::500]:
        np.testing.assert_array_equal(share, np.flatnonzero(owners == owners[share[0]]))


def test_shares_are_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    for partition in (Dirichlet(alpha=0.2), Shards(), Pathological(), Square()):
        partition.shares(DATA, 8, 0)
    assert capfd.readouterr() == ("", "")
