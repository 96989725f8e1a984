"""One run of the app, in a process of its own: ``python -m fl_backdoor.audit.cell SPEC RESULT``."""

import itertools
import json
import logging
import math
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.object_ref import load_app

from clients import Colluders

from .batches import Batches, Change
from .chosen import ATTACKS, DEFENSES, Malice
from .nodes import Nodes
from .started import Started
from .turned import Trap, Turned, counted

ROUNDS_KEYS = ("num-server-rounds", "num-rounds", "num_server_rounds", "num_rounds")
"""Under which apps name their rounds in the run config, if they start no strategy."""


class RefusedError(Exception):
    """Why an app cannot be audited, in one line."""


@dataclass(frozen=True)
class Spec:
    """A run of the app.

    Attributes
    ----------
    folder : str
        A copy of the app.
    serverapp, clientapp : str
        Its components.
    config, batches : dict
        Its run config, and what it says of its batches.
    clients : int
        n.
    attackers : list of int
        Node ids, 1 to n.
    attack, defense : str or None
        Names of `ATTACKS` and `DEFENSES`. None: nobody attacks; the app's own strategy.
    rounds : int or None
        None: as many as the app asks for.
    seed : int
        Of everything that draws.
    """

    folder: str
    serverapp: str
    clientapp: str
    config: dict[str, Any]
    batches: dict[str, Any]
    clients: int
    attackers: list[int]
    attack: str | None = None
    defense: str | None = None
    rounds: int | None = None
    seed: int = 0


