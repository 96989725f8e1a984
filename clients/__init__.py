"""Client side: honest and malicious Flower clients, and update attacks as Flower mods.

Each works alone in any Flower ``ClientApp``. This folder needs flwr, numpy and torch only,
and can be copied into an existing Flower app as it is.
"""

from .attacks.backdoor import BackdoorClient
from .attacks.label_flipping import LabelFlippingClient
from .honest import HonestClient
from .updates import model_replacement_mod, norm_projection_mod

__all__ = [
    "BackdoorClient",
    "HonestClient",
    "LabelFlippingClient",
    "model_replacement_mod",
    "norm_projection_mod",
]
