"""What an operator is told: a line a round, warnings that come when true, and callbacks."""

import logging
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping
from flwr.serverapp.strategy import FedAvg as FlowerFedAvg
from hypothesis import given
from hypothesis import strategies as st

from strategies import (
    FedAvg,
    GaussianNoise,
    Median,
    MultiKrum,
    NormClipping,
    Rehearsal,
    RobustLearningRate,
    RoundRecord,
    Screened,
    Sniper,
    watch,
)
from strategies.record import statistics_share
from strategies.watch import PATIENCE, findings

from .conftest import grid_of_calls, make_reply, to_record

MODEL = {"w": np.zeros(4, np.float32), "b": np.zeros(2, np.float32)}


def models(count: int = 6, far: tuple[int, ...] = (), seed: int = 0) -> list[dict]:
    """Models near that of `MODEL`, some of them far away."""
    rng = np.random.default_rng(seed)
    return [
        {n: (a + (9 if i in far else 0.1) * rng.standard_normal(a.shape)).astype(a.dtype)
         for n, a in MODEL.items()}
        for i in range(count)
    ]  # fmt: skip


def kinds(history: list[RoundRecord]) -> set[str]:
    return {found.kind for found in findings(history)}


def rounds(count: int = PATIENCE, **changes: Any) -> list[RoundRecord]:
    """Return rounds of four clients of which nothing is worth a warning, but for some changes."""
    usual: dict[str, Any] = {
        "strategy": "Rule",
        "asked": 4,
        "nodes": (10, 11, 12, 13),
        "clients": (0, 1, 2, 3),
        "norms": (1.0, 2.0, 3.0, 4.0),
    }
    return [RoundRecord(number=n, **(usual | changes)) for n in range(1, count + 1)]


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[int], list[str]]:
    caplog.set_level(logging.INFO, "flwr")
    return lambda level: [r.getMessage() for r in caplog.records if r.levelno == level]


# The line.


def test_a_round_is_one_short_line(told, play) -> None:
    strategy = NormClipping(Sniper(threshold=3.0), max_norm=0.3)
    play(strategy, MODEL, models(6, far=(5,)))
    lines = [text for text in told(logging.INFO) if text.startswith("round 1")]
    norms = strategy.watch.history[0].norms
    clipped = sum(norm > 0.3 for norm in norms)
    assert 0 < clipped < 6
    assert len(lines) == 1
    assert f"clipped {clipped}" in lines[0]
    assert "kept 6 of 6" in lines[0]
    assert f"norms {min(norms):.3g} to {max(norms):.3g}" in lines[0]
    assert len(lines[0]) <= 68


def test_the_line_counts_who_is_dropped_invalid_and_missing() -> None:
    record = rounds(
        1, asked=7, kept=(10, 11, 12), dropped=(13,), invalid={14: "NaN"}, missing=("gone",)
    )[0]
    assert record.line == ("round 1: kept 3 of 7, dropped 1, invalid 1, missing 1, norms 1 to 4")


def test_a_round_that_keeps_the_model_says_so(told) -> None:
    play_all(Sniper(), [{"w": np.full(4, np.nan, np.float32)}] * 3, 1)
    assert "round 1: old model stays, invalid 3" in told(logging.INFO)


@given(st.text(), st.integers(0, 10**6), st.floats(allow_nan=True))
def test_whatever_a_rule_says_the_line_stays_short(name, count, value) -> None:
    report = {f"{name}_nodes": list(range(count % 9)), name: value}
    line = rounds(1, asked=count, kept=(), report=report, metrics={name: value})[0].line
    assert len(line) <= 80


# Records.


def test_the_record_has_numbers_lists_norms_and_votes(play) -> None:
    seen: list[RoundRecord] = []
    strategy = Sniper(threshold=1.0, on_round=seen.append)
    sent = models(6, far=(2,))
    _, report = play(strategy, MODEL, sent, nodes=[3, 1, 4, 15, 9, 2])
    (record,) = seen
    assert record.number == 1
    assert record.dropped == (4,) == tuple(report["dropped_nodes"])
    assert set(record.kept or ()) == {1, 2, 3, 9, 15}
    assert dict(zip(record.nodes, record.votes or (), strict=True))[4] == 0
    assert record.metrics["kept"] == 5
    assert all(isinstance(value, int | float) for value in record.metrics.values())
    norms = dict(zip(record.nodes, record.norms, strict=True))
    whole = np.concatenate([sent[2]["w"], sent[2]["b"]]).astype(np.float64)
    assert norms[4] == pytest.approx(np.linalg.norm(whole), rel=1e-12)


