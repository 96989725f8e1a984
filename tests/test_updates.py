"""Tests of `clients.updates`: attacks on updates, as functions and as mods."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.app.error import Error
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from torch import nn

from clients import BackdoorClient, model_replacement_mod, norm_projection_mod
from clients.updates import project_update, scale_update

CONTEXT = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})

vectors = arrays_of.arrays(np.float32, 5, elements=st.floats(-100, 100, width=32))


def model(values: np.ndarray, counter: int = 0) -> ArrayRecord:
    """Spread values over two floating arrays, beside a counter as of BatchNorm."""
    parts = {"a": values[:2], "n": np.array(counter), "b": values[2:].reshape(1, -1)}
    return ArrayRecord({name: Array(part) for name, part in parts.items()})


def values(arrays: ArrayRecord) -> np.ndarray:
    return np.concatenate([arrays["a"].numpy(), arrays["b"].numpy()[0]]).astype(np.float64)


def same(a: ArrayRecord, b: ArrayRecord) -> bool:
    return list(a) == list(b) and all(np.array_equal(a[n].numpy(), b[n].numpy()) for n in a)


@given(vectors, vectors, st.floats(-20, 20))
def test_scaling_is_exact_up_to_the_last_rounding(
    received: np.ndarray, local: np.ndarray, factor: float
) -> None:
    sent = scale_update(model(received, 3), model(local, 7), factor)
    center = received.astype(np.float64)
    expected = center + factor * (local - center)
    np.testing.assert_array_equal(values(sent), expected.astype(np.float32))
    assert list(sent) == ["a", "n", "b"]
    assert sent["b"].numpy().dtype == np.float32
    assert sent["b"].numpy().shape == (1, 3)
    assert (sent["n"].numpy().dtype, int(sent["n"].numpy())) == (np.int64, 7)


@given(vectors, vectors, st.floats(0.01, 1000))
def test_projection_bounds_the_norm_and_keeps_the_direction(
    received: np.ndarray, local: np.ndarray, max_norm: float
) -> None:
    sent = project_update(model(received, 3), model(local, 7), max_norm)
    before, after = local.astype(np.float64) - received, values(sent) - received
    norm = np.linalg.norm(before)
    assert int(sent["n"].numpy()) == 7
    if norm <= max_norm:
        assert same(sent, model(local, 7))
    else:
        assert np.linalg.norm(after) == pytest.approx(max_norm, rel=1e-4, abs=1e-4)
        np.testing.assert_allclose(after, before * max_norm / norm, atol=1e-4)


def test_golden() -> None:
    received, local = model(np.zeros(5)), model(np.array([3.0, 0, 0, 4.0, 0]))
    assert values(scale_update(received, local, 2.0)).tolist() == [6, 0, 0, 8, 0]
    assert values(project_update(received, local, 2.5)).tolist() == [1.5, 0, 0, 2, 0]
    assert values(project_update(received, received, 2.5)).tolist() == [0] * 5


def add_one(message: Message, context: Context) -> Message:
    """Train like anybody's client: every weight and counter grows by 1."""
    (record,) = message.content.array_records.values()
    grown = ArrayRecord({name: Array(np.asarray(a.numpy() + 1)) for name, a in record.items()})
    content = RecordDict({"arrays": grown, "metrics": MetricRecord({"num-examples": 1})})
    return Message(content, reply_to=message)


def answer(
    message: Message,
    *mods: Mod,
    client: Callable[[Message, Context], Message] = add_one,
) -> Message:
    app = ClientApp(mods=list(mods))
    app.train()(client)
    app.evaluate()(client)
    return app(message, CONTEXT)


def test_mods_do_what_the_backdoor_client_does(train_message: Callable[..., Message]) -> None:
    client = BackdoorClient(
        nn.Linear(1, 1), torch.zeros(2, 1, 1, 1), torch.zeros(2).long(), target=0, pattern=[(0, 0)]
    )
    received = model(np.arange(5.0), 4)
    mods = norm_projection_mod(0.5), model_replacement_mod(10.0)
    for used, own in (((), (None, None)), (mods, (10.0, 0.5)), (mods[:1], (None, 0.5))):
        client.replacement, client.max_norm = own
        reply = answer(train_message(received), *used)
        expected = client.poison_update(received, model(np.arange(5.0) + 1, 5))
        assert same(reply.content["arrays"], expected)  # type: ignore[arg-type]
        assert reply.content["metrics"] == MetricRecord({"num-examples": 1})


def test_the_first_mod_is_the_outermost(train_message: Callable[..., Message]) -> None:
    def norm(*mods: Mod) -> float:
        sent = answer(train_message(model(np.zeros(5))), *mods).content["arrays"]
        return float(np.linalg.norm(values(sent)))  # type: ignore[arg-type]

    project, scale = norm_projection_mod(1.0), model_replacement_mod(10.0)
    assert norm() == pytest.approx(5**0.5)
    assert norm(project, scale) == pytest.approx(1)
    assert norm(scale, project) == pytest.approx(10)


def test_other_replies_pass_untouched(train_message: Callable[..., Message]) -> None:
    mods = norm_projection_mod(0.1), model_replacement_mod(10.0)
    received = model(np.zeros(5))

    def fail(message: Message, context: Context) -> Message:
        return Message(Error(code=5, reason="gone"), reply_to=message)

    failed = answer(train_message(received), *mods, client=fail)
    assert (failed.error.code, failed.error.reason) == (5, "gone")
    question = Message(RecordDict({"arrays": received}), 1, "evaluate")
    answered = answer(question, *mods)
    assert same(answered.content["arrays"], model(np.ones(5), 1))  # type: ignore[arg-type]


@pytest.mark.parametrize("how", ["clear", "replace", "in place"])
def test_a_client_that_changes_its_message(train_message: Callable[..., Message], how: str) -> None:
    def careless(message: Message, context: Context) -> Message:
        reply = add_one(message, context)
        if how == "clear":
            message.content.clear()
        elif how == "replace":
            message.content["arrays"] = reply.content["arrays"]
        else:
            own, new = message.content["arrays"], reply.content["arrays"]
            for name in own:
                own[name].data = new[name].data  # type: ignore[union-attr, index]
        return reply

    sent = answer(train_message(model(np.zeros(5))), model_replacement_mod(3.0), client=careless)
    assert values(sent.content["arrays"]).tolist() == [3] * 5  # type: ignore[arg-type]


def test_batch_norm_counters_stay_and_statistics_scale() -> None:
    layer = nn.BatchNorm1d(2)
    received = ArrayRecord(layer.state_dict())
    layer(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    sent = scale_update(received, ArrayRecord(layer.state_dict()), 5.0).to_torch_state_dict()
    assert int(sent["num_batches_tracked"]) == 1
    assert sent["num_batches_tracked"].dtype == torch.int64
    np.testing.assert_allclose(sent["running_mean"], [1.0, 1.5], rtol=1e-6)


@pytest.mark.parametrize("max_norm", [0.0, -1.0, float("nan")])
def test_a_radius_is_positive(max_norm: float) -> None:
    with pytest.raises(ValueError, match=f"max_norm = {max_norm} must be a positive number"):
        norm_projection_mod(max_norm)


def test_a_scalar_is_scaled_as_well() -> None:
    received, trained = (ArrayRecord({"scale": Array(np.array(v, np.float32))}) for v in (1, 2))
    scaled = scale_update(received, trained, 10.0)["scale"]
    assert (tuple(scaled.shape), scaled.numpy()) == ((), 11)
