"""Poisoning and backdoor attacks on federated learning, and defenses, on Flower."""
