"""LASA of Xu et al. 2025 (WACV): against its paper's algorithm written out."""

import numpy as np
import pytest

from strategies import LASA

SHAPES = {"hidden": (5, 8), "bias": (8,), "out": (8, 4)}


def mz_written_out(values):
    std = np.std(values)
    return [abs(v - np.median(values)) / std if std > 1e-12 else 0.0 for v in values]


def flat(model):
    return np.concatenate([model[name].ravel() for name in SHAPES])


def lasa_written_out(sent, models, sparsity, lambda_m, lambda_d):
    """Clip, sparsify, filter each layer, average each layer."""
    updates = [{k: m[k] - sent[k] for k in SHAPES} for m in models]
    lengths = [np.sqrt(sum(flat(u) ** 2)) for u in updates]
    tau, d = np.median(lengths), len(flat(sent))
    for u, length in zip(updates, lengths, strict=True):
        order = sorted(abs(flat(u)))
        for k in SHAPES:
            small = abs(u[k]) < order[int(sparsity * d)]
            u[k] = np.where(small, 0, u[k]) * min(1, tau / length)
    new, kept = {}, {}
    for k in SHAPES:
        norms = [np.sqrt((u[k] ** 2).sum()) for u in updates]
        purity = []
        for u in updates:
            signs = np.sign(u[k])
            purity.append((1 + signs.sum() / abs(signs).sum()) / 2 if signs.any() else 0.5)
        first, second = mz_written_out(norms), mz_written_out(purity)
        kept[k] = [i for i in range(len(models)) if first[i] < lambda_m and second[i] < lambda_d]
        new[k] = sent[k] + sum((updates[i][k] for i in kept[k]), 0 * sent[k]) / max(1, len(kept[k]))
    return new, kept


def crowd(seed, n=11, attackers=3):
    rng = np.random.default_rng(seed)

    def draw(scale=1.0):
        return {k: scale * rng.standard_normal(shape) for k, shape in SHAPES.items()}

    sent, way, goal = draw(), draw(), draw(3)
    models = []
    for client in range(n):
        own = draw(0.6)
        models.append({k: sent[k] + way[k] + own[k] + (client < attackers) * goal[k] for k in own})
    return sent, models


@pytest.mark.parametrize("seed", range(10))
def test_it_is_what_the_paper_says(seed, play):
    sent, models = crowd(seed, n=3 + 2 * seed)
    sparsity, radii = 0.1 * (seed % 10), (1.2, 1.4)
    expected, kept = lasa_written_out(sent, models, sparsity, *radii)
    model, report = play(LASA(sparsity, *radii), sent, models)
    for name in SHAPES:
        np.testing.assert_allclose(model[name], expected[name], rtol=1e-9, atol=1e-12)
    sizes = {name: np.prod(shape) / 80 for name, shape in SHAPES.items()}
    votes = [sum(sizes[k] for k in SHAPES if i in kept[k]) for i in range(len(models))]
    np.testing.assert_allclose(report["votes"], votes)
    assert report["layers_kept"] == sum(not rows for rows in kept.values())


def test_one_layer_that_is_odd_costs_a_client_that_layer(play):
    sent, models = crowd(1, n=12, attackers=0)
    models[4]["out"] = sent["out"] - abs(models[4]["out"] - sent["out"])
    model, report = play(LASA(0.3, 2.5, 2.5), sent, models)
    assert report["votes"][4] == pytest.approx(1 - 32 / 80)
    whole, _ = play(LASA(0.3, 2.5, 2.5), sent, models[:4] + models[5:])
    np.testing.assert_allclose(model["out"], whole["out"], atol=0.2)


def test_an_immense_update_is_clipped_before_it_is_looked_at(play):
    sent, models = crowd(2, n=9, attackers=0)
    largest = max(np.linalg.norm(flat(m) - flat(sent)) for m in models)
    models[0] = {k: sent[k] + 1e6 * (models[0][k] - sent[k]) for k in SHAPES}
    model, _ = play(LASA(0.0, 5.0, 5.0), sent, models)
    assert np.linalg.norm(flat(model) - flat(sent)) <= largest


def test_the_unit_of_the_parameters_changes_nothing_but_the_unit(play):
    sent, models = crowd(3)
    first, told = play(LASA(), sent, models)
    second, also = play(
        LASA(), {k: 1e3 * v for k, v in sent.items()}, [{k: 1e3 * m[k] for k in m} for m in models]
    )
    np.testing.assert_allclose(flat(second), 1e3 * flat(first), rtol=1e-9)
    assert told["votes"] == also["votes"]


def test_where_it_cannot_act_the_model_stays_and_it_says_so(play, warned):
    sent, models = crowd(4)
    for rule, some in [(LASA(), models[:2]), (LASA(0.3, 1e-9, 1e-9), models[:10])]:
        model, report = play(rule, sent, some)
        np.testing.assert_array_equal(flat(model), flat(sent))
        assert report["cannot_act"] == 1
    assert report["kept_nodes"] == []
    assert warned("LASA") == 2


@pytest.mark.parametrize("value", [-0.1, 1, float("nan"), True, "0"])
def test_bounds(value):
    with pytest.raises(ValueError, match="sparsity = "):
        LASA(value)
    for name in ("norm_radius", "sign_radius"):
        with pytest.raises(ValueError, match=f"{name} = "):
            LASA(**{name: -1})
