"""Wrap any Flower strategy so that invalid replies neither reach nor stop it."""

from collections.abc import Iterable
from logging import INFO, WARNING

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from flwr.supercore import log

from .replies import (
    arrays_of,
    check_bool,
    decode,
    has_finite_norm,
    is_floating,
    screen,
    weigh,
    with_arrays,
    with_dtypes_of,
)


class Screened(Strategy):
    """Pass only valid replies to a strategy, each with one vote.

    Flower's own strategies refuse a whole round when one reply differs from the others, and
    weight models by the number of examples that the clients themselves report. Behind this
    wrapper they do neither.

    A valid model may still be far away, and a rule with a memory (``FedAvgM``, ``FedAdam``)
    keeps it: one immense update can end the learning of ``FedAdam`` for good. Put `NormClipping`
    around such a rule.

    Parameters
    ----------
    strategy : flwr.serverapp.strategy.Strategy
        Any Flower strategy, for instance ``Krum(num_malicious_nodes=3)`` or another defense.
    weighted : bool (default: False)
        Let the wrapped strategy weight by the reported number of examples.
    """

    def __init__(self, strategy: Strategy, *, weighted: bool = False) -> None:
        if not isinstance(strategy, Strategy):
            raise ValueError(f"strategy = {strategy!r} must be a flwr.serverapp.strategy.Strategy")
        check_bool(weighted=weighted)
        self.strategy = strategy
        self.weighted = weighted
        self._sent: ArrayRecord | None = None
        self._participants = 0

    @property
    def weighted_by_key(self) -> str:
        """Metric that holds a client's number of examples."""
        return str(getattr(self.strategy, "weighted_by_key", "num-examples"))

    def summary(self) -> None:
        """Log the settings of the wrapper, then of the wrapped strategy."""
        log(INFO, "\t├──> %s around %s", type(self).__name__, type(self.strategy).__name__)
        self.strategy.summary()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Configure the round, and remember the model that the replies start from."""
        self._sent = arrays
        messages = list(self.strategy.configure_train(server_round, arrays, config, grid))
        self._participants = len(messages)
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Screen the replies, let the wrapped strategy average them, finish the average."""
        replies = list(replies)
        screening = screen(replies, self._sent, self.weighted_by_key)
        screening.report()
        valid = weigh(screening.valid, self.weighted_by_key, weighted=self.weighted)
        own = MetricRecord()
        arrays, metrics = None, None
        if valid:
            valid = self.rewrite(valid, own)
            # Some of Flower's strategies empty the records that they are given.
            valid = [with_arrays(reply, arrays_of(reply).copy()) for reply in valid]
            try:
                with np.errstate(over="ignore", invalid="ignore"):
                    arrays, metrics = self.strategy.aggregate_train(server_round, valid)
                    arrays = self._checked(arrays)
            except Exception as error:
                # Too few valid replies for the rule (Bulyan needs 4f + 3, say) is what an
                # attacker can cause, or a node that is gone. If all are there and valid, it is a
                # fault of the setting.
                if len(screening.valid) == len(replies) >= self._participants:
                    raise
                log(WARNING, "%s: %.200r", type(self.strategy).__name__, error)
        if arrays is None or arrays is self._sent:
            log(WARNING, "Round %d keeps the old global model", server_round)
            arrays = self._sent
        else:
            arrays = self.finish(server_round, arrays, own)
        result = MetricRecord(dict(metrics or {}) | dict(own))
        # A wrapped strategy of ours screens again and finds nothing: keep what we found.
        result["invalid-nodes"] = sorted(screening.invalid)
        return arrays, result

    def rewrite(self, replies: list[Message], metrics: MetricRecord) -> list[Message]:  # noqa: ARG002
        """Change valid replies before they are averaged. A defense overrides this."""
        return replies

    def finish(
        self,
        server_round: int,  # noqa: ARG002
        arrays: ArrayRecord,
        metrics: MetricRecord,  # noqa: ARG002
    ) -> ArrayRecord:
        """Change the averaged model. A defense overrides this."""
        return arrays

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Configure the evaluation as the wrapped strategy does."""
        return self.strategy.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Aggregate the valid evaluation replies as the wrapped strategy does."""
        screening = screen(replies, None, self.weighted_by_key, message_type="evaluate")
        screening.report()
        return self.strategy.aggregate_evaluate(
            server_round, weigh(screening.valid, self.weighted_by_key, weighted=self.weighted)
        )

    def _checked(self, arrays: ArrayRecord | None) -> ArrayRecord | None:
        """Give an aggregate the dtypes of the model; refuse it if finite values overflowed."""
        if arrays is None or self._sent is None or arrays is self._sent:
            return arrays
        arrays = with_dtypes_of(self._sent, arrays)
        if {n: tuple(a.shape) for n, a in arrays.items()} != {
            n: tuple(a.shape) for n, a in self._sent.items()
        }:
            log(
                WARNING,
                "%s: the aggregate is not of the model's shape",
                type(self.strategy).__name__,
            )
            return None
        if all(has_finite_norm(decode(a)) for a in arrays.values() if is_floating(a)):
            return arrays
        log(WARNING, "%s: the aggregate is not finite", type(self.strategy).__name__)
        return None
