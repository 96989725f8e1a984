"""Server side: aggregation rules and defenses as Flower strategies.

Each works alone in any Flower ``ServerApp``. This folder needs flwr, numpy and scipy only, with
scikit-learn for the rules that say so and networkx for `agreement_graph`, and can be copied into an
existing Flower app as it is, under any name.
"""

from .flower import Screened
from .graph.agreement import agreement_graph
from .record import RoundRecord
from .rehearsal import Rehearsal
from .robust import Robust
from .round import Outcome, Round
from .rules.adaptive_clipping import AdaptiveClipping
from .rules.aggregator import Aggregator
from .rules.alignins import AlignIns
from .rules.auror import Auror
from .rules.bucketing import Bucketing
from .rules.bulyan import Bulyan
from .rules.centered_clipping import CenteredClipping
from .rules.crfl import CRFL
from .rules.deepsight import DeepSight
from .rules.dnc import DnC
from .rules.fedavg import FedAvg
from .rules.flame import FLAME
from .rules.fldetector import FLDetector
from .rules.fltrust import FLTrust
from .rules.foolsgold import FoolsGold
from .rules.gaussian_noise import GaussianNoise
from .rules.geometric_median import GeometricMedian
from .rules.krum import Krum, MultiKrum
from .rules.lasa import LASA
from .rules.median import Median
from .rules.multi_metrics import MultiMetrics
from .rules.nearest_neighbor_mixing import NearestNeighborMixing
from .rules.norm_clipping import NormClipping
from .rules.robust_learning_rate import RobustLearningRate
from .rules.server_optimizer import FedAdam, FedAvgM, FedYogi
from .rules.signguard import SignGuard
from .rules.sniper import Sniper
from .rules.trimmed_mean import TrimmedMean
from .wrapper import Wrapper

__all__ = [
    "CRFL",
    "FLAME",
    "LASA",
    "AdaptiveClipping",
    "Aggregator",
    "AlignIns",
    "Auror",
    "Bucketing",
    "Bulyan",
    "CenteredClipping",
    "DeepSight",
    "DnC",
    "FLDetector",
    "FLTrust",
    "FedAdam",
    "FedAvg",
    "FedAvgM",
    "FedYogi",
    "FoolsGold",
    "GaussianNoise",
    "GeometricMedian",
    "Krum",
    "Median",
    "MultiKrum",
    "MultiMetrics",
    "NearestNeighborMixing",
    "NormClipping",
    "Outcome",
    "Rehearsal",
    "Robust",
    "RobustLearningRate",
    "Round",
    "RoundRecord",
    "Screened",
    "SignGuard",
    "Sniper",
    "TrimmedMean",
    "Wrapper",
    "agreement_graph",
]
