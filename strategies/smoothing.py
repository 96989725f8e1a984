"""A classifier smoothed over its parameters: models in noise vote."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from flwr.app import ArrayRecord
from numpy.typing import ArrayLike, NDArray

from .checks import check_count
from .vectors import Layout, decoded


def smoothed_votes(
    run_model: Callable[[ArrayRecord, Any], ArrayLike],
    inputs: Any,
    arrays: ArrayRecord,
    sigma: float,
    draws: int,
    rng: np.random.Generator,
    statistics: Iterable[str] = (),
) -> NDArray[np.int64]:
    """Count the classes that ``h(w + eps_k; x)`` names, ``eps_k`` from N(0, sigma^2 I).

    [Xie et al., 2021], https://arxiv.org/abs/2106.08283: the votes at test time.

    Parameters
    ----------
    run_model : callable
        Returns the logits of a model for m inputs, shape (m, C).
    inputs : array
        What it takes.
    arrays : ArrayRecord
        The model w; BatchNorm's statistics and counters get no noise.
    sigma : float
        Standard deviation, 0 or larger.
    draws : int
        M, from 1.
    rng : Generator
        Draws the noise.
    statistics : iterable of str
        Names of statistics beside PyTorch's.

    Returns
    -------
    array of shape (m, C)
        Votes of each input's classes, M in each row.

    Raises
    ------
    ValueError
        If ``draws`` is no integer from 1.
    """
    check_count(1, draws=draws)
    values = decoded(arrays)
    layout = Layout(values, statistics)
    row, named = np.zeros(layout.size), []
    layout.fill(row, values)
    w, rest = row[layout.parameters], row[layout.statistics]
    for _ in range(draws):
        noisy = w + sigma * rng.standard_normal(w.shape)
        model = ArrayRecord({**arrays, **dict(layout.arrays(noisy, rest))})
        logits = np.asarray(run_model(model, inputs))
        named.append(logits.argmax(axis=1)[:, np.newaxis] == np.arange(logits.shape[1]))
    votes: NDArray[np.int64] = np.sum(named, axis=0, dtype=np.int64)
    return votes
