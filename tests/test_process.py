"""A process that trains: one thread, and no page taken twice."""

import ctypes
import sys
from collections.abc import Callable
from subprocess import CompletedProcess

import pytest

# Layers of a step, freed together at its end: more than glibc keeps of itself.
STEPS = """
import resource
import torch

def step():
    return len([torch.ones(2**20) for layer in range(16)])

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

for _ in range(3):
    step()
before = faults()
for _ in range(10):
    step()
print(faults() - before)
"""
SETTLED = """
from fl_backdoor.process import settle
settle()
settle()
assert torch.get_num_threads() == 1
"""


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="not glibc"
)
def test_what_a_step_frees_is_kept_for_the_next(
    isolated: Callable[[str], CompletedProcess[str]],
) -> None:
    taken = int(isolated(STEPS).stdout)
    kept = int(isolated(STEPS.replace("import torch\n", "import torch\n" + SETTLED)).stdout)
    assert taken > 100_000  # of the 163,840 pages of ten steps
    assert kept < 1_000
