"""DeepSight of Rieger et al. 2022: against its paper's algorithms written out."""

import numpy as np
import pytest
from sklearn.cluster import HDBSCAN

from strategies import DeepSight
from strategies.rules.deepsight import normalized_energies, rejected, suspicious

INPUTS = 20


def forward(model, inputs):
    return np.maximum(inputs @ model["hidden"], 0) @ model["out"].T + model["bias"]


def run_model(arrays, inputs):
    return forward({name: array.numpy() for name, array in arrays.items()}, inputs)


def noise(count, rng):
    return rng.random((count, 5))


def rule(**settings):
    strategy = DeepSight(**{"num_inputs": INPUTS, "seed": 3} | settings)
    strategy.run_model, strategy.noise = run_model, noise
    return strategy


def clusters(points, metric):
    """HDBSCAN of the paper's package with clusters of two, which does not count the point."""
    points = np.array(points)
    return HDBSCAN(
        min_cluster_size=2, min_samples=min(3, len(points)), metric=metric, copy=True
    ).fit_predict(points)


def different(labels):
    n = len(labels)
    return np.array(
        [
            [float(i != j and (labels[i] != labels[j] or labels[i] < 0)) for j in range(n)]
            for i in range(n)
        ]
    )


def deepsight_written_out(sent, models, number):
    """Follow the paper, model by model and neuron by neuron; rows and their DDifs in order."""
    n, p = len(models), len(sent["bias"])
    neups, te = [], []
    for model in models:
        e = [
            abs(model["bias"][i] - sent["bias"][i]) + sum(abs(model["out"][i] - sent["out"][i]))
            for i in range(p)
        ]
        c = [value**2 / sum(other**2 for other in e) for value in e]
        neups.append(c)
        te.append(sum(value > max(0.01, 1 / p) * max(c) for value in c))
    boundary = np.median(te) / 2
    labels = [count <= boundary for count in te]

    distances = []
    for draw in range(3):
        inputs = noise(INPUTS, np.random.default_rng((3, number, draw)))
        ddifs = []
        for model in models:
            ratios = []
            for one in inputs:
                a, b = (np.exp(forward(m, one)) for m in (model, sent))
                ratios.append((a / a.sum()) / (b / b.sum()))
            ddifs.append(np.mean(ratios, axis=0))
        distances.append(different(clusters(ddifs, "euclidean")))
    bias = [model["bias"] - sent["bias"] for model in models]
    lengths = [np.sqrt(b @ b) for b in bias]
    cosine = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            if i != j:
                cosine[i, j] = 1 - bias[i] @ bias[j] / (lengths[i] * lengths[j])
    merged = (
        different(clusters(cosine, "precomputed"))
        + different(clusters(neups, "euclidean"))
        + sum(distances) / 3
    ) / 3
    final = clusters(merged, "precomputed")
    accepted = []
    for i in range(n):
        members = [j for j in range(n) if j == i or (final[i] >= 0 and final[j] == final[i])]
        if sum(labels[j] for j in members) / len(members) < 1 / 3:
            accepted.append(i)

    def flat(model):
        return np.concatenate([model[name].ravel() for name in sent])

    norms = [np.linalg.norm(flat(model) - flat(sent)) for model in models]
    clipped = [
        flat(sent) + (flat(models[i]) - flat(sent)) * min(1, np.median(norms) / norms[i])
        for i in accepted
    ]
    return labels, accepted, np.mean(clipped, axis=0) if accepted else flat(sent)


def crowd(seed, n=10, attackers=3, p=6):
    """Honest models move all output neurons; attackers' one of them."""
    rng = np.random.default_rng(seed)
    shapes = {"hidden": (5, 7), "out": (p, 7), "bias": (p,)}
    sent = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    way = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    models = []
    for client in range(n):
        own = {k: 0.3 * (way[k] + 0.3 * rng.standard_normal(s)) for k, s in shapes.items()}
        if client < attackers:
            for name in ("out", "bias"):
                own[name] *= 0.05
                own[name][2] += 1.0
        models.append({name: sent[name] + own[name] for name in shapes})
    return sent, models


def flat(model):
    return np.concatenate([model[name].ravel() for name in ("hidden", "out", "bias")])


