"""What a round was: what a strategy says of it, in numbers, in lists, and in one line."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from flwr.app import MetricRecord
from numpy.typing import NDArray

from .replies import Screening
from .round import Outcome, Round

LONGEST = 80
"""Columns of a line."""

USUAL = LONGEST - 12
"""Of one that still fits behind what Flower's logger begins with."""


@dataclass(frozen=True, kw_only=True)
class RoundRecord:
    """An aggregated round, as a callback gets it.

    Attributes
    ----------
    number : int
        The round, counted from 1.
    strategy : str
        Name of the strategy, with those inside it.
    asked : int
        Clients asked.
    nodes, clients : tuple of int
        Of each of the n valid replies the node id, and the number of the client that the node
        plays: the node id, where nobody calls a roll.
    norms : tuple of float
        Euclidean norm of each valid update, as it came, of shape (n,); empty for models without
        parameters.
    votes : tuple of float or None
        The vote that the rule gave to each, of any scale; None of a rule that neither selects nor
        weights.
    kept, dropped : tuple of int or None
        Node ids of the valid replies that got a vote, and of those that got none.
    even : bool
        Whether the rule selects, and all replies kept the votes that they came with.
    invalid : mapping of int to str
        Node ids of the replies that were screened out, and why.
    missing : tuple of str
        What the federation says of nodes that did not reply.
    stayed : bool
        Whether the global model stayed as it was.
    too_few : str
        What the strategy's `check` says of so few valid replies; "" if they are enough.
    statistics : float or None
        Part of the squared update norm, median over the replies, that moving averages have
        (BatchNorm's); None where there are none.
    metrics : mapping of str to float
        What Flower gets: numbers only.
    report : mapping of str to list or float
        ``strategy.rounds[number]``.
    """

    number: int
    strategy: str
    asked: int
    nodes: tuple[int, ...] = ()
    clients: tuple[int, ...] = ()
    norms: tuple[float, ...] = ()
    votes: tuple[float, ...] | None = None
    kept: tuple[int, ...] | None = None
    dropped: tuple[int, ...] | None = None
    even: bool = False
    invalid: Mapping[int, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    stayed: bool = False
    too_few: str = ""
    statistics: float | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)

    @property
    def line(self) -> str:
        """The round in one line: counts, norms, and as many of the rule's numbers as it takes."""
        kept = self.nodes if self.kept is None else self.kept
        did = "kept" if self.kept is not None else "averaged"
        start = "old model stays" if self.stayed else f"{did} {len(kept)} of {self.asked}"
        parts = [f"round {self.number}: {start}"]
        counts: dict[str, Any] = {
            "dropped": self.dropped,
            "invalid": self.invalid,
            "missing": self.missing,
        }
        parts += [f"{name} {len(who)}" for name, who in counts.items() if who]
        parts += [f"{k.removesuffix('_nodes')} {len(v)}" for k, v in self._sets().items()]
        if self.norms:
            parts.append(f"norms {min(self.norms):.3g} to {max(self.norms):.3g}")
        numbers = [
            # Flags stand in the metrics; what they warn of has a line of its own.
            f"{name.replace('_', ' ')} {value:.3g}"
            for name, value in self.report.items()
            if isinstance(value, float)
        ]
        line = parts[0]
        for part in parts[1:] + numbers:
            most, longer = USUAL if part in numbers else LONGEST, f"{line}, {part}"
            line = longer if len(longer) <= most else line
        return line

    def _sets(self) -> dict[str, Collection[int]]:
        """Return the sets of clients that the rule names beside those kept and dropped."""
        ours = {"kept_nodes", "dropped_nodes", "invalid_nodes"}
        return {k: v for k, v in self.report.items() if k.endswith("_nodes") and k not in ours}


