"""Tests of the regression and the permutation test, against scipy's and least squares."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fl_backdoor.papers import propositions
from fl_backdoor.papers.propositions import bend, effect, proposition1, proposition2, proposition3


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(propositions, "RESAMPLES", 499)


def grid(seed: int = 0, noise: float = 0.3, **effects: float) -> pd.DataFrame:
    """Draw attack success of 5 seeds with chosen effects of S, P, their product and S squared."""
    rng = np.random.default_rng(seed)
    rows = pd.MultiIndex.from_product(
        [range(5), (1, 2, 3), (300, 350, 400, 450, 500)], names=["seed", "P", "S"]
    ).to_frame(index=False)
    s, p = rows["S"] - 400.0, rows["P"] - 2.0
    shift = rng.normal(0, 1, 5)[rows["seed"]]  # of a seed: hides what is not held fixed
    success = shift + rng.normal(0, noise, len(rows))
    given = {"S": s, "P": p, "product": s * p, "square": s**2}
    for name, size in effects.items():
        success = success + size * given[name]
    return rows.assign(success=success)


@settings(max_examples=10)
@given(seed=st.integers(0, 2**32))
def test_without_controls_it_is_the_regression_of_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, 12))
    ours = effect(y, x, np.ones((12, 1)))
    theirs = stats.linregress(x, y, alternative="greater")
    assert ours is not None
    assert ours.slope == pytest.approx(theirs.slope)
    assert ours.stderr == pytest.approx(theirs.stderr)
    assert ours.p == pytest.approx(theirs.pvalue)


@settings(max_examples=10)
@given(seed=st.integers(0, 2**32))
def test_with_controls_it_is_least_squares_over_all_columns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, 20))
    controls = np.concatenate([np.ones((20, 1)), rng.normal(size=(20, 3))], axis=1)
    ours = effect(y, x, controls)
    every = np.column_stack([x, controls])
    slopes, *_ = np.linalg.lstsq(every, y)
    left = y - every @ slopes
    variance = left @ left / (20 - 5) * np.linalg.inv(every.T @ every)[0, 0]
    assert ours is not None
    assert ours.slope == pytest.approx(slopes[0])
    assert ours.stderr == pytest.approx(np.sqrt(variance))


def test_permutations_and_regression_agree_on_small_samples() -> None:
    """All 720 orders of six rows, one by one."""
    y, x = np.array([0.0, 2, 1, 4, 3, 7]), np.arange(6.0)
    ours = effect(y, x, np.ones((6, 1)))
    orders = stats.permutation_test(
        (y,),
        lambda values: stats.linregress(x, values).slope,
        permutation_type="pairings",
        alternative="greater",
        vectorized=False,
    )
    assert ours is not None
    assert ours.p_permuted == pytest.approx(orders.pvalue, abs=0.02)


@pytest.mark.parametrize(
    ("test", "name", "size"),
    [
        (proposition1, "S", 0.01),
        (proposition2, "P", 0.5),
        (proposition3, "product", 0.004),
        (bend, "square", 1e-4),
    ],
)
def test_each_finds_its_own_effect_and_no_other(test: object, name: str, size: float) -> None:
    assert callable(test)
    others = {"S": 0.01, "P": 0.5, "product": 0.004, "square": 1e-4}
    found = test(grid(**{name: size}))
    assert found.slope == pytest.approx(size, abs=4 * found.stderr)
    assert max(found.p, found.p_permuted) < 0.01
    del others[name]
    rejected = [
        max(none.p, none.p_permuted) < 0.05
        for seed in range(10)
        if (none := test(grid(seed, **others)))
    ]
    assert sum(rejected) <= 2


def test_what_cannot_be_told_is_none() -> None:
    runs = grid()
    assert proposition1(runs[:0]) is None
    assert proposition1(runs[runs["S"] == 300]) is None
    assert proposition2(runs[runs["P"] == 1]) is None
    assert proposition3(runs[(runs["P"] == 1)]) is None
    one = runs[(runs["seed"] == 0) & (runs["P"] == 1) & runs["S"].isin([300, 500])]
    assert proposition1(one) is None
    assert bend(runs[runs["S"].isin([300, 500])]) is None
