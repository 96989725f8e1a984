"""DeepSight: Mitigating Backdoor Attacks in FL Through Deep Model Inspection [Rieger et al., 2022].

Cluster by what models have learned, reject clusters whose training data were homogeneous, clip the
rest.

Paper: https://arxiv.org/abs/2201.00763
"""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from ..checks import check_count, check_installed, check_seed, check_share
from ..clipping import clip_factors
from ..clusters import hdbscan
from ..robust import Robust
from ..round import Outcome, Round
from ..updates import cosines

_SEEDS = 3
_BATCH = 2000
_LEAST = 1e-12
"""A prediction of the global model by which others are divided, at least."""

Matrix = NDArray[np.float64]


def normalized_energies(weights: Matrix, biases: Matrix) -> Matrix:
    """Return the NEUPs, shape (n, P): ``C_i = E_i^2 / sum_j E_j^2``.

    ``E_i = |db_i| + sum_h |dw_ih|`` is the update energy of output neuron i.

    Parameters
    ----------
    weights, biases : array of shape (n, P, h) and (n, P)
        What the clients changed in the output layer.
    """
    squares = (np.abs(weights).sum(axis=2) + np.abs(biases)) ** 2
    total = squares.sum(axis=1, keepdims=True)
    neups: Matrix = np.divide(squares, total, out=np.zeros_like(squares), where=total > 0)
    return neups


def suspicious(neups: Matrix) -> NDArray[np.bool_]:
    """Tell models of homogeneous data, shape (n,): half the median of exceedings or less.

    The threshold exceedings of a model count its NEUPs above ``max(0.01, 1/P)`` times the largest.
    """
    threshold = max(0.01, 1 / neups.shape[1]) * neups.max(axis=1, keepdims=True)
    exceedings = (neups > threshold).sum(axis=1)
    few: NDArray[np.bool_] = exceedings <= np.median(exceedings) / 2
    return few


def apart(distances: Matrix) -> Matrix:
    """Cluster, and return 0 for each two of one cluster and 1 for others, shape (n, n)."""
    labels = hdbscan(distances)
    together = (labels[:, np.newaxis] == labels) & (labels >= 0)
    np.fill_diagonal(together, True)
    return np.where(together, 0.0, 1.0)


def between(points: Matrix) -> Matrix:
    """Return the Euclidean distances of points of shape (n, P)."""
    distances: Matrix = np.linalg.norm(points[:, np.newaxis] - points, axis=2)
    return distances


def rejected(distances: Matrix, labels: NDArray[np.bool_], tau: float) -> NDArray[np.bool_]:
    """Tell who is of a cluster of which a part of tau or more is suspicious, shape (n,)."""
    clusters = hdbscan(distances)
    outliers = clusters < 0  # a cluster each
    clusters[outliers] = len(clusters) + np.flatnonzero(outliers)
    _, inverse = np.unique(clusters, return_inverse=True)
    parts = np.bincount(inverse, weights=labels) / np.bincount(inverse)
    return (parts >= tau)[inverse]


def _probabilities(logits: Matrix) -> Matrix:
    """Return the softmax; 0 where immense weights made logits that are no numbers."""
    with np.errstate(invalid="ignore"):
        probabilities: Matrix = np.nan_to_num(softmax(logits, axis=1))
    return probabilities


