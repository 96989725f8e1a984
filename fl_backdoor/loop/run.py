"""The rounds of an experiment: train, aggregate, measure, keep."""

import platform
import time
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Bulyan, Strategy
from numpy.typing import NDArray
from torch import Tensor

from strategies.graph.distances import PairwiseDistances, distance
from strategies.replies import Screening, arrays_of, flatten, metrics_of, screen

from .. import __version__
from ..config import Config, build
from ..errors import UserError
from ..federation.engines import launch
from ..federation.grids import PartOfGrid
from ..federation.horizontal import ATTACKERS, CLEAN_TWIN, Federation, make_client_app, resolve_data
from ..federation.roll import Roll
from ..measure.metrics import detection, distance_statistics, evaluate
from .directory import TWIN, Row, RunDirectory, stored_source
from .display import Display
from .memory import remembered, remind, wrapped

Summary = dict[str, Any]


@dataclass
class Run:
    """One training from the first to the last round: the experiment, or its clean twin."""

    federation: Federation
    directory: RunDirectory
    display: Display
    test_set: tuple[Tensor, Tensor]
    strategy: Strategy
    clean: bool
    floors: list[float]

    def train(self, roll: Roll, workers: int) -> None:
        """Train the rounds that are still missing, and keep each as soon as it is done.

        Raises
        ------
        UserError
            If the rounds that are there had other attackers, or a round lacks nodes; the rounds
            that are done are kept.
        """
        config = self.federation.config
        before = {tuple(row["attackers"]) for row in self.directory.rows} - {self.attackers}
        if before:
            raise UserError(
                f"attackers={list(self.attackers)} by node config: the run to resume in "
                f"{self.directory.path} has {list(before.pop())}"
            )
        arrays = self.directory.arrays
        if arrays is None:
            arrays = ArrayRecord(self.federation.initial_state())
        remind(self.strategy, self.directory.memory)
        self.display.begin(
            "clean twin" if self.clean else config.name, config.num_rounds, self.directory.rows
        )
        try:
            for number in range(self.directory.rounds_done + 1, config.num_rounds + 1):
                arrays = self._round(number, arrays, roll, workers)
        finally:
            self.display.end()

    def _round(self, number: int, sent: ArrayRecord, roll: Roll, workers: int) -> ArrayRecord:
        config = self.federation.config
        started = time.perf_counter()
        # The strategy would wait for nodes as well, but without an end.
        nodes = roll.gather(
            self.least,
            f"round {number} needs {self.least} clients (min_available_nodes and min_train_nodes "
            "of the strategy)",
        )
        present = PartOfGrid(roll.grid, nodes)
        messages = list(self.strategy.configure_train(number, sent, self._train_config(), present))
        partitions = roll.partitions
        # Flower's own strategies sum in the order of arrival.
        replies = sorted(
            roll.grid.send_and_receive(messages, timeout=config.round_timeout),
            key=lambda reply: partitions.get(reply.metadata.src_node_id, -1),
        )
        received = time.perf_counter()
        answered = {partitions[r.metadata.src_node_id] for r in replies if not r.has_error()}
        failed = set(range(config.num_clients)) - answered
        arrays, metrics = self.strategy.aggregate_train(number, replies)
        arrays = sent if arrays is None else arrays
        aggregated = time.perf_counter()

        model = self.federation.model
        model.load_state_dict(arrays.to_torch_state_dict())
        row: Row = {"round": number}
        row |= evaluate(model, *self.test_set, self.federation.goal)
        row["attack_success_floor"] = self.floors[number - 1] if self.floors else None
        row |= self._selection(metrics or MetricRecord(), partitions, failed)
        screening = screen(replies, sent, _weight_key(self.strategy))
        row |= self._distances(screening, sent, arrays, partitions)
        exchange = received - started
        # The clients' own figures, each at most what the exchange took.
        claims = [metrics_of(reply).get("train-seconds", 0.0) for reply in screening.valid]
        training = float(np.clip(np.array(claims, dtype=np.float64), 0.0, exchange).sum())
        row["seconds_training"] = training
        row["seconds_waiting"] = max(0.0, exchange - training / min(workers, config.num_clients))
        row["seconds_aggregation"] = aggregated - received
        row["seconds_round"] = time.perf_counter() - started
        self.directory.append(row, arrays, remembered(self.strategy))
        self.display.round(row)
        return arrays

    def _train_config(self) -> ConfigRecord:
        attackers = list(self.federation.attackers)
        return ConfigRecord({CLEAN_TWIN: self.clean, ATTACKERS: attackers})

    def _selection(
        self, metrics: MetricRecord, partitions: Mapping[int, int], failed: set[int]
    ) -> Row:
        """Translate what the strategy says it did from nodes to clients.

        Clients that were not there, or sent no answer or an error, are ``failed``; those whose
        answer could not be averaged are ``invalid``; those that the defense chose against are
        ``dropped``.
        """
        said = {
            key.removesuffix("-nodes"): sorted(partitions[int(node)] for node in nodes)
            for key, nodes in metrics.items()
            if key.endswith("-nodes") and isinstance(nodes, list)
        }
        kept, dropped = said.pop("kept", None), said.pop("dropped", None)
        invalid = [client for client in said.pop("invalid", []) if client not in failed]
        precision = recall = None
        if dropped is not None:
            precision, recall = detection([[*dropped, *invalid]], self.attackers)
        rest = {
            key: value
            for key, value in metrics.items()
            if not key.endswith("-nodes") and key != "train-seconds"  # kept as seconds_training
        }
        return {
            "attackers": list(self.attackers),
            "kept": kept,
            "dropped": dropped,
            "invalid": invalid,
            "failed": sorted(failed),
            "precision": precision,
            "recall": recall,
            "strategy": rest | said,
        }

    def _distances(
        self,
        screening: Screening,
        sent: ArrayRecord,
        arrays: ArrayRecord,
        partitions: Mapping[int, int],
    ) -> Row:
        valid = sorted(screening.valid, key=lambda r: partitions[r.metadata.src_node_id])
        models = np.array([flatten(arrays_of(reply)) for reply in valid])
        start, end = flatten(sent), flatten(arrays)
        between = PairwiseDistances(models).matrix if valid else np.empty((0, 0))
        clients = [partitions[reply.metadata.src_node_id] for reply in valid]
        self.directory.save_distances(_whole(between, clients, self.federation.config.num_clients))
        return dict(
            distance_statistics(
                between,
                np.array([distance(model, end) for model in models]),
                np.array([distance(model, start) for model in models]),
                np.isin(np.array(clients, dtype=int), self.attackers),
            )
        )

    @property
    def least(self) -> int:
        """The clients without which the strategy begins no round."""
        *_, rule = wrapped(self.strategy)
        keys = ("min_available_nodes", "min_train_nodes")
        return max(1, *(int(getattr(rule, key, 0)) for key in keys))

    @property
    def attackers(self) -> tuple[int, ...]:
        """The roster; the clean twin has none."""
        return () if self.clean else self.federation.attackers

    def summarize(self) -> Summary:
        """Write the summary of the complete run, and return it."""
        last = self.directory.rows[-1]
        rows = self.directory.rows
        precision = recall = None
        if any(row["dropped"] is not None for row in rows):
            # In a round without a valid reply the defense has nothing to say.
            left_out = [[*(row["dropped"] or []), *row["invalid"]] for row in rows]
            precision, recall = detection(left_out, self.attackers)
        config = self.federation.config
        summary: Summary = {
            "name": config.name,
            "seed": config.seed,
            "rounds": last["round"],
            "main_accuracy": last["main_accuracy"],
            "attack_success_rate": last["attack_success_rate"],
            "attack_success_floor": last["attack_success_floor"],
            "defense_precision": precision,
            "defense_recall": recall,
            "loss": last["loss"],
            "num_clients": config.num_clients,
            "attackers": list(self.attackers),
            "strategy": config.strategy,
            "attack": config.attack,
            "data": self.federation.data.description,
            "seconds": sum(row["seconds_round"] for row in self.directory.rows),
            "versions": versions(),
        }
        self.directory.finish(summary)
        return summary


