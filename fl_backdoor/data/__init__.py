"""Data sets and how they are shared out."""
