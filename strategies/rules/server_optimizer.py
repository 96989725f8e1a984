"""Server optimizers: the aggregate is a step, and the server remembers the steps before.

Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification
[Hsu et al., 2019], https://arxiv.org/abs/1909.06335: FedAvgM.

Adaptive Federated Optimization [Reddi et al., 2021], https://arxiv.org/abs/2003.00295,
Algorithm 2: FedAdam and FedYogi.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from ..checks import check_positive, is_finite_number
from ..round import Outcome, Round
from ..wrapper import Wrapper

Vector = NDArray[np.float64]

_BLOCK = 2**16
"""Columns at a time: the steps between aggregate and model take no memory of a model's size."""


def average(m: Vector, delta: Vector, beta: float) -> Vector:
    """Return ``beta m + (1 - beta) Delta_t``, of vectors of shape ``(p,)``."""
    return beta * m + (1 - beta) * delta


def yogi(v: Vector, delta: Vector, beta_2: float) -> Vector:
    """Return ``v - (1 - beta_2) Delta_t^2 sign(v - Delta_t^2)``, of vectors of shape ``(p,)``."""
    square = delta**2
    return v - (1 - beta_2) * square * np.sign(v - square)


class ServerOptimizer(Wrapper):
    """Step along what a strategy's aggregate says, instead of taking it over.

    ``Delta_t`` is the aggregate minus the global model, of parameters only: statistics and counters
    stay those of the aggregate. A round in which the strategy inside keeps the model is no step.

    Parameters
    ----------
    strategy : flwr.serverapp.strategy.Strategy
        The strategy that aggregates.
    learning_rate : float
        eta of the server.
    weighted, statistics, on_round
        As for `strategies.Robust`.
    """

    def __init__(
        self,
        strategy: Strategy,
        learning_rate: float,
        **arguments: Any,
    ) -> None:
        super().__init__(strategy, **arguments)
        check_positive(learning_rate=learning_rate)
        self.learning_rate = learning_rate

    def step(self, delta: Vector, past: Mapping[str, Vector]) -> tuple[Vector, dict[str, Vector]]:
        """Return what eta is multiplied by, and what is to be remembered, for some coordinates.

        Parameters
        ----------
        delta : array of shape (b,)
            Delta_t of these coordinates.
        past : dict of str to array of shape (b,)
            What was remembered of them; nothing before the first step, or of another model.
        """
        raise NotImplementedError

    def aggregate(self, round: Round) -> Outcome:
        """Aggregate as the strategy inside, and step along the difference."""
        outcome = self.inner.aggregate(round)
        if outcome.model is not None:
            model, center, size = outcome.model, round.center, len(outcome.model)
            known = {name: kept for name, kept in self.memory.items() if kept.shape == (size,)}
            memory: dict[str, NDArray[np.floating]] = {}
            for start in range(0, size, _BLOCK):
                block = slice(start, start + _BLOCK)
                past = {name: kept[block] for name, kept in known.items()}
                with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is told
                    step, kept = self.step(model[block] - center[block], past)
                    model[block] = center[block] + self.learning_rate * step
                    for name, values in kept.items():
                        # As large as models are, and so in their precision.
                        if name not in memory:
                            memory[name] = np.empty(size, round.models.dtype)
                        memory[name][block] = values
            if round.layout.holds(model):
                self.memory |= memory
            else:  # the model stays, and what led beyond its numbers would lead there again
                self.memory.clear()
        return outcome


