"""Tests of `clients.Mimic`: whom it copies, and that it keeps to the choice."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from clients import Mimic

from .test_alie import view


def updates(seed: int, farthest: int) -> NDArray[np.float64]:
    """Draw clients that lie along a line, one farther out than the others, in noise."""
    rng = np.random.default_rng(seed)
    along = np.linspace(-1, 1, 7)
    along[farthest] = 4.0
    return np.outer(along, np.eye(30)[3]) + 5 + rng.normal(0, 0.1, (7, 30))


def test_it_copies_the_client_farthest_along_the_direction_of_most_variance() -> None:
    for seed, farthest in enumerate(range(7)):
        rows = updates(seed, farthest)
        crafted = Mimic().collude(view(rows[:2], rows[2:]))
        assert (crafted == rows[farthest]).all()
        assert crafted.shape == (2, 30)


def test_the_direction_is_that_of_a_singular_vector() -> None:
    for seed in range(20):
        rows = np.random.default_rng(seed).normal(size=(6, 9))
        z = np.linalg.svd(rows - rows.mean(axis=0))[2][0]
        expected = np.abs((rows - rows.mean(axis=0)) @ z).argmax()
        assert (Mimic().collude(view(rows[:2], rows[2:]))[0] == rows[expected]).all()


def test_what_was_seen_before_outweighs_a_round_that_differs() -> None:
    memory: dict[str, NDArray[np.float64]] = {}
    for number in range(1, 6):
        rows = updates(number, farthest=2)
        Mimic().collude(view(rows[:3], rows[3:], round=number, memory=memory))
    rows = updates(9, farthest=5)
    crafted = Mimic().collude(view(rows[:3], rows[3:], round=6, memory=memory))
    assert (crafted == rows[2]).all()
    assert memory["products"].shape == (7, 7)
    fewer = Mimic().collude(view(rows[:3], rows[3:6], round=7, memory=memory))
    assert (fewer == rows[5]).all()
    assert memory["products"].shape == (6, 6)


def test_equal_clients_leave_nothing_to_copy() -> None:
    seen = view(np.ones((2, 30)), np.ones((5, 30)))
    assert Mimic().collude(seen) is seen.own
    assert seen.notes == {"cannot-act": 2}


def test_without_the_others_they_copy_one_of_themselves() -> None:
    rows = updates(0, farthest=1)
    crafted = Mimic(knowledge="attackers").collude(view(rows[:3]))
    assert (crafted == rows[1]).all()
    assert Mimic().knowledge == "all"


def test_rounds_of_other_clients_are_no_history() -> None:
    memory: dict[str, NDArray[np.float64]] = {}
    for number in range(1, 4):
        rows = updates(number, farthest=2)
        seen = view(rows[:3], rows[3:], round=number, memory=memory)
        Mimic().collude(replace(seen, clients=tuple(range(7))))
    rows = updates(9, farthest=5)
    seen = view(rows[:3], rows[3:], round=4, memory=memory)
    crafted = Mimic().collude(replace(seen, clients=tuple(range(7, 14))))
    assert (crafted == rows[5]).all()
