"""The active party of split learning, and its defenses, on Flower's server side.

Apart from the strategies, because it needs torch.
"""

from .active_party import ActiveParty, EpochReport
from .backdoor import BackdoorActiveParty
from .defense import VerticalDefense
from .defenses.clipping import GradientClipping
from .defenses.noise import GradientNoise
from .defenses.sparsification import GradientSparsification
from .enrolment import Party, ProtocolError, enrol
from .top_models import DenseTop, SumTop

__all__ = [
    "ActiveParty",
    "BackdoorActiveParty",
    "DenseTop",
    "EpochReport",
    "GradientClipping",
    "GradientNoise",
    "GradientSparsification",
    "Party",
    "ProtocolError",
    "SumTop",
    "VerticalDefense",
    "enrol",
]
