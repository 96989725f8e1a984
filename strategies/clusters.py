"""Clusterings that several defenses use."""

import warnings

import numpy as np
from numpy.typing import NDArray

_MOST_CLUSTERS, _REFERENCES = 7, 10
"""Of the gap statistic."""


def hdbscan(
    distances: NDArray[np.float64],
    *,
    least: int = 2,
    neighbours: int | None = None,
    single: bool = False,
) -> NDArray[np.intp]:
    """Return the number of each point's cluster by HDBSCAN, shape (n,); -1: of none.

    Parameters
    ----------
    distances : array of shape (n, n)
        Symmetric, with n of ``least`` or more.
    least : int
        ``min_cluster_size``, from 2.
    neighbours : int, optional
        ``min_samples`` of Campello et al. 2013 and the hdbscan package, which do not count the
        point itself. None: ``least``, as there.
    single : bool
        Whether all points may be one cluster.
    """
    from sklearn.cluster import HDBSCAN  # slow to import, and not every rule's need

    # scikit-learn counts the point itself among its neighbours.
    samples = min(len(distances), 1 + (least if neighbours is None else neighbours))
    labels: NDArray[np.intp] = HDBSCAN(
        min_cluster_size=least,
        min_samples=samples,
        metric="precomputed",
        allow_single_cluster=single,
        copy=True,
    ).fit_predict(distances)
    return labels


def largest_shift(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell the members of the largest of MeanShift's clusters, shape (n,).

    The bandwidth is scikit-learn's estimate at the quantile 0.5, the mean distance to the nearest
    n/2 points; seeds are the points in bins of that size.

    Parameters
    ----------
    points : array of shape (n, k)
        n of 4 or more.
    """
    from sklearn.cluster import MeanShift, estimate_bandwidth  # as above

    least = 1e-6  # of equal points it is 0, and distances between them are rounding, up to 1e-8
    bandwidth = max(least, estimate_bandwidth(points, quantile=0.5))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where bins are no fewer than points, those are the seeds
        seeded = bandwidth > least  # seeds of bins are in float32
        shift = MeanShift(bandwidth=bandwidth, bin_seeding=seeded, cluster_all=False)
        labels = shift.fit_predict(points)
    within = labels[labels >= 0]
    largest: NDArray[np.bool_] = labels == np.bincount(within).argmax()
    return largest


def kmeans(values: NDArray[np.float64], k: int) -> tuple[NDArray[np.intp], float]:
    """Part numbers into k clusters of least inertia, exactly.

    On a line clusters are intervals, so that the best partition is found by dynamic programming.

    Parameters
    ----------
    values : array of shape (n,)
        Numbers.
    k : int
        Clusters, 1 to n.

    Returns
    -------
    labels : array of shape (n,)
        0 for the smallest values, k - 1 for the largest.
    inertia : float
        The sum of squared distances to the means of the clusters.
    """
    order = np.argsort(values, kind="stable")
    x = values[order] - values.mean()
    n, sums, squares = len(x), np.cumsum([0, *x]), np.cumsum([0, *x**2])
    sizes = np.maximum(1, np.subtract.outer(np.arange(n + 1), np.arange(n + 1)))
    total = np.subtract.outer(sums, sums)
    # Of the values i, ..., j - 1 in row j and column i.
    cost = np.maximum(np.subtract.outer(squares, squares) - total**2 / sizes, 0)
    cost[np.triu_indices(n + 1)] = np.inf
    best, starts = cost[:, 0], []
    for _ in range(k - 1):
        candidates = best + cost
        starts.append(candidates.argmin(axis=1))
        best = candidates.min(axis=1)
    labels, end = np.empty(n, dtype=np.intp), n
    for cluster in range(k - 1, -1, -1):
        start = int(starts[cluster - 1][end]) if cluster else 0
        labels[order[start:end]], end = cluster, start
    return labels, float(best[n])


def number_of_clusters(scores: NDArray[np.float64], rng: np.random.Generator) -> int:
    """Return how many clusters numbers have, by the gap statistic, from 1 (Tibshirani et al. 2001).

    Parameters
    ----------
    scores : array of shape (n,)
        Numbers, n of 2 or more.
    rng : Generator
        Draws the references.
    """
    if np.ptp(scores) <= 1e-9 * np.abs(scores).max():
        return 1
    x, before = (scores - scores.min()) / np.ptp(scores), -np.inf
    references = rng.random((_REFERENCES, len(x)))
    most = min(_MOST_CLUSTERS, len(x) - 1)
    for k in range(1, most + 1):
        logs = np.log([kmeans(reference, k)[1] for reference in references])
        gap = logs.mean() - np.log(max(kmeans(x, k)[1], 1e-300))
        if before >= gap - logs.std() * np.sqrt(1 + 1 / _REFERENCES):
            return k - 1
        before = gap
    return most
