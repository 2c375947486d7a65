"""The ways in which maps and tokens become units, by name."""

HOWS = ("flatten", "mean", "last", "first", "tokens")
