"""Tests of how clients train: any optimizer against torch's own loop, schedules, old keys."""

import math
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, StepLR

from clients import HonestClient
from clients.schedules import Constant, Cosine, Exponential, Step
from clients.training import descend
from fl_backdoor.errors import UserError
from fl_backdoor.federation.optimizer import client_settings

from .test_config import composed

INPUTS = torch.rand(23, 6, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(23) % 3


def network() -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 5), nn.Dropout(0.3), nn.Tanh(), nn.Linear(5, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


def same(one: nn.Module, two: nn.Module) -> bool:
    pairs = zip(one.parameters(), two.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


Maker = Callable[[list[Tensor], float], Optimizer]
MAKERS: dict[str, Maker] = {
    "momentum": lambda p, rate: torch.optim.SGD(p, rate, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda p, rate: torch.optim.SGD(p, rate, momentum=0.5, nesterov=True),
    "adam": lambda p, rate: torch.optim.Adam(p, rate, weight_decay=0.1),
    "adamw": lambda p, rate: torch.optim.AdamW(p, rate),
}


@pytest.mark.parametrize("maker", MAKERS)
@settings(max_examples=5)
@given(
    batch_size=st.integers(1, 12),
    max_norm=st.sampled_from([None, 0.3, 5.0]),
    mu=st.sampled_from([0.0, 0.5]),
    seed=st.integers(0, 2**40),
)
def test_steps_are_those_of_torchs_own_loop(
    maker: str, batch_size: int, max_norm: float | None, mu: float, seed: int
) -> None:
    one, two = network(), network()
    options: dict[str, Any] = {"optimizer": MAKERS[maker], "max_norm": max_norm, "mu": mu}
    client = HonestClient(
        one, INPUTS, LABELS, seed=seed, batch_size=batch_size, epochs=2, decay=0.0, **options
    )
    client.fit(1)
    start = [parameter.detach().clone() for parameter in two.parameters()]
    optimizer = MAKERS[maker](list(two.parameters()), 0.08)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(client.round_seed(1))
        for _ in range(2):
            for batch in torch.randperm(len(LABELS)).split(batch_size):
                optimizer.zero_grad()
                functional.cross_entropy(two(INPUTS[batch]), LABELS[batch]).backward()
                for parameter, first in zip(two.parameters(), start, strict=True):
                    assert parameter.grad is not None
                    if mu:
                        parameter.grad += mu * (parameter.detach() - first)
                if max_norm is not None:
                    nn.utils.clip_grad_norm_(two.parameters(), max_norm)
                optimizer.step()
    assert same(one, two)
    assert all(parameter.grad is None for parameter in one.parameters())


def test_plain_sgd_is_corrected_alike() -> None:
    """The fast steps and torch's, both clipped and near the model received."""
    one, two = network(), network()
    options: dict[str, Any] = {"max_norm": 0.5, "mu": 0.3, "weight_decay": 0.02}
    HonestClient(one, INPUTS, LABELS, **options).fit(2)
    options["optimizer"] = lambda p, rate: torch.optim.SGD(p, rate, weight_decay=0.02)
    HonestClient(two, INPUTS, LABELS, **options).fit(2)
    assert same(one, two)


def test_an_attack_has_the_last_word_on_gradients() -> None:
    seen: list[float] = []

    def project(gradients: dict[str, Tensor]) -> None:
        seen.append(math.sqrt(sum(float((g**2).sum()) for g in gradients.values())))
        for name in gradients:
            gradients[name] = torch.zeros_like(gradients[name])

    model = network()
    client = HonestClient(
        model, INPUTS, LABELS, max_norm=0.1, optimizer=lambda p, rate: torch.optim.SGD(p, rate)
    )
    client.hooks = lambda: {"project": project}  # type: ignore[method-assign]
    client.fit(1)
    assert all(norm <= 0.1 + 1e-6 for norm in seen)
    assert same(model, network())


def test_an_optimizer_remembers_nothing_from_round_to_round() -> None:
    def twice(maker: Maker) -> nn.Module:
        client = HonestClient(network(), INPUTS, LABELS, optimizer=maker)
        client.fit(1)
        client.model.load_state_dict(network().state_dict())
        client.fit(1)
        return client.model

    once = HonestClient(network(), INPUTS, LABELS, optimizer=MAKERS["adam"])
    once.fit(1)
    assert same(twice(MAKERS["adam"]), once.model)


def test_parameters_without_a_gradient_stay() -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(6, 3), nn.Linear(6, 3)

        def forward(self, inputs: Tensor) -> Tensor:
            out: Tensor = self.used(inputs)
            return out

    model = Half()
    before = deepcopy(model)
    descend(
        model,
        INPUTS,
        LABELS,
        batch_size=5,
        epochs=1,
        learning_rate=0.1,
        weight_decay=0.0,
        seed=0,
        optimizer=MAKERS["momentum"],
    )
    assert same(model.unused, before.unused)
    assert not same(model.used, before.used)


@pytest.mark.parametrize(
    ("schedule", "twin"),
    [
        (Step(every=3, factor=0.5), lambda o: StepLR(o, 3, 0.5)),
        (Cosine(rounds=10), lambda o: CosineAnnealingLR(o, 10)),
        (
            Exponential(decay=0.2),
            lambda o: torch.optim.lr_scheduler.ExponentialLR(o, math.exp(-0.2)),
        ),
        (Constant(), lambda o: torch.optim.lr_scheduler.ConstantLR(o, 1.0)),
    ],
    ids=lambda v: type(v).__name__,
)
def test_schedules_are_torchs(schedule: Any, twin: Any) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.3)
    scheduler = twin(optimizer)
    for t in range(10):
        assert 0.3 * schedule(t) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9)
        optimizer.step()
        scheduler.step()


def test_a_cosine_stays_at_its_end() -> None:
    assert Cosine(rounds=4)(9) == pytest.approx(0, abs=1e-12)


def test_the_default_is_the_papers_training_to_the_bit() -> None:
    training = client_settings(composed())
    ours, before = network(), network()
    HonestClient(ours, INPUTS, LABELS, **training).fit(7)
    HonestClient(before, INPUTS, LABELS, **composed().training.__dict__).fit(7)
    assert same(ours, before)
    assert training.get("optimizer") is None


@pytest.mark.parametrize(
    ("overrides", "rate", "weight_decay"),
    [
        (["training.learning_rate=0.3", "training.weight_decay=0"], 0.3, 0.0),
        (["optimizer.learning_rate=0.3", "optimizer.weight_decay=0"], 0.3, 0.0),
        (["optimizer.learning_rate=0.3", "training.learning_rate=0.3"], 0.3, 0.01),
        ([], 0.08, 0.01),
    ],
)
def test_old_and_new_keys_say_the_same(
    overrides: list[str], rate: float, weight_decay: float
) -> None:
    training = client_settings(composed(*overrides))
    assert (training["learning_rate"], training["weight_decay"]) == (rate, weight_decay)


class Odd:
    """A schedule of anybody's that is right for two rounds."""

    def __init__(self, then: Any) -> None:
        self.then = then

    def __call__(self, t: int) -> Any:
        return np.float32(0.5) if t < 2 else 1 / self.then


@pytest.mark.parametrize(
    ("then", "found"),
    [
        (-2, "-0.5"),
        (math.nan, "nan"),
        (0, "ZeroDivisionError (division by zero)"),
        ("half", "TypeError (unsupported operand type(s) for /: 'int' and 'str')"),
    ],
)
def test_a_schedule_is_tried_for_every_round(then: Any, found: str) -> None:
    config = composed("num_rounds=3")
    config.optimizer |= {"schedule": {"_target_": f"{__name__}.Odd", "then": then}}
    with pytest.raises(UserError, match=r"^optimizer\.schedule\._target_=") as caught:
        client_settings(config)
    assert f"Odd: {found} for round 2; allowed is a finite number" in str(caught.value)
    config.num_rounds = 2
    client_settings(config)


def test_the_papers_decay_is_a_schedule() -> None:
    assert client_settings(composed("training.decay=0.3"))["schedule"] == Exponential(decay=0.3)


def test_plain_sgd_needs_no_seconds_of_imports(isolated: Callable[[str], object]) -> None:
    folder = str(Path(__file__).parents[1])
    isolated(
        f"""
import sys
sys.path.insert(0, {folder!r})
import torch
from clients import HonestClient
model, inputs, labels = torch.nn.Linear(6, 3), torch.rand(9, 6), torch.arange(9) % 3
HonestClient(model, inputs, labels, mu=0.1, max_norm=1.0).fit(1)
assert "torch._dynamo" not in sys.modules
"""
    )
