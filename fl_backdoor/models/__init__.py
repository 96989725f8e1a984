"""Models that the experiments train."""

from .cao2019 import Cao2019CNN
from .dense import DenseBottom

__all__ = ["Cao2019CNN", "DenseBottom"]
