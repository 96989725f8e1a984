"""A run: its clean twin, its rounds or epochs, what it keeps and what it shows."""
