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

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

_LOCAL_SEARCH_STEPS = 1000
_BLOCKED_STEPS = 7  # a vertex swapped out stays out for so long, lest the swap be undone
_LOW_DEGREE = 8  # above it, a vertex seldom dominates a neighbour, and the test is dear

# Conflicts in the search: vertex -> set of its neighbours, each set the bits of one int. Python's
# ints make unions, differences and counts of 1000 vertices one fast operation.
_Rows = dict[int, int]
# A vertex and its two neighbours, of which the first now stands for all three.
_Fold = tuple[int, int, int]


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
    settled, kernel = _relaxation(conflicts)
    need = at_least - int(settled.sum())
    if need > int(kernel.sum()) // 2:
        return None
    conflicts = conflicts[np.ix_(kernel, kernel)]
    search = _Search(budget)
    found = search.by_component(_rows(conflicts), need, _local_search(conflicts))
    if found is None:
        return None if search.proven else Clique((), proven=False)
    members = [*np.flatnonzero(settled), *np.flatnonzero(kernel)[list(_bits(found))]]
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


def _relaxation(conflicts: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Solve the linear relaxation, whose solution is half-integral (Nemhauser & Trotter 1975).

    Some largest conflict-free set holds every vertex of value 1, no vertex of value 0, and at
    most half of those of value ½. The relaxation is a minimum vertex cover of the bipartite double
    cover, which follows from a maximum matching (Kőnig).

    Returns
    -------
    tuple[NDArray[np.bool_], NDArray[np.bool_]]
        The vertices of value 1, and those of value ½.
    """
    # Not scipy's maximum_bipartite_matching: its time can be exponential (scipy issue 26147).
    row_of = linear_sum_assignment(conflicts, maximize=True)[1]
    matched = row_of[conflicts[row_of, np.arange(len(row_of))]]
    left = np.ones(len(conflicts), dtype=np.bool_)  # reached by alternating paths from unmatched
    left[matched] = False
    right = np.zeros_like(left)
    new = left
    while new.any():
        reached = conflicts[new].any(axis=0) & ~right
        right |= reached
        new = np.zeros_like(left)
        new[row_of[reached]] = True
        new &= ~left
        left = left | new
    return left & ~right, left == right


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
    return _mask(np.flatnonzero(best).tolist())


class _Search:
    """Branch and bound for a largest conflict-free set, within a budget."""

    def __init__(self, budget: int) -> None:
        self._budget = budget

    @property
    def proven(self) -> bool:
        """Whether the budget sufficed."""
        return self._budget >= 0

    def by_component(self, rows: _Rows, need: int, known: int = 0) -> int | None:
        """Find a largest set, if it has ``need`` vertices, one connected component at a time.

        ``known`` is a conflict-free set: of each component, no smaller set is sought.
        """
        parts = [_induced(rows, part) for part in sorted(_components(rows), key=int.bit_count)]
        bounds = [_cover(part, len(part))[0] for part in parts]
        chosen = 0
        for index, part in enumerate(parts):
            must = need - chosen.bit_count() - sum(bounds[index + 1 :])
            fallback = known & _mask(part)
            found = self._largest(part, max(must, fallback.bit_count() + 1))
            if found is None and fallback.bit_count() < must:
                return None
            chosen |= fallback if found is None else found
        return chosen

    def _largest(self, rows: _Rows, need: int) -> int | None:
        """Find a largest set, if it has ``need`` vertices; changes ``rows``.

        When the budget runs out, it's the largest set found so far.
        """
        best = None
        chosen, folds = 0, list[_Fold]()
        while True:
            chosen |= self._reduce(rows, folds)
            missing = need - chosen.bit_count() - len(folds)
            if missing > len(rows) // 2:  # else the relaxation can't help: all ½ solves it
                self._budget -= len(rows) ** 2 // 100
                settled, rows = _relaxed(rows)
                chosen |= settled
                missing -= settled.bit_count()
                if missing > len(rows) // 2:
                    return best
            if not rows:
                return _unfold(chosen, folds)
            self._budget -= len(rows)
            _, uncovered = _cover(rows, max(missing - 1, 0))
            if not uncovered or not self.proven:
                return best
            if _component(rows, next(iter(rows))) != _mask(rows):
                found = self.by_component(rows, missing)
                return best if found is None else _unfold(chosen | found, folds)
            # A set of the size needed has a vertex outside the cliques: try one, then go on
            # without it. A try drops its many neighbours too, so the recursion is shallow, and
            # the loop takes the long way.
            vertex = max(_bits(uncovered), key=lambda v: rows[v].bit_count())
            rest = _mask(rows) & ~(1 << vertex)
            found = self._largest(_induced(rows, rest & ~rows[vertex]), missing - 1)
            if found is not None:
                best = _unfold(chosen | found | 1 << vertex, folds)
                need = best.bit_count() + 1
            rows = _induced(rows, rest)

    def _reduce(self, rows: _Rows, folds: list[_Fold]) -> int:
        """Shrink the graph by rules that keep the optimum; return the vertices chosen.

        A vertex without conflicts is chosen. A vertex is dropped if its conflicts include a
        neighbour and all of that neighbour's conflicts: the neighbour is never the worse choice.
        A vertex with two conflicts, not in conflict with one another, is folded with them into one
        vertex: to choose that is to choose both; to choose it not is to choose the first vertex.
        """
        chosen = 0
        pending = _mask(rows)
        while pending:
            vertex = pending.bit_length() - 1
            pending ^= 1 << vertex
            self._budget -= 1
            neighbours = rows.get(vertex)
            if neighbours is None or neighbours.bit_count() > _LOW_DEGREE:
                continue
            if not neighbours:
                chosen |= 1 << vertex
                del rows[vertex]
                continue
            for other in _bits(neighbours):
                if neighbours & ~rows[other] == 1 << other:
                    pending |= _drop(rows, other)
                    break
            else:
                if neighbours.bit_count() == 2:
                    folded, other = _bits(neighbours)
                    folds.append((vertex, folded, other))
                    _drop(rows, vertex)
                    gained = _drop(rows, other) & ~rows[folded]
                    for neighbour in _bits(gained):
                        rows[neighbour] |= 1 << folded
                    rows[folded] |= gained
                    pending |= rows[folded] | 1 << folded
        return chosen


def _unfold(chosen: int, folds: list[_Fold]) -> int:
    """Translate a set of the folded graph into one of the graph before."""
    for vertex, folded, other in reversed(folds):
        chosen |= 1 << (other if chosen >> folded & 1 else vertex)
    return chosen


def _cover(rows: _Rows, limit: int) -> tuple[int, int]:
    """Cover vertices greedily by at most ``limit`` cliques of conflicts, low degrees first.

    Returns
    -------
    tuple[int, int]
        The number of cliques, which bounds conflict-free sets of what they cover, and the set of
        vertices not covered.
    """
    uncovered = _mask(rows)
    used = 0
    for vertex in sorted(rows, key=lambda v: rows[v].bit_count()):
        if used == limit:
            break
        if not uncovered >> vertex & 1:
            continue
        used += 1
        uncovered ^= 1 << vertex
        candidates = rows[vertex] & uncovered
        while candidates:
            low = candidates & -candidates
            uncovered ^= low
            candidates &= rows[low.bit_length() - 1]
    return used, uncovered


def _relaxed(rows: _Rows) -> tuple[int, _Rows]:
    """Apply the relaxation; return the vertices of value 1 and the graph of those of value ½."""
    width = max(rows, default=0) // 8 + 1
    packed = np.frombuffer(b"".join(row.to_bytes(width, "little") for row in rows.values()), "u1")
    vertices = np.fromiter(rows, dtype=np.int64)
    conflicts = np.unpackbits(packed.reshape(-1, width), axis=1, bitorder="little")
    ones, halves = _relaxation(conflicts[:, vertices].astype(np.bool_))
    return _mask(vertices[ones].tolist()), _induced(rows, _mask(vertices[halves].tolist()))


def _components(rows: _Rows) -> Iterator[int]:
    """Yield the connected components."""
    left = _mask(rows)
    while left:
        component = _component(rows, left.bit_length() - 1)
        yield component
        left ^= component


def _component(rows: _Rows, vertex: int) -> int:
    """Return the connected component of a vertex."""
    component = frontier = 1 << vertex
    while frontier:
        reached = 0
        for member in _bits(frontier):
            reached |= rows[member]
        frontier = reached & ~component
        component |= frontier
    return component


def _drop(rows: _Rows, vertex: int) -> int:
    """Remove a vertex; return its neighbours."""
    neighbours = rows.pop(vertex)
    for neighbour in _bits(neighbours):
        rows[neighbour] ^= 1 << vertex
    return neighbours


def _induced(rows: _Rows, vertices: int) -> _Rows:
    """Return the subgraph of some vertices."""
    return {vertex: rows[vertex] & vertices for vertex in _bits(vertices)}


def _rows(conflicts: NDArray[np.bool_]) -> _Rows:
    """Turn a matrix into sets of neighbours."""
    packed = np.packbits(conflicts, axis=1, bitorder="little")
    return {vertex: int.from_bytes(row.tobytes(), "little") for vertex, row in enumerate(packed)}


def _mask(vertices: Iterable[int]) -> int:
    """Return the set of some vertices, as bits."""
    mask = 0
    for vertex in vertices:
        mask |= 1 << vertex
    return mask


def _bits(mask: int) -> Iterator[int]:
    """Yield the vertices of a set, ascending."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low
