"""Tests of `clients.honest`: the training against a slow twin, and that only the seed decides."""

import math
from collections.abc import Callable
from copy import deepcopy

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from clients import HonestClient

CONTEXT = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})
IMAGES = torch.rand(23, 1, 4, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(23) % 3


def network(dropout: float = 0.0) -> nn.Module:
    """Build a small network that starts from the same weights every time."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Dropout(dropout), nn.Linear(8, 3))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


def client(**training: float) -> HonestClient:
    return HonestClient(network(training.pop("dropout", 0.0)), IMAGES, LABELS, **training)  # type: ignore[arg-type]


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def trained(server_round: int = 1, **training: float) -> dict[str, Tensor]:
    one = client(**training)
    one.fit(server_round)
    return one.model.state_dict()


@settings(max_examples=20)
@given(
    size=st.integers(1, 23),
    batch_size=st.integers(1, 30),
    epochs=st.integers(1, 2),
    server_round=st.integers(1, 50),
    seed=st.integers(0, 2**40),
    partition=st.integers(0, 99),
)
def test_training_is_that_of_a_slow_twin(
    size: int, batch_size: int, epochs: int, server_round: int, seed: int, partition: int
) -> None:
    one = HonestClient(
        network(),
        IMAGES[:size],
        LABELS[:size],
        seed=seed,
        partition=partition,
        batch_size=batch_size,
        epochs=epochs,
    )
    loss = one.fit(server_round)

    twin = network()
    words = np.random.SeedSequence([seed, partition, server_round]).generate_state(1, np.uint64)
    generator = torch.Generator().manual_seed(int(words[0]) // 2)
    rate = 0.08 * math.exp(-0.098 * (server_round - 1))
    for _ in range(epochs):
        losses = []
        order = torch.randperm(size, generator=generator)
        for start in range(0, size, batch_size):
            batch = order[start : start + batch_size]
            batch_loss = functional.cross_entropy(twin(IMAGES[batch]), LABELS[batch])
            twin.zero_grad()
            batch_loss.backward()
            losses.append(batch_loss.item())
            with torch.no_grad():
                for weight in twin.parameters():
                    assert weight.grad is not None
                    weight.sub_(weight.grad.add(weight, alpha=0.01), alpha=rate)
    assert same(one.model.state_dict(), twin.state_dict())
    assert loss == pytest.approx(np.mean(losses), rel=1e-6)


@pytest.mark.parametrize(
    ("server_round", "rate"), [(1, 0.08), (2, 0.07253191), (3, 0.06576098), (10, 0.03311633)]
)
def test_learning_rate_golden(
    server_round: int, rate: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = []

    class Spy(torch.optim.SGD):
        def __init__(self, parameters: object, lr: float, weight_decay: float) -> None:
            used.append((lr, weight_decay))
            super().__init__(parameters, lr=lr, weight_decay=weight_decay)  # type: ignore[arg-type]

    monkeypatch.setattr(torch.optim, "SGD", Spy)
    client().fit(server_round)
    assert used == [(pytest.approx(rate, abs=5e-9), 0.01)]


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_seed_partition_and_round_decide_every_draw(dropout: float) -> None:
    first = trained(dropout=dropout)
    torch.manual_seed(99)
    assert same(first, trained(dropout=dropout))
    for change in ({"seed": 1}, {"partition": 1}, {"server_round": 2, "decay": 0.0}):
        assert not same(first, trained(dropout=dropout, **change)), change  # type: ignore[arg-type]


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_the_global_generators_are_left_alone(dropout: float) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[index] # noqa: NPY002
    one = client(dropout=dropout)
    torch.set_rng_state(before[0])  # building the network draws
    one.fit(1)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # type: ignore[index] # noqa: NPY002


def test_dropout_is_on_in_training_and_off_in_evaluation(
    train_message: Callable[..., Message],
) -> None:
    assert not same(trained(dropout=0.5), trained(dropout=0.0))
    message = train_message(ArrayRecord(network().state_dict()))
    replies = [client(dropout=p).evaluate(message, CONTEXT).content for p in (0.0, 0.5, 0.5)]
    assert replies[0] == replies[1] == replies[2]


def test_reply_starts_from_the_model_received(train_message: Callable[..., Message]) -> None:
    one = client()
    one.fit(3)  # leaves other weights behind
    message = train_message(ArrayRecord(network().state_dict()), 2)
    received = deepcopy(message.content)
    reply = one.train(message, CONTEXT)
    assert same(reply.content["arrays"].to_torch_state_dict(), trained(2))  # type: ignore[union-attr]
    assert message.content == received
    assert set(reply.content) == {"arrays", "metrics"}
    metrics = reply.content["metrics"]
    assert set(metrics) == {"num-examples", "train-loss", "train-seconds"}
    assert metrics["num-examples"] == 23
    assert metrics["train-loss"] == client().fit(2)
    assert metrics["train-seconds"] > 0  # type: ignore[operator]
    one.fit(4)
    assert same(reply.content["arrays"].to_torch_state_dict(), trained(2))  # type: ignore[union-attr]


def test_evaluate_golden(train_message: Callable[..., Message]) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    weights = {"1.weight": torch.zeros(3, 16), "1.bias": torch.tensor([0.0, math.log(2), 0.0])}
    reply = HonestClient(model, IMAGES, LABELS).evaluate(
        train_message(ArrayRecord(weights)), CONTEXT
    )
    assert set(reply.content) == {"metrics"}
    metrics = reply.content["metrics"]
    assert metrics["num-examples"] == 23
    assert metrics["accuracy"] == pytest.approx(8 / 23)  # everything is read as class 1
    assert metrics["loss"] == pytest.approx((8 * math.log(2) + 15 * math.log(4)) / 23)


def test_in_a_plain_client_app(train_message: Callable[..., Message]) -> None:
    app = ClientApp()
    one = client()
    app.train()(one.train)
    app.evaluate()(one.evaluate)
    arrays = ArrayRecord(network().state_dict())
    reply = app(train_message(arrays), CONTEXT)
    assert reply.metadata.message_type == "train"
    assert same(reply.content["arrays"].to_torch_state_dict(), trained())  # type: ignore[union-attr]
    question = Message(RecordDict({"arrays": arrays}), 1, "evaluate")
    assert set(app(question, CONTEXT).content["metrics"]) == {"num-examples", "loss", "accuracy"}


def test_incomplete_messages_are_named() -> None:
    arrays = ArrayRecord(network().state_dict())
    with pytest.raises(ValueError, match="no 'server-round' in its ConfigRecord"):
        client().train(Message(RecordDict({"arrays": arrays}), 1, "train"), CONTEXT)
    empty = Message(RecordDict(), 1, "train")
    for answer in (client().train, client().evaluate):
        with pytest.raises(ValueError, match="the message has no ArrayRecord"):
            answer(empty, CONTEXT)


def test_no_samples_is_no_training() -> None:
    one = HonestClient(network(), IMAGES[:0], LABELS[:0])
    assert one.fit(1) == 0.0
    assert same(one.model.state_dict(), network().state_dict())
