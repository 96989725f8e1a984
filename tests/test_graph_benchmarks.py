"""The benchmarks of the graph, at their smallest sizes: what they claim besides time."""

import networkx as nx
import pytest

from benchmarks import clique, distances
from strategies.graph.distances import TOLERANCE


@pytest.mark.slow
def test_every_family_of_the_clique_benchmark_is_solved_and_proven(capsys):
    results = clique.main(["--size", "30"])
    assert len(results) == len(capsys.readouterr().out.splitlines()) - 1 == 86
    for name, adjacency, found in results:
        assert adjacency.shape == (30, 30), name
        largest = nx.max_weight_clique(nx.from_numpy_array(adjacency), weight=None)[1]
        if largest < 16:
            assert found is None, name
        else:
            assert found.proven, name
            assert len(found.members) == largest, name


def test_the_clique_benchmark_takes_a_word(capsys):
    results = clique.main(["--only", "cocktail", "--size", "30"])
    assert [name for name, _, _ in results] == ["cocktail party"]


@pytest.mark.slow
def test_distances_are_as_exact_and_as_small_as_the_benchmark_says(capsys):
    results = distances.main(["-n", "200", "-d", "60000"])
    assert list(results) == ["ordinary updates", "60 sybils"]
    for result in results.values():
        assert result.error < TOLERANCE
        assert 1 < result.matrices < 1.5
    assert "60 sybils: " in capsys.readouterr().out
