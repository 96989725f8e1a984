"""Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing [Karimireddy et al., 2022].

Random buckets of clients are averaged before a rule aggregates them.

Paper: https://arxiv.org/abs/2006.09365
"""

from typing import Any

import numpy as np
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from ..checks import check_allowed, check_count, check_seed
from ..round import Outcome, Round
from ..vectors import overwrite
from ..wrapper import Wrapper


def bucket_means(
    models: NDArray[np.floating], votes: NDArray[np.float64], pi: NDArray[np.intp], s: int
) -> tuple[NDArray[np.floating], NDArray[np.float64]]:
    """Return the means ``y_i`` of ``x_pi(k)``, k from ``(i - 1) s + 1`` to ``min(n, i s)``.

    Parameters
    ----------
    models : array of shape (n, p)
        x_k, one row a model; overwritten.
    votes : array of shape (n,)
        By which to average, all above 0.
    pi : array of shape (n,)
        A permutation of the rows.
    s : int
        The size of a bucket, from 1; the last one may be smaller.

    Returns
    -------
    means : array of shape (ceil(n / s), p)
        A part of ``models``.
    sums : array of shape (ceil(n / s),)
        The votes in each bucket.
    """
    sums = np.add.reduceat(votes[pi], np.arange(0, len(models), s))
    shares = (votes[pi] / np.repeat(sums, s)[: len(pi)])[:, np.newaxis]

    def mix(block: NDArray[np.float64]) -> NDArray[np.float64]:
        total: NDArray[np.float64] = shares[::s] * block[pi[::s]]
        for k in range(1, s):  # the k-th of each bucket, which the last may lack
            more = shares[k::s] * block[pi[k::s]]
            total[: len(more)] += more
        return total

    return overwrite(models, mix), sums


class Bucketing(Wrapper):
    """Hand the means of random buckets of models to another strategy.

    Parameters
    ----------
    strategy : flwr.serverapp.strategy.Strategy
        The strategy that aggregates the means. What it is told of malicious clients counts
        buckets: each attacker spoils one at most. One that remembers clients has no use here,
        since buckets are others in each round.
    bucket_size : int (default: 2)
        s, the clients of a bucket.
    seed : int, optional
        Makes the buckets repeatable, for experiments. Leave it out in a deployment: attackers who
        can compute them know whom they meet there.
    weighted, statistics, on_round
        As for `strategies.Robust`. A bucket has the votes of its clients.

    Raises
    ------
    ValueError
        If the size is no integer from 1, or the seed none of 0 or larger.

    Notes
    -----
    *Threat model*: that of the strategy inside, with at most 1/s of the part of malicious clients
    that it withstands. *Assumes* heterogeneous data, whose spread between buckets is 1/s of that
    between clients; knows f only if the strategy inside does. *Cost*: one pass over n models of d
    parameters.

    A client's vote is its part of what its bucket got. With fewer than three buckets there is no
    majority, and the wrapper cannot act.

    A last bucket of fewer clients is averaged, as in byzfl: divided by s it would be too short.

    *Known weaknesses*: with a part of 1/(2 s) attackers or more, half of the buckets are spoilt.
    """

    def __init__(
        self,
        strategy: Strategy,
        bucket_size: int = 2,
        *,
        seed: int | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(strategy, **arguments)
        check_count(1, bucket_size=bucket_size)
        check_seed(seed)
        self.bucket_size, self.seed = bucket_size, seed

    def check(self, num_clients: int) -> None:
        """Refuse fewer than three buckets, and check the strategy inside for so many of them."""
        check_allowed(self, "bucket_size", 1, (num_clients - 1) // 2, num_clients)
        self.inner.check(-(-num_clients // self.bucket_size))

    def aggregate(self, round: Round) -> Outcome:
        """Average the buckets in place, and aggregate the means."""
        n, s = len(round), self.bucket_size
        if n <= 2 * s:
            return Outcome.refuse(self, f"{n} valid models make fewer than 3 buckets of {s}")
        pi = np.array(round.order)[round.rng(self.seed).permutation(n)]
        means, sums = bucket_means(round.models, round.votes, pi, s)
        buckets = round.with_models(means, pi[::s])
        buckets.votes, buckets.asked = sums, -(-round.asked // s)
        outcome = self.inner.aggregate(buckets)
        bucket = np.empty(n, np.intp)
        bucket[pi] = np.arange(n) // s
        for name, value in outcome.notes.items():
            if isinstance(value, np.ndarray):
                outcome.notes[name] = value[bucket]
        outcome.average_rest(round)  # which would be that of one client a bucket
        if outcome.votes is not None:
            outcome.votes = (outcome.votes / sums)[bucket] * round.votes
        return outcome
