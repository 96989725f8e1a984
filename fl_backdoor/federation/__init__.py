"""Who takes part: engines, nodes, attackers, and clients built from a configuration."""