def versions() -> dict[str, str]:
    """Return the versions that results depend on."""
    return {
        "python": platform.python_version(),
        "fl-backdoor": __version__,
        **{name: version(name) for name in ("flwr", "torch", "numpy")},
    }


def run(config: Config, path: Path, display: Display, grid: Grid | None = None) -> Summary:
    """Run one experiment from its configuration to its summary and figures.

    Parameters
    ----------
    config : Config
        What to run.
    path : Path
        The run directory.
    display : Display
        What the user sees.
    grid : Grid, optional
        A federation that is already there. None: one is launched, as ``config.engine`` says.

    Raises
    ------
    UserError
        On bad input, before any training starts; when a round lacks nodes, with the rounds that
        are done kept.
    """
    if config.resume:
        config.dataset = replace(config.dataset, **stored_source(path, asdict(config.dataset)))
    config = resolve_data(config)
    federation = Federation(config)
    display.line(f"Data: {federation.data.description}")
    federation.check()
    test_set = federation.test_set()
    resolved = asdict(config)
    directory = RunDirectory(path, resolved, resume=config.resume)
    runs = [Run(federation, directory, display, test_set, _strategy(config), False, [])]
    if config.floor:
        twin = RunDirectory(path / TWIN, resolved, resume=config.resume)
        runs.insert(0, Run(federation, twin, display, test_set, _strategy(config), True, []))
    display.setting(config, federation.attackers, federation.describe_attack())

    def main(grid: Grid, workers: int) -> None:
        roll = Roll(grid, config.num_clients, federation.data.name, config.round_timeout)
        if roll.attackers != federation.attackers:
            display.line(f"Attackers by node config: {list(roll.attackers)}")
            federation.enlist(roll.attackers)
            federation.check()
        for run in runs:
            run.train(roll, workers)
            run.summarize()
            if run.clean:
                runs[-1].floors = [row["attack_success_rate"] for row in run.directory.rows]

    if not directory.complete:
        launch(config.engine, make_client_app(config), config.num_clients, main, grid)
    summary = directory.summary()
    display.result(summary, directory)
    return summary


