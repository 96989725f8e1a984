"""Time the maximum clique on graphs easy and hard.

A majority is sought in each. The times are of one run each, for reading, not for comparing closely.

    python -m benchmarks.clique [--only WORD] [--size 1000]
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from time import perf_counter

import networkx as nx
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import pdist, squareform

from strategies.graph.clique import Clique, maximum_clique

Graph = NDArray[np.bool_]


def blocks(inside: float, across: float, outside: float, cut: int, n: int) -> Graph:
    """Random graph with other densities among the first ``cut`` vertices, and across the cut."""
    density = np.full((n, n), across, dtype=np.float64)
    density[:cut, :cut] = inside
    density[cut:, cut:] = outside
    upper = np.triu(np.random.default_rng(0).random((n, n)) < density, 1)
    return upper | upper.T


def uniform(density: float, n: int) -> Graph:
    return blocks(density, density, density, 0, n)


def complement(conflicts: nx.Graph) -> Graph:
    adjacency: Graph = ~nx.to_numpy_array(conflicts, nodelist=range(len(conflicts)), dtype=np.bool_)
    np.fill_diagonal(adjacency, False)
    return adjacency


def padded(graph: Graph, n: int) -> Graph:
    """Add vertices adjacent to all, up to ``n``."""
    added = n - len(graph)
    adjacency = np.ones((n, n), dtype=np.bool_)
    adjacency[added:, added:] = graph
    np.fill_diagonal(adjacency, False)
    return adjacency


def copies(graph: nx.Graph, count: int, n: int) -> Graph:
    return padded(complement(nx.disjoint_union_all([graph] * count)), n)


def cubic(size: int, n: int) -> Graph:
    return padded(complement(nx.random_regular_graph(3, size, seed=0)), n)


def geometric(dimension: int, share: float, n: int) -> Graph:
    """Join the given share of the pairs of Gaussian points, the closest."""
    distances = pdist(np.random.default_rng(0).standard_normal((n, dimension)))
    near = squareform(distances <= np.quantile(distances, share))
    return np.asarray(near, dtype=np.bool_)


def overlapping(shared: int, n: int) -> Graph:
    """Two cliques that cover the vertices."""
    half = (n - shared) // 2
    return padded(complement(nx.complete_bipartite_graph(half, half)), n)


def sparse(degree: float, size: int, n: int) -> Graph:
    """Random conflicts of an average degree."""
    return padded(uniform(1 - degree / size, size), n)


def families(n: int) -> Iterator[tuple[str, Callable[[], Graph]]]:
    """Yield each family's name and the way to build it; the names hold sizes of 1000."""

    def part(thousandths: int) -> int:
        return thousandths * n // 1000

    for p in (0.1, 0.5, 0.9, 0.99, 0.995, 0.999):
        yield f"random, density {p}", partial(uniform, p, n)
    yield "cocktail party", partial(copies, nx.complete_graph(2), part(500), n)
    yield "Moon-Moser", partial(copies, nx.complete_graph(3), part(333), n)
    for count in (200, 180, 160):
        yield f"{count} co-C5 + universal", partial(copies, nx.cycle_graph(5), part(count), n)
    for size in (1000, 900, 880, 850):
        even = part(size) // 2 * 2
        yield f"co-cubic {size} + universal", partial(cubic, even, n)
    sizes = ((1, 1000), (2, 1000), (3, 1000), (3.4, 1000), (5, 900), (5, 860), (10, 740), (10, 700))
    for degree, size in sizes:
        name = f"co-sparse {size}, degree {degree} + universal"
        yield name, partial(sparse, degree, part(size), n)
    for dimension, shares in (
        (2, (0.5, 0.75, 0.8, 0.95)),
        (20, (0.8, 0.9, 0.94, 0.98)),
        (200, (0.9, 0.95, 0.955, 0.98)),
        (2000, (0.9, 0.96, 0.965, 0.99)),
    ):
        for share in shares:
            name = f"geometric, {dimension}-D, closest {share}"
            yield name, partial(geometric, dimension, share, n)
    for p in (0.5, 0.9, 0.99):
        yield f"planted 501 in density {p}", partial(blocks, 1, p, p, n // 2 + 1, n)
    for shared in (0, 200):
        yield f"two cliques sharing {shared}", partial(overlapping, part(shared), n)
    for p in (0.9, 0.99, 0.999):
        yield f"two halves, cross density {p}", partial(blocks, 1, p, 1, n // 2, n)
    for size, p in ((555, 0.9), (520, 0.9), (513, 0.5)):
        name = f"random {size}, density {p} + universal"
        yield name, partial(padded, uniform(p, part(size)), n)
    for inside, across, rest in product((1, 0.999, 0.99), (0.5, 0.9, 0.99, 1), (0.5, 0.9, 0.99)):
        yield (
            f"honest 667 at {inside}, rest at {rest}, across {across}",
            partial(blocks, inside, across, rest, part(667), n),
        )


def main(arguments: Sequence[str]) -> list[tuple[str, Graph, Clique | None]]:
    """Print a line for each family; return its name, its graph and what was found in it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="families whose names hold this word")
    parser.add_argument("--size", type=int, default=1000, help="vertices")
    options = parser.parse_args(arguments)
    n, results = options.size, []
    print(f"{'family':50}{'clique':>7}{'proven':>8}{'ms':>7}")
    for name, build in families(n):
        if options.only in name:
            adjacency = build()
            start = perf_counter()
            clique = maximum_clique(adjacency, at_least=n // 2 + 1)
            elapsed = perf_counter() - start
            found = len(clique.members) if clique is not None and clique.members else "none"
            proven = "yes" if clique is None or clique.proven else "no"
            print(f"{name:50}{found:>7}{proven:>8}{1000 * elapsed:7.0f}", flush=True)
            results.append((name, adjacency, clique))
    return results


if __name__ == "__main__":
    main(sys.argv[1:])
