"""Server side: aggregation rules and defenses as Flower strategies.

Each works alone in any Flower ``ServerApp``. This folder needs flwr, numpy, scipy and networkx
only, and can be copied into an existing Flower app as it is, under any name.
"""

from .flower import Screened
from .graph.agreement import agreement_graph
from .robust import Robust
from .round import Outcome, Round
from .rules.aggregator import Aggregator
from .rules.bulyan import Bulyan
from .rules.fedavg import FedAvg
from .rules.gaussian_noise import GaussianNoise
from .rules.krum import Krum, MultiKrum
from .rules.median import Median
from .rules.norm_clipping import NormClipping
from .rules.server_optimizer import FedAdam, FedAvgM, FedYogi
from .rules.sniper import Sniper
from .rules.trimmed_mean import TrimmedMean
from .wrapper import Wrapper

__all__ = [
    "Aggregator",
    "Bulyan",
    "FedAdam",
    "FedAvg",
    "FedAvgM",
    "FedYogi",
    "GaussianNoise",
    "Krum",
    "Median",
    "MultiKrum",
    "NormClipping",
    "Outcome",
    "Robust",
    "Round",
    "Screened",
    "Sniper",
    "TrimmedMean",
    "Wrapper",
    "agreement_graph",
]
