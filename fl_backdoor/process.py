"""How a process of the suite is set before it computes."""

import ctypes
import functools
import sys
from typing import Final

import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of <malloc.h>
KEPT: Final = 256 * 2**20
"""Free bytes that a process holds on to, at most, at the end of its heap."""
LARGE: Final = 32 * 2**20
"""Bytes from which on an array is mapped by itself, and given back at once: glibc's own limit."""


def settle() -> None:
    """Compute with one thread, and keep the memory that a step frees for the next one.

    With one thread a process, sums have one order everywhere. What a training step frees, glibc
    gives back to the system, to take it anew in the next one page by page: with LeNet's sizes 10
    to 30 % of the time. Where the C library is another, memory stays as it is.
    """
    torch.set_num_threads(1)
    _keep_memory()


@functools.cache
def _keep_memory() -> None:
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(M_MMAP_THRESHOLD, LARGE)
        mallopt(M_TRIM_THRESHOLD, KEPT)
