"""The app's Strategy, as it starts: with so many rounds, and perhaps another in its place."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import signature
from typing import Any

from flwr.app import ArrayRecord, MetricRecord
from flwr.serverapp.strategy import Strategy

from strategies import Robust


class Started:
    """What an app starts.

    Parameters
    ----------
    rounds : int or None
        Instead of those that the app asks for.
    defended : callable of (Strategy), optional
        Returns what stands in the place of the app's strategy.

    Attributes
    ----------
    strategies : list of str
        Names of those that were started.
    rounds : int or None
        Rounds of the last one.
    evaluate : callable of (round, ArrayRecord), optional
        The app's own evaluation on its server.
    model : ArrayRecord or None
        What the last one ended with.
    """

    def __init__(
        self, rounds: int | None, defended: Callable[[Strategy], Strategy] | None = None
    ) -> None:
        self.rounds = rounds
        self._defended = defended
        self._inside = False
        self.strategies: list[str] = []
        self.evaluate: Callable[[int, ArrayRecord], MetricRecord | None] | None = None
        self.model: ArrayRecord | None = None

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Stand behind the `start` of every strategy that is loaded."""
        family = _family(Strategy)  # type: ignore[type-abstract]
        originals = {cls: vars(cls)["start"] for cls in family if "start" in vars(cls)}
        for cls, original in originals.items():
            cls.start = self._behind(original)  # type: ignore[method-assign]
        try:
            yield
        finally:
            for cls, original in originals.items():
                cls.start = original  # type: ignore[method-assign]

    def _behind(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def start(strategy: Strategy, *arguments: Any, **options: Any) -> Any:
            bound = signature(original).bind(strategy, *arguments, **options)
            if "num_rounds" in signature(original).parameters:  # else its base's is called
                if self.rounds is not None:
                    bound.arguments["num_rounds"] = self.rounds
                self.rounds = bound.arguments.get("num_rounds", 3)
                self.evaluate = bound.arguments.get("evaluate_fn")
            if self._inside:  # a strategy that calls the start of its base, or of one inside
                return original(*bound.args, **bound.kwargs)
            self.strategies.append(type(strategy).__name__)
            self._inside = True
            try:
                _, *rest = bound.args
                result = self._chosen(strategy).start(*rest, **bound.kwargs)
            finally:
                self._inside = False
            self.model = getattr(result, "arrays", None) or None
            return result

        return start

    def _chosen(self, strategy: Strategy) -> Strategy:
        """Return what starts: Flower's wrappers, as for privacy, stay around what is inside."""
        if self._defended is None:
            return strategy
        inner = getattr(strategy, "strategy", None)
        if isinstance(inner, Strategy) and not isinstance(strategy, Robust):
            vars(strategy)["strategy"] = self._chosen(inner)
            return strategy
        return self._defended(strategy)


def _family(cls: type[Strategy]) -> Iterator[type[Strategy]]:
    yield cls
    for below in cls.__subclasses__():
        yield from _family(below)
