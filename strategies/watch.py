"""What an operator is to be told of the rounds: a line for each, and a warning where it is time."""

import json
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from logging import INFO, WARNING
from typing import Any, Final

import numpy as np
from flwr.app import ArrayRecord
from flwr.supercore import log
from numpy.typing import NDArray

from .record import RoundRecord
from .vectors import Layout, decoded

PATIENCE: Final = 5
"""Rounds after which what never changes is worth a warning."""

RECENT: Final = 50
"""Rounds that are looked back on."""

SAID: Final = "watch/said"
"""Key under which a strategy remembers what it has warned of."""

OnRound = Callable[[RoundRecord], object]


@dataclass(frozen=True)
class Finding:
    """What is worth a warning.

    Attributes
    ----------
    kind : str
        What it is about; each kind is said once.
    text : str
        For the log.
    clients : tuple of int
        Whom it names: said again for those who are new.
    """

    kind: str
    text: str
    clients: tuple[int, ...] = ()

    @property
    def keys(self) -> set[str]:
        """What is said with it."""
        return {f"{self.kind}/{client}" for client in self.clients} or {self.kind}


def findings(history: Sequence[RoundRecord]) -> list[Finding]:
    """Return what is worth a warning after some rounds, of which the last is the newest."""
    return [found for rule in FINDINGS for found in rule(history)] if history else []


def kept_everybody(history: Sequence[RoundRecord]) -> Iterator[Finding]:
    """Find a rule that selects and has dropped nobody."""
    if (last := _last(history)) and all(record.even for record in last):
        yield Finding(
            "kept everybody",
            f"{history[-1].strategy} has dropped nobody for {PATIENCE} rounds: either all clients "
            "are alike, or its thresholds are too wide for this model's norms and distances",
        )


def kept_nobody(history: Sequence[RoundRecord]) -> Iterator[Finding]:
    """Find a global model that does not change."""
    if (last := _last(history)) and all(record.stayed for record in last):
        yield Finding(
            "kept nobody",
            f"{history[-1].strategy} has kept the old global model for {PATIENCE} rounds: too few "
            "valid replies, or thresholds too narrow for this model's norms and distances",
        )


def singled_out(history: Sequence[RoundRecord]) -> Iterator[Finding]:
    """Find clients dropped in most of their rounds, and at least twice as often as all are."""
    answered, dropped, name = Counter[int](), Counter[int](), dict[int, str]()
    for record in history:
        if record.dropped is None or record.stayed:
            continue
        out = set(record.dropped)
        for node, client in zip(record.nodes, record.clients, strict=True):
            answered[client] += 1
            dropped[client] += node in out
            name[client] = f"{client}" if node == client else f"{client} (node {node})"
    # A rule that drops most clients, as Krum does, singles out nobody.
    usual = dropped.total() / max(1, answered.total())
    who = sorted(
        client
        for client, rounds in answered.items()
        if rounds >= PATIENCE and dropped[client] / rounds > 0.5 and usual <= 0.5
        if dropped[client] >= 2 * usual * rounds
    )
    if who:
        each = ", ".join(f"{name[c]} in {dropped[c]} of {answered[c]}" for c in who[:9])
        more = f", and {len(who) - 9} more" if len(who) > 9 else ""
        yield Finding(
            "singled out",
            f"{history[-1].strategy} drops the same clients in most rounds: {each}{more}: "
            "attackers, faulty, or with data unlike the others'",
            tuple(who),
        )


def never_bound(history: Sequence[RoundRecord]) -> Iterator[Finding]:
    """Find a bound that has changed no update."""
    last = _last(history)
    norms = [norm for record in last for norm in record.norms]
    for key, what in (("clipped_nodes", "clipped nobody"), ("turned", "turned no coordinate")):
        if last and not any(record.report.get(key, True) for record in last):
            largest = f": the largest update had norm {max(norms):.3g}" if norms else ""
            yield Finding(
                f"never bound: {key}",
                f"{history[-1].strategy} has {what} for {PATIENCE} rounds, so that its threshold "
                f"bounds nothing{largest}",
            )


def statistics_dominate(history: Sequence[RoundRecord]) -> Iterator[Finding]:
    """Find a model most of whose change no rule judges."""
    share = history[-1].statistics
    if share is not None and share > 0.5:
        yield Finding(
            "statistics dominate",
            f"Moving averages (BatchNorm) are {100 * share:.0f} % of the squared update norm in "
            f"round {history[-1].number}: no defense judges or bounds them, they are averaged",
        )


def too_few(history: Sequence[RoundRecord]) -> Iterator[Finding]:
    """Find fewer valid replies than the rule's bound."""
    record = history[-1]
    if record.too_few:
        yield Finding(
            "too few",
            f"Round {record.number} has {len(record.nodes)} valid replies of {record.asked}, "
            f"fewer than the rule's bound: {record.too_few}",
        )


