"""Can You Really Backdoor Federated Learning? [Sun et al., 2019].

The defense by weak differential privacy: noise on the aggregate.

Paper: https://arxiv.org/abs/1911.07963
"""

from typing import Any, ClassVar

import numpy as np
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from ..checks import check_seed, is_finite_number
from ..round import Outcome, Round
from ..wrapper import Wrapper

_BLOCK = 2**16
"""Coordinates at a time: noise takes no memory of a model's size."""


def add_noise(
    model: NDArray[np.floating], stddev: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return a model of shape ``(d,)`` plus noise from N(0, stddev^2)."""
    noisy: NDArray[np.float64] = model + stddev * rng.standard_normal(model.shape)
    return noisy


def perturb(
    model: NDArray[np.float64],
    dtype: np.dtype[np.floating],
    stddev: float,
    rng: np.random.Generator,
) -> None:
    """Add noise to a model of shape ``(d,)``, in place, in the precision that it is sent in."""
    for start in range(0, len(model), _BLOCK):
        block = slice(start, start + _BLOCK)
        model[block] = add_noise(model[block].astype(dtype), stddev, rng)


class GaussianNoise(Wrapper):
    """Add Gaussian noise to the aggregated parameters.

    Put it around `NormClipping` for the weak differential privacy of Sun et al.: enough
    noise to drown a backdoor, far too little for a privacy guarantee.

    Parameters
    ----------
    strategy : flwr.serverapp.strategy.Strategy
        The strategy that aggregates.
    stddev : float
        sigma, the standard deviation of the noise added to every parameter.
    seed : int, optional
        Makes the noise repeatable, for experiments. Leave it out in a deployment: noise
        that an attacker can compute protects nothing.
    weighted, statistics, on_round
        As for `strategies.Robust`. Arrays named as statistics get no noise: a variance below zero
        would make every output NaN.

    Raises
    ------
    ValueError
        If stddev is negative or not finite, or seed is no integer of 0 or larger.

    Notes
    -----
    *Threat model*: as of the strategy inside. *Assumes* that updates are clipped, and a noise that
    fits the model. *Cost*: d draws.

    *Known weaknesses*: noise that drowns a backdoor costs accuracy.
    """

    exceptions: ClassVar[dict[str, str]] = {
        "identical replies": "noise is added to the aggregate (weak differential privacy)"
    }

    def __init__(
        self,
        strategy: Strategy,
        stddev: float,
        *,
        seed: int | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(strategy, **arguments)
        if not (is_finite_number(stddev) and stddev >= 0):
            raise ValueError(f"stddev = {stddev!r} must be a finite number, 0 or larger")
        check_seed(seed)
        self.stddev = stddev
        self.seed = seed

    def aggregate(self, round: Round) -> Outcome:
        """Add noise to the aggregate; a round that keeps the old model adds none."""
        outcome = self.inner.aggregate(round)
        if outcome.model is not None:
            perturb(outcome.model, round.models.dtype, self.stddev, round.rng(self.seed))
            outcome.notes["noise-stddev"] = float(self.stddev)
        return outcome
