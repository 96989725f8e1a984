"""What results do not show, as far as the files of runs tell: one function a caveat.

Each is given runs, and returns one line, or "" where the caveat does not apply.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import numpy as np

from ..errors import UserError
from ..files import SUMMARY, TWIN, Row, read_json
from ..screen import counted
from .runs import Run, frame
from .settings import UNSAID, differing, split
from .sides import UNDEFENDED, attack, attacked, defense, roster

SETTLED: Final = 0.01
"""The main accuracy of the last fifth of the rounds lies within this, or learning goes on."""
HARMED: Final = 0.01
"""A defense that costs more of the main accuracy where nobody attacks does harm itself."""
MOST_LISTED: Final = 20
"""Attackers that a line can hold."""
TOLD: Final = ("num_malicious", "num_malicious_nodes")
"""Settings of a rule that are a number of attackers."""


def caveats(runs: Sequence[Run]) -> list[str]:
    """Return the lines that apply to some runs, all of them complete or ended early."""
    done = [run for run in runs if run.summary]
    return [line for caveat in CAVEATS if done and (line := caveat(done))]


def unread(runs: Sequence[Run]) -> str:
    """Count runs of which only the summary can be read."""
    hits = [run for run in runs if not _rows(run)]
    return _line("The rounds cannot be read", hits, runs, "what they would tell is missing below")


def one_seed(runs: Sequence[Run]) -> str:
    """Count settings of which there is one seed."""
    table = frame(runs)
    settings = split(table, list(differing(table)))
    alone = sum(part["seed"].nunique() == 1 for _, part in settings)
    of = "" if alone == len(settings) else f" in {alone} of {len(settings)} settings"
    return f"One seed{of}: nothing is known of the spread." if alone else ""


def at_chance(runs: Sequence[Run]) -> str:
    """Count models that classify no better than by naming the largest class."""
    hits = [run for run in runs if run.summary.get("at_chance")]
    return _line("The main accuracy is at chance", hits, runs, "no attack success is counted there")


def no_floor(runs: Sequence[Run]) -> str:
    """Count attacks without a clean twin to hold them against."""
    hits = [
        run
        for run in runs
        if attacked(run)
        and not run.summary.get("at_chance")
        and run.summary.get("attack_success_floor") is None
        and run.summary.get("damage") is None
    ]
    end = "what there is without the attack is not known (floor=true)"
    return _line("There is no floor", hits, runs, end)


def same_attackers(runs: Sequence[Run]) -> str:
    """Name a roster that is the same in every run that has as many attackers."""
    whole = [run for run in runs if roster(run)]
    sizes = Counter(map(len, {roster(run) for run in whole}))
    hits = [run for run in whole if sizes[len(roster(run))] == 1]
    if not hits:
        return ""
    some = "" if len(hits) == len(whole) else f" in {len(hits)} of {len(runs)} runs"
    first, *others = {roster(run) for run in hits}
    who = "" if others or len(first) > MOST_LISTED else f": {' '.join(map(str, first))}"
    return f"The attackers are always the same clients{some}{who}."


def absent_attackers(runs: Sequence[Run]) -> str:
    """Count runs in which no attacker of the crowd was drawn and answered."""
    hits = [
        run
        for run in runs
        if run.unit == "round"
        and attacked(run)
        and (rows := _rows(run))
        and all(set(row["attackers"]) <= set(row["failed"]) for row in rows)
    ]
    return _line("No attacker came to act", hits, runs)


def full_participation(runs: Sequence[Run]) -> str:
    """Count runs in which every client answers in every round."""
    hits = [
        run
        for run in runs
        if (rows := _rows(run))
        and run.unit == "round"
        and all(len(x["cohort"]) == run.summary["num_clients"] and not x["failed"] for x in rows)
    ]
    return _line("Every client takes part in every round", hits, runs)


def invented_data(runs: Sequence[Run]) -> str:
    """Name data that are not those whose name they bear."""
    found = dict.fromkeys(str(run.summary.get("data", "")) for run in runs)
    invented = [data for data in found if re.match(r"synthetic[ ,]|\S+ stand-in,", data)]
    return f"The data are not the real ones: {'; '.join(invented)}." if invented else ""


def told_attackers(runs: Sequence[Run]) -> str:
    """Name rules whose number of attackers is the true one, which no operator knows."""
    told = dict.fromkeys(
        f"{defense(run)} ({name})"
        for run in runs
        for name, value in _assumed(run)
        if attacked(run) and (value == "oracle" or value in _true(run))
    )
    return f"Told the true number of attackers: {', '.join(told)}." if told else ""


def all_updates(runs: Sequence[Run]) -> str:
    """Name attacks that know what no attacker does."""
    know = dict.fromkeys(attack(run) for run in runs if run.summary.get("knowledge") == "all")
    return f"Knows the updates of all honest clients: {', '.join(know)}." if know else ""


def within_floor(runs: Sequence[Run]) -> str:
    """Count success that may be none: at most the upper end of the floor's 95 % interval."""
    hits = []
    for run in runs:
        rate = run.summary.get("attack_success_rate")
        interval = run.summary.get("attack_success_floor_interval")
        if interval and rate is not None and not run.summary.get("at_chance"):
            hits += [run] * (rate <= interval[1] and attacked(run))
    start = "Attack success is within the 95 % interval of its floor"
    return _line(start, hits, runs, "the attack does not show there")


