"""Attacks of clients, one a file."""
