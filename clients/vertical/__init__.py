"""Passive parties of split learning, honest and malicious, as Flower clients."""

from .gradient_replacement import GradientReplacementParty
from .label_inference import LabelInferenceParty, infer_labels
from .localized_replacement import LocalizedReplacementParty
from .passive_party import PassiveParty, party_app

__all__ = [
    "GradientReplacementParty",
    "LabelInferenceParty",
    "LocalizedReplacementParty",
    "PassiveParty",
    "infer_labels",
    "party_app",
]
