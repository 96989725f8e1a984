"""What a strategy says it did with a round's replies, by client."""

from collections.abc import Collection, Mapping
from typing import Any

from flwr.app import Message, MetricRecord

from ..files import Row


def selected(
    report: Mapping[str, Any],
    metrics: MetricRecord,
    replies: list[Message],
    clients: Mapping[int, int],
    cohort: Collection[int],
) -> Row:
    """Translate what the strategy says it did from nodes to clients.

    Clients that were not there, or sent no answer or an error, are ``failed``; those whose
    answer could not be averaged are ``invalid``; those that the defense chose against are
    ``dropped``.

    Parameters
    ----------
    report, metrics : mapping
        The strategy's, of the round.
    replies : list of Message
        As they came.
    clients : mapping of int to int
        The client that each node plays.
    cohort : collection of int
        The clients that were to be asked.
    """
    answered = {clients[r.metadata.src_node_id] for r in replies if not r.has_error()}
    failed = set(cohort) - answered
    said = {
        key.removesuffix("_nodes"): sorted(clients[node] for node in nodes)
        for key, nodes in report.items()
        if key.endswith("_nodes")
    }
    kept, dropped = said.pop("kept", None), said.pop("dropped", None)
    invalid = [client for client in said.pop("invalid") if client not in failed]
    unsaid = {"kept", "dropped", "invalid", "train-seconds", *said}
    rest = {key: value for key, value in metrics.items() if key not in unsaid}
    lists = {
        key.replace("_", "-"): value
        for key, value in report.items()
        if isinstance(value, list) and not key.endswith("nodes") and key != "votes"
    }
    return {
        "cohort": list(cohort),
        "kept": kept,
        "dropped": dropped,
        "invalid": invalid,
        "failed": sorted(failed),
        "strategy": rest | lists | said,
    }
