"""A strategy in the place of another, whose own ways stay: its start, and what an app sets."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from inspect import signature
from typing import Any

from flwr.serverapp.strategy import Result, Strategy

_COMMON = {"strategy", "flower", "weighted", "statistics", "on_round", "seed"}
_METHODS = ("configure_train", "aggregate_train", "configure_evaluate", "aggregate_evaluate")


class StandIn(Strategy):
    """Stands in the place of ``self.flower``, Flower's own strategy or an app's.

    Attributes that it does not have itself are read and set there.
    """

    flower: Strategy

    def start(self, *arguments: Any, **options: Any) -> Result:
        """Run the rounds as Flower does, or as the `start` of the strategy inside does."""
        owner = self.start_owner()
        if owner is None:
            return super().start(*arguments, **options)
        with _standing_in(self, owner):
            return owner.start(*arguments, **options)

    def start_owner(self) -> Strategy | None:
        """Return the wrapped strategy that has a `start` of its own, if one has."""
        return self.flower if type(self.flower).start is not Strategy.start else None

    def _settings(self) -> str:
        """Name what the class was given beside what all are; its seed is nobody's to know."""
        own = [name for name in signature(type(self)).parameters if name not in _COMMON]
        values = {name: getattr(self, name) for name in own if hasattr(self, name)}
        return ", ".join(
            f"{name} {value:g}" if isinstance(value, float) else f"{name} {value!s:.200}"
            for name, value in values.items()
        )

    def __getattr__(self, name: str) -> Any:
        """Find what an app asks of its own strategy, or of Flower's FedAvg, there."""
        flower = self.__dict__.get("flower")
        if flower is None or name.startswith("__"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(flower, name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set what an app sets on its own strategy there."""
        flower = self.__dict__.get("flower")
        elsewhere = flower is not None and name not in self.__dict__ and hasattr(flower, name)
        if elsewhere and not hasattr(type(self), name) and name not in _arguments(type(self)):
            setattr(flower, name, value)
        else:
            super().__setattr__(name, value)

    def _innermost(self, name: str, default: str) -> str:
        """Return a key of the innermost strategy; Flower's wrappers have none of their own."""
        inner: object = self.flower
        while not hasattr(inner, name) and hasattr(inner, "strategy"):
            inner = inner.strategy
        return str(getattr(inner, name, default))

    def _flowers(self, method: str, *arguments: Any) -> Any:
        """Call a method of the innermost strategy, whatever stands in its place (`start`)."""
        return getattr(type(self.flower), method)(self.flower, *arguments)


@contextmanager
def _standing_in(strategy: Strategy, owner: Strategy) -> Iterator[None]:
    """Let the `start` of ``owner`` call the methods of ``strategy``."""
    for method in _METHODS:
        owner.__dict__[method] = getattr(strategy, method)
    try:
        yield
    finally:
        for method in _METHODS:
            del owner.__dict__[method]


@lru_cache
def _arguments(cls: type) -> frozenset[str]:
    """Return what a class and its bases declare or take: attributes of its own."""
    taken = (signature(base.__init__).parameters for base in cls.__mro__)  # type: ignore[misc]
    declared = (vars(base).get("__annotations__", {}) for base in cls.__mro__)
    return frozenset().union(*taken, *declared)
