"""Understanding Distributed Poisoning Attack in Federated Learning.

[Cao et al., 2019], section V and Algorithm 2: average only the models of the largest group
of clients that are all close to one another.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from logging import WARNING
from typing import Any, Literal

import numpy as np
from flwr.supercore import log
from numpy.typing import NDArray

from ..checks import check_positive
from ..graph.clique import maximum_clique
from ..graph.distances import PairwiseDistances
from ..graph.majority import first_majority
from ..robust import Robust
from ..round import Outcome, Round

AUTO_THRESHOLD, AUTO_STEP = 1.5, 0.1
"""``threshold="auto"``: gamma as a multiple of the honest scale, and epsilon of that gamma."""


@dataclass(frozen=True)
class Selection:
    """The honest models by Algorithm 2.

    Attributes
    ----------
    kept : tuple of int
        Rows of the largest clique, ascending; empty where no majority clique can exist.
    threshold : float
        The gamma at which the clique was found.
    proven : bool
        False if a search for a clique was cut short: ``kept`` is then a majority clique that may
        not be the largest or the tightest, or gamma may have grown further than needed.
    """

    kept: tuple[int, ...]
    threshold: float
    proven: bool


class Sniper(Robust):
    """Average the models of the maximum clique of mutually close clients.

    Parameters
    ----------
    threshold : float or "auto" (default: 0.5)
        gamma: two models are neighbours if their Euclidean distance is smaller. The default is the
        paper's, a distance of its network: on another it keeps everybody or next to nobody.
        ``"auto"`` begins at 1.5 times the median distance within the tightest majority (see
        `honest_scale`), and grows by a tenth of that: models that all move in proportion give the
        same answer.
    step : float (default: 0.05)
        epsilon: gamma grows by it until a clique has more than N/2 members; not of ``"auto"``.
    **fedavg_arguments
        As for `strategies.Robust`.

    Raises
    ------
    ValueError
        If threshold is neither a positive finite number nor ``"auto"``, or step is not one.

    Notes
    -----
    *Threat model*: at most N/3 clients flip labels (section II.C). *Assumes* that honest models
    are closer to one another than gamma, and attackers' are not close to theirs. *Cost*: O(n^2 d),
    and the search for a maximum clique of n points.

    N counts every client asked in the round, so that clients that fail or send garbage do
    not help the others to a majority. Where N/2 or fewer clients sent a valid model, no
    majority clique can exist and the global model stays as it was.

    ``"auto"`` is not the paper's. It takes honest models for about equally far from one another:
    where clients hold unlike data, or few rows, it leaves out honest ones too, in rounds without
    attackers as well; and attackers within 1.5 times the honest scale stay.

    *Known weaknesses*: gamma is a distance of one network at one time: as training settles, models
    come closer, and attackers come within 0.5 as well. Attackers close to honest models are kept.
    """

    def __init__(
        self,
        threshold: float | Literal["auto"] = 0.5,
        step: float = 0.05,
        **fedavg_arguments: Any,
    ) -> None:
        super().__init__(**fedavg_arguments)
        _check(threshold, step)
        self.threshold = threshold
        self.step = step

    def aggregate(self, round: Round) -> Outcome:
        """Average the models of the maximum clique."""
        selection = sniper(
            round.models,
            self.threshold,
            self.step,
            participants=round.asked,
            distances=lambda: round.distances,
        )
        notes = {"threshold": selection.threshold, "clique-proven": int(selection.proven)}
        votes = np.zeros(len(round))
        kept = list(selection.kept)
        votes[kept] = round.votes[kept]
        if not selection.proven:
            log(WARNING, "Sniper: clique search cut short; the clique may not be the largest")
        if not kept:
            reason = (
                f"{len(round)} valid models of {round.asked} clients cannot hold a majority clique"
            )
            return Outcome.refuse(self, reason, votes, notes)
        return Outcome(round.mean(votes), votes, notes)


def sniper(
    models: NDArray[np.floating],
    threshold: float | Literal["auto"] = 0.5,
    step: float = 0.05,
    *,
    participants: int | None = None,
    distances: Callable[[], PairwiseDistances] | None = None,
) -> Selection:
    """Identify the honest models (Algorithm 2).

    The paper raises gamma step by step. A clique at one gamma is a clique at any larger
    one, so the first gamma with a majority clique is found by doubling and bisection, with
    the identical answer. Among several maximum cliques the one of smallest diameter is taken.

    Parameters
    ----------
    models : array of shape (n, d)
        M_1 ... M_n, one row a local model; finite.
    threshold, step : float
        gamma and epsilon, distances; or ``"auto"``, as for `Sniper`.
    participants : int, optional
        N, if more clients than the n that answered take part in the round.
    distances : callable, optional
        Returns the distances between the models, where others use them as well.

    Raises
    ------
    ValueError
        If threshold is neither a positive finite number nor ``"auto"``, or step is not one.
    """
    _check(threshold, step)
    majority = max(participants or 0, len(models)) // 2 + 1
    if len(models) < majority:
        return Selection((), 0.0 if threshold == "auto" else threshold, proven=True)
    between = PairwiseDistances(models) if distances is None else distances()
    if threshold == "auto":
        # A scale of 0 (a majority of equal models) leaves only them.
        start = max(AUTO_THRESHOLD * honest_scale(between.matrix, majority), sys.float_info.min)
        epsilon = max(AUTO_STEP * start, sys.float_info.min)
    else:
        start, epsilon = threshold, step
    clique, gamma, proven = first_majority(between.below, start, epsilon, majority)
    adjacency = between.below(gamma)
    members, tightest = _tightest(clique.members, adjacency, between.matrix)
    return Selection(members, gamma, proven=tightest and proven)


def honest_scale(distances: NDArray[np.float64], majority: int) -> float:
    """Return the median distance within the tightest majority: a scale of honest models.

    The tightest majority is the first clique of that size as gamma grows from 0. Where more than
    half are honest its diameter is at most theirs, whatever the others send. Where most of its
    models are equal, the scale is its diameter.

    Parameters
    ----------
    distances : array of shape (n, n)
        Between the models.
    majority : int
        More than N/2, at most n.
    """
    if majority < 2:
        return 0.0
    diameters = np.unique(distances[np.triu_indices(len(distances), 1)])
    low, high, members = -1, len(diameters) - 1, np.arange(len(distances))
    while high - low > 1:
        middle = (low + high) // 2
        clique = maximum_clique(distances <= diameters[middle], at_least=majority)
        if clique is not None and clique.members:
            high, members = middle, np.array(clique.members)
        else:
            low = middle
    within = distances[np.ix_(members, members)][np.triu_indices(len(members), 1)]
    return float(np.median(within)) or float(within.max())


def _check(threshold: object, step: object) -> None:
    if threshold != "auto":
        check_positive(threshold=threshold)
    check_positive(step=step)


def _tightest(
    members: tuple[int, ...],
    adjacency: NDArray[np.bool_],
    distances: NDArray[np.float64],
) -> tuple[tuple[int, ...], bool]:
    """Find the maximum clique of smallest diameter, by bisection over the diameters.

    Returns the clique, and whether no search was cut short.
    """
    size = len(members)
    # A vertex of too small degree is in no clique of this size. Mostly that leaves one clique.
    candidates = np.flatnonzero(adjacency.sum(axis=1) >= size - 1)
    if len(candidates) == size:
        return members, True
    adjacency = adjacency[np.ix_(candidates, candidates)]
    distances = distances[np.ix_(candidates, candidates)]
    best = np.searchsorted(candidates, members)
    diameters = np.unique(distances[adjacency])

    def rank(clique: NDArray[np.intp]) -> int:
        """Return the place of a clique's diameter among all distances."""
        return int(np.searchsorted(diameters, distances[np.ix_(clique, clique)].max()))

    proven = True
    low, high = -1, rank(best)
    while high - low > 1:
        middle = (low + high) // 2
        closer = adjacency & (distances <= diameters[middle])
        clique = maximum_clique(closer, at_least=size)
        proven = proven and (clique is None or clique.proven)
        if clique is not None and clique.members:
            best = np.array(clique.members)
            high = rank(best)
        else:
            low = middle
    return tuple(int(i) for i in candidates[best]), proven
