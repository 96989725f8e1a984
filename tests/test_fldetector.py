"""FLDetector of Zhang et al. 2022: against its paper's algorithms written out."""

import numpy as np
import pytest

from strategies import FLDetector
from strategies.curvature import hessian_product


def bfgs_written_out(s, y):
    """Update the Hessian pair by pair: the recursion of which L-BFGS is the compact form."""
    hessian = y[-1] @ s[-1] / (s[-1] @ s[-1]) * np.eye(len(s[0]))
    for a, b in zip(s, y, strict=True):
        ha = hessian @ a
        hessian = hessian - np.outer(ha, ha) / (a @ ha) + np.outer(b, b) / (b @ a)
    return hessian


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("m", [1, 3, 6])
def test_the_product_is_that_of_the_recursion(m, sign):
    """Also if updates stand for gradients, which are the other way."""
    rng = np.random.default_rng(m)
    root = rng.standard_normal((12, 12))
    curvature = root @ root.T + np.eye(12)
    s = list(rng.standard_normal((m, 12)))
    y = [sign * curvature @ a for a in s]
    v = rng.standard_normal(12)
    expected = bfgs_written_out(s, y) @ v
    np.testing.assert_allclose(hessian_product(s, y, v), expected, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(hessian_product(s, y, s[-1]), y[-1], rtol=1e-6, atol=1e-8)


class Federation:
    """Clients that take a step along their own quadratic's gradient; some add what they like."""

    def __init__(self, seed=0, n=12, d=15, attackers=3, push=0.0):
        self.rng = np.random.default_rng(seed)
        root = self.rng.standard_normal((d, d)) / np.sqrt(d)
        self.curvature = root @ root.T + 0.3 * np.eye(d)
        self.optima = 1 + 0.2 * self.rng.standard_normal((n, d))
        self.attackers, self.push = attackers, push

    def updates(self, model):
        updates = 0.1 * (self.optima - model) @ self.curvature
        updates += 0.001 * self.rng.standard_normal(updates.shape)
        updates[: self.attackers] += self.push * self.rng.standard_normal(
            (self.attackers, updates.shape[1])
        )
        return updates


def records(models):
    return [{"w": model} for model in models]


def everybody(number, n):
    return range(n)


def run(rule, federation, rounds, play, present=everybody):
    sent, reports = np.zeros(15), []
    for number in range(1, rounds + 1):
        models = sent + federation.updates(sent)
        here = list(present(number, len(models)))
        new, report = play(rule, {"w": sent}, records(models[here]), number, [i + 1 for i in here])
        reports.append(report)
        sent = new["w"]
    return sent, reports


def test_the_scores_are_what_the_paper_says(play):
    """Follow the paper on the same federation, with the Hessian as a matrix."""
    n_window, rounds = 3, 9
    _, reports = run(FLDetector(n_window), Federation(1, push=0.0), rounds, play)
    federation, w = Federation(1, push=0.0), [np.zeros(15)]
    g, means, scores = [], [], []
    for t in range(rounds):
        g.append(federation.updates(w[t]))
        if t >= 2:
            pairs = range(max(1, t - n_window), t)
            s = [w[k] - w[k - 1] for k in pairs]
            y = [means[k] - means[k - 1] for k in pairs]
            predicted = g[t - 1] + bfgs_written_out(s, y) @ (w[t] - w[t - 1])
            d = np.sqrt(((predicted - g[t]) ** 2).sum(axis=1))
            scores.append(d / d.sum())
        expected = np.mean(scores[-n_window:], axis=0) if len(scores) >= n_window else None
        told = reports[t]["suspicious_score"]
        np.testing.assert_allclose(told, -np.ones(12) if expected is None else expected, rtol=1e-4)
        means.append(g[t].mean(axis=0))
        w.append(w[t] + means[t])
        if reports[t]["dropped_nodes"]:
            break
    assert t > n_window + 1


def test_who_cannot_be_predicted_is_excluded_for_good(play):
    _, reports = run(FLDetector(3), Federation(2, push=0.5), 8, play)
    assert [report["dropped_nodes"] for report in reports[:4]] == [[]] * 4
    assert [report["dropped_nodes"] for report in reports[4:]] == [[1, 2, 3]] * 4


def test_numbers_of_clients_may_be_flowers_node_ids(play):
    """Of 64 bits without a sign, which no float64 holds."""
    rule = FLDetector(3)
    rule.client_of = lambda node: 2**64 - node if node % 2 else node
    _, reports = run(rule, Federation(2, push=0.5), 6, play)
    assert reports[-1]["dropped_nodes"] == [1, 2, 3]
    assert rule.memory["excluded"].tolist() == [2, 2**64 - 3, 2**64 - 1]


def test_few_honest_crowds_are_accused_when_first_judged(play):
    """Judged in every round, more are: the gap statistic errs now and then."""
    crowds = [Federation(seed, attackers=0) for seed in range(8)]
    last = [run(FLDetector(3), crowd, 5, play)[1][-1] for crowd in crowds]
    assert sum(bool(report["dropped_nodes"]) for report in last) <= 1


def test_a_client_that_misses_a_round_has_no_score_in_it_and_the_next(play):
    rule = FLDetector(2)

    def present(number, n):
        return [i for i in range(n) if not (i == 6 and number == 5)]

    _, reports = run(rule, Federation(3), 5, play, present)
    assert "update/7" not in rule.memory
    assert len(rule.memory["score/7"]) == 2
    before = rule.memory["score/7"]
    sent = np.ones(15)
    play(rule, {"w": sent}, records(sent + Federation(3).updates(sent)), 6)
    np.testing.assert_array_equal(rule.memory["score/7"], before)
    assert reports[4]["nodes"] == [1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12]


def test_memory_holds_a_window_and_one_update_a_client(play):
    rule = FLDetector(3)
    run(rule, Federation(5), 9, play)
    kinds = [key.partition("/")[0] for key in rule.memory]
    counts = {kind: kinds.count(kind) for kind in set(kinds) - {"excluded"}}
    assert counts == {"s": 3, "y": 3, "update": 12, "score": 12, "center": 1, "step": 1}


def test_a_round_of_two_models_is_as_if_it_had_not_been(play, warned):
    one, other, sent = FLDetector(2), FLDetector(2), np.zeros(15)
    run(one, Federation(5), 4, play)
    run(other, Federation(5), 4, play)
    before = {key: value.copy() for key, value in one.remember().items()}
    replies = records(sent + Federation(6).updates(sent))
    model, report = play(one, {"w": sent}, replies[:2], number=5)
    np.testing.assert_array_equal(model["w"], sent)
    assert report["cannot_act"] == 1
    assert warned("FLDetector") == 1
    assert before.keys() == one.memory.keys()
    found = [play(rule, {"w": sent}, replies, number=6)[0]["w"] for rule in (one, other)]
    np.testing.assert_array_equal(*found)


def test_without_a_client_left_the_model_stays_and_it_says_so(play, warned):
    rule, sent = FLDetector(2), np.zeros(15)
    rule.memory["excluded"] = np.arange(1, 13)
    model, report = play(rule, {"w": sent}, records(sent + Federation(6).updates(sent)))
    np.testing.assert_array_equal(model["w"], sent)
    assert (report["cannot_act"], report["kept_nodes"]) == (1, [])
    assert warned("FLDetector") == 1


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "10"])
def test_bounds(value):
    with pytest.raises(ValueError, match="window = "):
        FLDetector(value)


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_numbers_as_large_as_there_are_stop_nothing(play):
    """Attackers swing from end to end of float32, and the global model with them."""
    rng, rule = np.random.default_rng(0), FLDetector(3)
    sent = np.zeros(20, np.float32)
    for number in range(1, 12):
        ends = [np.full(20, (-1) ** number * 3.4e38 * (1 - k / 1e3)) for k in range(3)]
        honest = 0.01 * rng.standard_normal((7, 20))
        models = [m.astype(np.float32) for m in (*ends, *honest)]
        new, report = play(rule, {"w": sent}, records(models), number)
        assert np.isfinite(new["w"]).all()
        assert np.isfinite(report["suspicious_score"]).all()
        sent = new["w"]
    assert max(report["suspicious_score"]) > 0
