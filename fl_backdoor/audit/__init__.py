"""Attack anybody's Flower app, as it is and with other defenses."""