class DeepSight(Robust):
    """Reject clusters of models whose data seem homogeneous, clip the rest to the median norm.

    Three clusterings, by the cosines of the output biases' updates, by NEUPs, and by the division
    differences of what models predict for noise (the mean over three draws), are averaged as
    distances, and clustered once more.

    Parameters
    ----------
    num_inputs : int (default: 20000)
        N, noise inputs for each of the three division differences.
    tau : float (default: 1/3)
        A cluster is rejected if this part of it or more is suspicious.
    seed : int, optional
        Makes the noise repeatable, for experiments.
    **arguments
        As for `strategies.Robust`.

    Raises
    ------
    ValueError
        If a number is out of range; in the first round, if the app cannot run models or draw
        inputs.

    Notes
    -----
    *Threat model*: fewer than half of the clients plant backdoors, all or some of them with data
    less diverse than honest ones. *Assumes* that, and an output layer that is dense; knows neither
    the number of attackers nor data. *Guarantee*: none. *Cost*: O(n d), 3 N predictions of each
    model and of the global one, six HDBSCANs on n points, by scikit-learn.

    Where the last layer is no matrix of P rows, P the width of what the model returns, or in a
    round of one or two models, the rule cannot act; nor where every cluster is rejected. Where the
    paper is silent: clusters have two members or more, and whoever is in none is like nobody;
    what the global model predicts is at least 1e-12; noise is the app's, uniform in the range of
    its inputs. Public code differs: BackFed keeps the clusters with many suspicious models and
    rejects the others; 3DFed's baseline reads one model for all cosines, and takes half the median
    for honest; both count a NEUP equal to the threshold.

    *Known weaknesses*: honest clients of few classes (non-IID) look homogeneous; attackers with
    diverse data and a mild trigger do not.
    """

    least_clients: ClassVar[int] = 3
    needs: ClassVar[frozenset[str]] = frozenset({"parameters", "run_model", "noise"})

    def __init__(
        self,
        num_inputs: int = 20000,
        tau: float = 1 / 3,
        *,
        seed: int | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        check_installed("DeepSight", "sklearn", "scikit-learn")
        check_count(1, num_inputs=num_inputs)
        check_share(tau=tau)
        check_seed(seed)
        self.num_inputs, self.tau, self.seed = num_inputs, tau, seed

    def aggregate(self, round: Round) -> Outcome:
        """Filter by clusters, then clip and average."""
        n, norms = len(round), round.updates.norms
        if n < self.least_clients:
            return Outcome.refuse(self, f"{n} valid models; a cluster among others needs 3")
        neurons = round.layout.neurons(round.updates[:, round.layout.last_layer])
        if neurons is None:
            return Outcome.refuse(self, "the last layer is not dense")
        neups, biases = normalized_energies(*neurons), neurons[1]
        differences = [self.division_differences(round, draw) for draw in range(_SEEDS)]
        if any(ddifs.shape != neups.shape for ddifs in differences):
            return Outcome.refuse(self, "the last layer is not that of the model's outputs")
        angles = 1 - cosines(biases @ biases.T)
        np.fill_diagonal(angles, 0)
        noises = np.mean([apart(between(ddifs)) for ddifs in differences], axis=0)
        ensemble = np.mean([apart(angles), apart(between(neups)), noises], axis=0)
        labels = suspicious(neups)
        votes = np.where(rejected(ensemble, labels, self.tau), 0, round.votes)
        notes = {"suspicious": labels}
        if not votes.any():
            return Outcome.refuse(self, "every cluster is suspicious", votes, notes)
        steps = round.shares(votes) * clip_factors(norms, float(np.median(norms)))
        return Outcome(round.moved(steps), votes, notes)

    def division_differences(self, round: Round, draw: int) -> Matrix:
        """Return the DDifs, shape (n, P): mean of ``f(s_m; W_k)_i / f(s_m; G)_i``."""
        assert round.noise is not None  # as it `needs` it
        rng, parts = round.rng(self.seed, draw), []
        for start in range(0, self.num_inputs, _BATCH):
            inputs = round.noise(min(_BATCH, self.num_inputs - start), rng)
            known = np.maximum(_probabilities(round.predict(round.center, inputs)), _LEAST)
            outputs = (_probabilities(round.predict(model, inputs)) for model in round.models)
            parts.append([(output / known).sum(axis=0) for output in outputs])
        differences: Matrix = np.sum(parts, axis=0) / self.num_inputs
        return differences
