"""One contract for every yaml of ``conf/strategy``: a new one is under it without a line here.

A law holds unless the rule's class declares the exception, with its paper's reason, in
``exceptions``; then it must not hold.
"""

import inspect
import logging
import re
import tracemalloc
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from benchmarks.methods import terms
from fl_backdoor.config import build, conf_directory
from fl_backdoor.errors import UserError
from fl_backdoor.federation.strategy import _check_rule
from strategies import Outcome, Robust, Round, RoundRecord
from strategies.watch import SAID

NAMES = sorted(path.stem for path in (conf_directory() / "strategy").glob("*.yaml"))
CLIENTS = 11
SHAPES = {"conv.weight": (3, 2), "bn.weight": (2,), "out.weight": (4, 2), "out.bias": (4,)}
STATISTICS = {"bn.running_mean": (2,), "bn.running_var": (2,)}


def settings(name: str) -> dict[str, Any]:
    node = deepcopy(composed(name))
    if "num_inputs" in node:
        node["num_inputs"] = 60  # a law needs no more, and models run on each
    return node


@cache
def composed(name: str) -> dict[str, Any]:
    with initialize_config_dir(str(conf_directory()), version_base="1.3"):
        config = compose("config", [f"strategy={name}", f"num_clients={CLIENTS}", "seed=3"])
        container = OmegaConf.to_container(config.strategy, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def checked(node: dict[str, Any]) -> Robust:
    strategy = build("strategy", node, Robust)
    assert isinstance(strategy, Robust)
    _check_rule(strategy.flower, CLIENTS)
    strategy.check(CLIENTS)
    return strategy


def run_model(model: ArrayRecord, inputs: Any) -> np.ndarray:
    """Multiply inputs of any shape by the last matrix of any model: logits of shape (n, P)."""
    last = [array.numpy() for array in model.values() if len(array.shape) >= 2][-1]
    flat = np.reshape(inputs, (len(inputs), -1))
    logits: np.ndarray = flat[:, np.arange(last.shape[1]) % flat.shape[1]] @ last.T
    return logits


def root_update(number: int, sent: ArrayRecord) -> ArrayRecord:
    """Move the parameters of any model towards 1, as the models of `models` do."""
    arrays = {n: a.numpy() for n, a in sent.items()}
    moved = {n: np.asarray(a + (1 - a) / (1 + number), a.dtype) for n, a in arrays.items()}
    return ArrayRecord({n: Array(a) for n, a in moved.items()})


def noise(count: int, rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((count, 3))


def new(name: str) -> Robust:
    """Build a strategy, with what only an app can give it if it needs that."""
    strategy = checked(settings(name))
    means = {"run_model": run_model, "noise": noise, "root_update": root_update}
    for needed, given in means.items():
        if needed in strategy.all_needs():
            setattr(strategy, needed, given)
    return strategy


def models(seed: int = 0, clients: int = CLIENTS, dtype: object = np.float32) -> list[dict]:
    """Models with BatchNorm around a common one; three are far away."""
    rng = np.random.default_rng(seed)
    drawn = []
    for client in range(clients):
        spread = 0.5 if client < 3 else 0.05
        model = {n: (1 + spread * rng.standard_normal(s)).astype(dtype) for n, s in SHAPES.items()}
        model["bn.running_mean"] = rng.standard_normal(2).astype(dtype)
        model["bn.running_var"] = (1e-6 + rng.random(2)).astype(dtype)
        model["bn.num_batches_tracked"] = np.asarray(7 + client)
        drawn.append(model)
    return drawn


Model = dict[str, np.ndarray]


class _Nodes:
    @staticmethod
    def get_node_ids() -> list[int]:
        return list(range(1, CLIENTS + 1))


class Server:
    """Plays rounds of a strategy without a federation."""

    def __init__(self, strategy: Robust, reply: Callable[..., Message], record: Any) -> None:
        self.strategy, self.reply, self.record = strategy, reply, record

    def round(
        self, sent: Model, replies: list[Model], order: list[int] | None = None, number: int = 1
    ) -> tuple[Model, dict[str, Any]]:
        messages = [self.reply(model, node=node) for node, model in enumerate(replies, start=1)]
        return self.play(sent, [messages[i] for i in order or range(len(messages))], number)

    def play(
        self, sent: Model, messages: list[Message], number: int = 1
    ) -> tuple[Model, dict[str, Any]]:
        list(self.strategy.configure_train(number, self.record(sent), ConfigRecord(), _Nodes()))
        arrays, metrics = self.strategy.aggregate_train(number, messages)
        assert isinstance(arrays, ArrayRecord)
        assert all(isinstance(value, int | float) for value in dict(metrics or {}).values())
        return {n: a.numpy() for n, a in arrays.items()}, self.strategy.rounds[number]


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(name: str, reply: Any, record: Any) -> Callable[[], Server]:
    return lambda: Server(new(name), reply, record)


def test_the_log_tells_what_a_rule_was_given(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """All but its seed, by the names of its yaml."""
    strategy, given = new(name), settings(name)
    caplog.set_level(logging.INFO, "flwr")
    strategy.summary()
    said = [
        text for text in caplog.messages if text.startswith(f"\t├──> {type(strategy).__name__}")
    ]
    own = inspect.signature(type(strategy)).parameters.keys() & given.keys()
    for key in own - {"strategy", "weighted", "statistics", "seed"}:
        value = given[key]
        shown = f"{value:g}" if isinstance(value, float) else str(value)
        assert re.search(rf"[:,] {key} {re.escape(shown)}(,|$)", said[0]), (key, said)
    assert "seed" not in " ".join(said)


def parts(strategy: Robust) -> list[Robust]:
    """Return a strategy and those inside it."""
    inner = vars(strategy).get("inner")
    return [strategy, *(parts(inner) if inner is not None else [])]


def law(strategy: Robust, text: str, holds: bool) -> None:
    """Let a law hold, or its declared exception."""
    chain = parts(strategy)
    excepted = [type(part).__name__ for part in chain if text in part.exceptions]
    who = ", ".join(excepted or [type(part).__name__ for part in chain])
    assert holds != bool(excepted), f"{text}: {'declared' if excepted else 'broken'} by {who}"


def same(first: Model, second: Model) -> bool:
    return first.keys() == second.keys() and all(
        first[n].dtype == second[n].dtype and np.array_equal(first[n], second[n]) for n in first
    )


def test_permuted_clients_have_permuted_votes_and_the_same_aggregate(server) -> None:
    sent, replies = models(9)[5], models()
    order = np.random.default_rng(1).permutation(CLIENTS).tolist()
    one, two = server(), server()
    first, told = one.round(sent, replies)
    second, also = two.round(sent, replies, order)
    votes = [dict(zip(r["nodes"], r.get("votes", r["nodes"]), strict=True)) for r in (told, also)]
    law(one.strategy, "permutation", same(first, second) and votes[0] == votes[1])


def test_identical_replies_give_that_reply(server) -> None:
    sent, reply = models(9)[5], models()[4]
    one = server()
    new_model, _ = one.round(sent, [reply] * CLIENTS)
    equal = all(np.allclose(new_model[n], reply[n], rtol=1e-6, atol=0) for n in reply)
    law(one.strategy, "identical replies", equal)


@pytest.mark.parametrize("clients", [1, 2, 3])
def test_few_replies_give_a_finite_model_or_leave_it_and_say_so(clients, server) -> None:
    sent, replies = models(9)[5], models(clients=clients)
    one = server()
    new_model, told = one.round(sent, replies)
    assert all(np.isfinite(a).all() for a in new_model.values())
    if same(new_model, sent):
        assert told["cannot_act"] == 1


def test_fewer_replies_than_it_needs_are_not_aggregated(server) -> None:
    """Or the rule says that it acts without its guarantee, as Krum does."""
    for clients in range(1, CLIENTS):
        one, sent = server(), models(9)[5]
        new_model, told = one.round(sent, models(clients=clients))
        needed = ""
        try:
            one.strategy.check(clients)
        except ValueError as error:
            needed = str(error)
        if told.get("cannot_act"):
            assert same(new_model, sent)
        else:
            assert not needed or told["guarantee"] == 0, (clients, needed)


def test_one_or_two_replies_are_not_averaged_by_a_rule_that_does_not_average_many(server) -> None:
    sent, averaged = models(9)[5], []
    for clients in (1, 2, CLIENTS):
        one, replies = server(), models(clients=clients)
        new_model, told = one.round(sent, replies)
        means = {n: np.mean([r[n] for r in replies], axis=0, dtype=np.float64) for n in SHAPES}
        equal = all(np.allclose(new_model[n], means[n], rtol=1e-5) for n in SHAPES)
        averaged.append(equal and not told.get("cannot_act"))
    *few, many = averaged
    holds = many or not any(few)
    if len(parts(one.strategy)) == 1 or not holds:  # else one around may not let it come to that
        law(one.strategy, "few replies", holds)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_every_precision_stays_what_it_is(dtype, server) -> None:
    sent, replies = models(9, dtype=dtype)[5], models(dtype=dtype)
    new_model, _ = server().round(sent, replies)
    assert {n: a.dtype for n, a in new_model.items()} == {n: a.dtype for n, a in sent.items()}
    assert all(np.isfinite(a).all() for a in new_model.values())


def test_statistics_and_counters_are_the_average_by_the_votes(server) -> None:
    sent, replies = models(9)[5], models()
    new_model, told = server().round(sent, replies)
    votes = np.array(told.get("votes", np.ones(CLIENTS)))
    rows = [replies[node - 1] for node in told["nodes"]]
    for name in STATISTICS:
        mean = np.average([row[name] for row in rows], axis=0, weights=votes)
        np.testing.assert_allclose(new_model[name], mean, rtol=1e-5)
    counts = np.average([row["bn.num_batches_tracked"] for row in rows], weights=votes)
    assert new_model["bn.num_batches_tracked"] == np.rint(counts)


def test_statistics_decide_nothing(server) -> None:
    """Replies whose statistics are immense are treated as they would be without."""
    sent, replies = models(9)[5], models()
    moved = [dict(reply) for reply in replies]
    moved[6]["bn.running_var"] = moved[6]["bn.running_var"] + np.float32(1e6)
    (first, told), (second, also) = server().round(sent, replies), server().round(sent, moved)
    assert same({n: first[n] for n in SHAPES}, {n: second[n] for n in SHAPES})
    keys = {"kept_nodes", "clipped_nodes"} & told.keys()
    assert {key: told[key] for key in keys} == {key: also[key] for key in keys}


def test_a_missing_and_hostile_replies_do_no_more_than_be_missed(server, reply) -> None:
    sent, replies = models(9)[5], models()
    good = [reply(model, node=node) for node, model in enumerate(replies, start=1)]
    nan = {**replies[8], "out.bias": np.full(4, np.nan, np.float32)}
    shape = {**replies[9], "out.bias": np.ones(5, np.float32)}
    bad = [reply(nan, node=9), reply(shape, node=10), reply(None, node=11)]
    (first, told), (second, also) = (
        server().play(sent, good[:8]),
        server().play(sent, good[:8] + bad),
    )
    assert same(first, second)
    assert also["invalid_nodes"] == [9, 10, 11]
    assert told["nodes"] == also["nodes"]


def test_memory_makes_a_resumed_strategy_go_on_to_the_same_bits(server) -> None:
    whole, begun, resumed = server(), server(), server()
    sent = models(9)[5]
    one = two = sent
    for number in (1, 2, 3, 4):
        one, _ = whole.round(one, models(number), number=number)
    for number in (1, 2):
        two, _ = begun.round(two, models(number), number=number)
    memory = begun.strategy.remember()
    assert all(isinstance(value, np.ndarray) for value in memory.values())
    told = any("Remembers" in terms(type(part)) for part in parts(begun.strategy))
    assert told == bool(memory.keys() - {SAID}), "what its notes say under Remembers"
    resumed.strategy.remind({key: value.copy() for key, value in memory.items()})
    for number in (3, 4):
        two, _ = resumed.round(two, models(number), number=number)
    assert same(one, two)


def test_what_a_rule_returns_is_nobody_elses(server, monkeypatch) -> None:
    """A strategy around may overwrite it."""
    one, seen = server(), []

    def spied(part: Robust) -> Callable[[Round], Outcome]:
        aggregate = part.aggregate

        def spy(round: Round) -> Outcome:
            outcome = aggregate(round)
            held = (round.models, round.center, *part.memory.values())
            assert outcome.model is None or not any(
                np.shares_memory(outcome.model, a) for a in held
            )
            seen.append(part)
            return outcome

        return spy

    for part in parts(one.strategy):
        monkeypatch.setattr(part, "aggregate", spied(part))
    sent = models(9)[5]
    for number in (1, 2):
        sent, _ = one.round(sent, models(number), number=number)
    assert len(seen) == 2 * len(parts(one.strategy))


def test_memory_beside_the_replies_stays_within_a_quarter_of_them_and_one_matrix(
    server, reply, record
) -> None:
    """The matrix is as large as the replies: together at most 1.25 times their bytes."""
    rng = np.random.default_rng(0)
    clients = 40
    shapes = {"w": (60_000, 4), "out": (10, 64)}
    rows = [
        {n: rng.standard_normal(shape).astype(np.float32) for n, shape in shapes.items()}
        for _ in range(clients)
    ]
    one = server()
    list(one.strategy._configure_train(1, record(rows[0]), ConfigRecord(), _Nodes()))
    one.strategy._sent = record(rows[0])
    messages = [reply(row, node=node) for node, row in enumerate(rows, start=1)]
    size = sum(array.nbytes for row in rows for array in row.values())
    del rows
    tracemalloc.start()
    one.strategy.aggregate_train(1, messages)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Blocks have a fixed size, which is 8 MiB whatever the model: large beside this small one.
    law(one.strategy, "memory", peak < 1.25 * size + 3 * 2**23)


def test_a_round_is_one_short_line_and_one_record(name, reply, record, caplog) -> None:
    """Of the outermost strategy, whatever it is made of; its numbers are Flower's metrics."""
    caplog.set_level(logging.INFO, "flwr")
    seen: list[RoundRecord] = []
    strategy = build("strategy", settings(name), Robust, on_round=seen.append)
    means = {"run_model": run_model, "noise": noise, "root_update": root_update}
    for needed in means.keys() & strategy.all_needs():
        setattr(strategy, needed, means[needed])
    _, told = Server(strategy, reply, record).round(models(9)[5], models())
    (one,) = seen
    lines = [r.getMessage() for r in caplog.records if r.getMessage().startswith("round 1: ")]
    assert lines == [one.line]
    assert len(one.line) <= 80
    assert one.report == told
    assert all(isinstance(value, int | float) for value in one.metrics.values())
    assert len(one.norms) == len(one.nodes) == len(one.clients) == CLIENTS
    assert (one.votes is None) == (one.kept is None) == (one.dropped is None)


def leaves(node: dict[str, Any], prefix: str = "strategy") -> list[tuple[str, Any]]:
    found = []
    for key, value in node.items():
        if isinstance(value, dict):
            found += leaves(value, f"{prefix}.{key}")
        else:
            found.append((f"{prefix}.{key}", value))
    return found


def test_a_setting_that_is_no_number_gives_one_line_that_names_it(name) -> None:
    for key, value in leaves(settings(name)):
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        for wrong in (float("nan"), "much", -1.0e9):
            changed = settings(name)
            *path, last = key.split(".")[1:]
            node = changed
            for step in path:
                node = node[step]
            node[last] = wrong
            with pytest.raises((UserError, ValueError)) as caught:
                checked(changed)
            assert last in str(caught.value), (key, wrong)
            assert "\n" not in str(caught.value)


def test_fewer_clients_than_it_can_act_on_are_refused_before_training(name) -> None:
    strategy = new(name)
    least = max(part.least_clients for part in parts(strategy))
    if least > 1:
        with pytest.raises(ValueError, match=f"of {least - 1} clients cannot act: allowed are"):
            strategy.check(least - 1)


def test_the_class_names_its_paper_or_says_what_it_is(name) -> None:
    strategy = new(name)
    module = inspect.getmodule(type(strategy))
    text = (module.__doc__ or "") + (type(strategy).__doc__ or "")
    assert "Parameters" in (type(strategy).__doc__ or "")
    assert any(word in text for word in ("https://", "et al.", "section", "Flower"))


def test_the_docs_list_the_exceptions() -> None:
    lines = (conf_directory().parent / "docs" / "design.md").read_text()
    for name in NAMES:
        for part in parts(new(name)):
            for text, reason in part.exceptions.items():
                assert f"| `{type(part).__name__}` | {text} | {reason} |" in lines
