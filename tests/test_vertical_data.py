"""Tests of `fl_backdoor.data.vertical.base` and the scaling that its subclasses share."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fl_backdoor.data.standardize import standardize
from fl_backdoor.data.vertical.base import Block, Labels, Rows, VerticalData
from fl_backdoor.errors import UserError

ROWS = Rows.of(range(10)), Rows.of(range(6))


@dataclass(kw_only=True)
class TwoParties(VerticalData):
    """Ten training and six test rows of four features; rows 2 and 5 have the trigger."""

    trigger: list[Any] = field(default_factory=lambda: [1, 3])

    @property
    def num_parties(self) -> int:
        return 2

    def block(self, party: int) -> Block:
        train, test = torch.zeros(10, 4), torch.zeros(6, 4)
        train[[2, 5], 1] = train[[2, 5, 7], 3] = 1
        return Block(train, test, *ROWS)

    def labels(self) -> Labels:
        return Labels(torch.zeros(10).long(), torch.zeros(6).long(), ("a", "b"), *ROWS)

    @property
    def description(self) -> str:
        return "two parties"

    def trigger_columns(self) -> list[int]:
        return self.trigger


@given(st.lists(st.text("ab1"), max_size=6), st.lists(st.text("ab1"), max_size=6))
def test_rows_are_equal_only_for_the_same_ids_in_the_same_order(
    one: list[str], other: list[str]
) -> None:
    assert (Rows.of(one) == Rows.of(other)) == (one == other)
    assert Rows.of(iter(one)).count == len(one)


def test_rows_are_compared_as_text() -> None:
    assert Rows.of(range(3)) == Rows.of(["0", "1", "2"]) != Rows.of(["0", "2", "1"])


def test_stamp_sets_the_trigger_in_a_copy() -> None:
    features = torch.rand(5, 4)
    before = features.clone()
    stamped = TwoParties(trigger_value=0.5).stamp(features)
    assert torch.equal(features, before)
    assert (stamped[:, [1, 3]] == 0.5).all()
    assert torch.equal(stamped[:, [0, 2]], before[:, [0, 2]])


def test_rows_poisoned_by_nature_have_the_whole_trigger() -> None:
    assert TwoParties().poisoned("train", 0).tolist() == [2, 5]
    assert TwoParties(trigger=[3]).poisoned("train", 1).tolist() == [2, 5, 7]
    with pytest.raises(UserError, match=r"dataset\.poisoned_test=null: no test row"):
        TwoParties().poisoned("test", 0)


@given(count=st.integers(0, 10), seed=st.integers(0, 2**32))
def test_drawn_rows_are_seeded_distinct_and_ascending(count: int, seed: int) -> None:
    rows = TwoParties(poisoned_train=count).poisoned("train", seed)
    assert len(rows) == count
    assert sorted(set(rows.tolist())) == rows.tolist()
    assert set(rows.tolist()) <= set(range(10))
    assert rows.tolist() == TwoParties(poisoned_train=count).poisoned("train", seed).tolist()


def test_draws_depend_on_the_seed() -> None:
    data = TwoParties(poisoned_train=5)
    assert len({tuple(data.poisoned("train", seed)) for seed in range(10)}) > 1


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"trigger_party": 2}, r"dataset\.trigger_party=2: allowed are 0 to 1"),
        ({"trigger_party": -1}, r"dataset\.trigger_party=-1: allowed"),
        ({"trigger_value": float("nan")}, r"dataset\.trigger_value=nan: allowed"),
        ({"poisoned_test": -1}, r"dataset\.poisoned_test=-1: allowed"),
        ({"poisoned_train": 11}, r"dataset\.poisoned_train=11: allowed are 0 to 10"),
        ({"trigger": []}, r"dataset\.trigger=\[\]: allowed"),
    ],
)
def test_bad_keys_are_named(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        TwoParties(**keys).poisoned("train", 0)
    assert "\n" not in str(error.value)


@given(
    st.integers(2, 8).flatmap(
        lambda rows: st.lists(
            st.lists(st.integers(-1000, 1000), min_size=rows, max_size=rows), min_size=1, max_size=4
        )
    )
)
def test_standardize_fits_on_the_training_rows(columns: list[list[int]]) -> None:
    original = np.array([*columns, [7] * len(columns[0])], np.float64).T
    train, test = original.copy(), original.copy() + 1
    standardize(train, test)
    for column in range(original.shape[1]):
        if len(set(original[:, column])) == 1:
            assert not train[:, column].any()
            assert not test[:, column].any()
        else:
            assert train[:, column].mean() == pytest.approx(0, abs=1e-9)
            assert train[:, column].std() == pytest.approx(1)
            shift = 1 / original[:, column].std()
            np.testing.assert_allclose(test[:, column] - train[:, column], shift)
