"""Linear probes over layers and steps, and what keeps them honest."""

from repsim.probes.layers import probe_layers as probe_layers
from repsim.probes.linear import LinearProbe as LinearProbe
