"""A defense around another strategy."""

from collections.abc import Iterable
from logging import INFO
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from flwr.supercore import log
from numpy.typing import NDArray

from .flower import Screened
from .robust import Robust
from .watch import OnRound


class Wrapper(Robust):
    """Change a round before another strategy aggregates it, or its outcome after.

    ``aggregate`` calls ``self.inner.aggregate(round.with_models(...))``, or changes its outcome.

    Parameters
    ----------
    strategy : flwr.serverapp.strategy.Strategy
        The strategy inside: ours, or any of Flower's, which gets the same care as in `Screened`.
    weighted : bool (default: False)
        Weight by the reported number of examples, if the strategy inside does so as well.
    statistics : sequence of str
        As for `Robust`, beside those of the strategy inside.
    on_round : callable or sequence of callable
        As for `Robust`, beside those of the strategy inside.
    """

    inner: Robust

    def __init__(
        self,
        strategy: Strategy,
        *,
        weighted: bool = False,
        statistics: Iterable[str] = (),
        on_round: OnRound | Iterable[OnRound] = (),
    ) -> None:
        inner = strategy if isinstance(strategy, Robust) else Screened(strategy, weighted=weighted)
        super().__init__(
            weighted=weighted, statistics=statistics, on_round=on_round, flower=inner.flower
        )
        self.watch.take_over(inner.watch)
        self.strategy = strategy
        self.inner = inner
        inner.wrapped = True
        self.statistics = (*self.statistics, *inner.statistics)
        self.weighted = weighted and inner.weighted
        for name in ("run_model", "noise", "root_update"):
            setattr(self, name, getattr(inner, name))

    def summary(self) -> None:
        """Log the settings of the wrapper, then of the wrapped strategy."""
        names, settings = (type(self).__name__, type(self.strategy).__name__), self._settings()
        log(INFO, "\t├──> %s around %s%s", *names, settings and f": {settings}")
        self.inner.summary()

    def check(self, num_clients: int) -> None:
        """Check the settings of the strategy inside."""
        self.inner.check(num_clients)

    def remember(self) -> dict[str, NDArray[Any]]:
        """Return what the wrapper and the strategy inside remember."""
        inside = {f"inner/{key}": value for key, value in self.inner.remember().items()}
        return super().remember() | inside

    def remind(self, memory: dict[str, NDArray[Any]]) -> None:
        """Take up what `remember` returned."""
        inside = {key: value for key, value in memory.items() if key.startswith("inner/")}
        super().remind({key: value for key, value in memory.items() if key not in inside})
        self.inner.remind({key.removeprefix("inner/"): v for key, v in inside.items()})

    def start_owner(self) -> Strategy | None:
        """Return the strategy inside that has a `start` of its own, if one has."""
        own = type(self.inner).start is not Robust.start
        return self.inner if own else self.inner.start_owner()

    @property
    def reads_messages(self) -> bool:
        """Whether the innermost strategy gets the messages."""
        return self.inner.reads_messages

    def all_needs(self) -> frozenset[str]:
        """Return what the wrapper and the strategy inside cannot do without."""
        return self.needs | self.inner.all_needs()

    def client_metrics(self, replies: list[Message]) -> dict[str, Any]:
        """Average what clients report as the strategy inside does."""
        return self.inner.client_metrics(replies)

    def _configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        # By its class: `start` may have put ours in its place.
        return type(self.inner).configure_train(self.inner, server_round, arrays, config, grid)
