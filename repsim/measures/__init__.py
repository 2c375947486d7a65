"""Measures of representational similarity, on arrays."""
