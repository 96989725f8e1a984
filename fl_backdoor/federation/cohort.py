"""Who of the crowd takes part in a round, and who of those does not answer in time."""

import csv
import math
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..config import build
from ..errors import UserError
from ..schema import bounded, check_bounds


@dataclass(kw_only=True)
class Cohort:
    """Clients drawn uniformly, without replacement, by their stable numbers.

    The run's seed and the round decide every draw: not the engine, not the order in which nodes
    connect, and not whether the run was resumed or is the clean twin.

    Attributes
    ----------
    clients_per_round : int or None
        m, the clients asked in a round; None: everybody.
    attackers_per_round : int or None
        So many attackers are among them in each round; None: as many as are drawn, by the
        hypergeometric law.
    dropout : float
        Probability that a client that was asked does not answer, in [0, 1).
    slowness : float
        How unequal the clients' devices are: a client takes exp(slowness z) as long for a sample
        as the median one, z drawn once from N(0, 1).
    deadline : float or None
        Stragglers, who take longer than this many times the crowd's median for their samples, do
        not answer. None: the round waits for them.
    """

    clients_per_round: int | None = bounded(None, least=1)
    attackers_per_round: int | None = bounded(None, least=0)
    dropout: float = bounded(0.0, least=0, below=1)
    slowness: float = bounded(0.0, least=0)
    deadline: float | None = bounded(None, above=0)

    def __post_init__(self) -> None:
        """Check the values that need no crowd."""
        check_bounds(self, "cohort.")

    def size(self, num_clients: int) -> int:
        """Return how many clients a round asks, where all are there."""
        return num_clients if self.clients_per_round is None else self.clients_per_round

    def check(self, num_clients: int, num_rounds: int, attackers: int, least: int) -> None:  # noqa: ARG002
        """Refuse a cohort that the crowd cannot give.

        Parameters
        ----------
        num_clients, num_rounds, attackers : int
            N, the rounds, and P.
        least : int
            Clients that the strategy needs.

        Raises
        ------
        UserError
            Naming the key, its value and what is allowed.
        """
        m, a = self.size(num_clients), self.attackers_per_round
        if m > num_clients:
            raise UserError(
                f"cohort.clients_per_round={m}: allowed are 1 to {num_clients}, the clients"
            )
        if a is not None and not max(0, m - num_clients + attackers) <= a <= min(m, attackers):
            raise UserError(
                f"cohort.attackers_per_round={a}: allowed with {attackers} attackers of "
                f"{num_clients} clients, {m} a round, are {max(0, m - num_clients + attackers)} "
                f"to {min(m, attackers)}"
            )
        if m < least:
            raise UserError(
                f"cohort.clients_per_round={m}: the strategy needs {least} (min_train_nodes, "
                "min_available_nodes), allowed are as many or more"
            )

    def there(self, number: int, clients: Sequence[int]) -> list[int]:  # noqa: ARG002
        """Return which of the connected clients can take part in round ``number``."""
        return list(clients)

    def clients_per_attacker(self, num_clients: int, attackers: int) -> float:
        """Return how many clients there are for each attacker, in a round that one takes part in.

        That is m over the mean number of attackers: one, and each of the P - 1 others with the
        probability (m - 1) / (N - 1).
        """
        m = self.size(num_clients)
        met = 1 + (attackers - 1) * (m - 1) / max(1, num_clients - 1)
        return m / (self.attackers_per_round or met)

    def law(self, num_clients: int, attackers: int) -> list[float] | None:
        """Return how probable 0, 1, ... attackers are in a round; None where they are not drawn.

        Of m clients drawn from N, P of which attack: the hypergeometric law.
        """
        if self.attackers_per_round is not None:
            return None
        m, most = self.size(num_clients), min(self.size(num_clients), attackers)
        whole = math.comb(num_clients, m)
        return [
            math.comb(attackers, k) * math.comb(num_clients - attackers, m - k) / whole
            for k in range(most + 1)
        ]

    def draw(
        self,
        number: int,
        connected: Sequence[int],
        attackers: Collection[int],
        num_clients: int,
        seed: int,
    ) -> list[int]:
        """Draw the clients of a round, ascending.

        Parameters
        ----------
        number : int
            The round, counted from 1.
        connected : sequence of int
            Clients that could be asked.
        attackers : collection of int
            Those of the crowd that attack.
        num_clients, seed : int
            N, and the run's seed.
        """
        there = self.there(number, connected)
        if self.clients_per_round is None and self.attackers_per_round is None:
            return sorted(there)
        order = np.random.default_rng([seed, 6, number]).permutation(num_clients)
        crowd = set(there)
        drawn = [client for client in order.tolist() if client in crowd]
        m = self.size(num_clients)
        if self.attackers_per_round is None:
            return sorted(drawn[:m])
        attacking = [c for c in drawn if c in attackers][: self.attackers_per_round]
        honest = [c for c in drawn if c not in attackers][: m - len(attacking)]
        return sorted(attacking + honest)

    def absent(
        self, number: int, cohort: Sequence[int], samples: Sequence[int], seed: int
    ) -> list[int]:
        """Return who of a cohort does not answer, ascending.

        Parameters
        ----------
        number : int
            The round, counted from 1.
        cohort : sequence of int
            The clients that are asked.
        samples : sequence of int
            Training samples of every client of the crowd.
        seed : int
            The run's.
        """
        absent: set[int] = set()
        if self.dropout:
            draws = np.random.default_rng([seed, 7, number]).random(len(samples))
            absent |= {client for client in cohort if draws[client] < self.dropout}
        if self.deadline is not None:
            z = np.random.default_rng([seed, 8]).standard_normal(len(samples))
            time = np.asarray(samples) * np.exp(self.slowness * z)
            latest = self.deadline * np.median(time)
            absent |= {client for client in cohort if time[client] > latest}
        return sorted(absent)


