"""Detecting Backdoor Attacks in Federated Learning via Direction Alignment Inspection.

[Xu et al., 2025]: AlignIns.

Paper: https://arxiv.org/abs/2503.07978
"""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..checks import check_positive, check_share
from ..clipping import clip_factors
from ..graph.distances import distance
from ..outliers import mz_scores
from ..robust import Robust
from ..round import Outcome, Round
from ..updates import Updates


def direction_alignment(updates: Updates, center: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the TDA ``omega_i = <Delta_i, theta> / (|Delta_i| |theta|)``, 0 where one is 0."""
    dots, norms = updates @ center, updates.norms * distance(center, np.zeros_like(center))
    return np.divide(dots, norms, out=np.zeros_like(dots), where=norms > 0)


def sign_alignment(updates: Updates, k: int) -> NDArray[np.float64]:
    """Return the MPSA ``rho_i = 1 - |(sgn(Delta_i) - p) * top_k(Delta_i)|_0 / k``, shape (n,).

    The part of its k largest coordinates in which an update has the principal sign
    ``p = sgn(sum_i sgn(Delta_i))``.
    """
    principal, rho = np.empty(updates.shape[1], np.int8), np.empty(len(updates))
    for columns, block in updates.blocks():
        principal[columns] = np.sign(np.sign(block).sum(axis=0))
    for i in range(len(updates)):
        sizes = updates[i]
        agreed = np.sign(sizes, out=np.empty_like(principal), casting="unsafe") == principal
        np.abs(sizes, out=sizes)
        rho[i] = np.mean(agreed[sizes >= np.partition(sizes, -k)[-k]])
    return rho


class AlignIns(Robust):
    """Average the updates whose direction is usual as a whole and in its largest coordinates.

    Updates whose MZ-scores are below the radii in both measures are clipped to the median of
    their norms and averaged.

    Parameters
    ----------
    sparsity : float (default: 0.3)
        k / d, the part of its coordinates by which an update's signs are judged.
    direction_radius : float (default: 1)
        lambda_c, of the alignment with the global model (TDA).
    sign_radius : float (default: 1)
        lambda_s, of the alignment with the principal sign (MPSA).
    **arguments
        As for `strategies.Robust`.

    Raises
    ------
    ValueError
        If the sparsity is not above 0 and 1 at most, or a radius not a positive finite number.

    Notes
    -----
    *Threat model*: fewer than half of the clients plant backdoors and know the rule. *Assumes*
    nothing of their number; the proof bounds the gradients' variance among honest clients.
    *Guarantee*: kappa-robustness with kappa = O(1 + m / (n - 2 m)) for m attackers. *Cost*: O(n d).

    Coordinates as large as the k-th largest count as well. In a round of one or two models, or
    where nobody is within both radii, the rule cannot act. As in the authors' code the radii
    themselves do not count as within, std is that of the population, and the clipping norm the
    median over those kept; torch's median, the lower of the middle two, is not followed.

    *Known weaknesses*: with radii of 1 many honest clients are dropped in any round, a third of
    each measure if it is normal. The median and std are those of all, attackers included: one of
    immense alignment widens std for the others.
    """

    least_clients: ClassVar[int] = 3

    def __init__(
        self,
        sparsity: float = 0.3,
        direction_radius: float = 1.0,
        sign_radius: float = 1.0,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        check_share(sparsity=sparsity)
        check_positive(direction_radius=direction_radius, sign_radius=sign_radius)
        self.sparsity = sparsity
        self.direction_radius, self.sign_radius = direction_radius, sign_radius

    def aggregate(self, round: Round) -> Outcome:
        """Inspect the directions, then clip and average."""
        n, updates = len(round), round.updates
        if n < self.least_clients:
            return Outcome.refuse(self, f"{n} valid models; a majority needs 3")
        omega = direction_alignment(updates, round.center)
        rho = sign_alignment(updates, max(1, int(self.sparsity * updates.shape[1])))
        usual = mz_scores(omega) < self.direction_radius
        usual &= mz_scores(rho) < self.sign_radius
        votes, notes = np.where(usual, round.votes, 0), {"tda": omega, "mpsa": rho}
        if not votes.any():
            return Outcome.refuse(self, "no update is within both radii", votes, notes)
        bound = float(np.median(updates.norms[usual]))
        model = round.moved(round.shares(votes) * clip_factors(updates.norms, bound))
        return Outcome(model, votes, notes | {"clipping-norm": bound})
