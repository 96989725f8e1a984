"""Exact maximum clique of a graph, for cliques that hold most of its vertices.

A clique of a graph is a set of vertices without an edge in its complement, the *conflict* graph.
When the clique must hold more than half of the vertices, the conflict graph gives far stronger
bounds than the graph: a perfect fractional matching of the conflicts already rules it out. So the
search below looks for a largest conflict-free set, in four steps:

1. The linear relaxation settles most vertices, and often the question [1]_.
2. Local search finds a good set in what is left (the kernel).
3. Each connected component of the kernel is shrunk by rules that keep the optimum [2]_.
4. Branch and bound on what is left, bounded by a greedy clique cover of the conflicts, which is
   Tomita and Seki's greedy colouring of the graph [3]_, and by the relaxation where it can help.

References
----------
.. [1] G. L. Nemhauser and L. E. Trotter, "Vertex packings: structural properties and algorithms",
   Mathematical Programming 8 (1975).
.. [2] F. V. Fomin, F. Grandoni and D. Kratsch, "A measure & conquer approach for the analysis of
   exact algorithms", Journal of the ACM 56 (2009).
.. [3] E. Tomita and T. Seki, "An efficient branch-and-bound algorithm for finding a maximum
   clique", DMTCS (2003).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .conflict_search import Search, bits, mask, relaxation, rows_of

_LOCAL_SEARCH_STEPS = 1000
_BLOCKED_STEPS = 7  # a vertex swapped out stays out for so long, lest the swap be undone


@dataclass(frozen=True)
class Clique:
    """Vertices that are pairwise adjacent, ascending, and whether none larger exists."""

    members: tuple[int, ...]
    proven: bool


def maximum_clique(
    adjacency: NDArray[np.bool_], *, at_least: int = 1, budget: int = 150_000
) -> Clique | None:
    """Find the largest clique, provided that it has ``at_least`` vertices.

    Parameters
    ----------
    adjacency : NDArray[np.bool_]
        Symmetric n × n matrix; its diagonal is ignored.
    at_least : int
        The smallest size of interest. The search is quickest above ``n / 2``.
    budget : int
        Bound on the search's work, in visits to a vertex; 150 000 take in the order of a second.

    Returns
    -------
    Clique or None
        A largest clique; or None, a proof that no clique has ``at_least`` vertices. If the budget
        ran out first, the clique is not ``proven``: a larger one may exist. If it has no members
        then, none of ``at_least`` vertices was found, but one may exist.
    """
    conflicts = _conflicts(adjacency)
    if at_least < 1:
        raise ValueError(f"at_least must be 1 or more, got {at_least}")
    if budget < 0:
        raise ValueError(f"budget must not be negative, got {budget}")
    settled, kernel = relaxation(conflicts)
    need = at_least - int(settled.sum())
    if need > int(kernel.sum()) // 2:
        return None
    conflicts = conflicts[np.ix_(kernel, kernel)]
    search = Search(budget)
    found = search.by_component(rows_of(conflicts), need, _local_search(conflicts))
    if found is None:
        return None if search.proven else Clique((), proven=False)
    members = [*np.flatnonzero(settled), *np.flatnonzero(kernel)[list(bits(found))]]
    return Clique(tuple(sorted(map(int, members))), search.proven)


def _conflicts(adjacency: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Validate the graph and return its complement, without loops."""
    if adjacency.ndim != 2 or adjacency.shape[0] != adjacency.shape[1]:
        raise ValueError(f"adjacency must be a square matrix, got shape {adjacency.shape}")
    if adjacency.dtype != np.bool_:
        raise ValueError(f"adjacency must be boolean, got dtype {adjacency.dtype}")
    one_way = np.argwhere(adjacency & ~adjacency.T)
    if len(one_way):
        row, column = map(int, one_way[0])
        raise ValueError(f"adjacency must be symmetric, got edge {row} → {column} one way only")
    conflicts = ~adjacency
    np.fill_diagonal(conflicts, False)
    return conflicts


def _local_search(conflicts: NDArray[np.bool_]) -> int:
    """Find a large conflict-free set: add or swap in the vertex with fewest clashes, oldest first.

    Ties are broken by the vertex moved longest ago, at the start by the degree.
    """
    n = len(conflicts)
    if n == 0:
        return 0
    members = np.zeros(n, dtype=np.bool_)
    clashes = np.zeros(n, dtype=np.int64)
    moved = conflicts.sum(axis=0)
    best, best_size = members, 0
    horizon = n + _LOCAL_SEARCH_STEPS
    for step in range(n, horizon):
        price = clashes * horizon + moved
        price[(moved > step - _BLOCKED_STEPS) & (clashes > 0)] += n * horizon
        price[members] = 3 * n * horizon
        vertex = int(price.argmin())
        out = conflicts[vertex] & members
        clashes += conflicts[vertex]
        clashes -= conflicts[out].sum(axis=0)
        members = members & ~out
        members[vertex] = True
        moved[out] = moved[vertex] = step
        size = int(members.sum())
        if size > best_size:
            best, best_size = members.copy(), size
    return mask(np.flatnonzero(best).tolist())
