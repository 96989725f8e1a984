"""Clusterings: against all partitions, scikit-learn, and single linkage written out."""

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from strategies.clusters import hdbscan, kmeans, number_of_clusters

quick = settings(max_examples=60)
numbers = st.lists(st.integers(-20, 20) | st.floats(-5, 5), min_size=1, max_size=8)


def inertia(parts):
    return sum(((part - part.mean()) ** 2).sum() for part in parts)


@quick
@given(values=numbers, data=st.data())
def test_kmeans_is_the_best_of_all_partitions_into_intervals(values, data):
    x = np.array(values, dtype=float)
    k = data.draw(st.integers(1, len(x)))
    labels, found = kmeans(x, k)
    every = combinations(range(1, len(x)), k - 1)
    best = min(inertia(np.split(np.sort(x), list(cuts))) for cuts in every)
    assert found == pytest.approx(best, abs=1e-9)
    parts = [x[labels == j] for j in range(k)]
    assert all(map(len, parts))
    assert inertia(parts) == pytest.approx(best, abs=1e-9)
    assert all(a.max() <= b.min() for a, b in pairwise(parts))


def test_kmeans_is_scikit_learns():
    rng = np.random.default_rng(0)
    for k in (2, 3, 5):
        x = rng.standard_normal(60)
        theirs = KMeans(k, n_init=20, random_state=0).fit(x[:, np.newaxis]).inertia_
        assert kmeans(x, k)[1] == pytest.approx(theirs, rel=1e-6)


def test_the_gap_statistic_sees_one_crowd_and_two():
    rng = np.random.default_rng(0)
    for seed in range(20):
        references = np.random.default_rng(seed)
        assert number_of_clusters(rng.standard_normal(30), references) == 1
        two = np.append(rng.standard_normal(20), 20 + rng.standard_normal(10))
        assert number_of_clusters(two, references) > 1
    assert number_of_clusters(np.full(9, 0.3), rng) == 1


def test_hdbscan_does_not_count_the_point_itself():
    """Two pairs and a chain: with one neighbour a point is as dense as its nearest is near."""
    from sklearn.cluster import HDBSCAN

    x = np.random.default_rng(3).standard_normal((30, 2))
    distances = np.linalg.norm(x[:, np.newaxis] - x, axis=2)
    before = distances.copy()
    found = hdbscan(distances, least=4, neighbours=3)
    theirs = HDBSCAN(min_cluster_size=4, min_samples=4, copy=True).fit_predict(x)
    np.testing.assert_array_equal(found, theirs)
    np.testing.assert_array_equal(distances, before)
