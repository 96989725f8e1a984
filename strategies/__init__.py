"""Server side: aggregation rules and defenses as Flower strategies.

Each works alone in any Flower ``ServerApp``. This folder needs flwr, numpy, scipy and networkx
only, and can be copied into an existing Flower app as it is, under any name.
"""

from .flower import Screened
from .robust import Robust
from .round import Outcome, Round
from .rules.aggregator import Aggregator
from .rules.fedavg import FedAvg
from .rules.gaussian_noise import GaussianNoise
from .rules.norm_clipping import NormClipping
from .rules.sniper import Sniper
from .wrapper import Wrapper

__all__ = [
    "Aggregator",
    "FedAvg",
    "GaussianNoise",
    "NormClipping",
    "Outcome",
    "Robust",
    "Round",
    "Screened",
    "Sniper",
    "Wrapper",
]
