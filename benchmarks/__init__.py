"""Ratios, both sides measured in one run: ``python -m benchmarks.NAME``."""

import time
from collections.abc import Callable


def seconds(work: Callable[[], object]) -> float:
    """Return how long a piece of work takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