def test_norms_are_those_that_came_whatever_the_rule_does_to_the_models(play) -> None:
    plain, clipped = FedAvg(), NormClipping(FedAvg(), 0.01)
    for strategy in (plain, clipped):
        play(strategy, MODEL, models())
    assert plain.watch.history[0].norms == clipped.watch.history[0].norms


def test_a_record_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        rounds(1)[0].number = 3  # type: ignore[misc]


def test_what_a_callback_could_change_is_not_what_flower_gets(play) -> None:
    strategy = Sniper(threshold=1.0)
    play(strategy, MODEL, models())
    with pytest.raises(TypeError):
        strategy.watch.history[0].metrics["kept"] = 0  # type: ignore[index]


# Callbacks.


def test_one_callback_or_several(play) -> None:
    one: list[int] = []
    for on_round in (one.append, [one.append, one.append]):
        play(FedAvg(on_round=on_round), MODEL, models())
    assert len(one) == 3


@pytest.mark.parametrize("wrong", [3, [print, "jsonl"], "print"])
def test_what_cannot_be_called_is_refused(wrong) -> None:
    with pytest.raises(ValueError, match=r"on_round = .* must be a function of a RoundRecord"):
        FedAvg(on_round=wrong)


def test_a_callback_that_fails_ends_nothing_and_is_warned_of_once(told) -> None:
    def broken(record: RoundRecord) -> None:
        raise RuntimeError(f"no disk in {record.number}")

    seen: list[int] = []
    strategy = FedAvg(on_round=[broken, lambda record: seen.append(record.number)])
    grid = grid_of_calls(lambda arrays, _: arrays)
    strategy.start(grid=grid, initial_arrays=to_record(MODEL), num_rounds=3)
    assert seen == [1, 2, 3]
    warned = [text for text in told(logging.WARNING) if "broken" in text]
    assert len(warned) == 2
    assert "no disk in 1" in warned[0]
    assert warned[1].endswith("broken failed 3 times")
    assert strategy.watch.guard.failures.total() == 3


def test_an_interrupt_is_no_failure(play) -> None:
    def stop(record: RoundRecord) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        play(FedAvg(on_round=stop), MODEL, models())


@pytest.mark.parametrize(
    "around",
    [
        lambda inner, call: NormClipping(inner, 1.0, on_round=call),
        lambda inner, call: GaussianNoise(NormClipping(inner, 1.0, on_round=call), 0.0),
        lambda inner, call: Screened(inner, on_round=call),
        lambda inner, call: Screened(
            DifferentialPrivacyServerSideFixedClipping(inner, 0.1, 1.0, 6), on_round=call
        ),
    ],
)
def test_only_the_outermost_logs_and_calls(around, told, play) -> None:
    seen: list[RoundRecord] = []
    inside: list[RoundRecord] = []
    strategy = around(Median(on_round=inside.append), seen.append)
    play(strategy, MODEL, models())
    assert len([text for text in told(logging.INFO) if text.startswith("round 1")]) == 1
    assert len(seen) == len(inside) == 1
    assert seen[0] is inside[0]
    assert seen[0].strategy == watch_title(strategy)


def watch_title(strategy: Any) -> str:
    inner = vars(strategy).get("strategy")
    name = type(strategy).__name__
    return name if inner is None else f"{name}({watch_title(inner)})"


def test_a_strategy_of_flowers_has_a_line_and_a_record_too(told, play) -> None:
    strategy = Screened(FlowerFedAvg())
    play(strategy, MODEL, models())
    assert any(text.startswith("round 1: averaged 6 of 6") for text in told(logging.INFO))


def test_a_rehearsal_tells_nobody(told) -> None:
    """Its copy of the strategy has no callback, which may hold what cannot be copied."""

    class Held:
        module = logging

        def __call__(self, record: RoundRecord) -> None: ...

        def __deepcopy__(self, memo: dict[int, Any]) -> None:
            pytest.fail("copied")

    strategy = NormClipping(Sniper(on_round=Held()), 1.0, on_round=Held())
    copy = Rehearsal(strategy).strategy
    assert copy.watch.on_round == copy.inner.watch.on_round == ()
    assert len(strategy.watch.on_round) == 2


