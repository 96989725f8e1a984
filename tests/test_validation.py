"""Tests of `fl_backdoor.federation.validation`: one line names every layer that is at fault."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fl_backdoor.errors import UserError
from fl_backdoor.federation.validation import validate

INPUTS = torch.rand(12, 6, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(12) % 3
FEDAVG, SNIPER = {"_target_": "strategies.FedAvg"}, {"_target_": "strategies.Sniper"}
CLIPPING = {"_target_": "strategies.NormClipping", "strategy": FEDAVG}


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.second.weight = self.first.weight

    def forward(self, inputs: Tensor) -> Tensor:
        out: Tensor = self.last(self.second(self.first(inputs)))
        return out


class Scaled(nn.Module):
    """Keeps the mean size of its inputs under a name that is not BatchNorm's."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(6, 3)
        self.size: Tensor
        self.register_buffer("size", torch.ones(1))

    def forward(self, inputs: Tensor) -> Tensor:
        self.size.mul_(0.9).add_(0.1 * inputs.abs().mean())
        out: Tensor = self.dense(inputs / self.size)
        return out


class Apply(nn.Module):
    def __init__(self, what: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.what, self.dense = what, nn.Linear(6, 3)

    def forward(self, inputs: Tensor) -> object:
        return self.what(self.dense(inputs))


class WithState(nn.Linear):
    def get_extra_state(self) -> object:
        return {"version": 1}

    def set_extra_state(self, state: object) -> None:
        pass


def check(model: nn.Module, **changes: Any) -> None:
    settings: dict[str, Any] = {"classes": 3, "sizes": [12, 5], "strategy": SNIPER}
    training = {"batch_size": 4, "learning_rate": 0.1, "seed": 0, **changes.pop("training", {})}
    validate(model, INPUTS, LABELS, **settings | changes, training=training)


def normalized() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))


FOUND: list[tuple[nn.Module, dict[str, Any], list[str]]] = [
    (nn.LazyLinear(3), {}, ["weight has no shape yet", "bias has no shape yet"]),
    (nn.Linear(6, 3, dtype=torch.complex64), {}, ["weight is complex64", "bias is complex64"]),
    (nn.Linear(6, 3, dtype=torch.bfloat16), {}, ["weight is bfloat16, which numpy"]),
    (WithState(6, 3), {}, ["_extra_state is a dict"]),
    (nn.Linear(6, 3).requires_grad_(False), {}, ["no parameter requires a gradient"]),
    (nn.Flatten(), {}, ["no parameter requires a gradient"]),
    (normalized(), {"sizes": [1, 5, 1]}, ["1 (BatchNorm1d) needs 2 samples or more, and 2 of 3"]),
    (normalized(), {"training": {"batch_size": 1}}, ["1 (BatchNorm1d): Expected more than 1"]),
    (Tied(), {}, ["first.weight and second.weight are one tensor"]),
    (Scaled(), {"strategy": CLIPPING}, ["size changes in training and is no parameter"]),
    (nn.Sequential(nn.Linear(6, 5)), {}, ["0 (Linear) returns 5 values a row, the data have 3"]),
    (nn.Linear(6, 2), {}, ["the model (Linear) returns 2 values a row"]),
    (nn.Sequential(nn.Linear(7, 3)), {}, ["0 (Linear): mat1 and mat2 shapes cannot be multiplied"]),
    (Apply(torch.log), {}, ["the model (Apply) returns what is not finite on the first batch"]),
    (Apply(str), {}, ["a step on the first batch: the model returns a str"]),
    (
        nn.Linear(6, 3),
        {"training": {"optimizer": lambda p, rate: torch.optim.LBFGS(p, lr=rate)}},
        ["a step on the first batch: LBFGS.step() missing 1 required positional"],
    ),
    (
        nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 4)),
        {"sizes": [1]},
        ["1 (BatchNorm1d) needs 2 samples", "2 (Linear) returns 4 values"],
    ),
]


@pytest.mark.parametrize(("model", "changes", "said"), FOUND, ids=lambda v: type(v).__name__)
def test_what_cannot_be_dealt_with_is_named(
    model: nn.Module, changes: dict[str, Any], said: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        check(model, **changes)
    message = str(caught.value)
    assert message.startswith(f"model {type(model).__name__}: ")
    assert all(part in message for part in said), message
    assert "\n" not in message


def test_a_layer_that_takes_no_tokens_is_told_that_there_are_some() -> None:
    training = {"batch_size": 4, "learning_rate": 0.1, "seed": 0}
    settings: dict[str, Any] = {"classes": 3, "sizes": [12], "strategy": FEDAVG}
    with pytest.raises(UserError, match=r"the model \(Linear\): .*; the data are texts of tokens"):
        validate(nn.Linear(6, 3), INPUTS.long(), LABELS, training=training, **settings)


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        (normalized(), {}),
        (Tied(), {"strategy": FEDAVG}),
        (Scaled(), {"strategy": FEDAVG}),
        (Scaled(), {"strategy": CLIPPING | {"statistics": ["siz*"]}}),
        (Apply(lambda x: {"logits": x}), {}),
        (nn.Sequential(nn.Linear(6, 3), nn.Dropout(), nn.LayerNorm(3)), {}),
        (nn.Linear(6, 3, dtype=torch.float64), {"training": {"max_norm": 1.0, "mu": 0.1}}),
    ],
)
def test_what_can_be_passes_and_stays_as_it_is(model: nn.Module, changes: dict[str, Any]) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    check(model, **changes)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module._forward_hooks for module in model.modules())
