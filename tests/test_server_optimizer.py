"""Tests of `strategies.rules.server_optimizer`: Flower's strategies are the twins."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import strategy as flower
from hypothesis import given
from hypothesis import strategies as st

from fl_backdoor.federation.engines import LocalGrid
from strategies import FedAdam, FedAvg, FedAvgM, FedYogi, Outcome, Robust, Sniper

SHAPES = {"w": (3, 4), "b": (4,)}
CLIENTS = 4
Model = dict[str, np.ndarray]


def drawn(seed: int, dtype: object = np.float64) -> Model:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in SHAPES.items()}


def played(
    strategy: Any,
    reply: Callable[..., Message],
    record: Callable[..., ArrayRecord],
    *,
    rounds: range = range(1, 5),
    model: Model | None = None,
    before: Callable[[int], object] = lambda _: None,
    seed: int = 0,
) -> Model:
    """Play rounds in which clients answer with the model and some noise."""
    model = model or drawn(99)
    for number in rounds:
        arrays = record(model)
        list(strategy.configure_train(number, arrays, ConfigRecord(), LocalGrid(None, CLIENTS)))
        before(number)
        noise = [drawn(seed + 10 * number + node) for node in range(CLIENTS)]
        replies = [
            reply({n: a + 0.1 * part[n] for n, a in model.items()}, node=node)
            for node, part in enumerate(noise, start=1)
        ]
        new, _ = strategy.aggregate_train(number, replies)
        model = {name: array.numpy() for name, array in new.items()}
    return model


def close(first: Model, second: Model) -> bool:
    return all(np.allclose(first[name], second[name], rtol=1e-9, atol=0) for name in first)


@pytest.mark.parametrize(("rate", "momentum"), [(1.0, 0.9), (0.3, 0.5), (0.5, 0.0)])
def test_momentum_is_flowers(rate: float, momentum: float, reply: Any, record: Any) -> None:
    ours = FedAvgM(FedAvg(), learning_rate=rate, momentum=momentum)
    twin = flower.FedAvgM(server_learning_rate=rate, server_momentum=momentum)
    assert close(played(ours, reply, record), played(twin, reply, record))


def from_tau(twin: Any) -> None:
    """Let one of Flower's strategies begin with the paper's v, at least tau^2."""
    if twin.v_t is None:
        twin.v_t = {name: np.full(shape, twin.tau**2) for name, shape in SHAPES.items()}


SETTINGS = {"beta_1": 0.8, "beta_2": 0.95, "tau": 0.01}


def test_yogi_is_flowers(reply: Any, record: Any) -> None:
    ours = FedYogi(FedAvg(), learning_rate=0.1, **SETTINGS)
    twin = flower.FedYogi(eta=0.1, **SETTINGS)
    expected = played(twin, reply, record, before=lambda _: from_tau(twin))
    assert close(played(ours, reply, record), expected)


def test_adam_is_flowers_without_its_correction(reply: Any, record: Any) -> None:
    ours = FedAdam(FedAvg(), learning_rate=0.1, **SETTINGS)
    twin = flower.FedAdam(eta=0.1, **SETTINGS)

    def before(number: int) -> None:
        from_tau(twin)
        corrected = np.sqrt(1 - 0.95 ** (number + 1)) / (1 - 0.8 ** (number + 1))
        twin.eta = 0.1 / corrected

    assert close(played(ours, reply, record), played(twin, reply, record, before=before))


@given(seed=st.integers(0, 1000))
def test_without_momentum_it_is_the_strategy_inside(seed: int, reply: Any, record: Any) -> None:
    def one(strategy: Robust) -> Model:
        model = drawn(seed, np.float32)
        return played(strategy, reply, record, rounds=range(1, 3), model=model, seed=seed)

    around, inside = one(FedAvgM(Sniper(threshold=9.0), momentum=0.0)), one(Sniper(threshold=9.0))
    assert all(np.array_equal(around[name], inside[name]) for name in inside)


@pytest.mark.parametrize("kind", [FedAvgM, FedAdam, FedYogi])
def test_a_round_that_keeps_the_model_is_no_step(kind: Any, reply: Any, record: Any) -> None:
    one = kind(FedAvg())
    model = played(one, reply, record, rounds=range(1, 2))
    before = one.remember()
    assert before
    one.inner.aggregate = lambda _: Outcome(None)
    kept = played(one, reply, record, rounds=range(2, 3), model=model)
    assert close(kept, model)
    assert all(one.remember()[name] is value for name, value in before.items())


@pytest.mark.parametrize("kind", [FedAdam, FedYogi])
def test_a_tau_whose_square_is_infinite_moves_nothing(kind: Any, reply: Any, record: Any) -> None:
    assert close(played(kind(FedAvg(), tau=1e300), reply, record), drawn(99))


def test_a_momentum_beyond_the_models_precision_is_forgotten(reply: Any, record: Any) -> None:
    """One of four clients sends what float16 just holds; when it stops, the model moves again."""
    strategy, model = FedAvgM(FedAvg()), {"w": np.zeros(2, np.float16)}
    for number in range(1, 10):
        list(strategy.configure_train(number, record(model), ConfigRecord(), LocalGrid(None, 4)))
        sent = [
            model["w"],
            model["w"],
            model["w"],
            np.float16(6.5e4 * (number < 6)) + 0 * model["w"],
        ]
        new, _ = strategy.aggregate_train(
            number, [reply({"w": w.astype(np.float16)}, node=i) for i, w in enumerate(sent)]
        )
        before, model = model, model if new is None else {"w": new["w"].numpy()}
        assert np.isfinite(model["w"]).all()
        assert number < 7 or (model["w"] < before["w"]).all()


def test_another_models_memory_is_not_used(reply: Any, record: Any) -> None:
    one = FedAdam(FedAvg())
    one.memory = {"m": np.ones(3), "v": np.ones(3)}
    assert close(played(one, reply, record), played(FedAdam(FedAvg()), reply, record))


@pytest.mark.parametrize(
    ("kind", "setting"),
    [
        (FedAvgM, {"momentum": 1.0}),
        (FedAvgM, {"learning_rate": 0}),
        (FedAdam, {"beta_1": -0.1}),
        (FedYogi, {"beta_2": 1}),
        (FedYogi, {"tau": 0.0}),
    ],
)
def test_settings_out_of_range_are_named(kind: Any, setting: dict[str, float]) -> None:
    [(name, value)] = setting.items()
    with pytest.raises(ValueError, match=f"^{name} = {value!r} must be a .*number"):
        kind(FedAvg(), **setting)
