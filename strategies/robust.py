"""The one Flower strategy that reads replies: a defense tells it what to make of a round."""

from collections.abc import Callable, Iterable
from logging import INFO, WARNING
from typing import Any, ClassVar

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg as FlowerFedAvg
from flwr.serverapp.strategy import Result, Strategy
from flwr.supercore import log
from numpy.typing import ArrayLike, NDArray

from .checks import check_bool
from .record import record, seen, told
from .replies import Reply, metrics_of, screen, screen_metrics, with_votes
from .round import Outcome, Round, whole_model
from .stand_in import StandIn
from .watch import SAID, OnRound, Watch, warn_of_lookalikes

Observer = Callable[[Round], None]


class Robust(StandIn):
    """Screen a round's replies, read them into one matrix, and let a rule aggregate them.

    A defense overrides `aggregate`, and nothing else.

    Replies are hostile input: those that cannot be averaged (NaN, other names or shapes, errors,
    unbelievable numbers of examples) are dropped, logged and counted. If none is left, or the rule
    finds no model, the global model stays. Each client has one vote.

    Parameters
    ----------
    weighted : bool (default: False)
        Weight by the number of examples that each client reports. An attacker reports what it
        likes, so this is for federations that trust the counts.
    statistics : sequence of str
        Names, or patterns of names, of arrays that are no parameters: moving averages that Keras
        or JAX keep. PyTorch's are known. They are averaged, and never clipped, noised or counted
        in a norm or a distance.
    on_round : callable or sequence of callable
        Called with the `RoundRecord` of each aggregated round; those of ``strategies.callbacks``
        write it to files and trackers. What they raise ends no training.
    **fedavg_arguments
        Arguments of ``flwr.serverapp.strategy.FedAvg``, which samples the nodes and averages the
        metrics.

    Attributes
    ----------
    memory : dict of str to array
        What the rule remembers between rounds, and all that a resumed run gets back. Values are
        replaced, never changed in place; what belongs to a client has its number in its key.
    rounds : dict of int to dict
        Of each round the node ids of its rows (``nodes``), those ``kept_nodes``,
        ``dropped_nodes`` and ``invalid_nodes``, and the rule's notes.
    watch : Watch
        Logs a line a round, warns, and has the last records.
    observers : list of callable
        Called with each `Round` before the rule sees it.
    client_of : callable
        Returns the client that a node plays; without a roll a node is its own client.
    run_model : callable, optional
        Returns the outputs of a model (ArrayRecord) for inputs, for rules that run models.
    noise : callable, optional
        Returns so many random inputs of the model, drawn by a generator: what an input looks
        like, only the app knows.
    root_update : callable, optional
        Returns the model that the server trains on its own data, given round and model.

    Raises
    ------
    ValueError
        If an argument is out of range; in the first round, if the rule lacks what it needs, or
        all clients alike send what cannot be averaged.
    RuntimeError
        At the end of `start`, if no reply was valid in any round.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"parameters"})
    """What the rule cannot do without: parameters, ``run_model``, ``noise``, ``root_update``."""

    least_clients: ClassVar[int] = 1
    """Of so many the rule can act in a round; fewer are refused by `check`."""

    wrapped = False
    """Whether another of these strategies stands around it, and warns of what both would."""

    exceptions: ClassVar[dict[str, str]] = {}
    """Laws of the contract (``docs/design.md``) that the rule breaks, and its paper's reason."""

    def __init__(
        self,
        *,
        weighted: bool = False,
        statistics: Iterable[str] = (),
        on_round: OnRound | Iterable[OnRound] = (),
        flower: Strategy | None = None,
        **fedavg_arguments: Any,
    ) -> None:
        check_bool(weighted=weighted)
        self.weighted = weighted
        self.statistics = (statistics,) if isinstance(statistics, str) else tuple(statistics)
        self.memory: dict[str, NDArray[Any]] = {}
        self.rounds: dict[int, dict[str, Any]] = {}
        self.watch = Watch(on_round)
        self.observers: list[Observer] = []
        self.client_of: Callable[[int], int] = int
        self.run_model: Callable[[ArrayRecord, Any], ArrayLike] | None = None
        self.root_update: Callable[[int, ArrayRecord], ArrayRecord] | None = None
        self.noise: Callable[[int, np.random.Generator], Any] | None = None
        self._sent: ArrayRecord | None = None
        self._asked = 0
        # Last: what is set from here on may be the app's.
        self.flower = FlowerFedAvg(**fedavg_arguments) if flower is None else flower

    def aggregate(self, round: Round) -> Outcome:
        """Make one model of a round's. A defense overrides this."""
        raise NotImplementedError

    def check(self, num_clients: int) -> None:
        """Refuse settings that cannot work with so many clients; a rule may override this.

        Raises
        ------
        ValueError
            Naming the setting, its value and what is allowed.
        """
        if num_clients < self.least_clients:
            raise ValueError(
                f"{type(self).__name__} of {num_clients} clients cannot act: allowed are "
                f"{self.least_clients} or more"
            )

    def remember(self) -> dict[str, NDArray[Any]]:
        """Return all that a resumed run must get back, by key."""
        return self.memory | self.watch.remember()

    def remind(self, memory: dict[str, NDArray[Any]]) -> None:
        """Take up what `remember` returned."""
        self.watch.remind(memory)
        self.memory = {key: value for key, value in memory.items() if key != SAID}

    @property
    def weighted_by_key(self) -> str:
        """Metric that holds a client's number of examples: that of the innermost strategy."""
        return self._innermost("weighted_by_key", "num-examples")

    def summary(self) -> None:
        """Log the settings of the strategy."""
        if settings := self._settings():
            log(INFO, "\t├──> %s: %s", type(self).__name__, settings)
        log(INFO, "\t├──> Votes: %s", "by reported examples" if self.weighted else "one a client")
        self._flowers("summary")

    def start(self, *arguments: Any, **options: Any) -> Result:
        """Run the rounds; a run in which no reply was ever valid is no success."""
        try:
            result = super().start(*arguments, **options)
        finally:
            self.watch.close()
        if self.rounds and not any(report["nodes"] for report in self.rounds.values()):
            raise RuntimeError(f"{type(self).__name__}: no reply of any round was valid")
        return result

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Configure the round, and remember the model that the replies start from."""
        if not self.wrapped:  # or else the one around has what is needed
            self.check_needs()
        if server_round == 1 and not self.wrapped and "parameters" in self.all_needs():
            warn_of_lookalikes(type(self).__name__, arrays, self.statistics)
        messages = list(self._configure_train(server_round, arrays, config, grid))
        self._sent = arrays
        self._asked = len(messages)
        return messages

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Configure the evaluation as the innermost strategy does."""
        messages: Iterable[Message] = self._flowers(
            "configure_evaluate", server_round, arrays, config, grid
        )
        return messages

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Average the metrics of the valid replies as the innermost strategy does."""
        votes = [self.voting(reply) for reply in screen_metrics(replies, self.weighted_by_key)]
        metrics: MetricRecord | None = self._flowers("aggregate_evaluate", server_round, votes)
        return metrics

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Read the replies once, and make of them the model that the rule finds."""
        replies = list(replies)
        screening = screen(
            replies,
            self._sent,
            self.weighted_by_key,
            record=self._innermost("arrayrecord_key", "arrays"),
            more_records=self.reads_messages,
        )
        screening.report()
        if screening.disagreement and server_round == 1:
            raise ValueError(f"{type(self).__name__} cannot average: {screening.disagreement}")
        report: dict[str, Any] = {"nodes": [reply.node for reply in screening.valid]}
        self.rounds[server_round] = report
        arrays, metrics, before = None, MetricRecord(), {}
        asked = max(self._asked, len({reply.metadata.src_node_id for reply in replies}))
        if screening.valid:
            round = self._read(server_round, screening.valid, asked)
            before = seen(round) | {"too_few": self._too_few(len(round))}
            arrays = self._aggregated(round, report, metrics)
        if stayed := arrays is None:
            log(WARNING, "Round %d keeps the old global model", server_round)
            arrays = self._sent
        report["invalid_nodes"] = sorted(screening.invalid)
        metrics["invalid"] = len(screening.invalid)
        number, said = server_round, (report, metrics)
        self.watch.round(record(number, self, asked, screening, *said, stayed=stayed, **before))
        return arrays, metrics

    @property
    def reads_messages(self) -> bool:
        """Whether the innermost strategy gets the messages, and may want more than the model."""
        return False

    def voting(self, reply: Message) -> Message:
        """Return a reply as it is to be averaged: with one vote, unless ``weighted``."""
        return reply if self.weighted else with_votes(reply, self.weighted_by_key)

    def check_needs(self) -> None:
        """Refuse to begin without what the rule needs.

        Raises
        ------
        ValueError
            Naming it.
        """
        for name in sorted(self.all_needs() - {"parameters"}):
            if getattr(self, name) is None:
                raise ValueError(
                    f"{type(self).__name__} cannot act without {name}: set strategy.{name}"
                )

    def all_needs(self) -> frozenset[str]:
        """Return what the rule, and those inside it, cannot do without."""
        return self.needs

    def client_metrics(self, replies: list[Message]) -> dict[str, Any]:
        """Average what clients report of themselves."""
        if not replies:
            return {}
        contents = [self.voting(reply).content for reply in replies]
        return dict(self.train_metrics_aggr_fn(contents, self.weighted_by_key))

    def _aggregated(
        self, round: Round, report: dict[str, Any], metrics: MetricRecord
    ) -> ArrayRecord | None:
        """Aggregate, and fill the report and the metrics; None keeps the global model."""
        for observer in self.observers:
            observer(round)
        outcome = self.aggregate(round)
        votes = round.votes if outcome.votes is None else outcome.votes
        arrays = None
        if outcome.model is not None:
            arrays = whole_model(outcome, round, votes)
            if arrays is None:
                outcome.notes["rule-failed"] = 1
                log(WARNING, "%s: the aggregate is not finite", type(self).__name__)
        if arrays is not None:
            replies = [round.replies[i].message for i in np.flatnonzero(votes > 0)]
            metrics.update(self.client_metrics(replies))
        lists, numbers = told(outcome, votes, report["nodes"])
        report.update(lists)
        metrics.update(numbers)  # they stand above what clients say
        return arrays

    def _too_few(self, clients: int) -> str:
        """Return what `check` says of so few clients."""
        try:
            self.check(clients)
        except ValueError as error:
            return str(error)
        return ""

    def _read(self, number: int, valid: tuple[Reply, ...], asked: int) -> Round:
        """Lay the models into one matrix, and say whose they are."""
        key, votes = self.weighted_by_key, np.ones(len(valid))
        if self.weighted:
            votes[:] = [float(str(metrics_of(r.message, key)[1][key])) for r in valid]
        round = Round(
            number=number,
            replies=valid,
            votes=votes,
            clients=tuple(self.client_of(reply.node) for reply in valid),
            asked=asked,
            sent=self._sent or ArrayRecord(),
            opaque=self.reads_messages,
            statistic_names=self.statistics,
            run_model=self.run_model,
            root_update=self.root_update,
            noise=self.noise,
        )
        if "parameters" in self.all_needs() and not round.layout.parameter_names:
            raise ValueError(
                f"{type(self).__name__} cannot act on a model without floating-point parameters"
            )
        return round

    def _configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        messages: Iterable[Message] = self._flowers(
            "configure_train", server_round, arrays, config, grid
        )
        return messages
