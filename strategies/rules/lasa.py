"""Achieving Byzantine-Resilient Federated Learning via Layer-Adaptive Sparsified Model Aggregation.

[Xu et al., 2025]: LASA.

Paper: https://arxiv.org/abs/2409.01435
"""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..checks import check_positive, is_finite_number
from ..clipping import clip_factors
from ..outliers import mz_scores
from ..robust import Robust
from ..round import Outcome, Round
from ..sparsity import smallest_kept, sparsified
from ..updates import Updates

Vector = NDArray[np.float64]


def magnitude_and_purity(updates: Updates, least: Vector, layer: slice) -> tuple[Vector, Vector]:
    """Return ``|x_i|`` and ``rho_i = (1 + sum sgn(x_i) / sum |sgn(x_i)|) / 2`` of a layer's x_i."""
    squares, signs, counts = np.zeros((3, len(updates)))
    for _, block in sparsified(updates, least, layer):
        squares += np.einsum("ij,ij->i", block, block)
        signs += np.sign(block).sum(axis=1)
        counts += np.count_nonzero(block, axis=1)
    return np.sqrt(squares), (1 + signs / np.maximum(counts, 1)) / 2


class LASA(Robust):
    """Clip and sparsify the updates; average each layer over clients of usual length and signs.

    Parameters
    ----------
    sparsity : float (default: 0.3)
        Part of its coordinates, the smallest, that is set to 0 in each update; from 0 to below 1.
    norm_radius : float (default: 2)
        lambda_m, of the MZ-score ``|x_i - median| / std`` of a layer's norm.
    sign_radius : float (default: 1)
        lambda_d, of that of its positive direction purity.
    **arguments
        As for `strategies.Robust`.

    Raises
    ------
    ValueError
        If a number is out of range.

    Notes
    -----
    *Threat model*: fewer than half of the clients send anything. *Assumes* nothing of their number;
    knows the layers, which are the model's arrays. *Guarantee*: the paper bounds the distance from
    the honest mean (kappa-robustness), and with it the error of training. *Cost*: O(n d).

    A client's vote is the part of the parameters for which it counts. Updates are clipped to the
    median of their norms first. In a round of one or two models the rule cannot act. A layer for
    which no client is within both radii stays, with the note ``layers-kept``; the authors' code
    averages all clients there. That code sparsifies the weights and not the biases, and drops the
    smallest coordinate kept as well; here the largest of all parameters are kept, those as large as
    the smallest of them too. What it averages is sparsified, because it clips and sparsifies in
    place, and so it is here.

    *Known weaknesses*: the median and std are those of all, attackers included; each layer on its
    own may keep attackers, and of a bias of few entries the purity takes few values.
    """

    least_clients: ClassVar[int] = 3
    exceptions: ClassVar[dict[str, str]] = {
        "identical replies": "the smallest coordinates of updates are set to 0 first"
    }

    def __init__(
        self,
        sparsity: float = 0.3,
        norm_radius: float = 2.0,
        sign_radius: float = 1.0,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        if not (is_finite_number(sparsity) and 0 <= sparsity < 1):
            raise ValueError(f"sparsity = {sparsity!r} must be a number from 0 to less than 1")
        check_positive(norm_radius=norm_radius, sign_radius=sign_radius)
        self.sparsity, self.norm_radius, self.sign_radius = sparsity, norm_radius, sign_radius

    def aggregate(self, round: Round) -> Outcome:
        """Filter and average layer by layer."""
        n, updates, layout = len(round), round.updates, round.layout
        if n < self.least_clients:
            return Outcome.refuse(self, f"{n} valid models; a majority needs 3")
        factors = clip_factors(updates.norms, float(np.median(updates.norms)))
        least, kept = smallest_kept(updates, self.sparsity), 0
        model, votes = round.center.astype(np.float64), np.zeros(n)
        for layer in map(layout.columns, layout.parameter_names):
            norms, purity = magnitude_and_purity(updates, least, layer)
            usual = mz_scores(factors * norms) < self.norm_radius
            usual &= mz_scores(purity) < self.sign_radius
            own = np.where(usual, round.votes, 0)
            votes += own * (layer.stop - layer.start) / len(model)
            steps, kept = round.shares(own) * factors, kept + (not usual.any())
            for columns, block in sparsified(updates, least, layer):
                model[columns] += steps @ block
        if not votes.any():
            return Outcome.refuse(self, "in no layer is a client within both radii", votes)
        return Outcome(model, votes, {"layers-kept": kept})
