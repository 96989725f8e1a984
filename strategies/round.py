"""What a defense is a function of, and what it gives back."""

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from logging import WARNING
from typing import Any, Self

import numpy as np
from flwr.app import ArrayRecord
from flwr.supercore import log
from numpy.typing import ArrayLike, NDArray

from .graph.distances import PairwiseDistances
from .replies import Reply
from .updates import Updates
from .vectors import (
    Layout,
    content_order,
    decode,
    decoded,
    has_finite_norm,
    is_floating,
    to_array,
    weighted_sum,
)


@dataclass(eq=False, kw_only=True)
class Round:
    """One round's valid replies, read once.

    Attributes
    ----------
    number : int
        The round, counted from 1.
    replies : tuple of Reply
        What the n rows are read from; a wrapper may have changed the rows since (``rewritten``).
    votes : array of shape (n,)
        What each client may vote: 1, or its number of examples in a weighted average.
    clients : tuple of int
        The number of each row's client, which stays the same over rounds.
    asked : int
        Clients asked in the round, those that failed included.
    sent : ArrayRecord
        The model that was sent.
    layout : Layout
        Which columns are which arrays.
    models : array of shape (n, p)
        The clients' parameters as they came, in the model's dtype. BatchNorm's statistics and
        counters are not among them: whatever a rule does, they are averaged with its votes.
    center : array of shape (p,)
        The parameters that were sent; 0 where none were.
    statistics : array of shape (n, s)
        The clients' BatchNorm statistics.
    sent_statistics : array of shape (s,)
        Those that were sent; 0 where none were.
    """

    number: int
    replies: tuple[Reply, ...]
    votes: NDArray[np.float64]
    clients: tuple[int, ...]
    asked: int
    sent: ArrayRecord
    opaque: bool = False
    statistic_names: tuple[str, ...] = ()
    run_model: Callable[[ArrayRecord, Any], ArrayLike] | None = None
    root_update: Callable[[int, ArrayRecord], ArrayRecord] | None = None
    noise: Callable[[int, np.random.Generator], Any] | None = None
    rewritten: bool = False
    models: NDArray[np.floating] = field(init=False)
    center: NDArray[np.floating] = field(init=False)
    statistics: NDArray[np.floating] = field(init=False)
    sent_statistics: NDArray[np.floating] = field(init=False)
    layout: Layout = field(init=False)

    def __post_init__(self) -> None:
        """Lay the models into one matrix, each array once."""
        first = self.replies[0].values
        like = {name: self.sent.get(name, values) for name, values in first.items()}
        if self.opaque and not any(map(is_floating, like.values())):
            like = {}  # a model of bytes, of which each client's may have another size
        self.layout = layout = Layout(like, self.statistic_names)
        matrix = np.empty((len(self.replies), layout.size), layout.dtype)
        for row, reply in zip(matrix, self.replies, strict=True):
            layout.fill(row, reply.values)
        self.models, self.statistics = matrix[:, layout.parameters], matrix[:, layout.statistics]
        center = np.zeros(layout.size, layout.dtype)
        layout.fill(center, decoded(self.sent))
        self.center = center[layout.parameters]
        self.sent_statistics = center[layout.statistics]

    def __len__(self) -> int:
        return len(self.models)

    @cached_property
    def updates(self) -> Updates:
        """What the clients changed, (n, p) in float64, made as it is asked for."""
        return Updates(self.models, self.center)

    @cached_property
    def distances(self) -> PairwiseDistances:
        """Distances between the models, measured once for the rule and the measures."""
        return PairwiseDistances(self.models)

    @cached_property
    def order(self) -> list[int]:
        """The rows by their content: sums in this order do not depend on who answered first."""
        return content_order(self.models) if self.rewritten else list(range(len(self)))

    def rng(self, seed: int | None, *draw: int) -> np.random.Generator:
        """Return a generator that a seed, the round and the draw decide; chance, without a seed."""
        return np.random.default_rng(None if seed is None else [seed, self.number, *draw])

    def mean(self, votes: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """Return the mean model of shape (p,) by votes of shape (n,), in float64 (Eq. 1).

        Without ``votes`` by those that the clients have.
        """
        shares = self.shares(self.votes if votes is None else votes)
        return weighted_sum(self.models, shares, self.order)

    def moved(self, steps: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return ``center + sum_i steps_i update_i``, shape (p,), by steps of shape (n,).

        Where the updates are to be averaged as they are, `mean` is exact to more bits.
        """
        moved = weighted_sum(self.models, steps, self.order)
        moved -= steps.sum() * self.center
        moved += self.center
        return moved

    def shares(self, votes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return votes of shape (n,) as parts of 1."""
        chosen = [i for i in self.order if votes[i]]
        shares = np.zeros_like(votes)
        shares[chosen] = votes[chosen] / votes[chosen].sum()
        return shares

    def with_models(
        self, models: NDArray[np.floating], rows: NDArray[np.intp] | None = None
    ) -> Self:
        """Return the round as if the clients had sent other models.

        Parameters
        ----------
        models : array of shape (m, p)
            They may be the round's own array, overwritten.
        rows : array of shape (m,), optional
            The row that each of them stands for, where they are not one for each row.
        """
        other = copy(self)  # what was made of the models before is not that of these
        for name in ("distances", "order", "updates"):
            other.__dict__.pop(name, None)
        other.models, other.rewritten = models, True
        if rows is not None:
            other.votes, other.statistics = self.votes[rows], self.statistics[rows]
            other.clients = tuple(self.clients[row] for row in rows)
            other.replies = tuple(self.replies[row] for row in rows)
        return other

    def release(self) -> None:
        """Let go of the models, by far the largest part; distances that are measured stay."""
        self.__dict__.pop("updates", None)
        if "distances" in self.__dict__:
            self.distances.release()
        del self.models, self.statistics

    def predict(
        self,
        model: NDArray[np.floating],
        inputs: Any,
        statistics: NDArray[np.floating] | None = None,
    ) -> NDArray[np.float64]:
        """Return a model's outputs, if the app gave a way to run it.

        Parameters
        ----------
        model : array of shape (p,)
            Parameters.
        inputs : array
            What the app's model takes.
        statistics : array of shape (s,), optional
            BatchNorm's; without it those that were sent.
        """
        assert self.run_model is not None  # a rule that `needs` it is refused before
        row = np.zeros(self.layout.size)
        self.layout.fill(row, decoded(self.sent))
        if statistics is None:
            statistics = row[self.layout.statistics]
        arrays = ArrayRecord({**self.sent, **dict(self.layout.arrays(model, statistics))})
        return np.asarray(self.run_model(arrays, inputs), dtype=np.float64)

    def root(self) -> NDArray[np.float64]:
        """Return the update of shape (p,) that the server trained on its own root data.

        Raises
        ------
        ValueError
            If it returned a model of other shapes.
        """
        assert self.root_update is not None  # a rule that `needs` it is refused before
        trained = decoded(self.root_update(self.number, self.sent))
        if not all(trained[n].shape == s for n, s in self.layout.shapes.items() if n in trained):
            raise ValueError("root_update returned a model of other shapes than was sent")
        row = np.zeros(self.layout.size)
        self.layout.fill(row, decoded(self.sent))  # what it does not return is as it was
        self.layout.fill(row, trained)
        return row[self.layout.parameters] - self.center


@dataclass
class Outcome:
    """What a rule makes of a round.

    Attributes
    ----------
    model : array of shape (p,) or None
        The new parameters, which a strategy around may overwrite; None keeps the global model.
    votes : array of shape (n,) or None
        The vote that each row got, of any scale; 0: dropped. None: the rule neither selects nor
        weights, so that statistics are averaged by the votes that clients have.
    notes : dict
        What else is worth a column: a number; an array of shape (n,) of numbers, one a row; or of
        bool, a set of clients.
    rest : ArrayRecord or None
        Statistics and counters, where a strategy of Flower's has made them itself.
    """

    model: NDArray[np.float64] | None
    votes: NDArray[np.float64] | None = None
    notes: dict[str, Any] = field(default_factory=dict)
    rest: ArrayRecord | None = None

    def average_rest(self, round: Round) -> None:
        """Leave statistics and counters to the average by the votes."""
        known = {*round.layout.shapes, *round.layout.counters}
        rest = (self.rest or {}).items()
        self.rest = ArrayRecord({name: array for name, array in rest if name not in known})

    @classmethod
    def refuse(
        cls,
        rule: object,
        reason: str,
        votes: NDArray[np.float64] | None = None,
        notes: Mapping[str, Any] | None = None,
    ) -> "Outcome":
        """Keep the global model, because the rule cannot act on this round; the log says why."""
        log(WARNING, "%s: %s", type(rule).__name__, reason)
        return cls(None, votes, {**(notes or {}), "cannot-act": 1})


def whole_model(outcome: Outcome, round: Round, votes: NDArray[np.float64]) -> ArrayRecord | None:
    """Return the new model with statistics and counters; None if it is not finite.

    Parameters
    ----------
    outcome : Outcome
        With a model.
    round : Round
        What it was made of, as it came; its matrix is let go of.
    votes : array of shape (n,)
        By which statistics and counters are averaged; integers are rounded.
    """
    assert outcome.model is not None
    layout, shares = round.layout, round.shares(votes)
    statistics = weighted_sum(round.statistics, shares, round.order)
    kept = np.flatnonzero(shares)
    counted = {name: [round.replies[i].values[name] for i in kept] for name in layout.counters}
    round.release()
    new = dict(layout.arrays(outcome.model, statistics))
    for name, counts in counted.items():
        new[name] = to_array(np.tensordot(shares[kept], counts, axes=1), counts[0].dtype)
    new |= outcome.rest or {}
    if not all(has_finite_norm(decode(a)) for a in new.values() if is_floating(a)):
        return None
    # Clients may send a part of the model: the rest stays.
    return ArrayRecord(
        {name: new.get(name, round.sent.get(name)) for name in {**round.sent, **new}}
    )
