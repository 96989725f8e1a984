"""Passive parties of split learning, honest and malicious, as Flower clients."""

from .attacks.gradient_replacement import GradientReplacementParty
from .attacks.label_inference import LabelInferenceParty, infer_labels
from .attacks.localized_replacement import LocalizedReplacementParty
from .passive_party import PassiveParty, party_app

__all__ = [
    "GradientReplacementParty",
    "LabelInferenceParty",
    "LocalizedReplacementParty",
    "PassiveParty",
    "infer_labels",
    "party_app",
]
