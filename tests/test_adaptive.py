"""Tests of `clients.Adaptive` and `strategies.Rehearsal`: the rule is asked, and left alone."""

import logging
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord
from flwr.serverapp import strategy as flower
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import fl_backdoor.loop.loop as experiment
from clients import Adaptive, Backdoor, Colluders, HonestClient, LabelFlipping, View
from clients.attacks.adaptive import BISECTIONS, HALVINGS, Rule, farthest, pushes
from clients.malicious import MaliciousClient
from fl_backdoor.federation.engines import LocalGrid
from fl_backdoor.measure.caveats import caveats
from fl_backdoor.measure.runs import Run
from strategies import FedAvg, Krum, NormClipping, Rehearsal, Robust, Screened

from .test_attack_runs import FEW, run
from .test_contract_attacks import client as attacker
from .test_contract_attacks import context, data, message, network
from .test_contract_strategies import CLIENTS, NAMES, SHAPES, Server, models, new
from .test_experiment import rows, untimed

Vector = NDArray[np.float64]
P, MOST = 3, 2.0
CALLS = 4 * (1 + HALVINGS) + BISECTIONS + 2
COLUMNS: dict[str, slice] = {}
for _name, _shape in SHAPES.items():
    _start = max((place.stop for place in COLUMNS.values()), default=0)
    COLUMNS[_name] = slice(_start, _start + math.prod(_shape))
SENT = models(9)[5]
SENT_RECORD = ArrayRecord({name: Array(array) for name, array in SENT.items()})


def update_of(model: dict[str, Any]) -> Vector:
    return np.concatenate([(model[n].astype(float) - SENT[n]).ravel() for n in COLUMNS])


CLEAN = np.array([update_of(model) for model in models(1)[4 : 4 + P]])
OWN = CLEAN + np.random.default_rng(5).normal(0.1, 0.05, CLEAN.shape)
HONEST = np.array([update_of(model) for model in models(2)[3:]])


def view(
    own: Vector = OWN,
    clean: Vector | None = CLEAN,
    honest: Vector | None = None,
    memory: dict[str, Any] | None = None,
    number: int = 1,
) -> View:
    return View(
        round=number,
        center=np.zeros(own.shape[1]),
        own=own,
        honest=honest,
        asked=CLIENTS,
        columns=COLUMNS,
        seed=0,
        memory={} if memory is None else memory,
        clean=clean,
        sent=SENT_RECORD,
    )


