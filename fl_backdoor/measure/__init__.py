"""What is measured of a run, and how runs are read again."""
