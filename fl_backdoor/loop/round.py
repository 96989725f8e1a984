"""One round: clients train, a strategy aggregates, and both are measured."""

import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from numpy.typing import NDArray

from clients.attacker import knowledge
from strategies import Robust, Round
from strategies.replies import metrics_of

from ..config import one_line
from ..errors import UserError
from ..federation.grids import PartOfGrid
from ..federation.horizontal import ATTACKERS, CLEAN_TWIN
from ..federation.meeting import adapted, meeting, rehearsed
from ..federation.strategy import assume, needed
from ..files import Row, Summary
from ..measure.answers import accuracies
from ..measure.measures import measured
from ..measure.metrics import Selection
from ..measure.replies import Observed, observed
from ..measure.selection import selected
from .directory import RunDirectory
from .tested import Tested, learned

if TYPE_CHECKING:
    from .horizontal import Horizontal

ATTACKING = "attackers/"
"""How the keys of what attackers remember begin, beside those of the strategy."""


class Rounds:
    """The training of a run, or of its clean twin.

    Parameters
    ----------
    experiment : Horizontal
        Data, clients and nodes.
    strategy : Robust
        Aggregates; it is the training's own.
    clean : bool
        Whether the attackers train honestly.
    """

    def __init__(self, experiment: "Horizontal", strategy: Robust, *, clean: bool) -> None:
        self.experiment = experiment
        self.federation, self.config = experiment.federation, experiment.config
        self.strategy = strategy
        self.strategy.observers.append(self._observe)
        self.strategy.watch.warns = not clean
        self.clean = clean
        self.name = "clean twin" if clean else self.config.name
        self.total = self.config.num_rounds
        self._observed: Observed | None = None
        self._cohort: list[int] = []
        self._attackers: list[int] = []

    def attackers(self, number: int, cohort: Collection[int]) -> list[int]:
        """Return who of a cohort attacks in a round, ascending; in the clean twin nobody does."""
        if self.clean or not self.federation.roster.attacks(number):
            return []
        return [client for client in self.federation.attackers if client in cohort]

    def begin(self, directory: RunDirectory) -> None:
        """Go on from the model and the memory of the last round.

        Raises
        ------
        UserError
            If the rounds that are there had other attackers.
        """
        for row in directory.rows:
            if row["attackers"] != (own := self.attackers(row["round"], row["cohort"])):
                raise UserError(
                    f"attackers={own} by node config: the run to resume in {directory.path} has "
                    f"{row['attackers']}"
                )
        self._directory = directory
        roll, memory = self.experiment.roll, directory.memory
        # Where attackers meet; before the strategy has a memory that is not theirs to know.
        self._grid = meeting(self.federation, roll, self.strategy, self._attacks)
        model = directory.arrays
        self.model = ArrayRecord(self.federation.initial_state()) if model is None else model
        theirs = {key: value for key, value in memory.items() if key.startswith(ATTACKING)}
        self.strategy.remind({key: memory[key] for key in memory.keys() - theirs.keys()})
        self._grid.memory = {key.removeprefix(ATTACKING): v for key, v in theirs.items()}

    def step(
        self, number: int, twin: Row | None
    ) -> tuple[Row, ArrayRecord, Mapping[str, NDArray[Any]]]:
        """Do a round.

        Raises
        ------
        UserError
            If it lacks nodes, or all clients sent what cannot be aggregated.
        """
        started = time.perf_counter()
        replies = self._exchange(number)
        received = time.perf_counter()
        self._observed = None
        try:
            arrays, metrics = self.strategy.aggregate_train(number, replies)
        except ValueError as error:
            raise UserError(f"round {number}: {one_line(error)}") from error
        aggregated = time.perf_counter()
        seen = self._observed
        if arrays is not None:
            self.model = arrays

        clients, report = self.experiment.roll.partitions, self.strategy.rounds[number]
        selection = selected(report, metrics or MetricRecord(), replies, clients, self._cohort)
        tested, other = Tested(self.federation, self.experiment.test_set), self.experiment.twin
        # A trigger that was learned is that of the round's first attacker, or who attacked before.
        memory = learned(self._grid.memory_of, [*self._attackers, *self.federation.attackers])
        if number == self.total and twin is not None and other is not None:
            twin = tested.twin(twin, other.model, memory)
        test = tested.answers(self.model, memory, clean=self.clean)
        dropped, invalid, failed = (selection[key] for key in ("dropped", "invalid", "failed"))
        who = Selection(dropped, invalid, self._attackers, self._cohort, failed)
        parts: dict[str, Any] = {"test": test, "twin": twin, "selection": who}
        if number == self.total:
            honest = [client for client in self._cohort if client not in self._attackers]
            seats = (self.federation.client(client, clean=True) for client in honest)
            own = [(seat.images, seat.labels) for seat in seats]
            parts["honest"] = accuracies(self.federation.model, own)
        if seen is not None:
            parts |= seen.parts(self.model, self._attackers)
        row: Row = {"round": number} | measured("round", parts) | selection
        exchange = received - started
        # The clients' own figures, each at most what the exchange took.
        claims = np.array([self._claim(r.message) for r in seen.round.replies] if seen else [0.0])
        training = float(np.clip(claims, 0.0, exchange).sum())
        together = min(self.experiment.workers, len(self._cohort))
        if self._grid.notes:
            row["attack"] = self._grid.notes
        row["seconds_training"] = training
        row["seconds_waiting"] = max(0.0, exchange - training / together)
        row["seconds_aggregation"] = aggregated - received - (seen.seconds if seen else 0.0)
        row["seconds_round"] = time.perf_counter() - started
        if seen is not None and seen.distances is not None:
            self._directory.save_distances(seen.whole(self._cohort))
            self._write_graph(number, seen, selection)
        theirs = {ATTACKING + key: value for key, value in self._grid.memory.items()}
        return row, self.model, self.strategy.remember() | theirs

    def summary(self, rows: list[Row]) -> Summary:
        """Say what was run.

        Raises
        ------
        UserError
            If no reply of any round was valid.
        """
        config, federation = self.config, self.federation
        if all(len(row["invalid"]) + len(row["failed"]) >= len(row["cohort"]) for row in rows):
            raise UserError("no reply of any round was valid: there is no result")
        size = federation.cohort.size(config.num_clients)
        # How many there were, in the rounds in which they attack.
        acting = [len(row["attackers"]) for row in rows if federation.roster.attacks(row["round"])]
        attackers = [] if self.clean else list(federation.attackers)
        attack = federation.attack
        knows = {"knowledge": knowledge(attack)} if attack.hooks("collude") else {}
        return {
            "num_clients": config.num_clients,
            "clients_per_round": size,
            "roster": attackers,  # of the crowd; who came to attack are the "attackers"
            # Where they are drawn, their number is hypergeometric with this mean.
            "attackers_expected": len(attackers) * size / config.num_clients,
            "attackers_mean": sum(len(row["attackers"]) for row in rows) / len(rows),
            "attackers_law": federation.cohort.law(config.num_clients, len(attackers)),
            "attackers_counts": np.bincount(acting, minlength=1).tolist(),
            "strategy": config.strategy,
            "attack": config.attack,
            "model": config.model,
            "adaptive": adapted(attack, rows),
            **knows,
            "classes": list(federation.classes),
            "data": self.federation.data.description,
            "data_digest": self.federation.data.digest,
        }

    def _exchange(self, number: int) -> list[Message]:
        """Let a cohort train; return the replies in the order of the clients."""
        roll, strategy, federation = self.experiment.roll, self.strategy, self.federation
        least = needed(strategy)
        # The strategy would wait for nodes as well, but without an end.
        connected = roll.gather(
            least,
            f"round {number} needs {least} clients (min_available_nodes and min_train_nodes "
            "of the strategy)",
        )
        clients, cohort, seed = roll.partitions, federation.cohort, self.config.seed
        nodes = {clients[node]: node for node in connected}
        attackers, everybody = federation.attackers, self.config.num_clients
        asked = cohort.draw(number, list(nodes), attackers, everybody, seed)
        absent = cohort.absent(number, asked, federation.samples, seed)
        whole = cohort.size(everybody) == everybody
        self._cohort = cohort.there(number, range(everybody)) if whole else asked
        self._attackers = self.attackers(number, self._cohort)
        for rule in (strategy, *rehearsed(federation.attack)):
            assume(rule, self.config.strategy, len(self._attackers))
        strategy.client_of = clients.__getitem__
        honest = self.clean or not federation.roster.attacks(number)
        said = ConfigRecord({CLEAN_TWIN: honest, ATTACKERS: list(attackers)})
        present = PartOfGrid(roll.grid, [nodes[client] for client in asked])
        messages = [
            message
            for message in strategy.configure_train(number, self.model, said, present)
            if clients[message.metadata.dst_node_id] not in absent
        ]
        # Flower's own strategies sum in the order of arrival.
        return sorted(
            self._grid.send_and_receive(messages, timeout=self.config.round_timeout),
            key=lambda reply: clients.get(reply.metadata.src_node_id, -1),
        )

    def _attacks(self, client: int) -> bool:
        return client in self._attackers

    def _observe(self, round: Round) -> None:
        self._observed = observed(round, self.config.measure.distances, self._attackers)

    def _claim(self, reply: Message) -> float:
        """Return how long a client says that it trained."""
        _, metrics = metrics_of(reply, self.strategy.weighted_by_key)
        return float(str(metrics.get("train-seconds", 0.0)))

    def _write_graph(self, number: int, seen: Observed, selection: Row) -> None:
        """Write and draw the agreement graph of a rule that keeps the models in agreement."""
        threshold, kept = selection["strategy"].get("threshold"), selection["kept"]
        names = [f"agreement-{number}"] * (self.config.measure.graphs == "all")
        names += ["agreement"] * (number == self.total)
        if self.clean or kept is None or threshold is None or not names:
            return
        from ..measure.graph import keep_agreement

        # Read anew: the rule has measured those near its threshold exactly.
        exact = replace(seen, distances=seen.round.distances.matrix).whole(self._cohort)
        places = [self._directory.path / name for name in names]
        keep_agreement(places, exact, threshold, self._cohort, kept, self._attackers)
