"""Tests of `fl_backdoor.data.partition`: who holds what, and that only the seed decides it."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fl_backdoor.data.partition import SCHEMES, partition, unused
from fl_backdoor.errors import UserError

Indices = NDArray[np.int64]

LABELS = np.random.default_rng(0).permutation(np.repeat([2, 5, 7], 400))
OWNERS = np.random.default_rng(1).integers(0, 9, len(LABELS))


def same(a: list[Indices], b: list[Indices]) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@given(
    classes=st.sets(st.integers(0, 9), min_size=1),
    num_partitions=st.integers(1, 12),
    samples_per_class=st.integers(1, 20),
    spare=st.integers(0, 5),
    seed=st.integers(0, 2**32),
)
def test_per_class_counts_are_exact_and_shares_disjoint(
    classes: set[int], num_partitions: int, samples_per_class: int, spare: int, seed: int
) -> None:
    size = num_partitions * samples_per_class + spare
    labels = np.random.default_rng(seed).permutation(np.repeat(sorted(classes), size))
    parts = partition(
        labels, "per_class", num_partitions, samples_per_class=samples_per_class, seed=seed
    )
    assert len(parts) == num_partitions
    for part in parts:
        found, counts = np.unique(labels[part], return_counts=True)
        assert set(found) == classes
        assert set(counts) == {samples_per_class}
    rest = unused(len(labels), parts)
    assert len(rest) == spare * len(classes)
    np.testing.assert_array_equal(np.sort(np.concatenate([*parts, rest])), np.arange(len(labels)))


@pytest.mark.parametrize("scheme", ["iid", "dirichlet"])
@settings(max_examples=15)
@given(num_partitions=st.integers(1, 12), seed=st.integers(0, 2**32))
def test_shares_cover_the_set_without_loss(scheme: str, num_partitions: int, seed: int) -> None:
    parts = partition(LABELS, scheme, num_partitions, alpha=5, seed=seed)
    assert len(parts) == num_partitions
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(len(LABELS)))
    assert len(unused(len(LABELS), parts)) == 0
    if scheme == "iid":
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("scheme", SCHEMES)
def test_only_the_seed_decides(scheme: str) -> None:
    before = random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index] # noqa: NPY002

    def shares(seed: int) -> list[Indices]:
        return partition(LABELS, scheme, 4, samples_per_class=50, owners=OWNERS, seed=seed)

    first = shares(1)
    after = random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index] # noqa: NPY002
    assert before == after
    random.seed(5)
    assert same(first, shares(1))
    assert not same(first, shares(2))
    assert all(part.dtype == np.int64 and (np.diff(part) > 0).all() for part in first)


@pytest.mark.parametrize("scheme", ["per_class", "dirichlet"])
def test_classes_may_be_numbers_or_names(scheme: str) -> None:
    numbers, names = (
        partition(labels, scheme, 4, samples_per_class=50, seed=3)
        for labels in (LABELS, LABELS.astype(str))
    )
    assert same(numbers, names)


def test_every_participant_is_a_natural_user() -> None:
    parts = partition(LABELS, "owners", 9, owners=OWNERS, seed=0)
    assert sorted(OWNERS[part[0]] for part in parts) == list(range(9))
    for part in parts:
        np.testing.assert_array_equal(part, np.flatnonzero(OWNERS[part[0]] == OWNERS))
    capped = partition(LABELS, "owners", 9, owners=OWNERS, samples_per_partition=5, seed=0)
    assert [len(part) for part in capped] == 9 * [5]
    assert all(set(few) <= set(part) for few, part in zip(capped, parts, strict=True))
    with pytest.raises(UserError, match="num_clients=10: allowed is 1 to 9"):
        partition(LABELS, "owners", 10, owners=OWNERS, seed=0)
    with pytest.raises(UserError, match=r"dataset\.partition=owners: allowed where"):
        partition(LABELS, "owners", 4, seed=0)


def test_iid_shares_are_mixed() -> None:
    for part in partition(LABELS, "iid", 4, seed=0):
        assert np.bincount(LABELS[part])[[2, 5, 7]].min() > 70


def test_small_alpha_skews_more_than_large() -> None:
    def largest_class_share(alpha: float) -> float:
        parts = partition(LABELS, "dirichlet", 5, alpha=alpha, seed=3)
        return float(np.mean([np.bincount(LABELS[p]).max() / len(p) for p in parts]))

    assert largest_class_share(0.3) > 0.6
    assert largest_class_share(1000.0) < 0.4


@pytest.mark.parametrize("scheme", ["iid", "dirichlet"])
def test_samples_per_partition_keeps_a_random_part(scheme: str) -> None:
    whole = partition(LABELS, scheme, 4, alpha=10.0, seed=1)
    capped = partition(LABELS, scheme, 4, alpha=10.0, samples_per_partition=100, seed=1)
    for all_of_it, part in zip(whole, capped, strict=True):
        assert len(part) == 100
        assert set(part) <= set(all_of_it)
        assert len(set(LABELS[part])) == 3


@pytest.mark.parametrize(
    ("scheme", "num_partitions", "options", "message"),
    [
        ("shards", 4, {}, "dataset.partition=shards: allowed is per_class, iid, dirichlet"),
        ("iid", 0, {}, "num_clients=0: allowed is 1 to 1200"),
        ("dirichlet", 1201, {}, "num_clients=1201: allowed is 1 to 1200"),
        (
            "per_class",
            4,
            {"samples_per_class": 101},
            "dataset.samples_per_class=101: class 2 has 400 .* 4 participants, allowed is 1 to 100",
        ),
        ("per_class", 4, {"samples_per_class": 0}, "dataset.samples_per_class=0: .* 1 to 100"),
        ("per_class", 401, {}, "dataset.samples_per_class=250: .* none: lower num_clients"),
        ("iid", 4, {"samples_per_partition": 0}, "dataset.samples_per_partition=0: allowed"),
        ("dirichlet", 4, {"alpha": 0.0}, "dataset.alpha=0.0: allowed is a finite number > 0"),
        ("dirichlet", 4, {"alpha": float("nan")}, "dataset.alpha=nan: allowed"),
        ("dirichlet", 4, {"alpha": float("inf")}, "dataset.alpha=inf: allowed"),
        ("dirichlet", 50, {"alpha": 0.01}, "dataset.alpha=0.01: leaves some of the 50 part"),
    ],
)
def test_bad_arguments_are_named_in_one_line(
    scheme: str, num_partitions: int, options: dict[str, float], message: str
) -> None:
    with pytest.raises(UserError, match=message) as error:
        partition(LABELS, scheme, num_partitions, seed=0, **options)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def test_the_scarcest_class_is_named() -> None:
    labels = np.array([1] * 30 + [8] * 20)
    with pytest.raises(UserError, match=r"class 8 has 20 samples for 3 participants, .* 1 to 6"):
        partition(labels, "per_class", 3, samples_per_class=7, seed=0)


def test_unused_without_partitions_is_everything() -> None:
    assert unused(3, []).tolist() == [0, 1, 2]


def test_shares_are_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    for scheme in ("iid", "dirichlet"):
        partition(LABELS, scheme, 8, alpha=0.2, seed=0)
    assert capfd.readouterr() == ("", "")
