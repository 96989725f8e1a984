"""Poisoning and backdoor attacks on federated learning, and defenses, on Flower."""

import os

# Flower reads it on import; an experiment on attacks has no business in anybody's statistics.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")

__version__ = "0.1.0"
