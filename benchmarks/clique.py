"""Time the maximum clique on 1000 vertices, for graphs easy and hard.

Run ``python -m benchmarks.clique [WORD]`` for the families whose names hold the word. A majority
(501) is sought in each. The times are of one run each, for reading, not for comparing closely.
"""

import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from time import perf_counter

import networkx as nx
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import pdist, squareform

from strategies.graph.clique import maximum_clique

N = 1000
MAJORITY = N // 2 + 1

Graph = NDArray[np.bool_]


def blocks(inside: float, across: float, outside: float, cut: int, n: int = N) -> Graph:
    """Random graph with other densities among the first ``cut`` vertices, and across the cut."""
    density = np.full((n, n), across, dtype=np.float64)
    density[:cut, :cut] = inside
    density[cut:, cut:] = outside
    upper = np.triu(np.random.default_rng(0).random((n, n)) < density, 1)
    return upper | upper.T


def uniform(density: float, n: int = N) -> Graph:
    return blocks(density, density, density, 0, n)


def complement(conflicts: nx.Graph) -> Graph:
    adjacency: Graph = ~nx.to_numpy_array(conflicts, nodelist=range(len(conflicts)), dtype=np.bool_)
    np.fill_diagonal(adjacency, False)
    return adjacency


def padded(graph: Graph) -> Graph:
    """Add vertices adjacent to all, up to ``N``."""
    added = N - len(graph)
    adjacency = np.ones((N, N), dtype=np.bool_)
    adjacency[added:, added:] = graph
    np.fill_diagonal(adjacency, False)
    return adjacency


def copies(graph: nx.Graph, count: int) -> Graph:
    return padded(complement(nx.disjoint_union_all([graph] * count)))


def cubic(n: int) -> Graph:
    return padded(complement(nx.random_regular_graph(3, n, seed=0)))


def geometric(dimension: int, share: float) -> Graph:
    """Join the given share of the pairs of Gaussian points, the closest."""
    distances = pdist(np.random.default_rng(0).standard_normal((N, dimension)))
    near = squareform(distances <= np.quantile(distances, share))
    return np.asarray(near, dtype=np.bool_)


def overlapping(shared: int) -> Graph:
    """Two cliques that cover the vertices."""
    return padded(complement(nx.complete_bipartite_graph((N - shared) // 2, (N - shared) // 2)))


def sparse(degree: float, n: int) -> Graph:
    """Random conflicts of an average degree."""
    return padded(uniform(1 - degree / n, n))


def families() -> Iterator[tuple[str, Callable[[], Graph]]]:
    for p in (0.1, 0.5, 0.9, 0.99, 0.995, 0.999):
        yield f"random, density {p}", partial(uniform, p)
    yield "cocktail party", partial(copies, nx.complete_graph(2), 500)
    yield "Moon-Moser", partial(copies, nx.complete_graph(3), 333)
    for count in (200, 180, 160):
        yield f"{count} co-C5 + universal", partial(copies, nx.cycle_graph(5), count)
    for n in (1000, 900, 880, 850):
        yield f"co-cubic {n} + universal", partial(cubic, n)
    for degree, n in ((1, N), (2, N), (3, N), (3.4, N), (5, 900), (5, 860), (10, 740), (10, 700)):
        yield f"co-sparse {n}, degree {degree} + universal", partial(sparse, degree, n)
    for dimension, shares in (
        (2, (0.5, 0.75, 0.8, 0.95)),
        (20, (0.8, 0.9, 0.94, 0.98)),
        (200, (0.9, 0.95, 0.955, 0.98)),
        (2000, (0.9, 0.96, 0.965, 0.99)),
    ):
        for share in shares:
            yield f"geometric, {dimension}-D, closest {share}", partial(geometric, dimension, share)
    for p in (0.5, 0.9, 0.99):
        yield f"planted 501 in density {p}", partial(blocks, 1, p, p, MAJORITY)
    for shared in (0, 200):
        yield f"two cliques sharing {shared}", partial(overlapping, shared)
    for p in (0.9, 0.99, 0.999):
        yield f"two halves, cross density {p}", partial(blocks, 1, p, 1, N // 2)
    for n, p in ((555, 0.9), (520, 0.9), (513, 0.5)):
        yield f"random {n}, density {p} + universal", partial(padded, uniform(p, n))
    for inside, across, rest in product((1, 0.999, 0.99), (0.5, 0.9, 0.99, 1), (0.5, 0.9, 0.99)):
        yield (
            f"honest 667 at {inside}, rest at {rest}, across {across}",
            partial(blocks, inside, across, rest, 667),
        )


def main(word: str = "") -> None:
    print(f"{'family':50}{'clique':>7}{'proven':>8}{'ms':>7}")
    for name, build in families():
        if word in name:
            adjacency = build()
            start = perf_counter()
            clique = maximum_clique(adjacency, at_least=MAJORITY)
            elapsed = perf_counter() - start
            size = len(clique.members) if clique is not None and clique.members else "none"
            proven = "yes" if clique is None or clique.proven else "no"
            print(f"{name:50}{size:>7}{proven:>8}{1000 * elapsed:7.0f}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
