"""Krum, Multi-Krum and Bulyan against the papers' sums written out, Flower and byzfl."""

import itertools

import numpy as np
import pytest
from flwr.app import ConfigRecord
from flwr.serverapp.strategy import MultiKrum as FlowerMultiKrum
from flwr.serverapp.strategy.multikrum import select_multikrum
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_backdoor.federation.engines import LocalGrid
from strategies import Bulyan, Krum, MultiKrum, NormClipping, Screened
from strategies.graph.distances import PairwiseDistances
from strategies.rules.bulyan import bulyan_selection, mean_around_median
from strategies.rules.krum import krum, krum_scores

quick = settings(max_examples=60)


# --- The papers, written out ----------------------------------------------------------------


def squared_distances(models):
    """Sum the squares of the differences of each pair."""
    models = models.astype(np.float64)
    return np.array([[sum((a - b) ** 2) for b in models] for a in models])


def scores_written_out(squared, neighbours):
    """Sum the nearest by hand (Blanchard et al. 2017)."""
    n = len(squared)
    return [sum(sorted(squared[i][j] for j in range(n) if j != i)[:neighbours]) for i in range(n)]


def krum_written_out(squared, f, m):
    scores = scores_written_out(squared, len(squared) - f - 2)
    return sorted(range(len(squared)), key=lambda i: (scores[i], i))[:m]


def bulyan_written_out(models, f):
    """El Mhamdi et al. 2018."""
    models = models.astype(np.float64)
    received, selected = list(range(len(models))), []
    while len(selected) < len(models) - 2 * f:
        squared = squared_distances(models[received])
        scores = scores_written_out(squared, max(1, len(received) - f - 2))
        selected.append(received.pop(scores.index(min(scores))))
    beta = len(selected) - 2 * f
    result = []
    for column in models[selected].T:
        center = np.median(column)
        nearest = sorted(column, key=lambda value: (abs(value - center), value))[:beta]
        result.append(sum(nearest) / beta)
    return selected, np.array(result)