@dataclass(kw_only=True)
class Trace(Cohort):
    """A cohort of those whom a trace of availability has there.

    Attributes
    ----------
    file : str
        CSV with the columns ``client, first, last``: the client is there from round ``first``
        to round ``last``. A client may have several lines; one without any is never there.
    """

    file: str = bounded()

    def __post_init__(self) -> None:
        """Read the trace."""
        super().__post_init__()
        self._there = _read_trace(Path(self.file))

    def check(self, num_clients: int, num_rounds: int, attackers: int, least: int) -> None:
        """Refuse a trace of other clients, or with a round that has too few."""
        super().check(num_clients, num_rounds, attackers, least)
        if (largest := max(self._there)) >= num_clients:
            raise UserError(
                f"cohort.file={self.file}: client {largest}, allowed are 0 to {num_clients - 1}"
            )
        for number in range(1, num_rounds + 1):
            count = len(self.there(number, range(num_clients)))
            if count < least:
                raise UserError(
                    f"cohort.file={self.file}: {count} clients are there in round {number}, and "
                    f"the strategy needs {least}; allowed are as many, or fewer as "
                    "cohort.clients_per_round, or as strategy.min_train_nodes and "
                    "strategy.min_available_nodes to ask all who are there"
                )

    def law(self, num_clients: int, attackers: int) -> list[float] | None:  # noqa: ARG002
        """Return None: it is another in each round."""
        return None

    def there(self, number: int, clients: Sequence[int]) -> list[int]:
        """Return which of the connected clients the trace has there."""
        return [
            client
            for client in clients
            if any(first <= number <= last for first, last in self._there.get(client, ()))
        ]


def new_cohort(node: Any) -> Cohort:
    """Build the cohort of a configuration.

    Raises
    ------
    UserError
        Naming the key at fault.
    """
    cohort: Cohort = build("cohort", node, Cohort)
    return cohort


def _read_trace(path: Path) -> dict[int, list[tuple[int, int]]]:
    there: dict[int, list[tuple[int, int]]] = defaultdict(list)
    try:
        with path.open(newline="") as file:
            for number, row in enumerate(csv.DictReader(file), start=2):
                try:
                    client, first, last = (int(row[key]) for key in ("client", "first", "last"))
                except (KeyError, TypeError, ValueError) as error:
                    raise UserError(
                        f"cohort.file={path}: line {number}: allowed are whole numbers client, "
                        "first and last, named in the first line"
                    ) from error
                if client < 0 or not 1 <= first <= last:
                    raise UserError(
                        f"cohort.file={path}: line {number}: client {client} from round {first} "
                        f"to {last}; allowed are clients from 0, and 1 <= first <= last"
                    )
                there[client].append((first, last))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cohort.file={path}: cannot be read ({error})") from error
    if not there:
        raise UserError(f"cohort.file={path}: has no client")
    return there
