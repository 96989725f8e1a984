"""FLAME: Taming Backdoors in Federated Learning [Nguyen et al., 2022].

Cluster, clip to the median norm, add noise.

Paper: https://arxiv.org/abs/2101.02281
"""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..checks import check_installed, check_positive, check_seed
from ..clipping import clip_factors
from ..clusters import hdbscan
from ..robust import Robust
from ..round import Outcome, Round
from .gaussian_noise import perturb


def admitted(cosines: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell the members of the majority cluster, shape (n,).

    HDBSCAN with ``min_cluster_size`` n/2 + 1, ``min_samples`` 1 and a single cluster allowed: the
    first group of more than n/2 that single linkage finds as the distance grows.

    Parameters
    ----------
    cosines : array of shape (n, n)
        Cosines of the angles between updates, n of 2 or more.
    """
    distances = 1 - cosines
    np.fill_diagonal(distances, 0)
    return hdbscan(distances, least=len(cosines) // 2 + 1, neighbours=1, single=True) >= 0


class FLAME(Robust):
    """Average the updates of the majority cluster, clipped to the median norm, and add noise.

    ``G_t = G_{t-1} + sum_l min(1, S_t / e_l) (W_l - G_{t-1}) / L + N(0, sigma^2)``, where l runs
    over the L models of the cluster, e_i is the norm of update i, S_t the median of all n norms,
    and ``sigma = lambda S_t``.

    Parameters
    ----------
    noise_factor : float (default: 0.001)
        lambda, the standard deviation of the noise as part of the median norm. The paper's for
        images and texts; 0.01 for intrusion detection.
    seed : int, optional
        Makes the noise repeatable, for experiments. Leave it out in a deployment: noise that an
        attacker can compute protects nothing.
    **arguments
        As for `strategies.Robust`.

    Raises
    ------
    ValueError
        If the factor is not a positive finite number, or the seed no integer of 0 or larger.

    Notes
    -----
    *Threat model*: fewer than half of the clients plant backdoors, with any scaling. *Assumes*
    nothing of their number or the data; the cluster holds more than half of the round's replies.
    *Guarantee*: the noise that hides a backdoor is derived from differential privacy, with no bound
    on the model. *Cost*: O(n^2 d), and HDBSCAN on n points, by scikit-learn.

    There is always a majority cluster; of two models it is both, as n/2 + 1 is 2, so that they are
    clipped to the mean of their norms, averaged and noised. One model is no cluster: there the rule
    cannot act.

    The paper's algorithm measures angles between the models W_i. What it says for that, that
    scaling an update does not help an attacker, holds for the angles between updates, which are
    measured here: models differ from one another in the last digits of their angles only.
    Statistics and counters are neither clipped nor noised. Public code differs: SecretFlow takes
    the median of the round's models for the global one before; clustering by scikit-learn with
    ``min_samples=1`` looks at no neighbour at all, since the point itself counts.

    *Known weaknesses*: where honest updates are nearly orthogonal to one another and the attackers'
    alike, theirs join the cluster. 3DFed probes and evades it.
    """

    least_clients: ClassVar[int] = 2
    exceptions: ClassVar[dict[str, str]] = {
        "identical replies": "noise is added to the aggregate, the last step of its algorithm"
    }

    def __init__(
        self, noise_factor: float = 0.001, *, seed: int | None = None, **arguments: Any
    ) -> None:
        super().__init__(**arguments)
        check_installed("FLAME", "sklearn", "scikit-learn")
        check_positive(noise_factor=noise_factor)
        check_seed(seed)
        self.noise_factor, self.seed = noise_factor, seed

    def aggregate(self, round: Round) -> Outcome:
        """Filter, clip, average and add noise."""
        n, norms = len(round), round.updates.norms
        if n < self.least_clients:
            return Outcome.refuse(self, f"{n} valid models; a cluster needs 2")
        votes = np.where(admitted(round.updates.cosines), round.votes, 0)
        bound = float(np.median(norms))
        sigma = self.noise_factor * bound
        model = round.moved(round.shares(votes) * clip_factors(norms, bound))
        notes = {"clipping-norm": bound, "noise-stddev": sigma, "clipped": norms > bound}
        perturb(model, round.models.dtype, sigma, round.rng(self.seed))
        return Outcome(model, votes, notes)
