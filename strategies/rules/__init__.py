"""Aggregation rules and defenses, one a file: the equations, then the strategy."""