def no_adaptive(runs: Sequence[Run]) -> str:
    """Name defenses that no attack reckoned with."""
    tried: dict[str, bool] = defaultdict(bool)
    for run in runs:
        if attacked(run) and defense(run) != UNDEFENDED:
            tried[defense(run)] |= bool(run.summary.get("adaptive"))
    left = [name for name, adaptive in tried.items() if not adaptive]
    return f"No adaptive attacker was tried against {', '.join(left)}." if left else ""


def unsettled(runs: Sequence[Run]) -> str:
    """Count main accuracies that still move in the last rounds."""
    hits = [run for run in runs if (rows := _rows(run)) and not settled(rows)]
    start = f"Learning has not settled (last fifth: more than {100 * SETTLED:.0f} point)"
    return _line(start, hits, runs)


def idle_rule(runs: Sequence[Run]) -> str:
    """Count rounds in which a rule that selects left nobody out, or could not act."""
    left, failed, of = Counter[str](), Counter[str](), Counter[str]()
    for run in runs:
        name = defense(run)
        for row in _rows(run) if run.unit == "round" else []:
            notes = row["strategy"]
            of[name] += 1
            idle = notes.get("rule-failed") or notes.get("cannot-act") or row["kept"] == []
            failed[name] += bool(idle)
            there = set(row["cohort"]) - {*row["failed"], *row["invalid"]}
            left[name] += (
                bool(row["attackers"]) and row["kept"] is not None and there <= set(row["kept"])
            )
    of_all = {name: counted(number, "round") for name, number in of.items()}
    return _how_often({"left nobody out": left, "could not act": failed}, of_all)


def idle_attack(runs: Sequence[Run]) -> str:
    """Count rounds and epochs in which an attack could not act, or some of its attackers could not.

    They sent what they trained.
    """
    nobody, some, of = Counter[str](), Counter[str](), Counter[str]()
    units: dict[str, str] = {}
    for run in filter(attacked, runs):
        name = attack(run)
        units[name] = run.unit
        for row in _rows(run):
            there = set(row.get("attackers", ())) - set(row.get("failed", ()))
            notes = row.get("attack", {})
            idle = len(there) if "cannot-ask" in notes else notes.get("cannot-act", 0)
            of[name] += bool(there) or run.unit == "epoch"
            nobody[name] += bool(idle) and idle >= len(there)
            some[name] += 0 < idle < len(there)
    of_all = {name: counted(number, units[name]) for name, number in of.items()}
    return _how_often({"could not act": nobody, "could not act for some attackers": some}, of_all)


