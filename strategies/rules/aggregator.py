"""Turn any function from a matrix of models to one model into a Flower strategy."""

from collections.abc import Callable
from logging import INFO, WARNING
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, MetricRecord
from flwr.supercore import log
from numpy.typing import ArrayLike, NDArray

from ..replies import decode, flatten, floating_size, has_finite_norm, is_floating, unflatten
from .fedavg import FedAvg, average_counters

Rule = Callable[[NDArray[np.float64]], ArrayLike]


class Aggregator(FedAvg):
    """Aggregate the clients' models by a rule of your own, or of a library such as byzfl.

    Parameters
    ----------
    rule : callable
        Takes a float64 array of shape (n, d), one row a client's model, and returns the
        aggregated model, array-like of shape (d,). The rows hold the floating-point entries
        only, are finite (below 1e140), and come in an order that depends on their content
        alone. The array is the rule's own, to overwrite as it likes.
    **fedavg_arguments
        Arguments of `strategies.FedAvg`. ``weighted`` matters to metrics and integer arrays;
        a rule sees one row a client.

    Raises
    ------
    ValueError
        If rule is not callable, or is a class: ``Median()`` is a rule, ``Median`` is not.

    Notes
    -----
    Replies are screened as by `strategies.FedAvg`; integer arrays (counters) are averaged.
    If the rule raises (n is too small for it, say), or returns what is not numeric, finite
    and of shape (d,), the global model stays, the log says why, and the round's metrics
    hold ``rule-failed`` = 1 instead of 0.

    Rules see models, not updates. To those that commute with a shift (mean, median, trimmed
    mean, Krum) it is the same. One that does not needs the global model ``center``, and has to
    be wrapped by a caller that knows it: ``lambda models: center + rule(models - center)``.

    Examples
    --------
    >>> strategy = Aggregator(lambda models: np.median(models, axis=0))
    >>> strategy = Aggregator(byzfl.aggregators.Krum(f=1), min_train_nodes=10)
    """

    def __init__(self, rule: Rule, **fedavg_arguments: Any) -> None:
        super().__init__(**fedavg_arguments)
        if not callable(rule) or isinstance(rule, type):
            raise ValueError(
                f"rule = {rule!r} must be a function of an array of shape (n, d), or an object "
                "that can be called like one"
            )
        self.rule = rule

    def summary(self) -> None:
        """Log the settings of the strategy."""
        log(INFO, "\t├──> Aggregator: rule %.200r", self.rule)
        super().summary()

    def combine(
        self, models: list[ArrayRecord], weights: NDArray[np.float64], metrics: MetricRecord
    ) -> ArrayRecord | None:
        """Apply the rule to the models; None if it fails."""
        like = models[0]
        # float64 whatever the model: squares of float32 entries overflow float32, and a single
        # client could make any rule of distances fail in every round.
        matrix = np.empty((len(models), floating_size(like)))
        for row, model in zip(matrix, models, strict=True):
            flatten(model, out=row)
        metrics["rule-failed"] = 0
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                combined = _checked(self.rule(matrix), like)
        except Exception as error:  # the rule is somebody else's: whatever it raises
            metrics["rule-failed"] = 1
            log(WARNING, "Aggregator: the rule failed on %d models: %.200r", len(models), error)
            return None
        return average_counters(combined, models, weights)


def _checked(result: ArrayLike, like: ArrayRecord) -> ArrayRecord:
    """Return what a rule returned as a model; what is none is a ValueError."""
    vector = np.asarray(result)
    shape = (floating_size(like),)
    if vector.dtype.kind not in "iuf" or vector.shape != shape:
        raise ValueError(f"it returned {vector.dtype} {vector.shape} instead of floats {shape}")
    model = unflatten(vector, like)
    # Looked at in the model's dtype, which may hold less than the rule's.
    if not all(has_finite_norm(decode(a)) for a in model.values() if is_floating(a)):
        raise ValueError("it returned NaN, inf or immense values")
    return model
