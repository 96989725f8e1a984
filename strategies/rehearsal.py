"""What a rule would make of models that nobody has sent: for attackers who know the defense."""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from logging import getLogger
from typing import Any, cast

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from .flower import Screened
from .replies import Reply
from .robust import Robust
from .round import Round
from .structures import Values
from .vectors import content_order, decoded
from .watch import Watch

Vector = NDArray[np.float64]
Memory = dict[str, NDArray[Any]]


class Rehearsal:
    """Ask a copy of a strategy, which leaves its memory and its draws alone.

    The copy has the strategy's settings. Its memory, its root data and the seed of its draws are
    those of whoever asks: nobody outside of the server knows the real ones.

    Parameters
    ----------
    strategy : Robust
        Before its first round, with what it needs of the app (``run_model``, ``noise``).
    seed : int (default: 1)
        Of the copy's draws; another than the strategy's, or it is known what cannot be known.

    Attributes
    ----------
    strategy : Robust
        The copy.

    Examples
    --------
    In a ``ServerApp`` whose clients 3 and 5 attack::

        attack = Adaptive(rule=Rehearsal(strategy), data=Backdoor(target=2))
        strategy.start(grid=Colluders(grid, attack, who={3, 5}), ...)
    """

    def __init__(self, strategy: Robust, seed: int = 1) -> None:
        memo: dict[int, Any] = {}  # of the app, and maybe as large as its data
        for layer in _layers(strategy):
            means = (layer.run_model, layer.noise, layer.root_update)
            memo |= {id(given): given for given in means}
            memo |= {id(layer.observers): [], id(layer.watch): Watch()}
        self.strategy = deepcopy(strategy, memo)
        for layer in _layers(self.strategy):
            if "seed" in vars(layer):
                layer.__dict__["seed"] = seed
        self._first = self.strategy.remember()

    def __call__(
        self,
        updates: Vector,
        *,
        number: int,
        asked: int,
        sent: ArrayRecord,
        columns: Mapping[str, slice],
        root: Vector,
        memory: Memory,
    ) -> tuple[Vector | None, Vector | None, Memory]:
        """Aggregate a round as the rule would.

        Parameters
        ----------
        updates : array of shape (n, p)
            What n clients, numbered from 0, would have changed of the parameters.
        number : int
            The round, counted from 1.
        asked : int
            Clients asked in the round, those that do not answer included.
        sent : ArrayRecord
            The model that was sent; statistics and counters come back as they are.
        columns : mapping of str to slice
            Where each parameter lies in an update.
        root : array of shape (p,)
            The update that the server would train on its own data.
        memory : dict of str to array
            What the copy remembers; nothing before its first round.

        Returns
        -------
        update : array of shape (p,) or None
            What the rule changes; None if it keeps the model.
        votes : array of shape (n,) or None
            As of `Outcome`.
        memory : dict of str to array
            What the copy remembers afterwards.
        """
        rule, received, order = self.strategy, decoded(sent), content_order(updates)

        def model(update: Vector) -> Values:
            places = columns.items()
            return received | {n: _moved(received[n], update[place]) for n, place in places}

        metrics = MetricRecord({rule.weighted_by_key: 1})
        message = Message(RecordDict({"arrays": sent, "metrics": metrics}), 0, "train")
        round = Round(
            number=number,
            replies=tuple(Reply(message, "arrays", model(updates[i])) for i in order),
            votes=np.ones(len(order)),
            clients=tuple(order),
            asked=asked,
            sent=sent,
            opaque=rule.reads_messages,
            statistic_names=rule.statistics,
            run_model=rule.run_model,
            root_update=lambda *_: ArrayRecord({n: Array(a) for n, a in model(root).items()}),
            noise=rule.noise,
            rewritten=True,
        )
        with _silence():  # nothing of this happens
            rule.remind(memory or self._first)
            for layer in _layers(rule):
                if isinstance(layer, Screened):
                    _begin(layer.strategy, number, sent, asked)
            outcome = rule.aggregate(round)
            memory = rule.remember()
        votes = None if outcome.votes is None else outcome.votes[np.argsort(order)]
        if outcome.model is None or not np.isfinite(outcome.model).all():
            return None, votes, memory
        update = np.zeros_like(root)
        for name in columns.keys() & set(round.layout.parameter_names):
            place = round.layout.columns(name)
            update[columns[name]] = outcome.model[place] - round.center[place]
        return update, votes, memory


def _layers(strategy: Robust | None) -> Iterator[Robust]:
    """Yield a strategy and those inside it."""
    while strategy is not None:
        yield strategy
        strategy = vars(strategy).get("inner")


def _begin(strategy: Strategy, number: int, sent: ArrayRecord, asked: int) -> None:
    """Let one of Flower's strategies begin a round: some keep the model that they send."""
    least, inner = asked, cast(Any, strategy)
    while isinstance(inner, Strategy):  # it waits until there are as many as it wants
        least = max(least, vars(inner).get("min_available_nodes", 0))
        inner = vars(inner).get("strategy")
    draws = random.getstate()  # by which Flower samples
    try:
        list(strategy.configure_train(number, sent, ConfigRecord(), cast(Grid, _Crowd(least))))
    finally:
        random.setstate(draws)


class _Crowd:
    """As much of a grid as a strategy samples from, and nobody there."""

    def __init__(self, size: int) -> None:
        self.size = size

    def get_node_ids(self) -> list[int]:
        """Return numbers of as many nodes."""
        return list(range(1, self.size + 1))


def _moved(array: NDArray[Any], part: Vector) -> NDArray[Any]:
    """Return an array of a model with its part of an update, as it would be sent."""
    return np.asarray(array + part.reshape(array.shape), array.dtype)


@contextmanager
def _silence() -> Iterator[None]:
    """Keep what rules say out of Flower's log."""
    logger = getLogger("flwr")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before