def harmed_twin(runs: Sequence[Run]) -> str:
    """Name defenses under which the clean twin is worse than without them."""
    without: dict[Any, float] = {}
    for run in runs:
        twin = run.summary.get("main_accuracy_twin")
        if twin is not None and defense(run) == UNDEFENDED:
            without.setdefault(_beside_defense(run), twin)
    costs: dict[str, list[float]] = defaultdict(list)
    broken: dict[str, None] = {}
    for run in runs:
        twin, beside = run.summary.get("main_accuracy_twin"), _beside_defense(run)
        if twin is None or defense(run) == UNDEFENDED:
            continue
        if beside in without:
            costs[defense(run)].append(without[beside] - twin)
        if _twin_at_chance(run):
            broken[defense(run)] = None
    said = [f"{name} leaves it at chance" for name in broken]
    said += [
        f"{name} costs it {100 * mean:.1f} points"
        for name, some in costs.items()
        if name not in broken and (mean := float(np.mean(some))) > HARMED
    ]
    return f"The defense itself harms the clean twin: {', '.join(said)}." if said else ""


CAVEATS: Final[tuple[Callable[[Sequence[Run]], str], ...]] = (
    unread,
    one_seed,
    at_chance,
    no_floor,
    within_floor,
    unsettled,
    invented_data,
    no_adaptive,
    told_attackers,
    all_updates,
    same_attackers,
    absent_attackers,
    full_participation,
    idle_rule,
    idle_attack,
    harmed_twin,
)


def settled(rows: Sequence[Row]) -> bool:
    """Tell whether the main accuracy of the last fifth of the rounds lies within `SETTLED`."""
    if len(rows) == 1:
        return False
    last = [row["main_accuracy"] for row in rows[-max(1, len(rows) // 5) - 1 :]]
    return all(math.isfinite(x) for x in last) and max(last) - min(last) <= SETTLED


def _assumed(run: Run) -> Iterable[tuple[str, Any]]:
    """Yield what a rule assumes of the number of attackers, in words and as it is."""
    for key, value in run.config.items():
        name = key.rpartition(".")[2]
        if key.startswith("strategy.") and name in TOLD and isinstance(value, int | str):
            yield f"{name}={value}", value
    for cut in {row["strategy"].get("trimmed") for row in _rows(run) if run.unit == "round"}:
        yield f"{cut} cut at either end", cut


def _true(run: Run) -> set[int]:
    """Return the number of attackers that a round is expected to have, and the most it had."""
    expected = math.ceil(run.summary.get("attackers_expected", 0))
    most = max((len(row["attackers"]) for row in _rows(run)), default=0)
    return {expected, most} - {0}


def _beside_defense(run: Run) -> tuple[tuple[str, str], ...]:
    """Return what two runs have alike whose clean twins differ by the defense alone."""
    others = ("strategy.", "defenses.", "attack.", *UNSAID)
    config = {k: str(v) for k, v in run.config.items() if not k.startswith(others)}
    return tuple(sorted(config.items()))


def _twin_at_chance(run: Run) -> bool:
    try:
        return bool(read_json(run.path / TWIN / SUMMARY).get("at_chance"))
    except UserError:  # there is none
        return False


def _rows(run: Run) -> list[Row]:
    try:
        return run.rows
    except UserError:  # whoever draws them says so
        return []


def _how_often(counts: dict[str, Counter[str]], of: dict[str, str]) -> str:
    """Say what happened to whom, and in how many rounds of how many."""
    said = [
        f"{name} {what} in {some[name]} of {whole}"
        for what, some in counts.items()
        for name, whole in of.items()
        if some[name]
    ]
    return f"{'; '.join(said)}." if said else ""


def _line(start: str, hits: Sequence[Run], runs: Sequence[Run], end: str = "") -> str:
    if not hits:
        return ""
    some = f"all {len(runs)}" if len(hits) == len(runs) else f"{len(hits)} of {len(runs)}"
    count = "" if len(runs) == 1 else f" in {some} runs"
    names = dict.fromkeys(f"{defense(run)} x {attack(run)}" for run in hits)
    which = f" ({', '.join(names)})" if len(names) <= 3 and len(hits) < len(runs) else ""
    return f"{start}{count}{which}{': ' * bool(end)}{end}."
