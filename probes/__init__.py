"""Linear probes over layers and steps, and what keeps them honest."""