def screened_out(history: Sequence[RoundRecord]) -> Iterator[Finding]:
    """Find replies that go on being unusable, and why."""
    if (last := _last(history)) and all(record.invalid for record in last):
        why = Counter(reason for record in last for reason in record.invalid.values())
        who = sorted({node for record in last for node in record.invalid})
        nodes = ", ".join(map(str, who[:3])) + (f" and {len(who) - 3} more" * (len(who) > 3))
        yield Finding(
            "screened out",
            f"Replies have been screened out in each of {PATIENCE} rounds, of node {nodes}: "
            + "; ".join(f"{count} x {reason}" for reason, count in why.most_common(3)),
        )


FINDINGS: Final = (
    kept_everybody,
    kept_nobody,
    singled_out,
    never_bound,
    statistics_dominate,
    too_few,
    screened_out,
)


def _last(history: Sequence[RoundRecord]) -> list[RoundRecord]:
    """Return the last rounds; none if they are too few to say what never changes."""
    return list(history)[-PATIENCE:] if len(history) >= PATIENCE else []


class Guard:
    """Calls what must not end a training: what it raises is said once, and counted.

    Attributes
    ----------
    failures : Counter
        How often a call failed, by the name of what was called.
    """

    def __init__(self) -> None:
        self.failures: Counter[str] = Counter()

    def __call__(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call a function; its failure is no reason to stop."""
        name = getattr(function, "__qualname__", type(function).__name__)
        try:
            function(*arguments)
        except Exception as error:  # somebody else's code: whatever it raises
            self.failures[name] += 1
            if self.failures[name] == 1:
                log(WARNING, "%s failed, and the training goes on without: %.200r", name, error)

    def report(self) -> None:
        """Say how often which call failed."""
        for name, count in self.failures.items():
            log(WARNING, "%s failed %d times", name, count)


class Watch:
    """The outermost strategy's eye on its rounds: log, warnings, callbacks.

    Parameters
    ----------
    on_round : callable or iterable of callable
        Called with each `RoundRecord`; if it has a `close`, that is called at the end of `start`.

    Attributes
    ----------
    history : deque of RoundRecord
        The last `RECENT` rounds.
    warns : bool
        Whether findings are said.
    muted : bool
        Whether another strategy stands around this one, which does all of it.
    guard : Guard
        Counts the failures of callbacks.

    Raises
    ------
    ValueError
        If something in on_round cannot be called.
    """

    def __init__(self, on_round: OnRound | Iterable[OnRound] = ()) -> None:
        given = (on_round,) if callable(on_round) else on_round
        self.on_round: tuple[OnRound, ...] = tuple(given) if isinstance(given, Iterable) else ()
        if not isinstance(given, Iterable) or not all(map(callable, self.on_round)):
            raise ValueError(
                f"on_round = {on_round!r} must be a function of a RoundRecord, or several of them"
            )
        self.history: deque[RoundRecord] = deque(maxlen=RECENT)
        self.warns, self.muted = True, False
        self.guard = Guard()
        self._said: NDArray[np.uint8] | None = None

    def take_over(self, inner: "Watch") -> None:
        """Do in the place of a strategy inside what it would do alone."""
        self.on_round += tuple(call for call in inner.on_round if call not in self.on_round)
        inner.muted = True

    def round(self, record: RoundRecord) -> None:
        """Log a round, warn of what is new, and call those who want to know."""
        if self.muted:
            return
        self.history.append(record)
        log(INFO, "%s", record.line)
        if self.warns:
            for found in findings(self.history):
                self._say(found)
        for call in self.on_round:
            self.guard(call, record)

    def close(self) -> None:
        """Close callbacks that hold something open, and say how often any failed."""
        for call in self.on_round:
            if hasattr(call, "close"):
                self.guard(call.close)
        self.guard.report()

    def remember(self) -> dict[str, NDArray[np.uint8]]:
        """Return what has been said, for a run that is resumed; nothing if nothing has."""
        return {} if self._said is None else {SAID: self._said}

    def remind(self, memory: Mapping[str, NDArray[Any]]) -> None:
        """Take up what `remember` returned."""
        self._said = memory.get(SAID)

    def _say(self, found: Finding) -> None:
        said = set(json.loads(self._said.tobytes())) if self._said is not None else set()
        if not found.keys <= said:
            log(WARNING, "%s", found.text)
            text = json.dumps(sorted(said | found.keys))
            self._said = np.frombuffer(text.encode(), np.uint8)


def warn_of_lookalikes(name: str, arrays: ArrayRecord, statistics: Sequence[str]) -> None:
    """Say which arrays may be no parameters, where neither PyTorch nor the app names one."""
    layout = Layout(arrays, statistics)
    if layout.statistics.start == layout.statistics.stop and (
        names := layout.lookalikes(decoded(arrays))
    ):
        log(
            WARNING,
            "%s: %s may be moving averages: name those that are in statistics=, "
            "or they are judged and changed like parameters",
            name,
            ", ".join(f"{array!r:.60}" for array in names[:9]),
        )
