"""AUROR: Defending Against Poisoning Attacks in Collaborative Deep Learning Systems.

[Shen et al., 2016]: indicative features, and who is in their minority.

Paper: https://doi.org/10.1145/2991079.2991125
"""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..checks import check_count, check_positive, check_share
from ..robust import Robust
from ..round import Outcome, Round

Vector = NDArray[np.float64]

_BLOCK_SIZE = 2**17
"""Values that are sorted at a time: few enough for the processor's cache."""


def cuts(values: Vector) -> tuple[Vector, Vector, NDArray[np.intp]]:
    """Part each column in two by 2-means, exactly: on a line clusters are intervals.

    Parameters
    ----------
    values : array of shape (n, w)
        One column a feature, n of 2 or more.

    Returns
    -------
    apart : array of shape (w,)
        Distance between the centers of the two clusters.
    cut : array of shape (w,)
        The largest value of the lower cluster.
    size : array of shape (w,)
        Of the lower cluster.
    """
    n, features = len(values), np.arange(values.shape[1])
    ordered = np.sort(values.T.copy())
    sums = np.cumsum(ordered, axis=1)
    left = np.arange(1, n)  # sizes of the lower cluster
    centers = (sums[:, -1:] - sums[:, :-1]) / (n - left) - sums[:, :-1] / left
    # Least inertia within is most between the clusters.
    best = (left * (n - left) * centers**2).argmax(axis=1)
    return centers[features, best], ordered[features, best], best + 1


def minority(values: Vector, cut: Vector, size: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Tell who is in the smaller cluster of each column, shape (n, w): nobody in equal halves."""
    n, lower = len(values), values <= cut
    return np.where(2 * size < n, lower, ~lower & (2 * size > n))


class Auror(Robust):
    """Exclude clients that are in the minority of more than half of the indicative features.

    Each parameter's changes are parted in two by 2-means; it is indicative if the clusters'
    centers are far apart. Those of the last of the first rounds stay the indicative ones.

    Parameters
    ----------
    threshold : float
        alpha, the distance from which a feature is indicative; in the unit of the parameters, and
        so in proportion to the learning rate.
    first_rounds : int (default: 10)
        Rounds in which indicative features are looked for anew.
    part : float (default: 0.5)
        tau: who is in the minority of a larger part of the indicative features is malicious.
    **arguments
        As for `strategies.Robust`.

    Raises
    ------
    ValueError
        If a number is out of range.

    Notes
    -----
    *Threat model*: a minority of clients poisons its data from the start, all to one end. *Assumes*
    IID data, so that honest clients change features alike; fewer than half malicious. *Remembers*
    which features are indicative, one bit each. *Guarantee*: none. *Cost*: O(d n log n).

    That features are looked for in the first rounds and then stay is FLPoison's reading. Whoever is
    malicious in a round is left out of that round. Where no feature is indicative all
    are averaged: no attack is seen. In a round of one or two models the rule cannot act. All
    parameters are looked at, with the note ``indicative`` of how many. The paper has clients upload
    gradients of chosen parameters; models are meant to be read likewise. FLPoison looks at the
    output layer, and instead of counting minorities parts the clients once by 2-means of all
    indicative features together, so that one of them may decide.

    *Known weaknesses*: no threshold suits two models, or the first round and the last; above it
    there is no defense and no word. Of two equal halves nobody is a minority.
    """

    least_clients: ClassVar[int] = 3

    def __init__(
        self, threshold: float, first_rounds: int = 10, part: float = 0.5, **arguments: Any
    ) -> None:
        super().__init__(**arguments)
        check_positive(threshold=threshold)
        check_count(1, first_rounds=first_rounds)
        check_share(part=part)
        self.threshold, self.first_rounds, self.part = threshold, first_rounds, part

    def aggregate(self, round: Round) -> Outcome:
        """Find the indicative features, and leave out who is mostly in their minority."""
        n, p = round.updates.shape
        if n < self.least_clients:
            return Outcome.refuse(self, f"{n} valid models; a minority needs 3")
        known = self.memory.get("indicative", np.zeros(0, dtype=np.bool_))
        settled = round.number > self.first_rounds and known.shape == (p,)
        found, counts = np.empty(p, dtype=np.bool_), np.zeros(n)
        for columns, block in round.updates.blocks(size=_BLOCK_SIZE):
            apart, cut, size = cuts(block)
            found[columns] = apart >= self.threshold
            own = (known if settled else found)[columns]
            counts += minority(block[:, own], cut[own], size[own]).sum(axis=1)
        if not settled:
            known = self.memory["indicative"] = found
        votes = np.where(counts > self.part * known.sum(), 0, round.votes)
        notes = {"indicative": int(known.sum()), "minorities": counts}
        if not votes.any():
            return Outcome.refuse(self, "everybody is mostly in the minority", votes, notes)
        return Outcome(round.mean(votes), votes, notes)
