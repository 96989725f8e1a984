"""Tests of `clients.IPM`: what it sends, and from where on an average turns around."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients import IPM

from .test_alie import ROWS, view


@given(rows=ROWS, epsilon=st.floats(0.1, 10))
def test_it_sends_a_negative_multiple_of_the_mean(rows: list[list[float]], epsilon: float) -> None:
    seen = view(rows)
    crafted = IPM(epsilon=epsilon).collude(seen)
    assert seen.notes["epsilon"] == epsilon
    expected = [-epsilon * sum(column) / len(rows) for column in zip(*rows, strict=True)]
    if "cannot-act" in seen.notes:
        assert not any(expected)
        assert np.array_equal(crafted, rows)
        return
    np.testing.assert_allclose(crafted, np.tile(expected, (len(rows), 1)), atol=1e-9)


@pytest.mark.parametrize(("epsilon", "sign"), [(2.3, 1), (2.4, -1)])
def test_an_average_turns_around_from_honest_over_attackers_on(epsilon: float, sign: int) -> None:
    """7 of 10 are honest: 7 / 3."""
    honest = np.random.default_rng(0).normal(1, 0.1, (7, 50))
    own = np.tile(honest.mean(axis=0), (3, 1))
    crafted = IPM(epsilon=epsilon, knowledge="all").collude(view(own, honest))
    aggregate = np.concatenate([honest, crafted]).mean(axis=0)
    assert np.sign(aggregate @ honest.mean(axis=0)) == sign


def test_as_byzfl_has_it(byzfl: Any) -> None:
    rows = np.random.default_rng(0).normal(size=(6, 20))
    theirs = byzfl("attacks.attacks").InnerProductManipulation(tau=2.0)(rows)
    np.testing.assert_allclose(IPM(epsilon=2.0).collude(view(rows))[0], theirs)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, float("nan"), float("inf")])
def test_values_out_of_range(epsilon: float) -> None:
    with pytest.raises(ValueError, match=f"epsilon={epsilon}: allowed is a finite number > 0"):
        IPM(epsilon=epsilon)
