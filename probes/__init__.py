"""Linear probes over layers and steps, and what keeps them honest."""

from repsim.probes.estimators import names as names
from repsim.probes.layers import probe_input as probe_input
from repsim.probes.layers import probe_layers as probe_layers
from repsim.probes.linear import LinearProbe as LinearProbe
from repsim.probes.mdl import codelength_layers as codelength_layers

__all__ = [
    "LinearProbe",
    "codelength_layers",
    "names",
    "probe_input",
    "probe_layers",
]


def __dir__() -> list[str]:
    return sorted(__all__)
