"""Flower's own strategies as a rule."""

from collections.abc import Iterable
from logging import INFO, WARNING
from typing import Any, ClassVar

import numpy as np
from flwr.app import ArrayRecord, Message
from flwr.serverapp.strategy import Strategy
from flwr.supercore import log
from numpy.typing import NDArray

from .replies import with_records, with_votes
from .robust import Robust
from .round import Outcome, Round
from .snapshot import restore, snapshot
from .vectors import decode, decoded, to_array
from .watch import OnRound

MEMORY = "flower/"


class Screened(Robust):
    """Pass only valid replies to a strategy of Flower's, each with one vote.

    Flower's own strategies refuse a whole round when one reply differs from the others, and
    weight models by the number of examples that the clients themselves report. Behind this
    wrapper they do neither. Whatever else they want is theirs: further records of a reply
    (control variates), models that grow (trees), a `start` of their own, attributes that an app
    sets. What they remember in arrays, numbers and containers of them is saved and resumed.

    A valid model may still be far away, and a rule with a memory (``FedAvgM``, ``FedAdam``)
    keeps it: one immense update can end the learning of ``FedAdam`` for good. Put `NormClipping`
    around such a rule.

    Parameters
    ----------
    strategy : flwr.serverapp.strategy.Strategy
        Any Flower strategy, for instance ``Krum(num_malicious_nodes=3)`` or another defense.
    weighted : bool (default: False)
        Let the wrapped strategy weight by the reported number of examples.
    statistics, on_round
        As for `Robust`.

    Raises
    ------
    ValueError
        If strategy is none, or when its memory is asked for and holds what cannot be kept.
    """

    needs: ClassVar[frozenset[str]] = frozenset()

    def __init__(
        self,
        strategy: Strategy,
        *,
        weighted: bool = False,
        statistics: Iterable[str] = (),
        on_round: OnRound | Iterable[OnRound] = (),
    ) -> None:
        if not isinstance(strategy, Strategy):
            raise ValueError(f"strategy = {strategy!r} must be a flwr.serverapp.strategy.Strategy")
        super().__init__(
            weighted=weighted, statistics=statistics, on_round=on_round, flower=strategy
        )
        self.strategy = strategy
        inner: object = strategy
        while isinstance(inner, Strategy):  # one of ours may be inside one of Flower's
            if isinstance(inner, Robust):
                self.watch.take_over(inner.watch)
            inner = vars(inner).get("strategy")

    def summary(self) -> None:
        """Log the settings of the wrapper, then of the wrapped strategy."""
        log(INFO, "\t├──> %s around %s", type(self).__name__, type(self.strategy).__name__)
        self._flowers("summary")

    def remember(self) -> dict[str, NDArray[Any]]:
        """Return the state of the strategy."""
        inside = {MEMORY + key: value for key, value in snapshot(self.strategy).items()}
        return super().remember() | inside

    def remind(self, memory: dict[str, NDArray[Any]]) -> None:
        """Take up what `remember` returned."""
        inside = {key: value for key, value in memory.items() if key.startswith(MEMORY)}
        super().remind({key: value for key, value in memory.items() if key not in inside})
        restore(self.strategy, {k.removeprefix(MEMORY): value for k, value in inside.items()})

    @property
    def reads_messages(self) -> bool:
        """The strategy gets the messages."""
        return True

    def client_metrics(self, replies: list[Message]) -> dict[str, Any]:  # noqa: ARG002
        """Leave it to the strategy."""
        return {}

    def aggregate(self, round: Round) -> Outcome:
        """Let the strategy aggregate the round's messages."""
        replies = [self.voting(self._message(round, i)) for i in round.order]
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                arrays, metrics = self._flowers("aggregate_train", round.number, replies)
        except Exception as error:
            # Too few valid replies for the rule (Bulyan needs 4f + 3, say) is what an attacker
            # can cause, or a node that is gone. If all are there, it is a fault of the setting.
            if len(round) >= round.asked:
                raise
            return Outcome.refuse(self.strategy, f"{error!r:.200}")
        notes = dict(metrics or {})
        if arrays is round.sent:  # as ours say that the model stays, and why
            return Outcome(None, notes=notes)
        if arrays is None:
            return Outcome.refuse(self.strategy, "it returns no model", notes=notes)
        return self._outcome(arrays, notes, round)

    def _message(self, round: Round, row: int) -> Message:
        """Return a client's reply with the model that the round has for it."""
        reply = round.replies[row]
        record = reply.message.content.array_records[reply.record]
        arrays = {name: record[name] for name in reply.values}
        message = reply.message
        if round.rewritten:
            arrays |= dict(round.layout.arrays(round.models[row], round.statistics[row]))
            message = with_votes(message, self.weighted_by_key, float(round.votes[row]))
        # A record of its own: some of Flower's strategies empty those that they are given.
        return with_records(message, {reply.record: ArrayRecord(arrays)})

    def _outcome(self, arrays: ArrayRecord, notes: dict[str, Any], round: Round) -> Outcome:
        """Take a model apart into what wrappers may change, and the rest."""
        layout, like = round.layout, round.sent or arrays
        if not layout.shapes:
            return Outcome(np.zeros(0), notes=notes, rest=arrays)
        shapes = {n: tuple(a.shape) for n, a in arrays.items()}
        if not layout.shapes.keys() <= shapes.keys() or any(
            name in like and shape != tuple(like[name].shape) for name, shape in shapes.items()
        ):
            name = type(self.strategy).__name__
            log(WARNING, "%s: the aggregate is not of the model's shape", name)
            return Outcome(None, notes=notes | {"rule-failed": 1})
        row = np.empty(layout.size, layout.dtype)
        layout.fill(row, decoded({name: arrays[name] for name in layout.shapes}))
        parameters = set(layout.parameter_names)
        # Flower's rules turn counters to float64, its FedAdam turns all arrays. The clients' next
        # replies, whose dtypes are those of their models, would then be unlike the model.
        rest = {
            name: to_array(decode(array), np.dtype(like[name].dtype)) if name in like else array
            for name, array in arrays.items()
            if name not in parameters
        }
        model = row[layout.parameters].astype(np.float64)
        return Outcome(model, notes=notes, rest=ArrayRecord(rest))
