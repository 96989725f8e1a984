"""Triggers of backdoors: functions of inputs ``(n, ...)``, settled once by the training set."""

from .choice import TRIGGERS, Auto, Own, chosen
from .images import BADNETS_PATTERN, Blended, Patch, Pixels, stamp
from .rows import Features, Tokens
from .trigger import Trigger

__all__ = [
    "BADNETS_PATTERN",
    "TRIGGERS",
    "Auto",
    "Blended",
    "Features",
    "Own",
    "Patch",
    "Pixels",
    "Tokens",
    "Trigger",
    "chosen",
    "stamp",
]