# Warnings: each when it is true, and not when it is not.


def test_nothing_is_worth_a_warning_in_a_plain_average(told, play) -> None:
    strategy = FedAvg()
    for number in range(1, 12):
        play(strategy, MODEL, models(seed=number), number)
    assert told(logging.WARNING) == []
    assert findings(strategy.watch.history) == []


def test_a_rule_that_drops_nobody(play) -> None:
    everybody, all_but_one = Sniper(threshold=50.0), Sniper(threshold=1.0)
    for number in range(1, PATIENCE + 1):
        assert "kept everybody" not in kinds(everybody.watch.history)
        play(everybody, MODEL, models(far=(2,)), number)
        play(all_but_one, MODEL, models(far=(2,)), number)
    assert "kept everybody" in kinds(everybody.watch.history)
    assert "kept everybody" not in kinds(all_but_one.watch.history)


def test_a_rule_that_only_weights_does_not_keep_everybody() -> None:
    assert "kept everybody" not in kinds(rounds(votes=(1.0, 0.5, 1.0, 1.0)))


def test_a_model_that_never_changes() -> None:
    assert "kept nobody" in kinds(rounds(stayed=True))
    assert "kept nobody" not in kinds([*rounds(4, stayed=True), *rounds(1)])
    assert "kept nobody" not in kinds(rounds(PATIENCE - 1, stayed=True))


def test_a_client_that_is_dropped_in_most_rounds_is_named(told, play) -> None:
    strategy = Sniper(threshold=1.0)
    strategy.client_of = lambda node: node - 100
    for number in range(1, PATIENCE + 1):
        play(strategy, MODEL, models(far=(2,)), number, nodes=range(101, 107))
    (warned,) = [text for text in told(logging.WARNING) if "same clients" in text]
    assert "3 (node 103) in 5 of 5" in warned
    assert kinds(strategy.watch.history) == {"singled out"}


def test_a_rule_that_drops_most_singles_out_nobody(play) -> None:
    strategy = MultiKrum(num_malicious=1, num_selected=1)
    for number in range(1, 8):
        play(strategy, MODEL, models(), number)
    assert kinds(strategy.watch.history) == set()


def test_clients_dropped_in_turn_are_not_named() -> None:
    history = [record for n in range(8) for record in rounds(1, kept=(10,), dropped=(10 + n % 4,))]
    assert kinds(history) == set()


def test_a_second_client_is_named_when_it_comes_to_that(told) -> None:
    eye, nodes = watch.Watch(), tuple(range(10, 18))
    some = {"nodes": nodes, "clients": tuple(range(8))}
    for record in rounds(kept=nodes[1:], dropped=(10,), **some):
        eye.round(record)
    for record in rounds(12, kept=nodes[2:], dropped=(10, 11), **some):
        eye.round(record)
    warned = [text for text in told(logging.WARNING) if "same clients" in text]
    assert len(warned) == 2
    assert "1 (node 11)" not in warned[0]
    assert "1 (node 11)" in warned[1]


def test_a_threshold_that_never_bound(play) -> None:
    loose, tight = NormClipping(FedAvg(), 100.0), NormClipping(FedAvg(), 0.2)
    for number in range(1, PATIENCE + 1):
        for strategy in (loose, tight):
            play(strategy, MODEL, models(), number)
    (found,) = findings(loose.watch.history)
    assert found.kind.startswith("never bound")
    largest = max(norm for record in loose.watch.history for norm in record.norms)
    assert f"largest update had norm {largest:.3g}" in found.text
    assert findings(tight.watch.history) == []


def test_a_threshold_of_signs_that_never_bound(play) -> None:
    agreeing = [{n: np.ones_like(a) for n, a in MODEL.items()}] * 5
    turning = [{n: np.ones_like(a) * (-1) ** i for n, a in MODEL.items()} for i in range(5)]
    for sent, expected in ((agreeing, True), (turning, False)):
        strategy = RobustLearningRate(FedAvg(), threshold=4)
        for number in range(1, PATIENCE + 1):
            play(strategy, MODEL, sent, number)
        assert ("never bound: turned" in kinds(strategy.watch.history)) == expected


