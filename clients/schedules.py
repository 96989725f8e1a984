"""How the learning rate changes over rounds: factors of it, by rounds t counted from 0."""

import math
from dataclasses import dataclass


@dataclass(kw_only=True)
class Constant:
    """The same in every round."""

    def __call__(self, t: int) -> float:  # noqa: ARG002
        """Return 1."""
        return 1.0


@dataclass(kw_only=True)
class Exponential:
    """Smaller by the same factor every round [Cao et al., 2019, section III.A].

    Attributes
    ----------
    decay : float
        Round t has ``exp(-decay * t)``.
    """

    decay: float

    def __post_init__(self) -> None:
        _check(0 <= self.decay < math.inf, decay=self.decay, allowed="is 0 or more")

    def __call__(self, t: int) -> float:
        """Return the factor of round t."""
        return math.exp(-self.decay * t)


@dataclass(kw_only=True)
class Step:
    """Multiplied by a factor every so many rounds.

    Attributes
    ----------
    every : int
        Rounds.
    factor : float
        Round t has ``factor^(t // every)``.
    """

    every: int
    factor: float = 0.1

    def __post_init__(self) -> None:
        _check(self.every >= 1, every=self.every, allowed="is 1 or more")
        _check(0 < self.factor < math.inf, factor=self.factor, allowed="is more than 0")

    def __call__(self, t: int) -> float:
        """Return the factor of round t."""
        return float(self.factor ** (t // self.every))


@dataclass(kw_only=True)
class Cosine:
    """From 1 along half a cosine towards 0 [Loshchilov and Hutter, 2017, without restarts].

    Attributes
    ----------
    rounds : int
        Round t has ``(1 + cos(pi t / rounds)) / 2``; from there on it is 0.
    """

    rounds: int

    def __post_init__(self) -> None:
        _check(self.rounds >= 1, rounds=self.rounds, allowed="is 1 or more")

    def __call__(self, t: int) -> float:
        """Return the factor of round t."""
        return (1 + math.cos(math.pi * min(1.0, t / self.rounds))) / 2


def _check(right: bool, *, allowed: str, **value: float) -> None:
    if not right:
        [(name, number)] = value.items()
        raise ValueError(f"{name}={number}: allowed {allowed}")
