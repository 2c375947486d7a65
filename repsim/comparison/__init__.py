"""A measure over all pairs of layers, steps and networks."""
