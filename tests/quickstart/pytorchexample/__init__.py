"""Flower's quickstart-pytorch app in its documented form, on small synthetic images."""
