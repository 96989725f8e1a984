"""Communication-Efficient Learning of Deep Networks from Decentralized Data.

[McMahan et al., 2017], as the uniform average of Cao et al. 2019, section II.A, Eq. 1.

Paper: https://arxiv.org/abs/1602.05629
"""

from collections.abc import Iterable
from logging import INFO, WARNING
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg as FlowerFedAvg
from flwr.supercore import log
from numpy.typing import NDArray

from ..replies import (
    Screening,
    arrays_of,
    check_bool,
    decode,
    flatten,
    floating_size,
    is_floating,
    metrics_of,
    screen,
    to_array,
    unflatten,
    vector_dtype,
    weigh,
)


class FedAvg(FlowerFedAvg):
    """Average the clients' models, one vote each, whatever they claim to hold.

    Parameters
    ----------
    weighted : bool (default: False)
        Weight by the number of examples each client reports. An attacker reports what it
        likes, so this is for federations that trust the counts.
    **fedavg_arguments
        Arguments of ``flwr.serverapp.strategy.FedAvg``.

    Notes
    -----
    Replies are hostile input: those that cannot be averaged (NaN, other keys, shapes or
    dtypes, errors, unbelievable example counts) are dropped, logged and listed in the
    round's metrics under ``invalid-nodes``. If none is left, the global model stays.
    """

    def __init__(self, *, weighted: bool = False, **fedavg_arguments: Any) -> None:
        super().__init__(**fedavg_arguments)
        check_bool(weighted=weighted)
        self.weighted = weighted
        self._sent: ArrayRecord | None = None
        self._participants = 0

    def summary(self) -> None:
        """Log the settings of the strategy."""
        log(INFO, "\t├──> Average: %s", "by reported examples" if self.weighted else "uniform")
        super().summary()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Configure the round, and remember the model that the replies start from."""
        messages = list(super().configure_train(server_round, arrays, config, grid))
        self._sent = arrays
        self._participants = len(messages)
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average the valid replies that `select` keeps."""
        replies = list(replies)
        screening = screen(replies, self._sent, self.weighted_by_key)
        screening.report()
        metrics = MetricRecord()
        arrays = self._sent
        if screening.valid:
            answered = len({reply.metadata.src_node_id for reply in replies})
            kept = self.select(screening, max(self._participants, answered), metrics)
            if kept:
                arrays = self._average(kept, metrics)
        if arrays is self._sent:
            log(WARNING, "Round %d keeps the old global model", server_round)
        metrics["invalid-nodes"] = sorted(screening.invalid)
        return arrays, metrics

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Average the metrics of the valid replies."""
        screening = screen(replies, None, self.weighted_by_key, message_type="evaluate")
        screening.report()
        return super().aggregate_evaluate(
            server_round, weigh(screening.valid, self.weighted_by_key, weighted=self.weighted)
        )

    def select(
        self,
        screening: Screening,
        participants: int,  # noqa: ARG002
        metrics: MetricRecord,  # noqa: ARG002
    ) -> list[Message]:
        """Choose the replies to average: all of them. A defense overrides this.

        Parameters
        ----------
        screening : Screening
            At least one valid reply.
        participants : int
            N, the clients asked in this round, including those that failed to answer.
        metrics : MetricRecord
            The round's metrics, to which the defense adds what it did.
        """
        return list(screening.valid)

    def combine(
        self,
        models: list[ArrayRecord],
        weights: NDArray[np.float64],
        metrics: MetricRecord,  # noqa: ARG002
    ) -> ArrayRecord | None:
        """Make one model of those selected: their mean. Another rule overrides this.

        Parameters
        ----------
        models : list of ArrayRecord
            At least one; all of one structure.
        weights : array of shape (n,)
            The votes of the models, which sum to 1.
        metrics : MetricRecord
            The round's metrics, to which the rule adds what it did.

        Returns
        -------
        ArrayRecord or None
            None keeps the global model.
        """
        return average(models, weights)

    def _average(self, kept: list[Message], metrics: MetricRecord) -> ArrayRecord | None:
        kept = weigh(kept, self.weighted_by_key, weighted=self.weighted)
        key = self.weighted_by_key
        weights = np.array([metrics_of(reply)[key] for reply in kept], dtype=np.float64)
        weights /= weights.sum()
        combined = self.combine([arrays_of(reply) for reply in kept], weights, metrics)
        if combined is None:
            return self._sent
        contents = [reply.content for reply in kept]
        own = dict(metrics)
        metrics.update(self.train_metrics_aggr_fn(contents, key))
        metrics.update(own)  # what the strategy says of itself cannot be overwritten by clients
        return combined


def average(models: list[ArrayRecord], weights: NDArray[np.float64]) -> ArrayRecord:
    """Return the weighted mean of models (Eq. 1), accumulated in float64.

    Parameters
    ----------
    models : list of ArrayRecord
        Models of equal structure. Integer arrays (counters) are rounded to the nearest.
    weights : array of shape (n,)
        Weights that sum to 1.
    """
    like = models[0]
    total = np.zeros(floating_size(like))
    row = np.empty(total.size, vector_dtype(like))
    for model, weight in zip(models, weights, strict=True):
        total += weight * flatten(model, out=row).astype(np.float64, copy=False)
    return average_counters(unflatten(total, like), models, weights)


def average_counters(
    combined: ArrayRecord, models: list[ArrayRecord], weights: NDArray[np.float64]
) -> ArrayRecord:
    """Replace the integer arrays of a combined model by the rounded mean of the models'."""
    for name, array in combined.items():
        if not is_floating(array):
            counts = np.tensordot(weights, [decode(model[name]) for model in models], axes=1)
            combined[name] = to_array(counts, np.dtype(array.dtype))
    return combined
