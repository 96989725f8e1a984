"""Algorithm 2 of Cao et al. 2019: against its literal loop on random small cases."""

import itertools

import networkx as nx
import numpy as np
import pytest
from flwr.app import ConfigRecord
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from fl_backdoor.federation.engines import LocalGrid
from strategies import Sniper
from strategies.graph.distances import PairwiseDistances
from strategies.rules.sniper import honest_scale, sniper


def distance(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.sqrt(np.sum((first.astype(np.float64) - second.astype(np.float64)) ** 2)))


def diameter(models: np.ndarray, members: tuple[int, ...]) -> float:
    return max(distance(models[i], models[j]) for i in members for j in members)


def algorithm_2(
    models: np.ndarray, threshold: float, step: float, participants: int
) -> tuple[float, list[tuple[int, ...]]]:
    """Raise gamma by epsilon until a clique holds a majority, as the paper does."""
    raised = 0
    while True:
        gamma = threshold + raised * step
        graph = nx.Graph()
        graph.add_nodes_from(range(len(models)))
        for i in range(len(models)):
            for j in range(i + 1, len(models)):
                if distance(models[i], models[j]) < gamma:
                    graph.add_edge(i, j)
        cliques = [tuple(sorted(clique)) for clique in nx.find_cliques(graph)]
        largest = max(map(len, cliques))
        if largest > participants / 2:
            return gamma, [clique for clique in cliques if len(clique) == largest]
        raised += 1


# On a grid many distances are equal to one another and to thresholds.
grids = npst.arrays(
    st.sampled_from([np.float32, np.float64]),
    st.tuples(st.integers(1, 9), st.integers(1, 3)),
    elements=st.integers(-4, 4).map(lambda i: i / 4),
)
clouds = npst.arrays(
    np.float64,
    st.tuples(st.integers(1, 9), st.integers(1, 4)),
    elements=st.floats(-2, 2, width=32),
)
thresholds = st.sampled_from([0.05, 0.25, 0.5, 1.0])
steps = st.sampled_from([0.05, 0.1, 0.25])


@settings(max_examples=150)
@given(grids | clouds, thresholds, steps, st.integers(0, 4))
@example(np.zeros((1, 1)), 0.5, 0.05, 0)
@example(np.zeros((6, 2)), 0.5, 0.05, 5)
@example(np.arange(6.0)[:, None], 0.5, 0.25, 0)
def test_selection_is_that_of_the_literal_loop(models, threshold, step, failed):
    participants = len(models) + failed
    assume(len(models) > participants / 2)
    gamma, cliques = algorithm_2(models, threshold, step, participants)
    selection = sniper(models, threshold, step, participants=participants)
    assert selection.threshold == gamma
    assert selection.kept in cliques
    assert selection.proven
    smallest = min(diameter(models, clique) for clique in cliques)
    assert diameter(models, selection.kept) == pytest.approx(smallest, rel=1e-7)


@settings(max_examples=60)
@given(clouds, st.randoms(use_true_random=False))
def test_permuted_rows_permute_the_selection(models, shuffle):
    gamma, cliques = algorithm_2(models, 0.5, 0.05, len(models))
    diameters = sorted(diameter(models, clique) for clique in cliques)
    assume(len(cliques) == 1 or diameters[1] > diameters[0] * (1 + 1e-6))
    order = list(range(len(models)))
    shuffle.shuffle(order)
    permuted = sniper(models[order])
    assert sorted(order[i] for i in permuted.kept) == list(sniper(models).kept)
    assert permuted.threshold == gamma


@pytest.mark.parametrize(
    ("apart", "dtype"),
    [(1.0, "f4"), (1e6, "f4"), (1e30, "f4"), (1.0, "f8"), (1e30, "f8"), (1e130, "f8")],
)
def test_models_all_far_apart_still_end(apart, dtype):
    models = (np.eye(5) * apart).astype(dtype)
    selection = sniper(models)
    assert len(selection.kept) == 5
    assert selection.threshold == pytest.approx(np.sqrt(2) * apart, rel=0.1)
    assert selection.threshold > distance(models[0], models[1])


def test_a_tie_goes_to_the_smaller_diameter():
    models = np.array([[0.0], [0.45], [0.1], [10.0], [10.3], [10.1]])
    triples = sniper(models[[0, 1, 2, 3, 4]])
    assert triples.kept == (0, 1, 2)
    # {0, 1, 2} and {1, 2, 3} are both of size 3 below 0.5, and only one of them is tight.
    line = np.array([[0.0], [0.4], [0.45], [0.6], [9.0]])
    selection = sniper(line)
    assert selection.kept == (1, 2, 3)
    assert selection.threshold == 0.5


def test_an_even_split_is_no_majority():
    """Two camps of three: gamma has to grow until it spans one member of the other camp."""
    models = np.array([[0.0], [0.1], [0.2], [5.0], [5.1], [5.2]])
    selection = sniper(models)
    assert len(selection.kept) == 4
    assert selection.threshold == pytest.approx(5.05)  # 5.0 < gamma


def test_duplicates_stay_together():
    models = np.array([[1.0, 2.0]] * 4 + [[50.0, 50.0]] * 3)
    assert sniper(models).kept == (0, 1, 2, 3)


@pytest.mark.parametrize("participants", [4, 5, 100])
def test_two_models_are_no_majority_of_four(participants):
    selection = sniper(np.zeros((2, 3)), participants=participants)
    assert selection.kept == ()
    assert selection.threshold == 0.5
    assert selection.proven