class Spy:
    """Asks a rule, and remembers what was asked and answered."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.asked: list[Vector] = []
        self.answers: list[tuple[Vector | None, Vector | None, Any]] = []

    def __call__(self, updates: Vector, **given: Any) -> Any:
        self.asked.append(updates)
        self.answers.append(self.rule(updates, **given))
        return self.answers[-1]


def adaptive(rule: Rule, **settings: Any) -> Adaptive:
    carried = settings.pop("data", Backdoor(target=2))
    return Adaptive(rule=rule, data=carried, **settings)


@settings(max_examples=40)
@given(edge=st.floats(0.01, 3), most=st.floats(0.1, 3))
def test_the_strongest_push_that_is_accepted_is_found_to_a_64th(edge: float, most: float) -> None:
    calls = []

    def moved(name: str, gamma: float) -> float:
        calls.append(gamma)
        slope = {"weak": 1.0, "strong": 2.0}[name]
        return slope * gamma if gamma <= edge else -math.inf

    best, gamma, name = farthest(moved, ["weak", "strong"], most)
    assert len(calls) <= 2 * (1 + HALVINGS) + BISECTIONS
    assert max(calls) <= most
    bound = min(edge, most)
    if bound < most / 2**HALVINGS:
        assert best == -math.inf
    else:
        assert (name, best) == ("strong", 2 * gamma)
        assert bound / (1 + 2.0**-BISECTIONS) <= gamma <= bound


def test_no_push_is_no_farther_than_none() -> None:
    assert farthest(lambda *_: 1.0, [], 1.0)[0] == -math.inf


@settings(max_examples=40)
@given(
    rows=st.lists(st.lists(st.floats(-5, 5), min_size=3, max_size=3), min_size=1, max_size=4),
    aim=st.lists(st.floats(-5, 5), min_size=3, max_size=3),
)
def test_pushes_are_as_long_as_the_aim_and_never_against_it(rows: Any, aim: Any) -> None:
    clean, aim = np.round(np.array(rows), 3), np.round(np.array(aim), 3)
    found = pushes(clean, aim)
    assert (len(found) >= 3) == bool(aim.any())
    for base, push in found.values():
        assert np.linalg.norm(push) == pytest.approx(np.linalg.norm(aim))
        assert push @ aim > 0
        np.testing.assert_allclose(base.mean(axis=0), clean.mean(axis=0), atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_a_rehearsal_says_what_the_strategy_then_does(name: str, reply: Any, record: Any) -> None:
    """With the same draws and the same root data, in two rounds."""
    strategy, replies = new(name), models(clients=8)
    rehearsal, memory = Rehearsal(strategy, seed=3), {}
    server = Server(strategy, reply, record)
    updates = np.array([update_of(model) for model in replies])
    for number in (1, 2):
        root = np.concatenate([((1 - SENT[n]) / (1 + number)).ravel() for n in COLUMNS])
        told, votes, memory = rehearsal(
            updates,
            number=number,
            asked=CLIENTS,
            sent=SENT_RECORD,
            columns=COLUMNS,
            root=root,
            memory=memory,
        )
        new_model, report = server.round(SENT, replies, number=number)
        expected = np.zeros_like(root) if told is None else told
        np.testing.assert_allclose(update_of(new_model), expected, atol=1e-5)
        if votes is None:
            assert "votes" not in report
        else:
            said = dict(zip(report["nodes"], report["votes"], strict=True))
            np.testing.assert_allclose(votes, [said[i] for i in range(1, 9)], atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_every_rule_can_be_asked_and_its_state_is_left_alone(
    name: str, reply: Any, record: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for few in ("HALVINGS", "BISECTIONS"):
        monkeypatch.setattr(f"clients.attacks.adaptive.{few}", 1)
    asked, alone = new(name), new(name)
    rule = Spy(Rehearsal(asked, seed=7))
    memory: dict[str, Any] = {}
    for number in (1, 2):
        seen, before = view(number=number, memory=memory), len(rule.asked)
        sent = adaptive(rule, most=MOST).collude(seen)
        assert "cannot-ask" not in seen.notes
        assert np.isfinite(sent).all()
        assert 3 <= len(rule.asked) - before <= 4 * 2 + 1 + 2
        assert seen.notes["moved"] >= seen.notes["moved-unscaled"]
        assert np.array_equal(
            np.sort(rule.asked[-1][:P], axis=0), np.sort(sent, axis=0)
        )  # what was asked last is what is sent
        given = set(map(bytes, CLEAN))  # and honest updates are guessed from clean ones
        assert all(bytes(row) in given for row in rule.asked[-1][P:])
        worlds = [Server(s, reply, record).round(SENT, models(), number=number)[0]
                  for s in (asked, alone)]  # fmt: skip
        assert all(np.array_equal(worlds[0][n], worlds[1][n]) for n in worlds[1])
    kept = [strategy.remember() for strategy in (asked, alone)]
    assert kept[0].keys() == kept[1].keys()
    assert all(np.array_equal(kept[0][key], kept[1][key]) for key in kept[1])
    of_rule = [key for key in kept[1] if not key.startswith("watch/")]
    assert len(memory) == len(of_rule)
    assert all(key.startswith("rule/") for key in memory)


def test_an_average_is_pushed_as_hard_as_is_allowed() -> None:
    """And moves by the gamma P / n that follows."""
    for chosen, most in (({"most": MOST}, MOST), ({}, CLIENTS / P / 2)):
        seen, rule = view(), Spy(Rehearsal(FedAvg()))
        sent = adaptive(rule, **chosen).collude(seen)
        aim = (OWN - CLEAN).mean(axis=0)
        assert seen.notes["strength"] == most
        np.testing.assert_allclose(sent.mean(axis=0), CLEAN.mean(axis=0) + most * aim)
        gained = seen.notes["moved"] - seen.notes["moved-unscaled"]
        assert gained == pytest.approx((most - 1) * P / CLIENTS, abs=1e-5)


def test_untargeted_it_goes_against_the_mean() -> None:
    seen = view(own=CLEAN, clean=None)
    sent = Adaptive(rule=Rehearsal(FedAvg())).collude(seen)
    assert seen.notes["strength"] == CLIENTS / P
    mean = CLEAN.mean(axis=0)
    np.testing.assert_allclose(sent.mean(axis=0), (1 - CLIENTS / P) * mean)


@pytest.mark.parametrize("knows", ["attackers", "all"])
@pytest.mark.parametrize("seed", range(3))
def test_krum_is_pushed_only_as_far_as_it_votes_for_attackers(knows: str, seed: int) -> None:
    """A little farther it does not, or its model moves less far: the edge is found."""
    rng, p = np.random.default_rng(seed), 200
    updates = rng.normal(0.1, 0.05, (20, p))
    clean, aim = updates[:4], rng.normal(0, 0.03, p)
    sent = ArrayRecord({"w": Array(np.zeros(p))})
    seen = View(
        round=1,
        center=np.zeros(p),
        own=clean + aim,
        honest=updates[4:] if knows == "all" else None,
        asked=20,
        columns={"w": slice(0, p)},
        seed=seed,
        memory={},
        clean=clean,
        sent=sent,
    )
    rule = Spy(Rehearsal(Krum(num_malicious=4)))
    adaptive(rule, knowledge=knows, most=5.0).collude(seen)
    assert len(rule.asked) <= CALLS == 36
    if knows == "all":
        assert (rule.asked[-1][4:] == updates[4:]).all()
    update, votes, _ = rule.answers[-1]
    assert update is not None
    assert votes is not None
    assert votes[:4].any()
    assert 0 < seen.notes["strength"] < 5
    base, push = pushes(np.array(sorted(clean, key=bytes)), aim)[seen.notes["push"]]
    farther = base + 1.04 * seen.notes["strength"] * push
    again = np.concatenate([farther, rule.asked[-1][4:]])
    setting = {"number": 1, "asked": 20, "sent": sent, "columns": seen.columns}
    there, others, _ = rule(again, **setting, root=clean[0], memory={})
    assert others is not None
    assert not others[:4].any() or (there - update) @ aim < 0


@settings(max_examples=4)
@given(order=st.permutations(range(P)), honest=st.permutations(range(len(HONEST))))
def test_permuted_clients_have_permuted_updates(order: list[int], honest: list[int]) -> None:
    for known in (None, HONEST):
        knows = "attackers" if known is None else "all"
        attack = adaptive(Rehearsal(Krum(num_malicious=P)), knowledge=knows, most=MOST)
        sent = attack.collude(view(honest=known))
        others = None if known is None else known[honest]
        permuted = attack.collude(view(OWN[order], CLEAN[order], others))
        assert np.array_equal(permuted, sent[order])


def test_where_no_push_moves_farther_it_sends_what_it_trained_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "flwr")

    def deaf(updates: Vector, **_: Any) -> Any:
        return np.ones(updates.shape[1]), None, {}

    for seen in (view(), view(own=CLEAN)):  # the second one has no aim
        assert np.array_equal(adaptive(deaf).collude(seen), seen.own)
        assert (seen.notes["push"], seen.notes["strength"]) == ("none", 0)
        assert seen.notes["cannot-act"] == len(OWN)
    assert sum("no push moves the aggregate farther" in text for text in caplog.messages) == 2


def test_a_rule_that_cannot_be_asked_is_said_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "flwr")

    class Failing(Robust):
        def aggregate(self, round: Any) -> Any:
            raise RuntimeError("no GPU")

    seen = view()
    assert adaptive(Rehearsal(Failing())).collude(seen) is seen.own
    assert seen.notes == {"cannot-ask": 1}
    assert "cannot ask in round 1: RuntimeError('no GPU')" in caplog.text
    assert not logging.getLogger("flwr").disabled
    with pytest.raises(ValueError, match="rule=None: allowed is a callable"):
        Adaptive().collude(seen)


@pytest.mark.parametrize(
    "kind", [flower.FedAdam, flower.FedYogi, flower.FedAdagrad, flower.FedAvgM, flower.FedAvg]
)
def test_flowers_strategies_that_keep_what_they_send_can_be_asked(kind: Any) -> None:
    draws, rehearsal = random.getstate(), Rehearsal(Screened(kind()))
    given: dict[str, Any] = {"asked": CLIENTS, "sent": SENT_RECORD, "columns": COLUMNS}
    memory: dict[str, Any] = {}
    for number in (1, 2):
        update, _, memory = rehearsal(CLEAN, number=number, **given, root=CLEAN[0], memory=memory)
        assert update is not None
        assert update.any()
    assert random.getstate() == draws


def test_a_rehearsal_is_silent_and_shares_nothing_that_changes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "flwr")
    strategy, seen = new("fltrust"), []
    strategy.observers.append(seen.append)
    told = NormClipping(strategy, "median", on_round=(word for word in ()).send)
    rehearsal = Rehearsal(told)  # which cannot be copied
    assert rehearsal.strategy.root_update is strategy.root_update
    assert isinstance(rehearsal.strategy, NormClipping)
    assert rehearsal.strategy.inner.observers == []
    given: dict[str, Any] = {"number": 1, "asked": CLIENTS, "sent": SENT_RECORD}
    refused = rehearsal(CLEAN, **given, columns=COLUMNS, root=0 * CLEAN[0], memory={})
    assert refused[0] is None
    assert caplog.messages == []
    assert seen == []


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"most": 0}, "most=0: allowed is a finite number > 0, or null"),
        ({"most": math.inf}, "most=inf: allowed is a finite number > 0, or null"),
        ({"rule": "krum"}, "rule=krum: allowed is null, the strategy's, or a callable"),
        ({"knowledge": "own"}, "knowledge=own: allowed are attackers, all"),
    ],
)
def test_values_out_of_range(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Adaptive(**settings)


def test_it_compares_where_it_carries_an_attack() -> None:
    assert adaptive(FedAvg().aggregate).compares
    assert Adaptive(data=LabelFlipping(source=1, target=2, poisoned_samples=3)).compares
    assert not Adaptive().compares


def test_an_attackers_reply_brings_what_an_honest_client_sends() -> None:
    """Only where it is asked, by `Colluders`, which takes it out before a strategy sees it."""
    model, poisoned = ArrayRecord(network().state_dict()), attacker("adaptive")
    assert isinstance(poisoned, MaliciousClient)
    honest = HonestClient(network(), *data(), partition=0, batch_size=20)
    clean = honest.train(message(1, model), context()).content["arrays"]
    plain = poisoned.train(message(1, model), context())
    assert set(plain.content) == {"arrays", "metrics", "attack-cannot-act"}
    seen: list[View] = []

    class Looking(Adaptive):
        def collude(self, view: View) -> Vector:
            seen.append(view)
            return view.own

    grid = Colluders(LocalGrid(poisoned.train, 1), Looking(data=Backdoor(target=2)), who={1})
    (reply,) = grid.send_and_receive([message(1, model)])
    assert set(reply.content) == {"arrays", "metrics"}
    assert reply.content["arrays"] == plain.content["arrays"]
    (looked,) = seen
    assert looked.clean is not None
    for name, place in looked.columns.items():
        expected = clean[name].numpy().astype(float) - model[name].numpy()
        assert np.array_equal(looked.clean[0, place], expected.ravel())
    assert not np.array_equal(looked.clean, looked.own)


class StopError(Exception):
    """Ends a run."""


@pytest.mark.parametrize(
    "overrides",
    [
        ["strategy=fedyogi", "strategy@strategy.strategy=multikrum", "attack.knowledge=all"],
        ["strategy=fltrust", "root=held_out", "attack@attack.data=none"],
    ],
    ids=["memory", "root"],
)
def test_a_run_says_what_it_did_and_resumes_to_the_same_bits(
    overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = ["attack=adaptive", *overrides, *FEW, "num_rounds=2"]
    summary, screen = run(tmp_path / "whole", *setting)
    knows = summary["knowledge"]
    assert f"knowing {'all' if knows == 'all' else 'the attackers'}" in screen
    assert summary["adaptive"]
    for row in rows(tmp_path / "whole"):
        assert row["attack"]["moved"] >= row["attack"]["moved-unscaled"]
    assert not any("adaptive" in line for line in caveats([Run.read(tmp_path / "whole")]))
    with monkeypatch.context() as patch:

        def stop(_: Any, row: dict[str, Any]) -> None:
            raise StopError

        patch.setattr(experiment.Display, "round", stop)
        with pytest.raises(StopError):
            run(tmp_path / "parts", *setting)
    run(tmp_path / "parts", *setting, "resume=true")
    assert untimed(tmp_path / "parts") == untimed(tmp_path / "whole")
    both = [(tmp_path / part / "model.safetensors").read_bytes() for part in ("parts", "whole")]
    assert both[0] == both[1]


def test_a_defense_that_could_never_be_asked_was_not_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("not now")

    monkeypatch.setattr(Rehearsal, "__call__", fail)
    summary, _ = run(tmp_path, "attack=adaptive", "strategy=krum", *FEW, "num_rounds=1")
    assert not summary["adaptive"]
    assert rows(tmp_path)[0]["attack"] == {"cannot-ask": 1}
    line = "No adaptive attacker was tried against Krum."
    assert line in caveats([Run.read(tmp_path)])


def test_an_oracles_number_is_told_to_the_copy(tmp_path: Path) -> None:
    """Two of four attackers take part, which the rule is told, and so what they ask."""
    told: list[int] = []
    assumed = Krum.aggregate

    def aggregate(self: Krum, round: Any) -> Any:
        told.append(self.num_malicious)
        return assumed(self, round)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Krum, "aggregate", aggregate)
        run(
            tmp_path,
            "attack=adaptive",
            "attack.num_attackers=2",
            "strategy=krum",
            "strategy.num_malicious=oracle",
            *FEW,
            "num_rounds=1",
        )
    assert len(told) > 3
    assert set(told) == {2}
