"""Exact maximum clique: against brute force, networkx and graphs whose answer is known."""

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.distance import pdist, squareform

from strategies.graph.clique import Clique, maximum_clique

Graph = NDArray[np.bool_]


def random_graph(n: int, density: float, seed: int) -> Graph:
    upper = np.triu(np.random.default_rng(seed).random((n, n)) < density, 1)
    return upper | upper.T


def complete(n: int) -> Graph:
    return ~np.eye(n, dtype=np.bool_)


def complement(graph: nx.Graph) -> Graph:
    conflicts: Graph = nx.to_numpy_array(graph, nodelist=range(len(graph)), dtype=np.bool_)
    return ~conflicts & complete(len(graph))


def copies(graph: nx.Graph, count: int) -> nx.Graph:
    return nx.disjoint_union_all([graph] * count)


def with_universal(graph: Graph, count: int) -> Graph:
    """Add vertices adjacent to all."""
    adjacency = complete(len(graph) + count)
    adjacency[count:, count:] = graph
    return adjacency


def shuffled(adjacency: Graph, seed: int = 0) -> Graph:
    order = np.random.default_rng(seed).permutation(len(adjacency))
    return adjacency[np.ix_(order, order)]


def assert_clique(adjacency: Graph, clique: Clique | None, size: int) -> None:
    assert clique is not None
    members = list(clique.members)
    assert len(members) == size
    assert members == sorted(set(members))
    assert all(type(member) is int for member in members)
    assert (adjacency | np.eye(len(adjacency), dtype=np.bool_))[np.ix_(members, members)].all()


def brute_force(adjacency: Graph) -> int:
    """Grow the list of all cliques, a vertex at a time."""
    cliques: list[tuple[int, ...]] = [()]
    for vertex in range(len(adjacency)):
        cliques += [(*c, vertex) for c in cliques if adjacency[vertex, list(c)].all()]
    return max(map(len, cliques))


@st.composite
def graphs(draw: st.DrawFn, max_vertices: int) -> Graph:
    n = draw(st.integers(1, max_vertices))
    density = draw(st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95]))
    return random_graph(n, density, draw(st.integers(0, 2**32 - 1)))


@given(graphs(12))
@settings(max_examples=60)
def test_equals_brute_force(adjacency: Graph) -> None:
    clique = maximum_clique(adjacency)
    assert clique is not None
    assert clique.proven
    assert_clique(adjacency, clique, brute_force(adjacency))


@given(graphs(30), st.integers(1, 31))
@settings(max_examples=60)
def test_equals_networkx(adjacency: Graph, at_least: int) -> None:
    size = nx.max_weight_clique(nx.from_numpy_array(adjacency), weight=None)[1]
    clique = maximum_clique(adjacency, at_least=at_least)
    if size < at_least:
        assert clique is None
    else:
        assert clique is not None
        assert clique.proven
        assert_clique(adjacency, clique, size)


@given(graphs(40), st.integers(1, 40), st.integers(0, 400))
@settings(max_examples=60)
def test_a_small_budget_never_gives_a_wrong_answer(
    adjacency: Graph, at_least: int, budget: int
) -> None:
    exact = maximum_clique(adjacency)
    assert exact is not None
    size = len(exact.members)
    clique = maximum_clique(adjacency, at_least=at_least, budget=budget)
    if clique is None:
        assert size < at_least
    elif clique.proven:
        assert_clique(adjacency, clique, size)
    elif clique.members:
        assert at_least <= len(clique.members) <= size
        assert_clique(adjacency, clique, len(clique.members))


