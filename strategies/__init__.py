"""Server side: aggregation rules and defenses as Flower strategies.

Each works alone in any Flower ``ServerApp``. This folder needs flwr, numpy and scipy
only, and can be copied into an existing Flower app as it is.
"""

from .flower import Screened
from .rules.aggregator import Aggregator
from .rules.fedavg import FedAvg
from .rules.gaussian_noise import GaussianNoise
from .rules.norm_clipping import NormClipping
from .rules.sniper import Sniper

__all__ = ["Aggregator", "FedAvg", "GaussianNoise", "NormClipping", "Screened", "Sniper"]
