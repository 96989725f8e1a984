"""Who takes part in a round: draws, dropouts, stragglers, traces, schedules; and runs of them."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import hypergeom

import fl_backdoor.loop.loop as experiment
from fl_backdoor.errors import UserError
from fl_backdoor.federation.cohort import Cohort, Trace
from fl_backdoor.federation.roster import Roster
from fl_backdoor.measure.metrics import Selection, detection
from strategies import Krum, Outcome, Round

from .test_experiment import TINY_ATTACK, rows, run, tiny, untimed

pytestmark = pytest.mark.usefixtures("undrawn")

CROWD = ["num_clients=12", "cohort.clients_per_round=5", "floor=false", *TINY_ATTACK]


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 9), st.integers(1, 9), st.data())
def test_a_draw_is_of_m_clients_and_does_not_depend_on_the_order_of_nodes(
    crowd: int, m: int, seed: int, number: int, data: st.DataObject
) -> None:
    m = min(m, crowd)
    cohort = Cohort(clients_per_round=m)
    connected = data.draw(st.permutations(range(crowd)))
    drawn = cohort.draw(number, connected, (), crowd, seed)
    assert drawn == sorted(set(drawn)) == cohort.draw(number, range(crowd), (), crowd, seed)
    assert len(drawn) == m
    # Without a client that was not drawn, the draw is the same.
    others = [client for client in range(crowd) if client in drawn or client % 2]
    assert cohort.draw(number, others, (), crowd, seed) == drawn


def test_every_client_is_drawn_as_often() -> None:
    cohort = Cohort(clients_per_round=3)
    counts = Counter(c for r in range(1, 2001) for c in cohort.draw(r, range(10), (), 10, 0))
    assert all(abs(count - 600) < 90 for count in counts.values())  # 4 standard deviations


@given(st.integers(0, 4), st.integers(1, 30))
def test_the_attackers_of_a_round_can_be_fixed(count: int, number: int) -> None:
    cohort = Cohort(clients_per_round=6, attackers_per_round=count)
    drawn = cohort.draw(number, range(20), (3, 4, 11, 19), 20, 0)
    assert len(drawn) == 6
    assert len({3, 4, 11, 19} & set(drawn)) == count


@given(st.integers(1, 60), st.data())
def test_the_law_of_attackers_drawn_is_hypergeometric(clients: int, data: st.DataObject) -> None:
    size, attackers = data.draw(st.integers(1, clients)), data.draw(st.integers(0, clients))
    law = Cohort(clients_per_round=size).law(clients, attackers)
    expected = hypergeom(clients, attackers, size).pmf(range(min(size, attackers) + 1))
    assert law == pytest.approx(expected, abs=1e-12)
    assert Cohort(clients_per_round=size, attackers_per_round=0).law(clients, attackers) is None


def test_everybody_is_asked_without_a_number() -> None:
    assert Cohort().draw(1, [3, 1, 2], (), 4, 0) == [1, 2, 3]


def test_dropouts_are_as_frequent_as_they_should_be_and_seeded() -> None:
    cohort = Cohort(dropout=0.25)
    absent = [cohort.absent(r, range(40), [10] * 40, 0) for r in range(1, 201)]
    assert absent == [cohort.absent(r, range(40), [10] * 40, 0) for r in range(1, 201)]
    assert abs(sum(map(len, absent)) / 8000 - 0.25) < 0.02
    assert Cohort().absent(1, range(40), [10] * 40, 0) == []


def test_stragglers_have_more_samples_or_slower_devices() -> None:
    samples = [10, 10, 10, 10, 31]
    assert Cohort(deadline=3).absent(1, range(5), samples, 0) == [4]
    assert Cohort(deadline=3).absent(1, [0, 1], samples, 0) == []
    slow = Cohort(deadline=1, slowness=1).absent(1, range(1001), [10] * 1001, 0)
    assert len(slow) == 500
    assert slow == Cohort(deadline=1, slowness=3).absent(2, range(1001), [10] * 1001, 0)


def test_a_trace_says_who_is_there(tmp_path: Path) -> None:
    file = tmp_path / "trace.csv"
    file.write_text("client,first,last\n0,1,9\n1,2,3\n1,5,5\n2,1,4\n")
    trace = Trace(file=str(file))
    there = [trace.there(number, range(4)) for number in range(1, 7)]
    assert there == [[0, 2], [0, 1, 2], [0, 1, 2], [0, 2], [0, 1], [0]]
    trace.check(4, 5, 0, 2)
    with pytest.raises(UserError, match="1 clients are there in round 6, and the strategy needs 2"):
        trace.check(4, 6, 0, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no client"),
        ("client,first\n1,2\n", "line 2: allowed are whole numbers client, first and last"),
        ("client,first,last\n1,2,x\n", "line 2: allowed are whole numbers"),
        ("client,first,last\n1,2,3\n1,3,2\n", "line 3: client 1 from round 3 to 2; allowed"),
        ("client,first,last\n-1,2,3\n", "line 2: client -1"),
    ],
)
def test_a_bad_trace_is_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "trace.csv"
    file.write_text(text)
    with pytest.raises(UserError, match=r"^cohort\.file=.*" + message):
        Trace(file=str(file))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["cohort.clients_per_round=13"], "clients_per_round=13: allowed are 1 to 12"),
        (["cohort.clients_per_round=0"], "clients_per_round=0: allowed is 1 or more, or null"),
        (["cohort.attackers_per_round=4"], "attackers_per_round=4: allowed with 3 attackers"),
        (["cohort.dropout=1"], "dropout=1.0: allowed is less than 1"),
        (["cohort.dropout=-0.1"], "dropout=-0.1: allowed is 0 or more"),
        (["cohort.deadline=0"], "deadline=0.0: allowed is more than 0, or null"),
        (["strategy.min_train_nodes=6"], "strategy.min_train_nodes=6: FedAvg of 5 clients allows"),
        (["attack.schedule=[4,9]"], r"schedule=\[4, 9\]: allowed is what has a round of 1 to 3"),
        (["attack.schedule={first: 3, last: 2}"], "'last': 2}: allowed is what has a round of 1 "),
        (["cohort=trace"], "file: .*"),
        (["cohort=trace", "cohort.file=no.csv"], "file=no.csv: cannot be read"),
    ],
)
def test_bad_cohorts_are_one_line(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run(tmp_path, "+experiment=fedavg_goal1", *CROWD, *overrides)
    assert not list(tmp_path.iterdir())


def test_a_part_of_the_crowd_gives_the_same_bits_twice_and_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = ["+experiment=fedavg_goal1", *CROWD, "floor=true", "cohort.dropout=0.3"]
    summary, screen = run(tmp_path / "one", *some)
    assert "12 clients, 5 a round, 3 attackers [0, 1, 2]" in screen
    with monkeypatch.context() as patch:
        patch.setattr(experiment.Display, "round", lambda _, row: 1 / (row["round"] - 2))
        with pytest.raises(ZeroDivisionError):
            run(tmp_path / "two", *some)
    run(tmp_path / "two", *some, "resume=true")
    for name in ("", "clean_twin"):
        assert untimed(tmp_path / "one" / name) == untimed(tmp_path / "two" / name)
    models = [(tmp_path / n / "model.safetensors").read_bytes() for n in ("one", "two")]
    assert models[0] == models[1]
    ours, twins = rows(tmp_path / "one"), rows(tmp_path / "one" / "clean_twin")
    assert [row["cohort"] for row in ours] == [row["cohort"] for row in twins]
    assert [row["failed"] for row in ours] == [row["failed"] for row in twins]
    assert all(row["attackers"] == [c for c in row["cohort"] if c < 3] for row in ours)
    assert len({tuple(row["cohort"]) for row in ours}) == 3
    assert (summary["clients_per_round"], summary["attackers_expected"]) == (5, 1.25)
    assert summary["roster"] == [0, 1, 2]
    assert summary["attackers_mean"] == sum(len(row["attackers"]) for row in ours) / 3
    assert summary["attackers_law"] == pytest.approx(hypergeom(12, 3, 5).pmf(range(4)))
    numbers = [len(row["attackers"]) for row in ours]
    assert summary["attackers_counts"] == [numbers.count(k) for k in range(max(numbers) + 1)]
    assert summary["classes"] == ["2", "6"]


def test_in_rounds_off_the_schedule_attackers_are_the_honest_clients_they_were(
    tmp_path: Path,
) -> None:
    base = ["+experiment=fedavg_goal1", *TINY_ATTACK, "floor=true"]
    run(tmp_path, *base, "attack.schedule=[3]")
    ours, twins = rows(tmp_path), rows(tmp_path / "clean_twin")
    assert [row["attackers"] for row in ours] == [[], [], [0, 1, 2]]
    assert ours[1]["loss"] == twins[1]["loss"]
    assert ours[2]["loss"] != twins[2]["loss"]


def test_an_attacker_may_train_otherwise(tmp_path: Path) -> None:
    base = ["+experiment=fedavg_goal1", *TINY_ATTACK, "floor=false", "num_rounds=1"]
    norms = []
    for number, own in enumerate(([], ["attack.poisoned_epochs=3"], ["attack.learning_rate=0"])):
        run(tmp_path / str(number), *base, *own)
        norms.append(rows(tmp_path / str(number))[0]["update_norm_attacker_mean"])
    assert norms[1] > norms[0] > norms[2] == 0


@pytest.mark.parametrize(
    ("schedule", "rounds"),
    [
        ("always", [1, 2, 3, 4, 5, 6, 7]),
        ([5], [5]),
        ([2, 3], [2, 3]),
        ({"first": 3}, [3, 4, 5, 6, 7]),
        ({"first": 2, "last": 6, "every": 2}, [2, 4, 6]),
        ({"last": 2}, [1, 2]),
    ],
)
def test_schedules(schedule: object, rounds: list[int]) -> None:
    roster = Roster(num_attackers=1, schedule=schedule)
    assert [number for number in range(1, 8) if roster.attacks(number)] == rounds


@pytest.mark.parametrize("schedule", ["never", [], [0], {"from": 1}, {"every": 0}, [True], None])
def test_a_bad_schedule_is_named(schedule: object) -> None:
    with pytest.raises(UserError, match=r"^attack\.schedule=.*: allowed are always"):
        Roster(schedule=schedule)


def test_a_roster_can_be_a_list_or_have_a_seed_of_its_own() -> None:
    assert Roster(num_attackers=2, roster=[7, 1]).draw(10, 0) == (1, 7)
    for roster in ([7, 7], [10, 1], [-1, 1], [1], [True, 2]):
        with pytest.raises(UserError, match=r"^attack\.roster="):
            Roster(num_attackers=2, roster=roster).draw(10, 0)
    own = Roster(num_attackers=3, roster="random", roster_seed=5)
    assert own.draw(10, 0) == own.draw(10, 1)


def test_a_rule_assumes_the_expected_attackers_unless_it_asks_the_oracle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = ["num_clients=20", "cohort.clients_per_round=7", "attack.num_attackers=6"]
    krum = ["floor=false", "attack.poisoned_samples=60", *some, "strategy=krum"]
    assert tiny(*krum).strategy["num_malicious"] == 3  # 2.1 of 7
    with pytest.raises(UserError, match="num_malicious"):
        run(tmp_path / "assumed", *krum)
    few = ["strategy.num_malicious=oracle", "attack.num_attackers=4", "attack.roster=random"]
    told: list[int] = []

    def listening(self: Krum, round: Round) -> Outcome:
        told.append(self.num_malicious)
        return Outcome(None)

    monkeypatch.setattr(Krum, "aggregate", listening)
    run(tmp_path / "oracle", *krum, *few)
    assert told == [len(row["attackers"]) for row in rows(tmp_path / "oracle")]
    assert len(set(told)) > 1


def test_detection_counts_who_attacked_in_each_round() -> None:
    first = Selection([0, 5], [], [0, 1], [0, 1, 5, 6], [])
    second = Selection([2], [3], [], [2, 3, 4, 5], [])
    assert detection([first, second]) == (1 / 4, 1 / 2, 3 / 6)
    assert detection([Selection(None, [], [0], [0, 1], [])]) == (None, None, None)


def test_who_did_not_answer_could_not_be_left_out() -> None:
    """Both that answered and attacked are, and one of three honest ones that answered."""
    all_came = Selection([0, 1, 5], [], [0, 1, 2], [*range(8)], [2, 6, 7])
    assert detection([all_came]) == (2 / 3, 1.0, 1 / 3)
    nobody = Selection([], [], [0], [0, 1], [0])
    assert detection([nobody]) == (None, None, 0.0)