class FedAvgM(ServerOptimizer):
    """Momentum on the server: ``m_t = beta m_{t-1} + Delta_t`` [Hsu et al., 2019].

    With ``learning_rate=1`` and ``momentum=0`` it is the strategy inside.

    Parameters
    ----------
    strategy : flwr.serverapp.strategy.Strategy
        The strategy that aggregates.
    learning_rate : float (default: 1.0)
        eta of the server.
    momentum : float (default: 0.9)
        beta, from 0 to less than 1.
    weighted, statistics, on_round
        As for `strategies.Robust`.

    Raises
    ------
    ValueError
        If a number is out of range.

    Notes
    -----
    *Threat model*: as of the strategy inside. *Assumes* nothing more. *Remembers* the momentum, as
    large as a model. *Cost*: one more pass over d parameters.

    *Known weaknesses*: what an attacker once got through goes on in the momentum.
    """

    def __init__(
        self,
        strategy: Strategy,
        *,
        learning_rate: float = 1.0,
        momentum: float = 0.9,
        **arguments: Any,
    ) -> None:
        super().__init__(strategy, learning_rate, **arguments)
        _check_part(momentum=momentum)
        self.momentum = momentum

    def step(self, delta: Vector, past: Mapping[str, Vector]) -> tuple[Vector, dict[str, Vector]]:
        """Return the momentum."""
        m = self.momentum * past.get("m", np.zeros(1)) + delta
        return m, {"m": m}


class FedAdam(ServerOptimizer):
    """Adam on the server [Reddi et al., 2021, Algorithm 2].

    ``x_{t+1} = x_t + eta m_t / (sqrt(v_t) + tau)``, where ``m_t`` and ``v_t`` are moving averages
    of ``Delta_t`` and of its square, ``v_{-1} = tau^2``, and there is no correction of bias: as the
    paper has it. Flower's FedAdam begins with ``v_{-1} = 0`` and corrects.

    Parameters
    ----------
    strategy : flwr.serverapp.strategy.Strategy
        The strategy that aggregates.
    learning_rate : float (default: 0.01)
        eta of the server.
    beta_1, beta_2 : float (default: 0.9, 0.99)
        Of the moving averages, from 0 to less than 1.
    tau : float (default: 0.001)
        Degree of adaptivity: the smaller, the more alike are the steps of all coordinates.
    weighted, statistics, on_round
        As for `strategies.Robust`.

    Raises
    ------
    ValueError
        If a number is out of range.

    Notes
    -----
    *Threat model*: as of the strategy inside. *Assumes* nothing more. *Remembers* two moments, each
    as large as a model. *Cost*: one more pass over d parameters.

    *Known weaknesses*: what an attacker once got through goes on in the momentum.
    """

    exceptions: ClassVar[dict[str, str]] = {
        "identical replies": "each coordinate is divided by its own size (Algorithm 2)"
    }

    def __init__(
        self,
        strategy: Strategy,
        *,
        learning_rate: float = 0.01,
        beta_1: float = 0.9,
        beta_2: float = 0.99,
        tau: float = 0.001,
        **arguments: Any,
    ) -> None:
        super().__init__(strategy, learning_rate, **arguments)
        _check_part(beta_1=beta_1, beta_2=beta_2)
        check_positive(tau=tau)
        self.beta_1, self.beta_2, self.tau = beta_1, beta_2, tau

    def step(self, delta: Vector, past: Mapping[str, Vector]) -> tuple[Vector, dict[str, Vector]]:
        """Return the mean of the steps, each coordinate divided by its size."""
        m = average(past.get("m", np.zeros(1)), delta, self.beta_1)
        v = self.second(past.get("v", np.full(1, self.tau) ** 2), delta)
        return m / (np.sqrt(v) + self.tau), {"m": m, "v": v}

    def second(self, v: Vector, delta: Vector) -> Vector:
        """Return the second moment, shape ``(p,)``."""
        return average(v, delta**2, self.beta_2)


class FedYogi(FedAdam):
    """Yogi on the server [Reddi et al., 2021, Algorithm 2]: ``v_t`` grows and shrinks slowly.

    Parameters
    ----------
    strategy, learning_rate, beta_1, beta_2, tau, weighted, statistics, on_round
        As for `FedAdam`.
    """

    def second(self, v: Vector, delta: Vector) -> Vector:
        """Return the second moment, shape ``(p,)``."""
        return yogi(v, delta, self.beta_2)


def _check_part(**values: object) -> None:
    for name, value in values.items():
        if not (is_finite_number(value) and 0 <= value < 1):
            raise ValueError(f"{name} = {value!r} must be a number from 0 to less than 1")
