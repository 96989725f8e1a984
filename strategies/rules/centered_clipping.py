"""Learning from History for Byzantine Robust Optimization [Karimireddy, He, Jaggi, 2021].

Centered clipping: updates are averaged as far as they are near the last aggregate.

Paper: https://arxiv.org/abs/2012.10333
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checks import check_count, check_positive
from ..clipping import clip_factors
from ..robust import Robust
from ..round import Outcome, Round
from ..vectors import distances_to, weighted_sum


def centered_clipping(
    models: NDArray[np.floating],
    shares: NDArray[np.float64],
    v: NDArray[np.float64],
    tau: float,
    iterations: int,
    order: Sequence[int],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute ``v + sum_i s_i (x_i - v) min(1, tau / |x_i - v|)``, several times over.

    Parameters
    ----------
    models : array of shape (n, p)
        x_i, one row a model, finite.
    shares : array of shape (n,)
        s_i, parts of 1: 1/n in the paper.
    v : array of shape (p,)
        The point around which to clip; overwritten.
    tau : float
        Clipping radius.
    iterations : int
        How many times, from 1.
    order : sequence of int
        The rows in the order of summation.

    Returns
    -------
    v : array of shape (p,)
        The aggregate.
    distances : array of shape (n,)
        ``|x_i - v|`` of the first v.
    """
    first = far = distances_to(models, v)
    for iteration in range(iterations):
        if iteration:
            far = distances_to(models, v)
        steps = shares * clip_factors(far, tau)
        v *= 1 - steps.sum()
        v += weighted_sum(models, steps, order)
    return v, first


class CenteredClipping(Robust):
    """Average updates as far as they are near the aggregate of the round before.

    Parameters
    ----------
    tau : float (default: 10)
        Clipping radius, in the models' unit. It must fit the model: far above the updates'
        distances from one another this is the mean.
    iterations : int (default: 1)
        How many times the center moves in a round.
    **arguments
        As for `strategies.Robust`.

    Raises
    ------
    ValueError
        If ``tau`` is not a positive finite number, or ``iterations`` no integer from 1.

    Notes
    -----
    *Threat model*: attackers send anything and know the rule. *Assumes* that fewer than about a
    tenth of the clients are malicious, for the paper's rate; IID data; and that clients send
    momenta, which average out over rounds: without them attacks add up over time. Here x_i is what
    a client's whole training changed, and local steps take the place of momentum. *Remembers* the
    last aggregate, whoever took part. *Cost*: two passes over n models of d parameters an
    iteration.

    In the first round v is 0. It always acts. It neither selects nor weights models, and the note
    ``clipped`` names those that were farther than tau from v at first. The round's aggregate
    differs from v by at most ``iterations`` times tau, and malicious clients move it by at most
    2 tau f / n an iteration.

    byzfl's class cannot be given a center (its check refuses any).

    *Known weaknesses*: tau is in no paper for a model other than its own. Attacks that stay within
    the spread of honest updates (ALIE, backdoors in data) are not clipped.
    """

    def __init__(self, tau: float = 10.0, iterations: int = 1, **arguments: Any) -> None:
        super().__init__(**arguments)
        check_positive(tau=tau)
        check_count(1, iterations=iterations)
        self.tau, self.iterations = tau, iterations

    def aggregate(self, round: Round) -> Outcome:
        """Clip around the last aggregate, and remember this one."""
        past = self.memory.get("aggregate", np.zeros(0))
        v = round.center.astype(np.float64)
        if past.shape == v.shape:  # or else it is another model's
            v += past
        settings = (self.tau, self.iterations, round.order)
        v, far = centered_clipping(round.models, round.shares(round.votes), v, *settings)
        with np.errstate(over="ignore"):
            aggregate = np.subtract(v, round.center, out=np.empty_like(round.models[0]))
        # Or else the model stays, and so does this.
        if np.isfinite(aggregate).all() and round.layout.holds(v):
            self.memory["aggregate"] = aggregate
        return Outcome(v, notes={"clipped": far > self.tau})
