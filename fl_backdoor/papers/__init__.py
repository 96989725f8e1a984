"""Whole grids of a paper: what is run, over the cores, and what of the paper it shows."""
