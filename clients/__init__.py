"""Client side: honest and malicious Flower clients, attacks, and attacks as Flower mods.

Each works alone in any Flower ``ClientApp``. This folder needs flwr, numpy and torch only,
and can be copied into an existing Flower app as it is, under any name.
"""

from .attacker import Attack, Colluding, Goal
from .attacks.a3fl import A3FL
from .attacks.adaptive import Adaptive
from .attacks.alie import ALIE
from .attacks.backdoor import Backdoor, BackdoorClient
from .attacks.constrain_and_scale import ConstrainAndScale
from .attacks.dba import DBA
from .attacks.edge_case import EdgeCase
from .attacks.fang import Fang
from .attacks.gaussian import Gaussian
from .attacks.ipm import IPM
from .attacks.label_flipping import LabelFlipping, LabelFlippingClient
from .attacks.mimic import Mimic
from .attacks.min_max import MinMax
from .attacks.min_sum import MinSum
from .attacks.model_replacement import ModelReplacement
from .attacks.neurotoxin import Neurotoxin
from .attacks.norm_projection import NormProjection
from .attacks.pgd import PGD
from .attacks.sign_flip import SignFlip
from .collusion import Colluders
from .honest import HonestClient
from .malicious import MaliciousClient
from .mods import attack_mod, malicious, model_replacement_mod, norm_projection_mod
from .seat import Seat, View

__all__ = [
    "A3FL",
    "ALIE",
    "DBA",
    "IPM",
    "PGD",
    "Adaptive",
    "Attack",
    "Backdoor",
    "BackdoorClient",
    "Colluders",
    "Colluding",
    "ConstrainAndScale",
    "EdgeCase",
    "Fang",
    "Gaussian",
    "Goal",
    "HonestClient",
    "LabelFlipping",
    "LabelFlippingClient",
    "MaliciousClient",
    "Mimic",
    "MinMax",
    "MinSum",
    "ModelReplacement",
    "Neurotoxin",
    "NormProjection",
    "Seat",
    "SignFlip",
    "View",
    "attack_mod",
    "malicious",
    "model_replacement_mod",
    "norm_projection_mod",
]
