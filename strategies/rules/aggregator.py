"""Turn any function from a matrix of models to one model into a Flower strategy."""

from collections.abc import Callable
from logging import WARNING
from typing import Any

import numpy as np
from flwr.supercore import log
from numpy.typing import ArrayLike, NDArray

from ..robust import Robust
from ..round import Outcome, Round
from ..vectors import has_finite_norm

Rule = Callable[[NDArray[np.float64]], ArrayLike]


class Aggregator(Robust):
    """Aggregate the clients' models by a rule of your own, or of a library such as byzfl.

    Parameters
    ----------
    rule : callable
        Takes a float64 array of shape (n, d), one row a client's model, and returns the
        aggregated model, array-like of shape (d,). The rows hold the parameters only, are finite
        (below 1e140), and come in an order that depends on their content alone. The array is the
        rule's own, to overwrite as it likes.
    **fedavg_arguments
        As for `strategies.Robust`. ``weighted`` matters to metrics, statistics and counters; a rule
        sees one row a client.

    Raises
    ------
    ValueError
        If rule is not callable, or is a class: ``Median()`` is a rule, ``Median`` is not.

    Notes
    -----
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

    def aggregate(self, round: Round) -> Outcome:
        """Apply the rule to the models; the global model stays if it fails."""
        # float64 whatever the model: squares of float32 entries overflow float32, and a single
        # client could make any rule of distances fail in every round.
        models = round.models.astype(np.float64)
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                model = _checked(self.rule(models), round)
        except Exception as error:  # the rule is somebody else's: whatever it raises
            log(WARNING, "Aggregator: the rule failed on %d models: %.200r", len(round), error)
            return Outcome(None, notes={"rule-failed": 1})
        return Outcome(model, notes={"rule-failed": 0})


def _checked(result: ArrayLike, round: Round) -> NDArray[np.float64]:
    """Return what a rule returned as a model; what is none is a ValueError."""
    vector = np.asarray(result)
    if vector.dtype.kind not in "iuf" or vector.shape != round.center.shape:
        raise ValueError(
            f"it returned {vector.dtype} {vector.shape} instead of floats {round.center.shape}"
        )
    # Looked at in the model's dtype, which may hold less than the rule's.
    if not has_finite_norm(vector.astype(round.models.dtype)):
        raise ValueError("it returned NaN, inf or immense values")
    return vector.astype(np.float64)
