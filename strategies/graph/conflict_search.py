"""Branch and bound for a largest conflict-free set of vertices, and the bounds that it rests on.

Conflicts are held as sets of neighbours, each set the bits of one int: Python's ints make unions,
differences and counts of 1000 vertices one fast operation. What each step is, and the papers they
are from, is told in `clique`.
"""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

_LOW_DEGREE = 8  # above it, a vertex seldom dominates a neighbour, and the test is dear

Rows = dict[int, int]
"""Conflicts in the search: vertex -> set of its neighbours."""

# A vertex and its two neighbours, of which the first now stands for all three.
_Fold = tuple[int, int, int]


class Search:
    """Branch and bound for a largest conflict-free set, within a budget."""

    def __init__(self, budget: int) -> None:
        self._budget = budget

    @property
    def proven(self) -> bool:
        """Whether the budget sufficed."""
        return self._budget >= 0

    def by_component(self, rows: Rows, need: int, known: int = 0) -> int | None:
        """Find a largest set, if it has ``need`` vertices, one connected component at a time.

        ``known`` is a conflict-free set: of each component, no smaller set is sought.
        """
        parts = [_induced(rows, part) for part in sorted(_components(rows), key=int.bit_count)]
        bounds = [_cover(part, len(part))[0] for part in parts]
        chosen = 0
        for index, part in enumerate(parts):
            must = need - chosen.bit_count() - sum(bounds[index + 1 :])
            fallback = known & mask(part)
            found = self._largest(part, max(must, fallback.bit_count() + 1))
            if found is None and fallback.bit_count() < must:
                return None
            chosen |= fallback if found is None else found
        return chosen

    def _largest(self, rows: Rows, need: int) -> int | None:
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
            if _component(rows, next(iter(rows))) != mask(rows):
                found = self.by_component(rows, missing)
                return best if found is None else _unfold(chosen | found, folds)
            # A set of the size needed has a vertex outside the cliques: try one, then go on
            # without it. A try drops its many neighbours too, so the recursion is shallow, and
            # the loop takes the long way.
            vertex = max(bits(uncovered), key=lambda v: rows[v].bit_count())
            rest = mask(rows) & ~(1 << vertex)
            found = self._largest(_induced(rows, rest & ~rows[vertex]), missing - 1)
            if found is not None:
                best = _unfold(chosen | found | 1 << vertex, folds)
                need = best.bit_count() + 1
            rows = _induced(rows, rest)

    def _reduce(self, rows: Rows, folds: list[_Fold]) -> int:
        """Shrink the graph by rules that keep the optimum; return the vertices chosen.

        A vertex without conflicts is chosen. A vertex is dropped if its conflicts include a
        neighbour and all of that neighbour's conflicts: the neighbour is never the worse choice.
        A vertex with two conflicts, not in conflict with one another, is folded with them into one
        vertex: to choose that is to choose both; to choose it not is to choose the first vertex.
        """
        chosen = 0
        pending = mask(rows)
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
            for other in bits(neighbours):
                if neighbours & ~rows[other] == 1 << other:
                    pending |= _drop(rows, other)
                    break
            else:
                if neighbours.bit_count() == 2:
                    folded, other = bits(neighbours)
                    folds.append((vertex, folded, other))
                    _drop(rows, vertex)
                    gained = _drop(rows, other) & ~rows[folded]
                    for neighbour in bits(gained):
                        rows[neighbour] |= 1 << folded
                    rows[folded] |= gained
                    pending |= rows[folded] | 1 << folded
        return chosen


def _unfold(chosen: int, folds: list[_Fold]) -> int:
    """Translate a set of the folded graph into one of the graph before."""
    for vertex, folded, other in reversed(folds):
        chosen |= 1 << (other if chosen >> folded & 1 else vertex)
    return chosen


def _cover(rows: Rows, limit: int) -> tuple[int, int]:
    """Cover vertices greedily by at most ``limit`` cliques of conflicts, low degrees first.

    Returns
    -------
    tuple[int, int]
        The number of cliques, which bounds conflict-free sets of what they cover, and the set of
        vertices not covered.
    """
    uncovered = mask(rows)
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


def _relaxed(rows: Rows) -> tuple[int, Rows]:
    """Apply the relaxation; return the vertices of value 1 and the graph of those of value ½."""
    width = max(rows, default=0) // 8 + 1
    packed = np.frombuffer(b"".join(row.to_bytes(width, "little") for row in rows.values()), "u1")
    vertices = np.fromiter(rows, dtype=np.int64)
    conflicts = np.unpackbits(packed.reshape(-1, width), axis=1, bitorder="little")
    ones, halves = relaxation(conflicts[:, vertices].astype(np.bool_))
    return mask(vertices[ones].tolist()), _induced(rows, mask(vertices[halves].tolist()))


def _components(rows: Rows) -> Iterator[int]:
    """Yield the connected components."""
    left = mask(rows)
    while left:
        component = _component(rows, left.bit_length() - 1)
        yield component
        left ^= component


def _component(rows: Rows, vertex: int) -> int:
    """Return the connected component of a vertex."""
    component = frontier = 1 << vertex
    while frontier:
        reached = 0
        for member in bits(frontier):
            reached |= rows[member]
        frontier = reached & ~component
        component |= frontier
    return component


def _drop(rows: Rows, vertex: int) -> int:
    """Remove a vertex; return its neighbours."""
    neighbours = rows.pop(vertex)
    for neighbour in bits(neighbours):
        rows[neighbour] ^= 1 << vertex
    return neighbours


def _induced(rows: Rows, vertices: int) -> Rows:
    """Return the subgraph of some vertices."""
    return {vertex: rows[vertex] & vertices for vertex in bits(vertices)}


def rows_of(conflicts: NDArray[np.bool_]) -> Rows:
    """Turn a matrix into sets of neighbours."""
    packed = np.packbits(conflicts, axis=1, bitorder="little")
    return {vertex: int.from_bytes(row.tobytes(), "little") for vertex, row in enumerate(packed)}


def mask(vertices: Iterable[int]) -> int:
    """Return the set of some vertices, as bits."""
    members = 0
    for vertex in vertices:
        members |= 1 << vertex
    return members


def bits(members: int) -> Iterator[int]:
    """Yield the vertices of a set, ascending."""
    while members:
        low = members & -members
        yield low.bit_length() - 1
        members ^= low


def relaxation(conflicts: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Solve the linear relaxation, whose solution is half-integral (Nemhauser & Trotter 1975).

    Some largest conflict-free set holds every vertex of value 1, no vertex of value 0, and at
    most half of those of value ½. The relaxation is a minimum vertex cover of the bipartite double
    cover, which follows from a maximum matching (Kőnig).

    Returns
    -------
    tuple[NDArray[np.bool_], NDArray[np.bool_]]
        The vertices of value 1, and those of value ½.
    """
    from scipy.optimize import linear_sum_assignment  # here, since it is slow to import

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