def test_statistics_that_dominate_a_model(play) -> None:
    sent = MODEL | {"n.running_mean": np.zeros(3, np.float32), "n.weight": np.ones(3, np.float32)}
    for step, expected in ((50.0, True), (1e-3, False)):
        moved = [{**sent, **m, "n.running_mean": np.full(3, step, np.float32)} for m in models()]
        strategy = FedAvg()
        play(strategy, sent, moved)
        assert ("statistics dominate" in kinds(strategy.watch.history)) == expected


@given(st.lists(st.tuples(st.floats(0, 9), st.floats(0, 9)), min_size=1, max_size=5))
def test_the_share_of_statistics_is_that_of_squares(pairs) -> None:
    steps, norms = np.array([[s] for s, _ in pairs]), np.array([u for _, u in pairs])
    slow = [s * s / (s * s + u * u) if s * s + u * u > 0 else 0.0 for s, u in pairs]
    assert statistics_share(steps, norms) == pytest.approx(np.median(slow))
    assert statistics_share(np.zeros((2, 0)), np.ones(2)) is None


def test_fewer_replies_than_the_rules_bound(told, play) -> None:
    strategy = MultiKrum(num_malicious=2, num_selected=3)
    play(strategy, MODEL, models(7))
    assert kinds(strategy.watch.history) == set()
    for number in (2, 3):
        play(strategy, MODEL, models(6), number)
    (warned,) = [text for text in told(logging.WARNING) if "rule's bound" in text]
    assert "Round 2 has 6 valid replies of 6" in warned
    assert "num_malicious = 2: MultiKrum of 6 clients allows 0 to 1" in warned


def test_replies_that_go_on_being_screened_out_and_why(told) -> None:
    strategy = FedAvg()
    for number in range(1, PATIENCE + 3):
        sent = models()
        sent[4] = {n: np.full_like(a, np.nan) for n, a in sent[4].items()}
        play_all(strategy, sent, number)
    (warned,) = [text for text in told(logging.WARNING) if text.startswith("Replies")]
    assert "of node 5: 5 x array 'w' holds NaN, inf or immense values" in warned
    assert "screened out" not in kinds([*rounds(4, invalid={1: "NaN"}), *rounds(1)])


def play_all(strategy: Any, sent: list[dict], number: int) -> None:
    """Play a round in which some replies are invalid."""
    grid = grid_of_calls(lambda arrays, _: arrays, len(sent))
    list(strategy.configure_train(number, to_record(MODEL), ConfigRecord(), grid))
    arrays, _ = strategy.aggregate_train(
        number, [make_reply(m, node=node) for node, m in enumerate(sent, start=1)]
    )
    assert isinstance(arrays, ArrayRecord)


def test_what_was_said_is_not_said_again_and_a_resumed_run_remembers(told) -> None:
    first, resumed, without = watch.Watch(), watch.Watch(), watch.Watch()
    for record in rounds(20, stayed=True):
        first.round(record)
    assert len(told(logging.WARNING)) == 1
    resumed.remind({key: value.copy() for key, value in first.remember().items()})
    for record in rounds(20, stayed=True):
        resumed.round(record)
    assert len(told(logging.WARNING)) == 1
    for record in rounds(20, stayed=True):
        without.round(record)
    assert len(told(logging.WARNING)) == 2
    assert first.remember().keys() == resumed.remember().keys()


@pytest.mark.parametrize(
    "new",
    [
        lambda: NormClipping(FedAvg(), 100.0),
        lambda: NormClipping(Screened(FlowerFedAvg()), 100.0),
        lambda: Screened(FlowerFedAvg()),
    ],
)
def test_a_strategy_remembers_what_was_said(new, play) -> None:
    strategy, resumed = new(), new()
    assert not any(key.startswith("watch") for key in strategy.remember())
    for record in rounds(stayed=True):
        strategy.watch.round(record)
    memory = strategy.remember()
    assert sum(key.startswith("watch") for key in memory) == 1
    resumed.remind(memory)
    assert resumed.remember().keys() == memory.keys()
    play(resumed, MODEL, models())
