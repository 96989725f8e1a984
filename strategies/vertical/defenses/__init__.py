"""Defenses of the active party, one a file."""