@given(graphs(50), st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_the_size_does_not_depend_on_the_labels(adjacency: Graph, seed: int) -> None:
    first, second = maximum_clique(adjacency), maximum_clique(shuffled(adjacency, seed))
    assert first is not None
    assert second is not None
    assert len(first.members) == len(second.members)


@given(graphs(50))
@settings(max_examples=25)
def test_deterministic_and_pure(adjacency: Graph) -> None:
    before = adjacency.copy()
    assert maximum_clique(adjacency) == maximum_clique(adjacency)
    assert np.array_equal(adjacency, before)


def test_diagonal_ignored() -> None:
    adjacency = random_graph(20, 0.7, seed=0)
    assert maximum_clique(adjacency | np.eye(20, dtype=np.bool_)) == maximum_clique(adjacency)


def test_small_graphs() -> None:
    assert maximum_clique(np.zeros((0, 0), np.bool_)) is None
    assert maximum_clique(np.zeros((1, 1), np.bool_)) == Clique((0,), proven=True)
    assert maximum_clique(np.zeros((5, 5), np.bool_), at_least=2) is None
    assert maximum_clique(complete(5)) == Clique((0, 1, 2, 3, 4), proven=True)
    assert maximum_clique(complete(5), at_least=6) is None


@pytest.mark.parametrize(
    ("conflicts", "universal", "size"),
    [
        (copies(nx.complete_graph(2), 490), 20, 510),  # 2^490 maximal cliques
        (copies(nx.complete_graph(3), 300), 100, 400),  # Moon & Moser: 3^300
        (copies(nx.cycle_graph(5), 160), 200, 520),
        (copies(nx.petersen_graph(), 100), 0, 400),
        (nx.cycle_graph(999), 1, 500),
        (nx.path_graph(1000), 0, 500),
        (nx.star_graph(999), 0, 999),
        (nx.complete_bipartite_graph(400, 400), 200, 600),  # two cliques, overlapping
        (nx.complete_graph(500), 500, 501),
        (nx.convert_node_labels_to_integers(nx.hexagonal_lattice_graph(20, 22)), 0, 482),
        (nx.circulant_graph(999, [1, 2]), 0, 333),
    ],
    ids=str,
)
def test_structured_conflicts(conflicts: nx.Graph, universal: int, size: int) -> None:
    adjacency = shuffled(with_universal(complement(conflicts), universal))
    clique = maximum_clique(adjacency)
    assert clique is not None
    assert clique.proven
    assert_clique(adjacency, clique, size)
    assert maximum_clique(adjacency, at_least=size + 1) is None
    assert maximum_clique(adjacency, at_least=size) is not None


@pytest.mark.parametrize("density", [0.5, 0.9])
def test_planted_majority(density: float) -> None:
    adjacency = random_graph(1000, density, seed=0)
    planted = tuple(sorted(map(int, np.random.default_rng(1).permutation(1000)[:501])))
    adjacency[np.ix_(planted, planted)] = complete(501)
    assert maximum_clique(adjacency, at_least=501) == Clique(planted, proven=True)


def test_one_short_of_a_majority() -> None:
    adjacency = random_graph(1000, 0.5, seed=0)
    adjacency[:500, :500] = complete(500)
    assert maximum_clique(adjacency, at_least=501) is None


@pytest.mark.parametrize("density", [0.5, 0.9, 0.97])
def test_two_halves_with_random_cross_edges(density: float) -> None:
    adjacency = random_graph(1000, density, seed=0)
    adjacency[:500, :500] = adjacency[500:, 500:] = complete(500)
    # The conflicts are bipartite: by Kőnig, vertices less a maximum matching.
    conflicts = nx.from_numpy_array(~adjacency & complete(1000))
    size = 1000 - len(nx.bipartite.hopcroft_karp_matching(conflicts, range(500))) // 2
    clique = maximum_clique(adjacency, at_least=500)
    assert clique is not None
    assert clique.proven
    assert_clique(adjacency, clique, size)


def test_honest_cluster_among_adversaries() -> None:
    adjacency = random_graph(1000, 0.9, seed=0)
    adjacency[:667, :667] = complete(667)
    clique = maximum_clique(shuffled(adjacency), at_least=501)
    assert clique is not None
    assert clique.proven
    assert len(clique.members) == 667


@pytest.mark.parametrize("density", [0.1, 0.5, 0.9, 0.99, 0.995])
def test_random_graphs_have_no_majority_clique(density: float) -> None:
    assert maximum_clique(random_graph(1000, density, seed=0), at_least=501) is None


@pytest.mark.parametrize(("share", "size"), [(0.945, None), (0.955, 524), (0.98, 642)])
def test_geometric_graph_near_the_threshold(share: float, size: int | None) -> None:
    distances = pdist(np.random.default_rng(2).standard_normal((1000, 200)))
    adjacency = squareform(distances <= np.quantile(distances, share)).astype(np.bool_)
    clique = maximum_clique(adjacency, at_least=501)
    if size is None:
        assert clique is None
    else:
        assert clique is not None
        assert clique.proven
        assert_clique(adjacency, clique, size)
        assert maximum_clique(adjacency, at_least=size + 1) is None


def test_budget_ran_out_with_and_without_a_clique() -> None:
    adjacency = with_universal(random_graph(300, 0.9, seed=0), 200)
    found = maximum_clique(adjacency, at_least=201, budget=1000)
    assert found is not None
    assert not found.proven
    assert_clique(adjacency, found, len(found.members))
    assert len(found.members) >= 240  # of 200 + about 42: the local search has no budget
    assert maximum_clique(adjacency, at_least=300, budget=1000) == Clique((), proven=False)


@pytest.mark.parametrize(
    ("adjacency", "message"),
    [
        (np.zeros((2, 3), np.bool_), r"square.*\(2, 3\)"),
        (np.zeros(4, np.bool_), r"square.*\(4,\)"),
        (np.zeros((2, 2)), "boolean.*float64"),
        (np.array([[False, False], [True, False]]), "symmetric.*edge 1 → 0"),
    ],
)
def test_invalid_adjacency(adjacency: Graph, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        maximum_clique(adjacency)


def test_invalid_numbers() -> None:
    with pytest.raises(ValueError, match=r"at_least.*got 0"):
        maximum_clique(complete(2), at_least=0)
    with pytest.raises(ValueError, match=r"budget.*got -1"):
        maximum_clique(complete(2), budget=-1)
