"""Client side: honest and malicious Flower clients."""
