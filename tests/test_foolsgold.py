"""FoolsGold of Fung et al. 2020: against its paper's algorithm written out."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies import FoolsGold
from strategies.rules.foolsgold import foolsgold


def weights_written_out(histories, kappa):
    """Follow the paper, loop by loop."""
    n = len(histories)
    cs, v, alpha = [[0.0] * n for _ in range(n)], [0.0] * n, [0.0] * n
    for i in range(n):
        for j in range(n):
            if i != j:
                lengths = math.hypot(*histories[i]) * math.hypot(*histories[j])
                cs[i][j] = float(np.dot(histories[i], histories[j])) / lengths
        v[i] = max(0.0, *cs[i])
    for i in range(n):
        for j in range(n):
            if v[j] > v[i]:
                cs[i][j] *= v[i] / v[j]
        alpha[i] = 1 - max(0.0, *cs[i])
    largest = max(alpha)
    for i in range(n):
        alpha[i] /= largest
        if alpha[i] >= 1:
            alpha[i] = 1.0
        elif alpha[i] <= 0:
            alpha[i] = 0.0
        else:
            alpha[i] = kappa * (math.log(alpha[i] / (1 - alpha[i])) + 0.5)
        alpha[i] = min(1.0, max(0.0, alpha[i]))
    return alpha


def cosines(rows):
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return units @ units.T


@settings(max_examples=80)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(2, 12),
    sybils=st.integers(0, 6),
    kappa=st.sampled_from([0.5, 1.0, 3.0]),
)
def test_the_weights_are_what_the_paper_says(seed, n, sybils, kappa):
    rng = np.random.default_rng(seed)
    histories = rng.standard_normal((n, 5))
    histories[: min(sybils, n - 1)] = histories[0] + 0.1 * rng.standard_normal(5)
    found = foolsgold(cosines(histories), kappa)
    # Equal histories differ in the last bits of their cosine, and so in that of 1 minus it.
    np.testing.assert_allclose(found, weights_written_out(histories, kappa), atol=1e-6)


def federation(seed, rounds=3, n=8, sybils=3):
    """Models with a hidden layer, and an output layer of weights and bias; three are sybils."""
    rng = np.random.default_rng(seed)
    shapes = {"hidden": (3, 4), "out": (4, 3), "bias": (4,)}
    goal = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    sent = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    plays = []
    for _ in range(rounds):
        models = []
        for client in range(n):
            own = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
            if client < sybils:
                own = {name: goal[name] + 0.05 * own[name] for name in own}
            models.append({name: sent[name] + own[name] for name in own})
        plays.append(models)
    return sent, plays


def output(model):
    return np.concatenate([model["out"].ravel(), model["bias"].ravel()])


def test_rounds_are_what_the_paper_says_and_sybils_are_nobody(play):
    sent, plays = federation(0)
    rule, histories, now = FoolsGold(), np.zeros((8, 16)), sent
    for number, models in enumerate(plays, 1):
        moved = [{k: now[k] + (m[k] - sent[k]) for k in m} for m in models]
        histories += [output(m) - output(now) for m in moved]
        alpha = np.array(weights_written_out(histories, 1.0))
        expected = {
            k: now[k] + np.tensordot(alpha, [m[k] - now[k] for m in moved], 1) / sum(alpha)
            for k in now
        }
        now, report = play(rule, now, moved, number)
        np.testing.assert_allclose(report["alpha"], alpha, atol=1e-9)
        for name in now:
            np.testing.assert_allclose(now[name], expected[name], rtol=1e-9, atol=1e-12)
    assert {1, 2, 3} <= set(report["dropped_nodes"])


def test_only_the_output_layer_decides_and_no_length(play):
    sent, (models, *_) = federation(1)
    _, first = play(FoolsGold(), sent, models)
    hidden = [m | {"hidden": m["hidden"] * 9} for m in models]
    _, second = play(FoolsGold(), sent, hidden)
    assert first["alpha"] == second["alpha"]
    longer = [{k: sent[k] + (i + 1) * (m[k] - sent[k]) for k in m} for i, m in enumerate(models)]
    _, third = play(FoolsGold(), sent, longer)
    np.testing.assert_allclose(third["alpha"], first["alpha"], atol=1e-9)


def test_memory_is_by_the_clients_number(play):
    """Whoever answers in other places, from other nodes, has its own history."""
    sent, (first, second, _) = federation(2)
    one, two = FoolsGold(), FoolsGold()
    two.client_of = lambda node: node % 100
    play(one, sent, first)
    play(two, sent, first, 1, [100 + node for node in range(1, 9)])
    _, a = play(one, sent, second, 2)
    there = [7, 2, 5, 1, 0, 3, 6, 4]
    _, b = play(two, sent, [second[i] for i in there], 2, [301 + i for i in there])
    np.testing.assert_allclose(b["alpha"], np.array(a["alpha"])[there], rtol=1e-9)
    assert one.memory.keys() == two.memory.keys() == {f"history/{i}" for i in range(1, 9)}


def test_a_client_that_was_away_keeps_its_history(play):
    sent, (first, second, third) = federation(3)
    rule = FoolsGold()
    play(rule, sent, first)
    before = rule.memory["history/8"]
    play(rule, sent, second[:7], 2)
    assert rule.memory["history/8"] is before
    play(rule, sent, third, 3)
    np.testing.assert_allclose(
        rule.memory["history/8"], output(first[7]) + output(third[7]) - 2 * output(sent)
    )


def test_where_all_are_alike_the_model_stays_and_it_says_so(play, warned):
    sent, (models, *_) = federation(4)
    model, report = play(FoolsGold(), sent, [models[0]] * 5)
    assert all(np.array_equal(model[name], sent[name]) for name in sent)
    assert (report["cannot_act"], report["kept_nodes"]) == (1, [])


def test_one_model_has_nobody_to_be_compared_with(play, warned):
    model, report = play(FoolsGold(), {"w": np.zeros((2, 3))}, [{"w": np.ones((2, 3))}])
    np.testing.assert_array_equal(model["w"], np.zeros((2, 3)))
    assert report["cannot_act"] == 1
    assert warned("FoolsGold") == 1
    assert warned("FoolsGold") == 1


@pytest.mark.parametrize("value", [0, -1, float("nan"), "1"])
def test_bounds(value):
    with pytest.raises(ValueError, match="confidence = "):
        FoolsGold(value)
