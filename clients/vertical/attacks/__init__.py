"""Attacks of passive parties, one a file."""
