"""Time, peak memory and error of `PairwiseDistances` beside one float32 product of its size.

Target at n = 1000, d = 1 078 530: at most 2 products of time, and 1.5 matrices of peak memory.
``measure.distances=auto`` measures where n n d is at most `NEAR`: the last line says what its
largest case costs, in plain means of the same models in memory.

    python -m benchmarks.distances [-n 1000] [-d 1078530] [--threshold 0.5]
"""

import argparse
import statistics
import sys
import time
import tracemalloc
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fl_backdoor.measure.replies import NEAR
from strategies.graph.distances import PairwiseDistances, distance

from . import seconds

PAIRS = 30
"""Pairs of each kind that are compared with their float64 differences."""


class Result(NamedTuple):
    """What was measured of one matrix of models."""

    seconds: float
    products: float  # the time in products of two matrices of that size
    matrices: float  # peak memory, the models included, in matrices of that size
    error: float  # the largest relative error of a distance


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


def add_sybils(models: NDArray[np.float32]) -> int:
    """Turn the first 3 of 10 rows into near-identical copies of the first one."""
    rng = np.random.default_rng(1)
    sybils = 3 * len(models) // 10
    for row in models[1:sybils]:
        rng.standard_normal(out=row, dtype=np.float32)
        row *= np.float32(1e-6)
        row += models[0]
    return sybils


def measure(models: NDArray[np.float32], threshold: float, product: float, first: int) -> Result:
    """Measure distances and edges; compare pairs among the first rows, and among all."""
    tracemalloc.start()
    start = time.perf_counter()
    distances = PairwiseDistances(models)
    distances.below(threshold)
    matrix = distances.matrix
    elapsed = time.perf_counter() - start
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    rng = np.random.default_rng(2)
    errors = []
    for rows in (first, len(models)):
        for _ in range(PAIRS):
            i, j = rng.choice(rows, 2, replace=False)
            exact = distance(models[i], models[j])
            errors.append(abs(matrix[i, j] - exact) / exact)
    return Result(elapsed, elapsed / product, 1 + peak / models.nbytes, max(errors))


def main(arguments: Sequence[str]) -> dict[str, Result]:
    """Print and return what was measured, by the kind of models."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=1000, help="clients")
    parser.add_argument("-d", type=int, default=1_078_530, help="parameters")
    parser.add_argument("--threshold", type=float, default=0.5, help="gamma")
    options = parser.parse_args(arguments)

    models = ordinary_updates(options.n, options.d)
    print(f"n = {options.n}, d = {options.d}, matrix {models.nbytes / 2**30:.2f} GiB")
    # numpy computes only half of `models @ models.T`, which it sees to be symmetric; one row less
    # on the left makes it a full product, of two different matrices, without a second matrix.
    product = statistics.median(seconds(lambda: models[:-1] @ models.T) for _ in range(3))
    half = statistics.median(seconds(lambda: models @ models.T) for _ in range(3))
    print(f"float32 product {product:.2f} s; of a matrix with itself {half:.2f} s")
    results = {"ordinary updates": measure(models, options.threshold, product, len(models))}
    few = max(2, min(options.n, int((NEAR / options.d) ** 0.5)))
    mean = statistics.median(seconds(lambda: models[:few].mean(axis=0)) for _ in range(3))
    limit = measure(models[:few], options.threshold, mean, few)
    sybils = add_sybils(models)
    results[f"{sybils} sybils"] = measure(models, options.threshold, product, sybils)
    for name, result in results.items():
        print(
            f"{name}: {result.seconds:.2f} s = {result.products:.2f} products "
            f"({result.seconds / half:.2f} symmetric ones); peak {result.matrices:.3f} matrices; "
            f"largest relative error {result.error:.0e}"
        )
    print(f"auto's largest: {few} clients, {limit.products:.1f} times their mean in memory")
    return results


if __name__ == "__main__":
    main(sys.argv[1:])
