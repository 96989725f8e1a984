"""Tests of `clients.ALIE`: the paper's z, its push coordinate by coordinate, when it can act."""

import math
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import norm

from clients import ALIE, Colluders, View
from clients.attacks.alie import z_max
from fl_backdoor.federation.engines import LocalGrid

from .test_collusion import NODES, WHO, client, messages, sent, update_of

ROWS = st.integers(2, 8).flatmap(
    lambda n: st.lists(
        st.lists(st.floats(-10, 10, width=32), min_size=3, max_size=3), min_size=n, max_size=n
    )
)


def view(
    own: Sequence[Any] | NDArray[Any],
    honest: NDArray[Any] | None = None,
    *,
    asked: int = 10,
    round: int = 1,
    memory: dict[str, NDArray[Any]] | None = None,
) -> View:
    own = np.asarray(own, dtype=np.float64)
    return View(
        round=round,
        center=np.zeros(own.shape[1]),
        own=own,
        honest=honest,
        asked=asked,
        columns={"w": slice(0, own.shape[1])},
        seed=0,
        memory={} if memory is None else memory,
    )


def test_z_is_that_of_a_table_of_the_normal_distribution() -> None:
    """Algorithm 3's z_max, with scipy's quantiles and exact floors."""
    for n in range(3, 60):
        for m in range(1, n // 2 + 1):
            s = math.floor(n / 2 + 1) - m
            assert z_max(n, m) == pytest.approx(norm.ppf((n - m - s) / (n - m)), abs=1e-9)
    assert z_max(10, 3) == pytest.approx(0.180, abs=5e-4)
    assert z_max(51, 24) == pytest.approx(1.446, abs=5e-4)


@pytest.mark.parametrize(("n", "m"), [(10, 6), (3, 2), (2, 1)])
def test_there_is_no_z_for_a_majority(n: int, m: int) -> None:
    with pytest.raises(ValueError, match="0"):
        z_max(n, m)


@given(rows=ROWS, z=st.one_of(st.none(), st.floats(0.01, 5)), asked=st.integers(16, 30))
def test_each_coordinate_is_its_mean_less_z_standard_deviations(
    rows: list[list[float]], z: float | None, asked: int
) -> None:
    seen = view(rows, asked=asked)
    (first, *others) = ALIE(z=z).collude(seen)
    used = z_max(asked, len(rows)) if z is None else z
    assert seen.notes["z"] == used
    for j, value in enumerate(first):
        column = [row[j] for row in rows]
        mu = sum(column) / len(column)
        sigma = math.sqrt(sum((x - mu) ** 2 for x in column) / len(column))
        assert value == pytest.approx(mu - used * sigma, abs=1e-6)
    assert len(others) == len(rows) - 1
    assert all((other == first).all() for other in others)


@given(rows=ROWS, factor=st.floats(0.1, 10), shift=st.floats(-5, 5))
def test_scaled_and_moved_updates_scale_and_move_the_push(
    rows: list[list[float]], factor: float, shift: float
) -> None:
    attack = ALIE(z=1.0)
    before = attack.collude(view(rows))
    after = attack.collude(view(factor * np.array(rows) + shift))
    np.testing.assert_allclose(after, factor * before + shift, atol=1e-6)


def test_what_honest_clients_send_counts_only_if_it_is_known() -> None:
    own, honest = np.eye(2, 3), np.full((3, 3), 7.0)
    alone, all_ = ALIE(z=1.0), ALIE(z=1.0, knowledge="all")
    assert (alone.knowledge, all_.knowledge) == ("attackers", "all")
    known = np.concatenate([own, honest])
    expected = known.mean(axis=0) - known.std(axis=0)
    np.testing.assert_allclose(all_.collude(view(own, honest)), np.tile(expected, (2, 1)))
    assert alone.collude(view(own)).max() < 1


def test_as_byzfl_has_it(byzfl: Any) -> None:
    """Whose tau is of either sign, and whose spread is that of a corrected sample."""
    module: ModuleType = byzfl("attacks.attacks")
    rows = np.random.default_rng(0).normal(size=(6, 20))
    theirs = module.ALittleIsEnough(tau=-1.5)(rows)
    spread = math.sqrt(6 / 5) if np.allclose(theirs, push(rows, 1.5 * math.sqrt(6 / 5))) else 1.0
    np.testing.assert_allclose(theirs, push(rows, 1.5 * spread), rtol=1e-6)


def push(rows: NDArray[np.float64], z: float) -> NDArray[np.float64]:
    return ALIE(z=z).collude(view(rows))[0]


def test_the_attackers_of_a_federation_send_it() -> None:
    grid = Colluders(LocalGrid(client, NODES), ALIE(), WHO)
    replies = {r.metadata.src_node_id: r for r in grid.send_and_receive(messages())}
    rows = np.array([update_of(node).ravel() for node in sorted(WHO)])
    expected = 2 + rows.mean(axis=0) - z_max(NODES, 3) * rows.std(axis=0)
    for node in WHO:
        np.testing.assert_allclose(sent(replies[node])["weight"].ravel(), expected, rtol=1e-6)


def test_in_a_round_in_which_it_cannot_act_it_says_so_and_sends_what_it_trained(
    caplog: pytest.LogCaptureFixture,
) -> None:
    grid = Colluders(LocalGrid(client, NODES), ALIE(), {2})
    replies = list(grid.send_and_receive(messages()))
    honest = list(LocalGrid(client, NODES).send_and_receive(messages()))
    assert [reply.content for reply in replies] == [reply.content for reply in honest]
    assert grid.notes == {"cannot-act": 1}
    (warning,) = [r.getMessage() for r in caplog.records if "cannot act" in r.getMessage()]
    assert warning.startswith("ALIE cannot act in round 1: num_attackers=1: allowed is 2 or more")


@pytest.mark.parametrize(
    ("attack", "clients", "attackers", "allowed"),
    [
        (ALIE(), 10, 1, "num_attackers=1: allowed is 2 or more"),
        (ALIE(), 10, 2, "num_attackers=2: allowed are 3 to 5 of 10"),
        (ALIE(), 10, 6, "num_attackers=6: allowed are 3 to 5 of 10"),
        (ALIE(), 9, 5, "num_attackers=5: allowed are 2 to 4 of 9"),
        (ALIE(z=1.0), 10, 1, "num_attackers=1: allowed is 2 or more"),
    ],
)
def test_it_says_when_it_cannot_act(
    attack: ALIE, clients: int, attackers: int, allowed: str
) -> None:
    with pytest.raises(ValueError, match=allowed):
        attack.check(clients, attackers)


def test_every_number_that_it_allows_has_a_z_above_0() -> None:
    for n in range(5, 40):
        for m in range(2, n):
            try:
                ALIE().check(n, m)
            except ValueError:
                assert m > n // 2 or z_max(n, m) <= 0
            else:
                assert z_max(n, m) > 0
    ALIE(z=1.0).check(10, 9)
    ALIE(z=1.0, knowledge="all").check(10, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"z": 0.0}, "z=0.0: allowed is a finite number > 0, or null"),
        ({"z": math.nan}, "z=nan: allowed"),
        ({"knowledge": "own"}, "knowledge=own: allowed are attackers, all"),
    ],
)
def test_values_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ALIE(**options)


def test_where_no_number_of_attackers_has_a_z_it_says_none() -> None:
    with pytest.raises(ValueError, match="num_attackers=2: allowed are none of 4 clients, for"):
        ALIE().check(4, 2)