@pytest.mark.parametrize("seed", range(5))
def test_it_is_what_the_paper_says(seed, play):
    sent, models = crowd(seed, n=5 + 2 * seed, attackers=seed)
    # Ties among distances of clusters are decided by the order of the rows.
    order = np.lexsort([[m["hidden"].tobytes() for m in models]])
    models = [models[i] for i in order]
    labels, accepted, expected = deepsight_written_out(sent, models, 1)
    model, report = play(rule(), sent, models)
    assert report["suspicious_nodes"] == [i + 1 for i, label in enumerate(labels) if label]
    assert report["kept_nodes"] == [i + 1 for i in accepted]
    np.testing.assert_allclose(flat(model), expected, rtol=1e-7, atol=1e-9)


def test_models_of_homogeneous_data_are_rejected(play):
    for seed in range(4):
        sent, models = crowd(seed, n=12, attackers=4)
        _, report = play(rule(), sent, models)
        assert report["suspicious_nodes"] == report["dropped_nodes"] == [1, 2, 3, 4]


def test_clusters_with_many_suspicious_models_are_rejected_not_the_others():
    """The fault of BackFed's code."""
    distances = np.kron(1 - np.eye(2), np.ones((4, 4)))
    labels = np.array([True, True, False, False, False, False, False, True])
    found = rejected(distances, labels, 1 / 3)
    assert found.tolist() == [True] * 4 + [False] * 4


def test_the_length_of_an_update_does_not_make_it_suspicious():
    rng = np.random.default_rng(0)
    weights, biases = rng.standard_normal((9, 6, 4)), rng.standard_normal((9, 6))
    weights[:2, 1:] *= 0.001
    biases[:2, 1:] *= 0.001
    neups = normalized_energies(weights, biases)
    np.testing.assert_allclose(neups.sum(axis=1), 1)
    factors = np.linspace(0.1, 50, 9)
    scaled = normalized_energies(weights * factors[:, None, None], biases * factors[:, None])
    np.testing.assert_allclose(scaled, neups)
    assert suspicious(neups).tolist() == [True, True] + [False] * 7
    assert not normalized_energies(0 * weights, 0 * biases).any()


def test_where_it_cannot_act_the_model_stays_and_it_says_so(play, warned):
    sent, models = crowd(1)
    vector = [{"w": np.ones(4) * i} for i in range(5)]
    wider = rule()
    wider.run_model = lambda arrays, inputs: np.ones((len(inputs), 9))  # noqa: ARG005
    cases = [
        (rule(), sent, models[:2]),
        (rule(), {"w": np.zeros(4)}, vector),
        (wider, sent, models),
        (rule(tau=1e-9), *crowd(2, n=6, attackers=6)),
    ]
    for number, (strategy, start, some) in enumerate(cases[:3], 1):
        model, report = play(strategy, start, some)
        assert all(np.array_equal(model[name], start[name]) for name in start)
        assert report["cannot_act"] == 1
        assert warned("DeepSight") == number


def test_a_model_that_predicts_no_numbers_is_one_among_others(play):
    sent, models = crowd(1, n=12, attackers=4)
    strategy = rule()
    immense = models[0]["bias"]

    def overflows(arrays, inputs):
        outputs = run_model(arrays, inputs)
        return (
            np.full_like(outputs, np.inf) if (arrays["bias"].numpy() == immense).all() else outputs
        )

    strategy.run_model = overflows
    model, report = play(strategy, sent, models)
    assert report["dropped_nodes"] == [1, 2, 3, 4]
    assert np.isfinite(flat(model)).all()


def test_outputs_last_is_read_as_well(play):
    """As Keras and JAX lay the weights of a dense layer."""
    sent, models = crowd(3)
    turned = [m | {"out": m["out"].T.copy()} for m in (sent, *models)]
    strategy = rule()
    strategy.run_model = lambda arrays, inputs: forward(
        {n: a.numpy().T if n == "out" else a.numpy() for n, a in arrays.items()}, inputs
    )
    _, told = play(rule(), sent, models)
    _, also = play(strategy, turned[0], turned[1:])
    assert told["suspicious_nodes"] == also["suspicious_nodes"]
    assert set(told["kept_nodes"]) == set(also["kept_nodes"])


def test_without_a_way_to_run_models_it_does_not_begin(play):
    sent, models = crowd(1)
    strategy = DeepSight(seed=0)
    with pytest.raises(ValueError, match=r"cannot act without noise: set strategy\.noise"):
        play(strategy, sent, models)
    strategy.noise = noise
    with pytest.raises(ValueError, match="cannot act without run_model"):
        play(strategy, sent, models)


@pytest.mark.parametrize(
    ("name", "value"), [("num_inputs", 0), ("tau", 0), ("tau", 1.5), ("seed", -1)]
)
def test_bounds(name, value):
    with pytest.raises(ValueError, match=f"{name} = "):
        DeepSight(**{name: value})
