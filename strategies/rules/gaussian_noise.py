"""Can You Really Backdoor Federated Learning? [Sun et al., 2019].

The defense by weak differential privacy: noise on the aggregate.

Paper: https://arxiv.org/abs/1911.07963
"""

from logging import INFO

import numpy as np
from flwr.app import ArrayRecord, MetricRecord
from flwr.serverapp.strategy import Strategy
from flwr.supercore import log
from numpy.typing import NDArray

from ..flower import Screened
from ..replies import flatten, is_finite_number, unflatten

STATISTICS = ("running_mean", "running_var")
"""How PyTorch's names of BatchNorm's statistics end."""


class GaussianNoise(Screened):
    """Add Gaussian noise to the aggregated model.

    Put it around `NormClipping` for the weak differential privacy of Sun et al.: enough
    noise to drown a backdoor, far too little for a privacy guarantee.

    Parameters
    ----------
    strategy : flwr.serverapp.strategy.Strategy
        The strategy that aggregates.
    stddev : float
        sigma, the standard deviation of the noise added to every parameter. The running
        statistics of BatchNorm are none: a variance below zero would make every output NaN.
    seed : int, optional
        Makes the noise repeatable, for experiments. Leave it out in a deployment: noise
        that an attacker can compute protects nothing.
    weighted : bool (default: False)
        Let the wrapped strategy weight by the reported number of examples.

    Raises
    ------
    ValueError
        If stddev is negative or not finite, or seed is no integer of 0 or larger.
    """

    def __init__(
        self,
        strategy: Strategy,
        stddev: float,
        *,
        seed: int | None = None,
        weighted: bool = False,
    ) -> None:
        super().__init__(strategy, weighted=weighted)
        if not (is_finite_number(stddev) and stddev >= 0):
            raise ValueError(f"stddev = {stddev!r} must be a finite number, 0 or larger")
        if seed is not None and (type(seed) is not int or seed < 0):
            raise ValueError(f"seed = {seed!r} must be an integer, 0 or larger, or None")
        self.stddev = stddev
        self.seed = seed

    def summary(self) -> None:
        """Log the settings of the wrapper, then of the wrapped strategy."""
        log(INFO, "\t├──> GaussianNoise: stddev %g", self.stddev)
        super().summary()

    def finish(self, server_round: int, arrays: ArrayRecord, metrics: MetricRecord) -> ArrayRecord:
        """Add noise to the aggregated model; a round that kept the old model adds none."""
        entropy = None if self.seed is None else [self.seed, server_round]
        noisy = add_noise(flatten(arrays), self.stddev, np.random.default_rng(entropy))
        metrics["noise-stddev"] = float(self.stddev)
        model = unflatten(noisy, arrays)
        for name, array in arrays.items():
            if name.endswith(STATISTICS):
                model[name] = array
        return model


def add_noise(
    model: NDArray[np.floating], stddev: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return a model of shape ``(d,)`` plus noise from N(0, stddev^2)."""
    noisy: NDArray[np.float64] = model + stddev * rng.standard_normal(model.shape)
    return noisy