def told(
    outcome: Outcome, votes: NDArray[np.float64], nodes: Sequence[int]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what an outcome says: lists and ids for the report, numbers for Flower's metrics.

    Parameters
    ----------
    outcome : Outcome
        Of the round.
    votes : array of shape (n,)
        By which it was aggregated.
    nodes : sequence of int
        The nodes of the n rows.
    """
    report: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    ids, kept = np.array(nodes, dtype=object), votes > 0
    if outcome.votes is not None:
        report["votes"] = outcome.votes.tolist()
        for name, rows in (("kept", kept), ("dropped", ~kept)):
            report[f"{name}_nodes"] = sorted(ids[rows].tolist())
            metrics[name] = int(rows.sum())
    for name, value in outcome.notes.items():
        key = name.replace("-", "_")
        if not isinstance(value, np.ndarray):
            metrics[name] = value
            if key not in ("nodes", "votes") and not key.endswith("_nodes"):
                report[key] = value  # else clients named a metric as ids are named here
        elif value.dtype == np.bool_:
            report[f"{key}_nodes"] = sorted(ids[value].tolist())
            metrics[name] = int(value.sum())
        else:
            report[key] = value.tolist()
    return report, metrics


def record(
    number: int,
    strategy: object,
    asked: int,
    screening: Screening,
    report: Mapping[str, Any],
    metrics: MetricRecord,
    **seen: Any,
) -> RoundRecord:
    """Return the record of a round.

    Parameters
    ----------
    number, asked : int
        The round, and the clients asked.
    strategy : Robust
        The outermost.
    screening : Screening
        Of its replies.
    report, metrics : mapping
        What the strategy says, as lists and as numbers.
    **seen
        What `seen` returned, and whether the model ``stayed``.
    """
    votes, own = report.get("votes"), seen.pop("own_votes", None)
    return RoundRecord(
        number=number,
        strategy=title(strategy),
        asked=asked,
        nodes=tuple(report["nodes"]),
        votes=None if votes is None else tuple(votes),
        kept=None if votes is None else tuple(report["kept_nodes"]),
        dropped=None if votes is None else tuple(report["dropped_nodes"]),
        even=votes is not None and _is_even(np.divide(votes, own)),
        invalid=MappingProxyType(dict(screening.invalid)),
        missing=screening.missing,
        metrics=MappingProxyType(dict(metrics)),
        report=MappingProxyType(dict(report)),
        **seen,
    )


def _is_even(parts: NDArray[np.float64]) -> bool:
    """Tell whether all votes kept the same part of what they were, of shape (n,)."""
    return bool(parts.min() > 0 and np.ptp(parts) <= 1e-9 * parts.max())


def seen(round: Round) -> dict[str, Any]:
    """Return what a record has of a round's replies before the rule, which may overwrite them."""
    norms = round.updates.norms if round.layout.parameter_names else np.zeros(0)
    return {
        "clients": round.clients,
        "norms": tuple(norms.tolist()),
        "own_votes": round.votes.copy(),
        "statistics": statistics_share(round.statistics - round.sent_statistics, norms),
    }


def statistics_share(steps: NDArray[np.floating], norms: NDArray[np.float64]) -> float | None:
    """Return the median over i of ``|s_i|^2 / (|s_i|^2 + |u_i|^2)``; None without statistics.

    Parameters
    ----------
    steps : array of shape (n, s)
        s_i, what each client changed of the moving averages.
    norms : array of shape (n,)
        |u_i| of what it changed of the parameters.
    """
    if not steps.size or not norms.size:
        return None
    squares = np.square(steps, dtype=np.float64).sum(axis=1)
    whole = squares + np.square(norms)
    shares = np.divide(squares, whole, out=np.zeros_like(whole), where=whole > 0)
    return float(np.median(shares))


def title(strategy: object) -> str:
    """Name a strategy and those inside it: ``NormClipping(Sniper)``."""
    inner = vars(strategy).get("strategy")
    name = type(strategy).__name__
    return name if inner is None else f"{name}({title(inner)})"
