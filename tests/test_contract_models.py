"""One contract for every yaml of ``conf/model`` and ``conf/optimizer``, and one model of anybody's.

A model either fits an input, and then all of it holds, or says in one line why it does not.
"""

import inspect
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord
from hydra.utils import get_class
from torch import Tensor, nn

from clients import HonestClient
from clients.arrays import encode, to_numpy
from fl_backdoor.config import conf_directory
from fl_backdoor.errors import UserError
from fl_backdoor.federation.model import new_model
from fl_backdoor.federation.optimizer import client_settings
from fl_backdoor.federation.validation import validate

from .test_config import composed, names

ANYBODYS = "torch.nn.Linear"
CLASSES, ROWS, VOCABULARY = 5, 12, 30
TRAINING: dict[str, Any] = {"batch_size": ROWS, "learning_rate": 0.01, "weight_decay": 0.0}
SHAPES = {"grey": (1, 28, 28), "colour": (3, 32, 32), "table": (7,), "text": (9,)}
FITS = {
    "cao2019": {"grey", "colour"},
    "lenet5": {"grey", "colour"},
    "resnet18": {"grey", "colour"},
    "mlp": {"grey", "colour", "table"},
    "logistic": {"grey", "colour", "table"},
    "text": {"text"},
    ANYBODYS: {"table"},
}
"""The inputs that a model is made for; a new one is taken at its word."""


@cache
def settings(name: str, *overrides: str) -> dict[str, Any]:
    if name == ANYBODYS:
        return {"_target_": name, "in_features": 7, "out_features": CLASSES}
    return dict(composed(f"model={name}", *overrides).model)


def built(name: str, kind: str, seed: int = 0) -> nn.Module:
    vocabulary = VOCABULARY if kind == "text" else None
    return new_model(
        settings(name),
        seed,
        num_classes=CLASSES,
        input_shape=SHAPES[kind],
        vocabulary=vocabulary,
    )


def rows(kind: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    shape, labels = (ROWS, *SHAPES[kind]), torch.arange(ROWS) % CLASSES
    if kind == "text":
        return torch.randint(0, VOCABULARY, shape, generator=generator), labels
    return torch.rand(shape, generator=generator), labels


def validated(name: str, kind: str) -> nn.Module:
    model = built(name, kind)
    judging = {"_target_": "strategies.Sniper"}
    validate(model, *rows(kind), classes=CLASSES, sizes=[ROWS], training=TRAINING, strategy=judging)
    return model


def same(first: nn.Module, second: nn.Module) -> bool:
    one, two = first.state_dict(), second.state_dict()
    return all(torch.equal(one[name], two[name]) for name in one)


MODELS = [*names("model"), ANYBODYS]
PAIRS = [(name, kind) for name in MODELS for kind in SHAPES]
FITTING = [(name, kind) for name, kind in PAIRS if kind in FITS.get(name, SHAPES)]
on_all = pytest.mark.parametrize(("name", "kind"), FITTING)


@on_all
def test_the_seed_alone_decides_the_weights(name: str, kind: str) -> None:
    before = torch.get_rng_state()
    first = built(name, kind)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(77)
    assert same(first, built(name, kind))
    assert not same(first, built(name, kind, seed=1))


@on_all
def test_a_step_trains_it_and_nothing_becomes_nan(name: str, kind: str) -> None:
    model = validated(name, kind)
    inputs, labels = rows(kind)
    client = HonestClient(model, inputs, labels, **TRAINING)
    first, second = client.fit(1), client.fit(1)
    assert 0 < second < first
    assert not same(model, built(name, kind))
    model.eval()
    output = model(inputs)
    assert output.shape == (ROWS, CLASSES)
    assert torch.isfinite(output).all()


@on_all
def test_its_weights_travel(name: str, kind: str) -> None:
    model, other = built(name, kind), built(name, kind, seed=1)
    state = model.state_dict()
    for record in (
        ArrayRecord(state),
        ArrayRecord({name: encode(to_numpy(tensor)) for name, tensor in state.items()}),
        ArrayRecord({name: Array(tensor.numpy()) for name, tensor in state.items()}),
    ):
        other.load_state_dict(record.to_torch_state_dict())
        assert same(model, other)


@pytest.mark.parametrize(("name", "kind"), [pair for pair in PAIRS if pair not in FITTING])
def test_inputs_that_do_not_fit_are_one_line(name: str, kind: str) -> None:
    with pytest.raises(UserError) as caught:
        validated(name, kind)
    assert str(caught.value).startswith("model")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", names("model"))
def test_a_model_has_its_source_and_units(name: str) -> None:
    text = (conf_directory() / "model" / f"{name}.yaml").read_text()
    assert text.startswith("# ")
    kind = get_class(settings(name)["_target_"])
    assert "Parameters" in (inspect.getdoc(kind) or "")
    assert settings(name)["checkpoint"] is None


@pytest.mark.parametrize("name", names("model"))
def test_a_size_that_is_none_is_one_line_that_names_it(name: str) -> None:
    kind = sorted(FITS.get(name, SHAPES))[0]
    for key, value in settings(name).items():
        if isinstance(value, int | list) and not isinstance(value, bool):
            for wrong in (-3, "many", [0], 1.5):
                with pytest.raises(UserError, match=f"model: {key} = ") as caught:
                    new_model(
                        settings(name) | {key: wrong},
                        0,
                        num_classes=CLASSES,
                        input_shape=SHAPES[kind],
                        vocabulary=VOCABULARY,
                    )
                assert "\n" not in str(caught.value)


OPTIMIZERS = [
    *((f"optimizer={name}",) for name in names("optimizer")),
    *(
        (f"optimizer/schedule={name}", "training.decay=0.098")
        for name in names("optimizer/schedule")
    ),
    (
        "optimizer.momentum=0.9",
        "optimizer.nesterov=true",
        "optimizer.mu=0.1",
        "optimizer.max_norm=1",
    ),
    ("optimizer._target_=torch.optim.RMSprop", "~optimizer.nesterov"),
]


@pytest.mark.parametrize("overrides", OPTIMIZERS, ids="-".join)
def test_an_optimizer_trains_and_has_the_same_bits_twice(overrides: tuple[str, ...]) -> None:
    training = client_settings(composed(*overrides)) | {"batch_size": 4}
    inputs, labels = rows("table")

    def trained() -> tuple[nn.Module, list[float]]:
        model = built("mlp", "table")
        client = HonestClient(model, inputs, labels, **training)
        losses = [client.fit(number) for number in range(1, 9)]
        return model, losses

    before = torch.get_rng_state()
    (first, losses), (second, again) = trained(), trained()
    assert torch.equal(torch.get_rng_state(), before)
    assert losses == again
    assert same(first, second)
    assert losses[-1] < losses[0]
    assert all(np.isfinite(losses))


@pytest.mark.parametrize("name", names("optimizer"))
def test_an_optimizer_has_the_keys_that_all_have(name: str) -> None:
    node = composed(f"optimizer={name}").optimizer
    assert {"learning_rate", "weight_decay", "schedule", "max_norm", "mu"} <= node.keys()
    assert (conf_directory() / "optimizer" / f"{name}.yaml").read_text().startswith("# ")
