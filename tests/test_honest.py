"""Tests of `clients.honest`: the training against a slow twin, and that only the seed decides."""

import math
from collections.abc import Callable
from copy import deepcopy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from torch import Tensor, nn
from torch.nn import functional

from clients import HonestClient, honest
from clients.arrays import decode, encode
from clients.training import descend

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
    monkeypatch.setattr(honest, "descend", lambda *_, **settings: used.append(settings) or 0.0)
    client().fit(server_round)
    (settings,) = used
    assert settings["learning_rate"] == pytest.approx(rate, abs=5e-9)
    assert settings["weight_decay"] == 0.01


class Sum(nn.Module):
    """Shares a parameter, leaves one out every other batch and one for good, and freezes one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.shared, self.last = (nn.Linear(n, m) for n, m in ((16, 8), (8, 8), (8, 3)))
        self.sometimes, self.never = (nn.Parameter(torch.ones(3)) for _ in range(2))
        self.frozen = nn.Parameter(torch.full((3,), 0.5), requires_grad=False)
        self.calls = 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        hidden = self.shared(torch.relu(self.shared(self.first(images.flatten(1)))))
        output = self.last(hidden) * self.frozen
        return output * self.sometimes if self.calls % 2 else output


@settings(max_examples=12)
@given(
    weight_decay=st.sampled_from([0.0, 0.01, 0.3]),
    rate=st.floats(0.001, 0.5),
    batch_size=st.integers(1, 12),
    seed=st.integers(0, 2**40),
    whole=st.booleans(),
)
def test_steps_are_those_of_torch_to_the_bit(
    weight_decay: float, rate: float, batch_size: int, seed: int, whole: bool
) -> None:
    torch.manual_seed(3)
    one = Sum() if whole else nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Dropout(), nn.Tanh())
    two = deepcopy(one)
    descend(
        one,
        IMAGES,
        LABELS,
        batch_size=batch_size,
        epochs=2,
        learning_rate=rate,
        weight_decay=weight_decay,
        seed=seed,
    )
    optimizer = torch.optim.SGD(two.parameters(), lr=rate, weight_decay=weight_decay)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(2):
            for batch in torch.randperm(len(LABELS)).split(batch_size):
                loss = functional.cross_entropy(two(IMAGES[batch]), LABELS[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    assert same(one.state_dict(), two.state_dict())
    assert all(parameter.grad is None for parameter in one.parameters())


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


class Answers(nn.Module):
    """Returns its logits in some form."""

    def __init__(self, form: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.inner, self.form = network(), form

    def forward(self, images: Tensor) -> object:
        return self.form(self.inner(images))


def inner(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("inner."): tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    "form",
    [
        lambda x: (x, x * 2),
        lambda x: [x],
        lambda x: {"loss": 0, "logits": x},
        lambda x: SimpleNamespace(logits=x),
    ],
)
def test_logits_are_found_in_what_a_model_returns(
    form: Callable[[Tensor], object], train_message: Callable[..., Message]
) -> None:
    one = HonestClient(Answers(form), IMAGES, LABELS)
    assert one.fit(1) == client().fit(1)
    assert same(inner(one.model.state_dict()), trained())
    message = train_message(ArrayRecord(one.model.state_dict()))
    assert 0 <= one.evaluate(message, CONTEXT).content["metrics"]["accuracy"] <= 1  # type: ignore[operator, index]


@pytest.mark.parametrize("form", [lambda x: {"output": x}, lambda _: (), lambda x: str(x)])
def test_a_model_without_logits_is_one_line(form: Callable[[Tensor], object]) -> None:
    with pytest.raises(ValueError, match=r"^the model returns a \w+: allowed are logits .*$"):
        HonestClient(Answers(form), IMAGES, LABELS).fit(1)


def with_adapter() -> nn.Module:
    """Build a frozen network with an adapter to train, as LoRA does."""
    model = nn.Sequential(network().requires_grad_(False), nn.Linear(3, 3))
    with torch.no_grad():
        model[1].weight.copy_(torch.eye(3))
    return model


def test_a_part_of_the_model_is_answered_by_the_same_part(
    train_message: Callable[..., Message],
) -> None:
    adapter = {n: t for n, t in with_adapter().state_dict().items() if n.startswith("1.")}
    one = HonestClient(with_adapter(), IMAGES, LABELS)
    reply = one.train(train_message(ArrayRecord(adapter)), CONTEXT).content
    sent = reply["arrays"].to_torch_state_dict()  # type: ignore[union-attr]
    assert sent.keys() == adapter.keys()
    assert not same(sent, adapter)
    assert same(one.model[0].state_dict(), network().state_dict())  # type: ignore[index]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.pop("1.bias"), "the message has no array '1.bias', which training changes"),
        (lambda s: s.update(odd=torch.ones(1)), "has an array 'odd', which the model does not"),
        (lambda s: s.update({"3.bias": torch.ones(9)}), r"'3.bias' has shape \(9,\), the model's"),
    ],
)
def test_another_model_is_one_line(
    change: Callable[[dict[str, Tensor]], object],
    said: str,
    train_message: Callable[..., Message],
) -> None:
    state = dict(network().state_dict())
    change(state)
    with pytest.raises(ValueError, match=said) as error:
        client().train(train_message(ArrayRecord(state)), CONTEXT)
    assert "\n" not in str(error.value)


def test_a_frozen_model_is_one_line() -> None:
    with pytest.raises(ValueError, match="no parameter that requires a gradient"):
        HonestClient(network().requires_grad_(False), IMAGES, LABELS).fit(1)


def normalized(size: int, **training: int) -> HonestClient:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    return HonestClient(model, IMAGES[:size], LABELS[:size], **training)  # type: ignore[arg-type]


@given(size=st.integers(2, 23), batch_size=st.integers(2, 12), epochs=st.integers(1, 2))
def test_batch_norm_gets_no_batch_of_one(size: int, batch_size: int, epochs: int) -> None:
    seen: list[int] = []
    one = normalized(size, batch_size=batch_size, epochs=epochs)
    one.model.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    assert math.isfinite(one.fit(1))
    expected = [batch_size] * (size // batch_size) + [size % batch_size] * (size % batch_size > 0)
    if expected[-1] == 1:
        expected[-2:] = [batch_size + 1]
    assert seen == expected * epochs
    assert int(one.model[2].num_batches_tracked) == len(seen)  # type: ignore[index]


def test_batch_norm_of_one_sample_is_one_line() -> None:
    with pytest.raises(ValueError, match="BatchNorm, which needs 2 samples or more"):
        normalized(1).fit(1)


def test_statistics_of_batch_norm_have_to_arrive(train_message: Callable[..., Message]) -> None:
    one = normalized(9)
    state = {n: t for n, t in one.model.state_dict().items() if "running_mean" not in n}
    with pytest.raises(ValueError, match=r"no array '2\.running_mean'"):
        one.train(train_message(ArrayRecord(state)), CONTEXT)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_any_float_dtype_trains(dtype: torch.dtype, train_message: Callable[..., Message]) -> None:
    """And bfloat16, which numpy does not have, arrives and is sent as float32."""
    travels = torch.float32 if dtype == torch.bfloat16 else dtype
    state = {n: t.to(travels) for n, t in network().to(dtype).state_dict().items()}
    one = HonestClient(network().to(dtype), IMAGES, LABELS)
    reply = one.train(train_message(ArrayRecord(state)), CONTEXT).content
    sent = reply["arrays"].to_torch_state_dict()  # type: ignore[union-attr]
    assert {tensor.dtype for tensor in sent.values()} == {travels}
    assert sum(float((sent[n] - state[n]).abs().sum()) for n in state) > 0
    assert all(torch.isfinite(tensor).all() for tensor in sent.values())


def test_metrics_have_the_names_of_the_app(train_message: Callable[..., Message]) -> None:
    names = {"num-examples": "num-examples", "train-loss": "train_loss", "loss": "eval_loss"}
    one = HonestClient(network(), IMAGES, LABELS, metrics=names)
    message = train_message(ArrayRecord(network().state_dict()))
    metrics = one.train(message, CONTEXT).content["metrics"]
    assert set(metrics) == {"num-examples", "train_loss"}
    assert metrics["train_loss"] == client().fit(1)
    assert set(one.evaluate(message, CONTEXT).content["metrics"]) == {"num-examples", "eval_loss"}


@given(
    array=arrays_of.arrays(
        dtype=st.sampled_from(["f2", "f4", "f8", ">f4", "i8", "u1", "?"]),
        shape=arrays_of.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    )
)
def test_arrays_travel_as_flower_has_them(array: np.ndarray) -> None:
    ours, flowers = encode(array), Array(array)
    assert ours == flowers
    for sent in (ours, flowers, Array(np.asfortranarray(array))):
        back = decode(sent)
        assert back.dtype == array.dtype
        np.testing.assert_array_equal(back, array)
        assert not back.flags.writeable
