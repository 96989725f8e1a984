"""Tests of `clients.MinMax` and `MinSum`: the paper's search as a twin, and a tight constraint."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from clients import MinMax, MinSum
from clients.attacks.min_max import PERTURBATIONS, Pushed, perturbation

from .test_alie import ROWS, view

Vector = NDArray[np.float64]
KINDS = [MinMax, MinSum]


def stays(kind: type[Pushed], crafted: Vector, known: Vector) -> float:
    """Return by how much the constraint is missed, squared; pair by pair."""
    off = [float(((crafted - row) ** 2).sum()) for row in known]
    apart = [[float(((a - b) ** 2).sum()) for b in known] for a in known]
    if kind is MinMax:
        return max(off) - max(map(max, apart))
    return sum(off) - max(map(sum, apart))


def searched(allowed: Callable[[float], bool], start: float = 10.0, stop: float = 1e-9) -> float:
    """Search as the paper does: by steps that halve, up while it is allowed, else down."""
    gamma, step, found = start, start, 0.0
    while abs(found - gamma) > stop:
        if allowed(gamma):
            found = gamma
            gamma += step / 2
        else:
            gamma -= step / 2
        step /= 2
    return found


def rows(seed: int, n: int = 5, d: int = 12) -> Vector:
    return np.random.default_rng(seed).normal(0.3, 1.0, (n, d))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", PERTURBATIONS)
@pytest.mark.parametrize("seed", range(3))
def test_gamma_is_what_the_papers_search_finds(kind: type[Pushed], how: str, seed: int) -> None:
    known = rows(seed)
    push, mean = perturbation(known, how), known.mean(axis=0)
    gamma = kind(perturbation=how).gamma(known, push)
    found = searched(lambda gamma: stays(kind, mean + gamma * push, known) <= 0)
    assert gamma == pytest.approx(found, abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@given(updates=ROWS, how=st.sampled_from(PERTURBATIONS))
def test_a_step_further_breaks_the_constraint(
    kind: type[Pushed], updates: list[list[float]], how: str
) -> None:
    known = np.array(updates)
    seen = view(known)
    crafted = kind(perturbation=how).collude(seen)
    if "cannot-act" in seen.notes:
        assert np.array_equal(crafted, known)
        assert (known == known[0]).all() or not perturbation(known, how).any()
        return
    moved = seen.notes["gamma"] * perturbation(known, how)
    np.testing.assert_array_equal(crafted[0], known.mean(axis=0) + moved)
    scale = max(1.0, float((known**2).sum()))
    assert (crafted == crafted[0]).all()
    assert stays(kind, crafted[0], known) <= 1e-9 * scale
    push = perturbation(known, how)
    if np.linalg.norm(push) > 1e-3:
        assert stays(kind, crafted[0] + 0.01 * scale * push, known) > 0


def test_pushes_are_against_spread_mean_or_signs() -> None:
    known = np.array([[1.0, -2.0, 0.0], [3.0, -2.0, 0.0]])
    assert perturbation(known, "std").tolist() == [-1, 0, 0]
    assert perturbation(known, "sign").tolist() == [-1, 1, 0]
    np.testing.assert_allclose(perturbation(known, "unit"), [-(0.5**0.5), 0.5**0.5, 0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", PERTURBATIONS)
def test_where_all_are_alike_or_nothing_there_is_no_room(kind: type[Pushed], how: str) -> None:
    attack = kind(perturbation=how)
    for known in (np.ones((3, 4)), np.zeros((3, 4))):
        seen = view(known)
        np.testing.assert_array_equal(attack.collude(seen), known)
        assert seen.notes == {"gamma": 0, "cannot-act": 3}


@pytest.mark.parametrize("kind", KINDS)
def test_values_out_of_range(kind: type[Pushed]) -> None:
    with pytest.raises(ValueError, match="perturbation=mean: allowed are std, unit, sign"):
        kind(perturbation="mean")
    with pytest.raises(ValueError, match="knowledge=own: allowed are attackers, all"):
        kind(knowledge="own")
    with pytest.raises(ValueError, match="num_attackers=1: allowed is 2 or more"):
        kind().check(10, 1)
