"""Who attacks, in which rounds, and how they train while they do."""

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from ..config import build, count_attackers
from ..errors import UserError
from ..schema import bounded, check_bounds


@dataclass(kw_only=True)
class Roster:
    """How many clients attack, which, and when.

    Attributes
    ----------
    num_attackers : int or None
        P. None: as many as ``share`` or the list says, or else none.
    share : float or None
        P as a share of the clients, rounded; instead of a number.
    roster : {"first", "random"} or list of int
        Clients 0 to P-1, a seeded draw, or these P.
    roster_seed : int or None
        Of the draw; None: the run's.
    allow_over_third : bool
        Permit more attackers than the N/3 of Cao et al. 2019, section II.C.
    schedule : str, list of int, or dict
        The rounds in which they attack; in the others they are honest. ``"always"``; some rounds,
        as ``[5]`` for a single shot; or ``{first: 10, last: 40, every: 2}``, of which each may be
        left out.
    poisoned_epochs : int or None
        Local epochs of an attacker while it attacks; None: as everybody.
    learning_rate : float or None
        Its learning rate of the first round; None: as everybody.
    """

    num_attackers: int | None = None
    share: float | None = bounded(None, least=0, most=1)
    roster: Any = "first"
    roster_seed: int | None = bounded(None, least=0)
    allow_over_third: bool = False
    schedule: Any = "always"
    poisoned_epochs: int | None = bounded(None, least=1)
    learning_rate: float | None = bounded(None, least=0)

    def __post_init__(self) -> None:
        """Check what needs no crowd."""
        check_bounds(self, "attack.")
        number, roster = self.num_attackers, self.roster
        if self.share is not None and (number is not None or isinstance(roster, list)):
            other = f"roster={roster}" if number is None else f"num_attackers={number}"
            raise UserError(f"attack.share={self.share}, attack.{other}: allowed is one of them")
        self.attacks(1)

    def of(self, number: int) -> "Roster":
        """Return it with so many attackers, whoever they are."""
        return replace(self, num_attackers=number, share=None, roster="first")

    def draw(self, num_clients: int, seed: int) -> tuple[int, ...]:
        """Draw the clients that attack, ascending.

        Raises
        ------
        UserError
            If there are more attackers than allowed, or the way to draw them is unknown.
        """
        most = num_clients if self.allow_over_third else num_clients // 3
        count = count_attackers(vars(self), num_clients)
        if not 0 <= count <= most:
            raise UserError(
                f"attack.{self._said(count)}: allowed are 0 to {most} of {num_clients} clients "
                f"(attack.allow_over_third={self.allow_over_third})"
            )
        if isinstance(self.roster, list):
            return self._listed(num_clients)
        if self.roster == "first":
            return tuple(range(count))
        if self.roster == "random":
            own = seed if self.roster_seed is None else self.roster_seed
            drawn = np.random.default_rng([own, 1]).permutation(num_clients)
            return tuple(sorted(drawn[:count].tolist()))
        raise UserError(
            f"attack.roster={self.roster}: allowed are first, random, or a list of clients"
        )

    def attacks(self, number: int) -> bool:
        """Tell whether round ``number``, counted from 1, is one of the schedule's.

        Raises
        ------
        UserError
            If there is no such schedule.
        """
        schedule = self.schedule
        if schedule == "always":
            return True
        if isinstance(schedule, list) and schedule and all(map(_is_round, schedule)):
            return number in schedule
        if isinstance(schedule, dict) and schedule.keys() <= {"first", "last", "every"}:
            first, every = schedule.get("first", 1), schedule.get("every", 1)
            last = schedule.get("last")
            if _is_round(first) and _is_round(every) and (last is None or _is_round(last)):
                within = first <= number and (last is None or number <= last)
                return bool(within and (number - first) % every == 0)
        raise UserError(
            f"attack.schedule={schedule}: allowed are always, a list of rounds from 1, or "
            "{first: 1, last: null, every: 1}"
        )

    def check(self, num_rounds: int) -> None:
        """Refuse a schedule by which nobody would ever attack.

        Raises
        ------
        UserError
            If no round of the run is one of the schedule's.
        """
        if not any(self.attacks(number) for number in range(1, num_rounds + 1)):
            raise UserError(
                f"attack.schedule={self.schedule}: allowed is what has a round of 1 to {num_rounds}"
            )

    @property
    def training(self) -> dict[str, Any]:
        """Arguments of `clients.HonestClient` that are an attacker's own."""
        own = {"epochs": self.poisoned_epochs, "learning_rate": self.learning_rate}
        return {name: value for name, value in own.items() if value is not None}

    def _said(self, count: int) -> str:
        """Write the key that gave the number of attackers."""
        if self.share is not None:
            return f"share={self.share}, {count} attackers"
        return f"roster={self.roster}" if self.num_attackers is None else f"num_attackers={count}"

    def _listed(self, num_clients: int) -> tuple[int, ...]:
        listed = self.roster
        good = all(type(client) is int and 0 <= client < num_clients for client in listed)
        if not good or len(set(listed)) < len(listed):
            raise UserError(
                f"attack.roster={listed}: allowed are different clients 0 to {num_clients - 1}"
            )
        if self.num_attackers not in (None, len(listed)):
            raise UserError(
                f"attack.roster={listed}: allowed with attack.num_attackers="
                f"{self.num_attackers} are so many clients"
            )
        return tuple(sorted(listed))


ROSTER = {field.name for field in fields(Roster)}
"""Keys of an attack that are its roster's."""


def build_roster(node: Any) -> Roster:
    """Build the roster that an attack's config node describes.

    Raises
    ------
    UserError
        If a value is of the wrong type.
    """
    given = {key: value for key, value in dict(node).items() if key in ROSTER}
    target = f"{Roster.__module__}.{Roster.__qualname__}"
    roster: Roster = build("attack", given | {"_target_": target}, Roster)
    return roster


def refuse_roster(node: Any, key: str) -> None:
    """Refuse who attacks in the node of an attack that another carries: the outermost says it.

    Raises
    ------
    UserError
        Naming the key, where it is not as every attack's configuration has it.
    """
    usual = {field.name: field.default for field in fields(Roster)} | {"num_attackers": 3}
    for name in sorted(ROSTER & dict(node).keys(), key="num_attackers".__eq__):  # share sets it
        if node[name] != usual[name]:
            raise UserError(
                f"{key}.{name}={node[name]}: allowed is attack.{name}, which says it of the attack "
                "around this one"
            )


def _is_round(value: Any) -> bool:
    return type(value) is int and value >= 1
