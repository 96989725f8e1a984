"""The active party of split learning, and its defenses, on Flower's server side.

Apart from the strategies, because it needs torch.
"""

from .active_party import ActiveParty, EpochReport
from .backdoor import BackdoorActiveParty
from .defense import GradientDefense
from .enrolment import Party, ProtocolError, enrol
from .gradient_clipping import GradientClipping
from .gradient_noise import GradientNoise
from .gradient_sparsification import GradientSparsification
from .top_models import DenseTop, SumTop

__all__ = [
    "ActiveParty",
    "BackdoorActiveParty",
    "DenseTop",
    "EpochReport",
    "GradientClipping",
    "GradientDefense",
    "GradientNoise",
    "GradientSparsification",
    "Party",
    "ProtocolError",
    "SumTop",
    "enrol",
]
