"""Defending against Backdoors in Federated Learning with Robust Learning Rate.

[Ozdayi et al., 2021]: steps back in coordinates where few clients agree on the sign.

Paper: https://arxiv.org/abs/2007.03767
"""

from typing import Any

import numpy as np
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from ..checks import check_allowed, check_count
from ..round import Outcome, Round
from ..wrapper import Wrapper

_BLOCK = 2**16
"""Values at a time: few enough for the processor's cache."""
_MOST = 127
"""Signs whose sum a byte holds."""


def disagreed(
    models: NDArray[np.floating], center: NDArray[np.floating], theta: int
) -> NDArray[np.bool_]:
    """Tell where ``|sum_k sgn(Delta_k)| < theta``, of updates Delta_k, shape (p,).

    Parameters
    ----------
    models : array of shape (n, p)
        Local models, ``center + Delta_k``.
    center : array of shape (p,)
        The global model.
    theta : int
        The learning threshold.
    """
    found, width = np.empty(len(center), np.bool_), max(1, _BLOCK // min(_MOST, len(models)))
    for start in range(0, len(center), width):
        columns = slice(start, start + width)
        middle = center[columns]
        total = np.zeros(len(middle), np.int32)
        for first in range(0, len(models), _MOST):
            block = models[first : first + _MOST, columns]
            signs = np.greater(block, middle).view(np.int8)
            signs -= np.less(block, middle).view(np.int8)
            total += signs.sum(axis=0, dtype=np.int8)
        found[columns] = np.abs(total) < theta
    return found


class RobustLearningRate(Wrapper):
    """Turn an aggregate's step around in coordinates in which too few clients agree.

    ``w_{t+1} = w_t + eta_theta * Delta``, where Delta is the aggregated update, and eta_theta is
    1 where ``|sum_k sgn(Delta_k)| >= theta``, -1 elsewhere. Put it around `FedAvg`, or another
    defense, or inside `NormClipping` and `GaussianNoise`, as the paper does.

    Parameters
    ----------
    strategy : flwr.serverapp.strategy.Strategy
        The strategy that aggregates.
    threshold : int
        theta, from 1. The paper wants it above the number of attackers, and at most the number of
        honest clients: 4 of 10 clients and 8 of 40 in its experiments.
    weighted, statistics, on_round
        As for `strategies.Robust`. A client's signs count once in any case.

    Raises
    ------
    ValueError
        If the threshold is no integer from 1.

    Notes
    -----
    *Threat model*: few clients plant a backdoor, against which the others' updates point.
    *Assumes* that the operator knows how many clients attack, roughly; IID data in most of the
    paper's experiments. *Cost*: one pass over n models of d parameters.

    In a round of fewer models than theta all steps would turn around, so the rule cannot act: the
    model stays. The note ``turned`` is the part of the coordinates that were turned around.

    FedML's code takes signs of models instead of those of updates, which is another rule.

    *Known weaknesses*: where clients hold different data their signs disagree without an attack,
    and the steps that are turned around cost accuracy.
    """

    def __init__(
        self,
        strategy: Strategy,
        threshold: int,
        **arguments: Any,
    ) -> None:
        super().__init__(strategy, **arguments)
        check_count(1, threshold=threshold)
        self.threshold = threshold

    def check(self, num_clients: int) -> None:
        """Refuse a threshold that no round can reach."""
        check_allowed(self, "threshold", 1, num_clients, num_clients)
        super().check(num_clients)

    def aggregate(self, round: Round) -> Outcome:
        """Aggregate as the strategy inside, and turn around where signs disagree."""
        if len(round) < self.threshold:
            return Outcome.refuse(self, f"{len(round)} valid models; threshold {self.threshold}")
        turned = disagreed(round.models, round.center, self.threshold)
        outcome = self.inner.aggregate(round)
        if outcome.model is not None:
            for start in range(0, len(turned), _BLOCK):
                block = slice(start, start + _BLOCK)
                model, middle = outcome.model[block], round.center[block]
                np.subtract(2 * middle, model, out=model, where=turned[block])
            outcome.notes["turned"] = float(turned.mean())
        return outcome
