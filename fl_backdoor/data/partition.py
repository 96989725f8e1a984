"""Who holds which training samples: the split of one training set among participants."""

import warnings
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError

Indices = NDArray[np.int64]

SCHEMES: Final = ("per_class", "iid", "dirichlet", "owners")


def partition(
    labels: NDArray[Any],
    scheme: str,
    num_partitions: int,
    *,
    samples_per_class: int = 250,
    alpha: float = 0.5,
    samples_per_partition: int | None = None,
    owners: NDArray[np.int64] | None = None,
    seed: int,
) -> list[Indices]:
    """Split a training set among participants; the seed alone decides the draw.

    Parameters
    ----------
    labels
        Class of every training sample, shape (n,): numbers or names.
    scheme
        ``per_class``: every participant draws `samples_per_class` samples of each class (the
        paper, section III.B). ``iid``: equal shares of the shuffled set. ``dirichlet``: each
        class is shared out in proportions drawn from Dirichlet(`alpha`). ``owners``: every
        participant is a natural user of the data, drawn at random.
    num_partitions
        Number of participants.
    samples_per_class
        Samples of each class that a participant holds; only for ``per_class``.
    alpha
        Concentration, > 0: the smaller, the more the participants' classes differ; only for
        ``dirichlet``.
    samples_per_partition
        Largest number of samples that a participant keeps (a random choice of its share), which
        caps the length of a run; None keeps all. Not for ``per_class``.
    owners
        The natural user of every training sample, shape (n,), if there are such.
    seed
        Seed of the draw, >= 0.

    Returns
    -------
    list of ndarray
        For each participant its indices into `labels`: ascending, disjoint between participants.

    Raises
    ------
    UserError
        If the scheme is unknown, a number is out of range or there are too few samples.
    """
    if not 1 <= num_partitions <= len(labels):
        raise UserError(
            f"num_clients={num_partitions}: allowed is 1 to {len(labels)}, "
            "the number of training samples"
        )
    if samples_per_partition is not None and samples_per_partition < 1:
        raise UserError(
            f"dataset.samples_per_partition={samples_per_partition}: allowed is null or >= 1"
        )
    match scheme:
        case "per_class":
            parts = _per_class(labels, num_partitions, samples_per_class, seed)
        case "iid":
            shuffled = np.random.default_rng(seed).permutation(len(labels))
            parts = np.array_split(shuffled, num_partitions)
        case "dirichlet":
            parts = _dirichlet(labels, num_partitions, alpha, seed)
        case "owners":
            parts = _owners(owners, num_partitions, seed)
        case _:
            raise UserError(f"dataset.partition={scheme}: allowed is {', '.join(SCHEMES)}")
    if scheme != "per_class":
        parts = [part[:samples_per_partition] for part in parts]
    return [np.sort(part) for part in parts]


def unused(num_samples: int, partitions: list[Indices]) -> Indices:
    """Return the indices, ascending, of the samples out of `num_samples` that nobody holds."""
    free = np.ones(num_samples, dtype=bool)
    for part in partitions:
        free[part] = False
    return np.flatnonzero(free)


def _per_class(
    labels: NDArray[Any], num_partitions: int, samples_per_class: int, seed: int
) -> list[Indices]:
    """Draw without replacement, so that no two participants share a sample."""
    classes, counts = np.unique(labels, return_counts=True)
    largest = int(counts.min()) // num_partitions
    if not 1 <= samples_per_class <= largest:
        scarce = classes[counts.argmin()]
        allowed = f"1 to {largest}" if largest else "none: lower num_clients"
        raise UserError(
            f"dataset.samples_per_class={samples_per_class}: class {scarce} has {counts.min()} "
            f"samples for {num_partitions} participants, allowed is {allowed}"
        )
    rng = np.random.default_rng(seed)
    shares = [
        rng.permutation(np.flatnonzero(labels == c))[: num_partitions * samples_per_class].reshape(
            num_partitions, samples_per_class
        )
        for c in classes
    ]
    return [np.concatenate(part) for part in zip(*shares, strict=True)]


def _dirichlet(labels: NDArray[Any], num_partitions: int, alpha: float, seed: int) -> list[Indices]:
    # The imports take seconds, and the other schemes do without them.
    from datasets import Dataset
    from flwr_datasets.partitioner import DirichletPartitioner

    if not 0 < alpha < np.inf:
        raise UserError(f"dataset.alpha={alpha}: allowed is a finite number > 0")
    partitioner = DirichletPartitioner(
        num_partitions, "label", alpha=float(alpha), min_partition_size=1, seed=seed
    )
    partitioner.dataset = Dataset.from_dict({"label": labels, "index": np.arange(len(labels))})
    try:
        # It warns at each new draw; after ten it gives up, and only that matters to the user.
        with warnings.catch_warnings(action="ignore"):
            parts = [partitioner.load_partition(i) for i in range(num_partitions)]
    except ValueError as error:
        raise UserError(
            f"dataset.alpha={alpha}: leaves some of the {num_partitions} participants without a "
            "sample, allowed is a larger value (or a smaller num_clients)"
        ) from error
    # `[:]` first: without it a column is read row by row, which takes seconds.
    return [np.asarray(part.with_format("numpy")[:]["index"], dtype=np.int64) for part in parts]


def _owners(owners: NDArray[np.int64] | None, num_partitions: int, seed: int) -> list[Indices]:
    if owners is None:
        raise UserError("dataset.partition=owners: allowed where the data has natural users")
    users = np.unique(owners)
    if num_partitions > len(users):
        raise UserError(f"num_clients={num_partitions}: allowed is 1 to {len(users)}, the users")
    rng = np.random.default_rng(seed)
    drawn = rng.permutation(users)[:num_partitions]
    return [rng.permutation(np.flatnonzero(owners == user)) for user in drawn]