@dataclass
class Result:
    """What came out.

    Attributes
    ----------
    metrics, triggered : dict of str to float
        The app's own metrics of the last model: on the honest clients' data, or on its server's,
        and on triggered samples that are told to be the target. Empty where there are none.
    refused : str
        Why the app cannot be audited.
    error : str
        Why the run ended early.
    unattacked, undefended : str
        Why the attack did nothing, and why the defense could not stand in.
    broken : str
        Why nobody can evaluate the last model.
    unmeasured : str
        Why the success of a backdoor is not known.
    strategy : str
        The app's.
    rounds : int
        That were run.
    clients_a_round : int or None
        The fewest that its strategy asked to train.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    triggered: dict[str, float] = field(default_factory=dict)
    refused: str = ""
    error: str = ""
    unattacked: str = ""
    undefended: str = ""
    broken: str = ""
    unmeasured: str = ""
    strategy: str = ""
    rounds: int = 0
    clients_a_round: int | None = None


def run(spec: Spec, note: Callable[[str], None]) -> Result:
    """Run the app once, with or without attackers and another defense.

    Raises
    ------
    RefusedError
        If the app cannot be audited.
    """
    random.seed(spec.seed)
    np.random.seed(spec.seed)  # noqa: NPY002 (the app's own draws)
    torch.manual_seed(spec.seed)
    note("loading the app")
    server_app, client_app = _loaded(spec)
    malice = ATTACKS[spec.attack] if spec.attack else Malice("nothing")
    attack = malice.replies(spec.clients, len(spec.attackers)) if malice.replies else None
    acted = counted(attack) if attack is not None else []
    settings = dict(spec.batches)
    target, trigger = settings.pop("target", None), settings.pop("trigger", "auto")
    batches = Batches(**settings)
    trap = None if target is None else Trap(batches, target, trigger)
    if malice.backdoor and trap is None:
        return Result(unattacked="no target in [tool.fl-backdoor]")
    who = spec.attackers if spec.attack else []
    turned = Turned(client_app, batches, malice, attack, who, trap, spec.seed, note)
    config = spec.config | {k: spec.rounds for k in ROUNDS_KEYS if k in spec.config and spec.rounds}
    nodes = Nodes(turned, spec.clients, config)
    grid: Grid = nodes
    if attack is not None and attack.hooks("collude"):
        grid = Colluders(nodes, attack, spec.attackers, seed=spec.seed)
    defense = DEFENSES[spec.defense] if spec.defense else None
    started = Started(
        spec.rounds,
        defense and (lambda own: defense(own, spec.clients, len(spec.attackers))),
    )
    result = Result()
    with batches.seen(), _warnings() as warnings:
        note("the server")
        try:
            with started.watched():
                server_app(grid, Context(1, 0, {}, RecordDict(), dict(config)))
        except Exception as error:
            _judge(turned)
            if started.model is None:  # or else what failed came after the training
                result.error = line(error)
                return result
        _judge(turned)
        result.strategy = ", ".join(dict.fromkeys(started.strategies))
        result.rounds = started.rounds or 0
        result.clients_a_round = nodes.asked if started.strategies else None
        if defense is not None and not started.strategies:
            result.undefended = "the app starts no Strategy"
        poisoned = batches.changed
        if attack is not None and not acted:
            result.unattacked = next(iter(warnings), "no reply had a model to change")
        if (malice.labels or malice.backdoor) and not poisoned:
            result.unattacked = batches.why
        note("measuring")
        _measure(result, spec, nodes, turned, started, batches, trap)
    return result


def _loaded(spec: Spec) -> tuple[ServerApp, ClientApp]:
    apps = []
    for reference in (spec.serverapp, spec.clientapp):
        try:
            apps.append(load_app(reference, RefusedError, spec.folder))
        except RefusedError:
            raise
        except BaseException as error:
            raise RefusedError(f"crashes as {reference} is imported: {line(error)}") from error
    server_app, client_app = apps
    for app, kind in ((server_app, ServerApp), (client_app, ClientApp)):
        if not isinstance(app, kind):
            raise RefusedError(f"its component is a {type(app).__name__}, not a {kind.__name__}")
    if client_app._call is not None:
        raise RefusedError("uses the older API (client_fn): allowed is the Message API")
    if server_app._main is None:
        raise RefusedError("uses the older API (server_fn): allowed is the Message API")
    if any("secagg" in str(getattr(mod, "__name__", mod)) for mod in client_app._mods):
        raise RefusedError(
            "uses secure aggregation: the server sees no client's update, so that no defense can "
            "judge one, and a changed one undoes the masks of all"
        )
    return server_app, client_app


def _judge(turned: Turned) -> None:
    """Refuse an app that trains nothing."""
    if "train" not in turned.sent:
        raise RefusedError("trains nothing: no train message was sent")
    if not turned.answered:
        reason = turned.errors[0] if turned.errors else "no reply had a content"
        raise RefusedError(f"crashes in training: {reason}")
    if not turned.trained:
        raise RefusedError("trains nothing: no reply had another model than was sent")


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """Give a list that fills with what attackers say they cannot do."""
    said: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "cannot act" in record.getMessage():
                said.append(record.getMessage())

    handler, logger = Handler(logging.WARNING), logging.getLogger("flwr")
    logger.addHandler(handler)
    try:
        yield said
    finally:
        logger.removeHandler(handler)


def _measure(
    result: Result,
    spec: Spec,
    nodes: Nodes,
    turned: Turned,
    started: Started,
    batches: Batches,
    trap: Trap | None,
) -> None:
    """Evaluate the last model as the app does, on its own test data and on triggered ones."""
    newest = turned.sent.get("evaluate") or turned.sent["train"]
    model = started.model or next(iter(newest.array_records.values()), ArrayRecord())
    honest = [node for node in nodes.get_node_ids() if node not in spec.attackers]

    def evaluated(change: Change | None) -> dict[str, float]:
        turned.errors.clear()
        with batches.changing(change):
            if started.evaluate is not None:
                found = started.evaluate(result.rounds, model)
                if found:
                    return _numbers(found)
            content = RecordDict(dict(newest))
            name = next(iter(newest.array_records), "arrays")
            content[name] = model
            if "evaluate" not in turned.sent and not newest.config_records:
                content["config"] = ConfigRecord({"server-round": result.rounds})
            messages = [Message(content, node, "evaluate") for node in honest]
            return _mean([m.content for m in nodes.send_and_receive(messages) if m.has_content()])

    try:
        result.metrics = evaluated(None)
    except Exception as error:
        result.broken = line(error)
        return
    if not result.metrics:
        none = "no evaluation metric that is a number is reported"
        result.broken = next(iter(turned.errors), none)
        return
    if trap is not None:
        before = batches.changed
        triggered = evaluated(trap.spring)
        if batches.changed > before:
            result.triggered = triggered
        else:
            result.unmeasured = f"its evaluation reads no batch that can be seen: {batches.why}"


def _mean(contents: list[RecordDict]) -> dict[str, float]:
    """Average metrics by the examples that they are of."""
    rows = [_numbers(m) for c in contents for m in c.metric_records.values()]
    weights = [row.pop("num-examples", 1.0) for row in rows]
    names = set.intersection(*(set(row) for row in rows)) if rows else set()
    return {
        name: float(np.average([row[name] for row in rows], weights=weights))
        for name in sorted(names)
    }


def _numbers(metrics: Any) -> dict[str, float]:
    return {k: float(v) for k, v in metrics.items() if isinstance(v, int | float)}


def line(error: BaseException) -> str:
    """Return an error as one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


def main() -> None:
    """Run the cell of a file, and write what came out into another; say what is done in a third."""
    spec_file, result_file, note_file = map(Path, sys.argv[1:])
    spec = Spec(**json.loads(spec_file.read_text()))
    count = itertools.count()

    def note(text: str) -> None:
        """Say what is done now; the number makes it new where the same is done again."""
        note_file.write_text(f"{next(count)}\n{text}")

    try:
        result = run(spec, note)
    except RefusedError as error:
        result = Result(refused=" ".join(str(error).split()))
    result_file.write_text(json.dumps(finite(asdict(result))))


def finite(values: dict[str, Any]) -> dict[str, Any]:
    """Leave out metrics that are no finite number."""
    return {
        key: {k: v for k, v in value.items() if math.isfinite(v)}
        if isinstance(value, dict)
        else value
        for key, value in values.items()
    }


if __name__ == "__main__":
    main()
