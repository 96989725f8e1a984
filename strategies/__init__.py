"""Server side: aggregation rules and defenses as Flower strategies.

Each works alone in any Flower ``ServerApp``. This folder needs flwr, numpy and scipy
only, and can be copied into an existing Flower app as it is.
"""

from .aggregator import Aggregator
from .fedavg import FedAvg
from .gaussian_noise import GaussianNoise
from .norm_clipping import NormClipping
from .screened import Screened
from .sniper import Sniper

__all__ = ["Aggregator", "FedAvg", "GaussianNoise", "NormClipping", "Screened", "Sniper"]