def _strategy(config: Config) -> Strategy:
    strategy: Strategy = build("strategy", deepcopy(config.strategy), Strategy)
    *_, rule = wrapped(strategy)
    _check_rule(rule, config.num_clients)
    return strategy


def _check_rule(rule: Strategy, clients: int) -> None:
    """Refuse settings with which Flower would wait forever, or keep the first model forever."""
    fraction = getattr(rule, "fraction_train", 1.0)
    if fraction != 1.0:
        raise UserError(
            f"strategy.fraction_train={fraction}: allowed is 1.0, since Flower draws the nodes "
            "from an unseeded generator"
        )
    most_malicious = (clients - 3) // 4 if isinstance(rule, Bulyan) else clients - 1
    for key, least, most in [
        ("min_train_nodes", 0, clients),
        ("min_available_nodes", 0, clients),
        ("num_malicious_nodes", 0, most_malicious),
        ("num_nodes_to_select", 1, clients),
    ]:
        value = getattr(rule, key, least)
        if not isinstance(value, int) or not least <= value <= most:
            raise UserError(
                f"strategy.{key}={value}: {type(rule).__name__} of {clients} clients allows "
                + (f"{least} to {most}" if most >= least else "none")
            )


def _weight_key(strategy: Strategy) -> str:
    return str(getattr(strategy, "weighted_by_key", "num-examples"))


def _whole(
    between: NDArray[np.float64], clients: list[int], num_clients: int
) -> NDArray[np.float64]:
    """Spread the distances of those that answered over all clients; NaN for the others."""
    whole = np.full((num_clients, num_clients), np.nan)
    whole[np.ix_(clients, clients)] = between
    return whole
