"""Time and peak memory of `PairwiseDistances` against one float32 product of the same size.

Target at n = 1000, d = 1 078 530: at most 2 products of time, and 1.5 matrices of peak memory.
"""

import argparse
import resource
import statistics
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from strategies.graph.distances import PairwiseDistances

SYBILS = 300


def ordinary_updates(n: int, d: int) -> NDArray[np.float32]:
    """Return n noisy copies of one global model, built row by row to keep the peak low."""
    rng = np.random.default_rng(0)
    global_model = rng.standard_normal(d, dtype=np.float32)
    models = np.empty((n, d), dtype=np.float32)
    for row in models:
        rng.standard_normal(out=row, dtype=np.float32)
        row *= np.float32(0.01)
        row += global_model
    return models


def add_sybils(models: NDArray[np.float32]) -> None:
    """Turn the first rows into near-identical copies of the first one."""
    rng = np.random.default_rng(1)
    for row in models[1:SYBILS]:
        rng.standard_normal(out=row, dtype=np.float32)
        row *= np.float32(1e-6)
        row += models[0]


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=1000, help="clients")
    parser.add_argument("-d", type=int, default=1_078_530, help="parameters")
    parser.add_argument("--threshold", type=float, default=0.5, help="gamma")
    arguments = parser.parse_args()

    def measure() -> None:
        distances = PairwiseDistances(models)
        distances.below(arguments.threshold)
        distances.matrix  # noqa: B018

    models = ordinary_updates(arguments.n, arguments.d)
    print(f"n = {arguments.n}, d = {arguments.d}, matrix {models.nbytes / 2**30:.2f} GiB")
    updates, updates_peak = seconds(measure), peak_bytes()
    # numpy computes only half of `models @ models.T`, which it sees to be symmetric; one row less
    # on the left makes it a full product, of two different matrices, without a second matrix.
    product = statistics.median(seconds(lambda: models[:-1] @ models.T) for _ in range(3))
    half = statistics.median(seconds(lambda: models @ models.T) for _ in range(3))
    add_sybils(models)
    sybils, sybils_peak = seconds(measure), peak_bytes()

    print(f"float32 product {product:.2f} s; of a matrix with itself {half:.2f} s")
    for name, time_, peak in (
        ("ordinary updates", updates, updates_peak),
        (f"{SYBILS} sybils", sybils, sybils_peak),
    ):
        print(
            f"{name}: {time_:.2f} s = {time_ / product:.2f} products "
            f"({time_ / half:.2f} symmetric ones); "
            f"peak of the whole process {peak / models.nbytes:.3f} matrices"
        )


if __name__ == "__main__":
    main()
