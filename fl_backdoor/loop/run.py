"""The rounds of an experiment: train, aggregate, measure, keep."""

import platform
import time
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Bulyan, Strategy
from numpy.typing import NDArray
from torch import Tensor

from strategies import Robust, Round, Screened
from strategies.graph.distances import distance
from strategies.replies import metrics_of
from strategies.vectors import decoded

from .. import __version__
from ..config import Config, build, one_line
from ..data.base import Source
from ..errors import UserError
from ..federation.engines import launch
from ..federation.grids import PartOfGrid
from ..federation.horizontal import ATTACKERS, CLEAN_TWIN, Federation, make_client_app, settle_data
from ..federation.roll import Roll
from ..measure.metrics import detection, distance_statistics, evaluate
from .directory import TWIN, Row, RunDirectory, stored_source
from .display import Display

Summary = dict[str, Any]


@dataclass
class Run:
    """One training from the first to the last round: the experiment, or its clean twin."""

    federation: Federation
    directory: RunDirectory
    display: Display
    test_set: tuple[Tensor, Tensor]
    strategy: Robust
    clean: bool
    floors: list[float]
    _seen: Round | None = None
    _between: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0)))
    _update_norms: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    _claims: list[float] = field(default_factory=list)

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
        self.strategy.remind({n: a.numpy() for n, a in self.directory.memory.items()})
        self.strategy.observers = [self._observe]
        self.display.begin(
            "clean twin" if self.clean else config.name, config.num_rounds, self.directory.rows
        )
        try:
            for number in range(self.directory.rounds_done + 1, config.num_rounds + 1):
                arrays = self._round(number, arrays, roll, workers)
        finally:
            self.display.end()
        if self.strategy.rounds and not any(r["nodes"] for r in self.strategy.rounds.values()):
            raise UserError("no reply of any round was valid: there is no result")

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
        self.strategy.client_of = partitions.__getitem__
        self._seen = None
        # Flower's own strategies sum in the order of arrival.
        replies = sorted(
            roll.grid.send_and_receive(messages, timeout=config.round_timeout),
            key=lambda reply: partitions.get(reply.metadata.src_node_id, -1),
        )
        received = time.perf_counter()
        answered = {partitions[r.metadata.src_node_id] for r in replies if not r.has_error()}
        failed = set(range(config.num_clients)) - answered
        try:
            arrays, metrics = self.strategy.aggregate_train(number, replies)
        except ValueError as error:  # what all clients sent cannot be aggregated
            raise UserError(f"round {number}: {one_line(error)}") from error
        arrays = sent if arrays is None else arrays
        aggregated = time.perf_counter()

        model = self.federation.model
        model.load_state_dict(arrays.to_torch_state_dict())
        row: Row = {"round": number}
        row |= evaluate(model, *self.test_set, self.federation.attack, self.federation.digits)
        row["attack_success_floor"] = self.floors[number - 1] if self.floors else None
        row |= self._selection(number, metrics or MetricRecord(), partitions, failed)
        row |= self._distances(arrays)
        exchange = received - started
        # The clients' own figures, each at most what the exchange took.
        claims = np.array(self._claims if self._seen is not None else [], dtype=np.float64)
        training = float(np.clip(claims, 0.0, exchange).sum())
        row["seconds_training"] = training
        row["seconds_waiting"] = max(0.0, exchange - training / min(workers, config.num_clients))
        row["seconds_aggregation"] = aggregated - received
        row["seconds_round"] = time.perf_counter() - started
        memory = {n: Array(a) for n, a in self.strategy.remember().items()}
        self.directory.append(row, arrays, ArrayRecord(memory))
        self.display.round(row)
        return arrays

    def _train_config(self) -> ConfigRecord:
        attackers = list(self.federation.attackers)
        return ConfigRecord({CLEAN_TWIN: self.clean, ATTACKERS: attackers})

    def _observe(self, round: Round) -> None:
        """Measure the replies before the strategy may overwrite them."""
        self._seen = round
        self._between = round.distances.matrix
        self._update_norms = round.updates.norms
        key = self.strategy.weighted_by_key
        self._claims = [
            float(str(metrics_of(r.message, key)[1].get("train-seconds", 0.0)))
            for r in round.replies
        ]

    def _selection(
        self,
        number: int,
        metrics: MetricRecord,
        partitions: Mapping[int, int],
        failed: set[int],
    ) -> Row:
        """Translate what the strategy says it did from nodes to clients.

        Clients that were not there, or sent no answer or an error, are ``failed``; those whose
        answer could not be averaged are ``invalid``; those that the defense chose against are
        ``dropped``.
        """
        report = self.strategy.rounds[number]
        said = {
            key.removesuffix("_nodes"): sorted(partitions[node] for node in nodes)
            for key, nodes in report.items()
            if key.endswith("_nodes")
        }
        kept, dropped = said.pop("kept", None), said.pop("dropped", None)
        invalid = [client for client in said.pop("invalid") if client not in failed]
        precision = recall = None
        if dropped is not None:
            precision, recall = detection([[*dropped, *invalid]], self.attackers)
        unsaid = {"kept", "dropped", "invalid", "train-seconds", *said}
        rest = {key: value for key, value in metrics.items() if key not in unsaid}
        lists = {
            key.replace("_", "-"): value
            for key, value in report.items()
            if isinstance(value, list) and not key.endswith("nodes") and key != "votes"
        }
        return {
            "attackers": list(self.attackers),
            "kept": kept,
            "dropped": dropped,
            "invalid": invalid,
            "failed": sorted(failed),
            "precision": precision,
            "recall": recall,
            "strategy": rest | lists | said,
        }

    def _distances(self, arrays: ArrayRecord) -> Row:
        round = self._seen
        whole = np.full((self.federation.config.num_clients,) * 2, np.nan)
        if round is None:
            self.directory.save_distances(whole)
            none = np.empty(0)
            return dict(distance_statistics(np.empty((0, 0)), none, none, none.astype(bool)))
        order = np.argsort(round.clients)
        clients = np.array(round.clients)[order]
        between = self._between[np.ix_(order, order)]
        whole[np.ix_(clients, clients)] = between
        self.directory.save_distances(whole)
        end = np.zeros(round.layout.size, round.layout.dtype)
        round.layout.fill(end, decoded(arrays))
        row = np.empty_like(end)
        to_global = []
        for i in order:  # read again: the strategy may have overwritten the rows
            round.layout.fill(row, round.replies[i].values)
            parameters = round.layout.parameters
            to_global.append(distance(row[parameters], end[parameters]))
        return dict(
            distance_statistics(
                between,
                np.array(to_global),
                self._update_norms[order],
                np.isin(clients, self.attackers),
            )
        )

    @property
    def least(self) -> int:
        """The clients without which the strategy begins no round."""
        keys = ("min_available_nodes", "min_train_nodes")
        return max(1, *(int(getattr(self.strategy.flower, key, 0)) for key in keys))

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
        config.dataset = config.dataset | stored_source(path, config.dataset)
    config = settle_data(config, Source)
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
    display.setting(config, federation.attackers, federation.attack.describe())

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


def _strategy(config: Config) -> Robust:
    strategy: Strategy = build("strategy", deepcopy(config.strategy), Strategy)
    if not isinstance(strategy, Robust):  # one of Flower's own, which weights by examples
        strategy = Screened(strategy, weighted=True)
    _check_rule(strategy.flower, config.num_clients)
    try:
        strategy.check(config.num_clients)
        strategy.check_needs()
        strategy.remember()
    except ValueError as error:
        raise UserError(f"strategy: {one_line(error)}") from error
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