@pytest.mark.parametrize("key", ["threshold", "step"])
@pytest.mark.parametrize(
    "value", [0, -0.5, float("nan"), float("inf"), -float("inf"), "0.5", None, True, [1.0]]
)
def test_settings_are_validated(key, value):
    with pytest.raises(ValueError, match=key) as error:
        Sniper(**{key: value})
    assert repr(value) in str(error.value)
    with pytest.raises(ValueError, match=key):
        sniper(np.zeros((3, 2)), **{key: value})


@pytest.mark.parametrize("value", [1, 0.5, np.float32(0.5), np.float64(2)])
def test_numbers_are_settings(value):
    assert Sniper(threshold=value, step=value).threshold == value


def aggregate(messages, sent, asked, **arguments):
    strategy = Sniper(**arguments)
    strategy.configure_train(1, sent, ConfigRecord(), LocalGrid(None, asked))
    return *strategy.aggregate_train(1, messages), strategy.rounds[1]


def test_metrics_name_the_nodes(reply, record):
    values = {11: 0.0, 12: 0.1, 13: 9.0, 14: 0.2, 15: -7.0}
    messages = [reply({"w": np.array([v])}, node=node) for node, v in values.items()]
    messages.append(reply({"w": np.array([np.nan])}, node=16))
    arrays, metrics, report = aggregate(
        messages, record({"w": np.zeros(1)}), asked=5, threshold=0.05, step=0.1
    )
    # Of six, four are needed: 13 is next at a distance of 8.8 to 9.0.
    # The invalid reply counts as a client, so three near models are not enough.
    assert report["invalid_nodes"] == [16]
    assert report["kept_nodes"] == [11, 12, 14, 15]
    assert report["dropped_nodes"] == [13]
    assert [metrics[name] for name in ("kept", "dropped", "invalid")] == [4, 1, 1]
    assert metrics["threshold"] == report["threshold"] == pytest.approx(7.25)
    assert metrics["clique-proven"] == report["clique_proven"] == 1
    assert arrays["w"].numpy() == pytest.approx(np.mean([0.0, 0.1, 0.2, -7.0]))


def test_failed_clients_count_as_participants(reply, record, caplog):
    sent = record({"w": np.full(2, 5.0)})
    messages = [reply({"w": np.zeros(2)}, node=node) for node in (1, 2)]
    with caplog.at_level("WARNING", "flwr"):
        arrays, metrics, report = aggregate(messages, sent, asked=4)
    assert arrays == sent
    assert report["kept_nodes"] == []
    assert report["dropped_nodes"] == [1, 2]
    assert metrics["cannot-act"] == 1
    assert (metrics["kept"], metrics["dropped"]) == (0, 2)
    assert "2 valid models of 4 clients cannot hold a majority clique" in caplog.text
    assert "keeps the old global model" in caplog.text
    _, _, report = aggregate(messages, sent, asked=3)
    assert report["kept_nodes"] == [1, 2]


def test_counters_do_not_count_as_distance(reply, record):
    messages = [reply({"w": np.full(2, i / 10), "n": np.array(1000 * i)}, node=i) for i in range(3)]
    sent = record({"w": np.zeros(2), "n": np.array(0)})
    arrays, _, report = aggregate(messages, sent, asked=3)
    assert report["kept_nodes"] == [0, 1, 2]
    assert arrays["n"].numpy() == 1000


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_poisoned_models_are_left_out(seed):
    rng = np.random.default_rng(seed)
    honest = 0.01 * rng.standard_normal((8, 20))
    poisoned = 2 + 0.01 * rng.standard_normal((7, 20))
    assert sniper(np.vstack([poisoned, honest])).kept == tuple(range(7, 15))


def test_a_step_far_below_the_distances_ends() -> None:
    models = np.array([[0.0], [1e20], [-1e20]])
    assert len(sniper(models, threshold=1e-300, step=1e-300).kept) >= 2


EQUAL_BUT_ONE = [0, 1.10000002, -0.99999, 0, 0, 1, 0, 1, 5.96e-8]
"""The median distance within its tightest majority is 0."""


@example(np.array(EQUAL_BUT_ONE)[:, None], 1)
@given(grids | clouds, st.integers(-30, 30))
def test_auto_does_not_change_when_all_models_are_scaled(models, power):
    one, other = sniper(models, "auto"), sniper(models * 2.0**power, "auto")
    assert one.kept == other.kept
    if one.threshold > 1e-300:
        assert other.threshold == one.threshold * 2.0**power


@given(grids | clouds)
def test_the_honest_scale_lies_within_the_tightest_majority(models):
    """Against all subsets: so that less than half of the models cannot raise it beyond the rest."""
    n = len(models)
    majority = n // 2 + 1
    subsets = itertools.combinations(range(n), majority)
    tightest = min(diameter(models, subset) for subset in subsets)
    between = PairwiseDistances(models).matrix
    scale = honest_scale(between, majority)
    assert scale <= tightest * (1 + 1e-7)
    assert sniper(models, "auto").kept
    if tightest > 0 and majority > 1:
        nearest = between[np.triu_indices(n, 1)].min()
        assert scale >= nearest * (1 - 1e-7)


def test_auto_keeps_only_a_majority_of_equal_models():
    models = np.array([[1.0], [1.0], [1.0], [1.0 + 1e-9], [9.0]])
    assert sniper(models, "auto").kept == (0, 1, 2)
    assert sniper(models[:1], "auto").kept == (0,)


@pytest.mark.parametrize("scale", [1e-3, 1, 50])
def test_auto_leaves_attackers_out_whatever_the_model(scale):
    """In as many directions as a model has, honest updates are about as far from one another."""
    rng = np.random.default_rng(0)
    models = rng.standard_normal((10, 1000)) * scale
    models[:3] += 5 * scale * rng.standard_normal(1000)
    assert sniper(models, "auto").kept == tuple(range(3, 10))
    assert sniper(models[3:], "auto").kept == tuple(range(7))
