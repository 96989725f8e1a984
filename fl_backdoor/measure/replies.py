"""What replies are before the strategy, which may overwrite them."""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import ArrayRecord
from numpy.typing import NDArray

from strategies import Round
from strategies.graph.distances import distance
from strategies.vectors import decoded

from .metrics import Distances, Replies

NEAR = 2e11
"""Distances are measured where n n d is no more: ten seconds of one processor, see docs."""


@dataclass
class Observed:
    """A round's replies, measured.

    Attributes
    ----------
    round : Round
        The replies.
    distances : array of shape (n, n) or None
        Between the models; None if they are not wanted.
    update_norms : array of shape (n,)
        Distances of the models to the one that was sent.
    cosine : float or None
        Between the means of the honest updates and of the attackers'.
    seconds : float
        That it took to measure.
    """

    round: Round
    distances: NDArray[np.float64] | None
    update_norms: NDArray[np.float64]
    cosine: float | None
    seconds: float

    def parts(self, model: ArrayRecord, attackers: list[int]) -> dict[str, Any]:
        """Return what there is to be measured, in the order of the clients.

        Parameters
        ----------
        model : ArrayRecord
            The new global model.
        attackers : list of int
            The clients that attack.
        """
        round = self.round
        order = np.argsort(round.clients)
        attacking = np.isin(np.array(round.clients)[order], attackers)
        parameters = round.layout.parameters
        end = np.zeros(round.layout.size, round.layout.dtype)
        round.layout.fill(end, decoded(model))
        row = np.empty_like(end)
        to_global = []
        for i in order:  # read again: the strategy may have overwritten the rows
            round.layout.fill(row, round.replies[i].values)
            to_global.append(distance(row[parameters], end[parameters]))
        norms = self.update_norms[order]
        drift = distance(round.center, end[parameters])
        parts: dict[str, Any] = {
            "replies": Replies(norms, np.array(to_global), attacking, drift, self.cosine)
        }
        if self.distances is not None:
            parts["distances"] = Distances(self.distances[np.ix_(order, order)], attacking)
        return parts

    def whole(self, clients: Sequence[int]) -> NDArray[np.float64]:
        """Spread the distances over clients, ascending; NaN for those without a valid model."""
        whole = np.full((len(clients), len(clients)), np.nan)
        if self.distances is not None:
            places = np.searchsorted(clients, self.round.clients)
            whole[np.ix_(places, places)] = self.distances
        return whole


def observed(round: Round, wanted: str, attackers: Collection[int]) -> Observed:
    """Measure replies.

    Parameters
    ----------
    round : Round
        As it came.
    wanted : {"auto", "always", "never"}
        Whether distances between the models are; with "auto" if n n d is at most `NEAR`.
    attackers : collection of int
        The clients that attack.
    """
    started = time.perf_counter()
    n, d = round.models.shape
    between = None
    if wanted == "always" or (wanted == "auto" and n * n * d <= NEAR):
        between = round.distances.matrix
    norms = round.updates.norms
    cosine = _cosine(round, np.isin(round.clients, list(attackers)))
    return Observed(round, between, norms, cosine, time.perf_counter() - started)


def _cosine(round: Round, attacking: NDArray[np.bool_]) -> float | None:
    """Return the cosine of the honest mean update and the attackers', or None without both."""
    if attacking.all() or not attacking.any():
        return None
    means = np.stack([~attacking / (~attacking).sum(), attacking / attacking.sum()])
    products = np.zeros((2, 2))
    for _, block in round.updates.blocks():
        both = means @ block
        products += both @ both.T
    scale = float(np.sqrt(products[0, 0] * products[1, 1]))
    return float(products[0, 1]) / scale if scale else None
