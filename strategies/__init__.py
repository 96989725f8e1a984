"""Server side: aggregation rules and defenses as Flower strategies."""
