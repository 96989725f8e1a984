"""FLTrust of Cao et al. 2021: against its paper's algorithm written out."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord

from strategies import FLTrust, NormClipping


def fltrust_written_out(sent, models, root, alpha):
    """Trust, scale and average, client by client."""
    g_0, total, weight, scores = root - sent, np.zeros_like(sent), 0.0, []
    for model in models:
        g = model - sent
        norm = np.sqrt(sum(g**2))
        cosine = sum(g * g_0) / (norm * np.sqrt(sum(g_0**2))) if norm else 0.0
        score = max(cosine, 0.0)
        scores.append(score)
        if score:
            total += score * np.sqrt(sum(g_0**2)) / norm * g
        weight += score
    return scores, sent + alpha * total / weight


def rule(root, **settings):
    strategy = FLTrust(**settings)
    strategy.root_update = lambda *_: ArrayRecord({"w": Array(root)})
    return strategy


def crowd(seed, n=9, d=20):
    rng = np.random.default_rng(seed)
    sent, way = rng.standard_normal((2, d))
    models = sent + way + rng.standard_normal((n, d))
    models[:3] = sent - 5 * way
    return sent, models, sent + way + 0.3 * rng.standard_normal(d)


def records(models):
    return [{"w": model} for model in models]


@pytest.mark.parametrize("seed", range(8))
def test_it_is_what_the_paper_says(seed, play):
    sent, models, root = crowd(seed, n=4 + 3 * seed)
    if seed > 4:
        models[-1] = sent
    scores, expected = fltrust_written_out(sent, models, root, 0.7)
    model, report = play(rule(root, learning_rate=0.7), {"w": sent}, records(models))
    np.testing.assert_allclose(model["w"], expected, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(report["trust"], scores, atol=1e-12)


def test_no_length_of_an_update_changes_anything(play):
    sent, models, root = crowd(2)
    first, _ = play(rule(root), {"w": sent}, records(models))
    factors = np.linspace(0.1, 1e6, len(models))[:, np.newaxis]
    scaled, _ = play(rule(root), {"w": sent}, records(sent + (models - sent) * factors))
    np.testing.assert_allclose(scaled["w"], first["w"], rtol=1e-6)


def test_the_step_is_at_most_as_long_as_the_servers_own(play):
    for seed in range(5):
        sent, models, root = crowd(seed)
        model, _ = play(rule(root), {"w": sent}, records(models))
        assert np.linalg.norm(model["w"] - sent) <= np.linalg.norm(root - sent) * (1 + 1e-9)


def test_who_points_the_other_way_has_no_vote(play):
    sent, models, root = crowd(4)
    _, report = play(rule(root), {"w": sent}, records(models))
    assert {1, 2, 3} <= set(report["dropped_nodes"])
    _, told = play(NormClipping(rule(root), 1e9), {"w": sent}, records(models))
    assert told["dropped_nodes"] == report["dropped_nodes"]


def test_what_an_app_gives_a_strategy_reaches_the_rule_inside(play):
    sent, models, root = crowd(4)
    around = NormClipping(NormClipping(FLTrust(), 1e9), 1e9)
    around.root_update = rule(root).root_update
    first, _ = play(around, {"w": sent}, records(models))
    second, _ = play(rule(root), {"w": sent}, records(models))
    np.testing.assert_allclose(first["w"], second["w"], rtol=1e-12)


def test_nobody_trusted_or_nothing_learned_leaves_the_model_and_it_says_so(play, warned):
    sent, models, root = crowd(5)
    away = 2 * sent - root
    model, report = play(rule(root), {"w": sent}, records([away] * 4))
    np.testing.assert_array_equal(model["w"], sent)
    assert (report["cannot_act"], report["kept_nodes"]) == (1, [])
    model, report = play(rule(sent), {"w": sent}, records(models))
    np.testing.assert_array_equal(model["w"], sent)
    assert report["cannot_act"] == 1
    assert warned("FLTrust") == 2


def test_a_part_of_a_model_or_another_one(play):
    """What an app's own training leaves out has not changed; other shapes are refused."""
    sent, models, root = crowd(7)
    whole, part = rule(root), rule(root)
    both = [{"w": model, "frozen": np.ones(3)} for model in models]
    whole.root_update = lambda *_: ArrayRecord({"w": Array(root), "frozen": Array(np.ones(3))})
    first, second = (
        play(strategy, {"w": sent, "frozen": np.ones(3)}, both)[0] for strategy in (whole, part)
    )
    np.testing.assert_array_equal(first["w"], second["w"])
    with pytest.raises(ValueError, match="root_update returned a model of other shapes"):
        play(rule(root[:5]), {"w": sent}, records(models))


def test_without_root_data_it_does_not_begin(play):
    sent, models, _ = crowd(6)
    for strategy in (FLTrust(), NormClipping(FLTrust(), 1.0)):
        with pytest.raises(ValueError, match=r"cannot act without root_update: set strategy\.root"):
            play(strategy, {"w": sent}, records(models))


@pytest.mark.parametrize("value", [0, -1, float("nan"), "1"])
def test_bounds(value):
    with pytest.raises(ValueError, match="learning_rate = "):
        FLTrust(value)


def test_the_bound_holds_for_updates_that_are_rounding(play):
    """Updates of a denormal number get a factor of 1e44: differences of models would be lost."""
    rng = np.random.default_rng(0)
    sent, way = rng.normal(0, 0.1, 1000).astype(np.float32), rng.normal(0, 0.01, 1000)
    sent[:2] = 0
    models = [(sent + way + rng.normal(0, 0.01, 1000)).astype(np.float32) for _ in range(8)]
    for column, value in enumerate((1e-45, 3e-45)):
        models.append(sent.copy())
        models[-1][column] = np.float32(value) * np.sign(way[column])
    root = (sent + way).astype(np.float32)
    model, report = play(rule(root), {"w": sent}, records(models))
    assert min(report["trust"]) > 0
    length = np.linalg.norm(model["w"].astype(float) - sent)
    assert 0.5 * np.linalg.norm(way) < length <= 1.001 * np.linalg.norm(way)