@st.composite
def federations(draw, dtypes=(np.float32, np.float64)):
    """Draw models of n clients, some of them far from the others or equal to one another."""
    n, d = draw(st.integers(3, 14)), draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    models = rng.standard_normal((n, d)) + draw(st.sampled_from([0, 1, 1e3])) * np.ones(d)
    far = draw(st.integers(0, n // 3))
    models[:far] += draw(st.sampled_from([0, 1, 100])) * rng.standard_normal(d)
    for _ in range(draw(st.integers(0, 3))):
        models[rng.integers(n)] = models[rng.integers(n)]
    return models.astype(draw(st.sampled_from(dtypes)))


def squared_of(models):
    return PairwiseDistances(models).squared


# --- Properties -----------------------------------------------------------------------------


@quick
@given(models=federations(), data=st.data())
def test_krum_is_what_the_paper_says(models, data):
    n = len(models)
    f, m = data.draw(st.integers(0, n - 3)), data.draw(st.integers(1, n))
    exact = squared_distances(models)
    found = krum_scores(squared_of(models), n - f - 2)
    np.testing.assert_allclose(found, scores_written_out(exact, n - f - 2), rtol=1e-7)
    assert krum(squared_of(models), f, m).tolist() == krum_written_out(exact, f, m)


@quick
@given(models=federations(), data=st.data())
def test_bulyan_is_what_the_paper_says(models, data):
    n = len(models)
    f = data.draw(st.integers(0, (n - 3) // 4))
    selected, expected = bulyan_written_out(models, f)
    found = bulyan_selection(squared_of(models), f)
    assert found.tolist() == selected
    np.testing.assert_allclose(
        mean_around_median(models, found, n - 4 * f), expected, rtol=1e-12, atol=1e-12
    )


@quick
@given(models=federations(), data=st.data())
def test_permuted_clients_have_permuted_scores(models, data):
    order = np.array(data.draw(st.permutations(range(len(models)))))
    neighbours = data.draw(st.integers(1, len(models) - 1))
    scores = krum_scores(squared_of(models), neighbours)
    permuted = krum_scores(squared_of(models[order]), neighbours)
    np.testing.assert_allclose(permuted, scores[order], rtol=1e-7)


@quick
@given(models=federations(dtypes=[np.float64]), shift=st.integers(-8, 8))
def test_a_common_shift_changes_no_choice(models, shift):
    models = np.round(models * 1024) / 1024  # so that the shift rounds nothing
    shifted = models + shift
    squared, f = squared_of(models), (len(models) - 3) // 4
    np.testing.assert_array_equal(squared, squared_of(shifted))
    taken = bulyan_selection(squared, f)
    beta = len(models) - 4 * f
    np.testing.assert_allclose(
        mean_around_median(shifted, taken, beta),
        mean_around_median(models, taken, beta) + shift,
        rtol=1e-12,
        atol=1e-10,
    )


@given(n=st.integers(3, 40), f=st.integers(0, 3))
@quick
def test_equal_models_go_by_row(n, f):
    models = np.tile(np.random.default_rng(n).standard_normal(50), (n, 1))
    models[1::3] += 1
    squared = squared_of(models)
    scores = krum_scores(squared, max(1, n - f - 2))
    assert len(set(scores[1::3])) == 1
    assert len(set(np.delete(scores, np.s_[1::3]))) == 1
    if n > f + 2:
        chosen = krum(squared, f, n).tolist()
        assert chosen == sorted(chosen, key=lambda row: (scores[row], row))


# --- Where float32 errs (fault 2) ------------------------------------------------------------


def converged(seed, apart, d=100_000, n=10):
    """Float32 models of norm 20 that are hardly apart, as late in a training."""
    rng = np.random.default_rng(seed)
    common = rng.standard_normal(d) * 20 / np.sqrt(d)
    scale = apart / np.sqrt(2 * d) * (1 + 0.02 * rng.random((n, 1)))
    return (common + scale * rng.standard_normal((n, d))).astype(np.float32)


@pytest.mark.parametrize("apart", [0.044, 0.147])
def test_krum_is_exact_where_the_gram_matrix_of_flower_cancels(apart, reply):
    f, astray = 2, 0
    for seed in range(12):
        models = converged(seed, apart)
        wide = models.astype(np.float64)
        exact = np.array([[np.sum((a - b) ** 2) for b in wide] for a in wide])
        (best,) = krum_written_out(exact, f, 1)
        assert krum(squared_of(models), f).tolist() == [best]
        contents = [reply({"w": model}).content for model in models]
        (chosen,) = select_multikrum(contents, f, 1)
        astray += chosen is not contents[best]
    assert astray > 0


# --- As strategies ---------------------------------------------------------------------------


def aggregate(strategy, models, reply, record):
    sent = record({"w": np.zeros_like(models[0])})
    strategy.configure_train(1, sent, ConfigRecord(), LocalGrid(None, max(2, len(models))))
    replies = [
        reply({"w": model}, node=node, metrics={"num-examples": 10 + node})
        for node, model in enumerate(models, 1)
    ]
    arrays, metrics = strategy.aggregate_train(1, replies)
    return arrays["w"].numpy(), metrics, strategy.rounds[1]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_as_strategies_they_vote_for_whom_they_select(dtype, reply, record):
    rng = np.random.default_rng(5)
    models = (100 + rng.standard_normal((15, 2000))).astype(dtype)  # squares overflow float16
    models[[2, 7]] += dtype(3)
    exact, error = squared_distances(models), 4 * float(np.finfo(dtype).eps)
    (best,) = krum_written_out(exact, 3, 1)
    model, metrics, report = aggregate(Krum(3), models, reply, record)
    np.testing.assert_array_equal(model, models[best])
    assert report["kept_nodes"] == [best + 1]
    assert (metrics["kept"], metrics["dropped"], metrics["guarantee"]) == (1, 14, 1)

    chosen = krum_written_out(exact, 3, 6)
    model, metrics, report = aggregate(MultiKrum(3, 6), models, reply, record)
    expected = models[chosen].mean(axis=0, dtype=np.float64)
    np.testing.assert_allclose(model, expected, rtol=error)
    assert report["kept_nodes"] == sorted(row + 1 for row in chosen)

    selected, expected = bulyan_written_out(models, 3)
    model, metrics, report = aggregate(Bulyan(3), models, reply, record)
    np.testing.assert_allclose(model, expected, rtol=error)
    assert report["kept_nodes"] == sorted(row + 1 for row in selected)
    assert {3, 8} <= {*report["dropped_nodes"]}


@quick
@given(models=federations(), data=st.data())
def test_as_strategies_they_do_not_care_who_answers_first(models, data, reply, record):
    n = len(models)
    order = data.draw(st.permutations(range(n)))
    f = data.draw(st.integers(0, (n - 3) // 4))
    for rule in (Krum(f), MultiKrum(f, 1 + n // 2), Bulyan(f)):
        found = aggregate(rule, models, reply, record)[0]
        np.testing.assert_array_equal(found, aggregate(rule, models[order], reply, record)[0])


def test_votes_are_counted_if_weighted(reply, record):
    models = np.random.default_rng(6).standard_normal((8, 30))
    chosen = krum_written_out(squared_distances(models), 1, 4)
    model, _, _ = aggregate(MultiKrum(1, 4, weighted=True), models, reply, record)
    weights = 11.0 + np.array(chosen)
    np.testing.assert_allclose(model, np.average(models[chosen], axis=0, weights=weights))


@pytest.mark.parametrize("m", [1, 5])
def test_well_separated_clients_are_those_of_flower(m, reply, record):
    rng = np.random.default_rng(7)
    models = rng.standard_normal((9, 40)) * np.linspace(1, 2, 9)[rng.permutation(9), None]
    ours, _, _ = aggregate(MultiKrum(2, m), models, reply, record)
    flowers = Screened(FlowerMultiKrum(num_malicious_nodes=2, num_nodes_to_select=m))
    theirs, _, _ = aggregate(flowers, models, reply, record)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)


@pytest.mark.parametrize("f", [1, 2, 3])
def test_those_of_byzfl_with_its_one_neighbour_more(f, byzfl):
    aggregators = byzfl("aggregators")
    for seed in range(10):
        models = np.random.default_rng(seed).standard_normal((12, 30))
        squared = squared_of(models)
        # byzfl sums n - f - 1 neighbours, the paper n - f - 2.
        (best,) = krum(squared, f - 1)
        np.testing.assert_array_equal(aggregators.Krum(f=f)(models), models[best])
        chosen = krum(squared, f - 1, 12 - f)
        np.testing.assert_allclose(
            aggregators.MultiKrum(f=f)(models), models[chosen].mean(axis=0), rtol=1e-12
        )


def test_a_round_too_small_keeps_the_model_and_says_so(reply, record, caplog):
    models = np.random.default_rng(8).standard_normal((6, 5))
    for rule, said in [
        (Krum(4), "6 valid models; num_malicious 4 and num_selected 1 need 7"),
        (MultiKrum(1, 7), "6 valid models; num_malicious 1 and num_selected 7 need 7"),
        (Bulyan(1), "6 valid models; num_malicious 1 needs 7"),
    ]:
        model, metrics, _ = aggregate(rule, models, reply, record)
        assert not model.any()
        assert metrics["cannot-act"] == 1
        assert said in caplog.text


def test_without_the_guarantee_it_acts_and_says_so(reply, record, caplog):
    models = np.random.default_rng(9).standard_normal((6, 5))
    model, metrics, _ = aggregate(Krum(2), models, reply, record)
    assert model.tolist() in models.tolist()
    assert metrics["guarantee"] == 0
    assert "Krum: no guarantee: 6 valid models, of which 2 may be malicious" in caplog.text


# --- Settings --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "options", "said"),
    [
        (Krum, {"num_malicious": -1}, "num_malicious = -1 must be an integer from 0"),
        (Krum, {"num_malicious": True}, "num_malicious = True"),
        (MultiKrum, {"num_malicious": 1.5, "num_selected": 1}, "num_malicious = 1.5"),
        (MultiKrum, {"num_malicious": 1, "num_selected": 0}, "num_selected = 0 must be an integer"),
        (Bulyan, {"num_malicious": "2"}, "num_malicious = '2'"),
    ],
)
def test_settings_out_of_range(rule, options, said):
    with pytest.raises(ValueError, match=said):
        rule(**options)


@pytest.mark.parametrize(
    ("rule", "clients", "said"),
    [
        (Krum(5), 10, "num_malicious = 5: Krum of 10 clients allows 0 to 3"),
        (Krum(0), 2, "num_malicious = 0: Krum of 2 clients allows none"),
        (MultiKrum(1, 11), 10, "num_selected = 11: MultiKrum of 10 clients allows 1 to 10"),
        (Bulyan(2), 10, "num_malicious = 2: Bulyan of 10 clients allows 0 to 1"),
        (NormClipping(Krum(4), 1.0), 10, "num_malicious = 4: Krum of 10 clients allows 0 to 3"),
    ],
)
def test_settings_that_can_never_work_with_so_many_clients(rule, clients, said):
    with pytest.raises(ValueError, match=said):
        rule.check(clients)


def test_settings_at_the_bound_pass():
    for clients, f in itertools.product(range(3, 20), range(9)):
        for rule, allowed in ((Krum(f), clients > 2 * f + 2), (Bulyan(f), clients >= 4 * f + 3)):
            try:
                rule.check(clients)
            except ValueError:
                assert not allowed
            else:
                assert allowed
