"""Passive parties of split learning, honest and malicious, as Flower clients."""

from .attack import PartyAttack
from .attacks.gradient_replacement import GradientReplacement
from .attacks.label_inference import LabelInference, infer_labels
from .attacks.localized_replacement import LocalizedReplacement
from .attacks.villain import Villain
from .passive_party import PassiveParty, party_app

__all__ = [
    "GradientReplacement",
    "LabelInference",
    "LocalizedReplacement",
    "PartyAttack",
    "PassiveParty",
    "Villain",
    "infer_labels",
    "party_app",
]
