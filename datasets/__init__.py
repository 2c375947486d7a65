"""What goes in and what comes out, both as xarray."""

from repsim.datasets.arrays import from_arrays as from_arrays
from repsim.datasets.arrays import from_hidden_states as from_hidden_states
from repsim.datasets.arrays import from_responses as from_responses
from repsim.datasets.inputs.loading import load as load
from repsim.datasets.inputs.loading import names as names
from repsim.datasets.inputs.loading import register as register
from repsim.datasets.inputs.loading import to_tensors as to_tensors
from repsim.datasets.inputs.loading import unregister as unregister
from repsim.datasets.recordings import layers as layers
from repsim.datasets.transfer import read_activations as read_activations
from repsim.datasets.transfer import write_activations as write_activations

__all__ = [
    "from_arrays",
    "from_hidden_states",
    "from_responses",
    "layers",
    "load",
    "names",
    "read_activations",
    "register",
    "to_tensors",
    "unregister",
    "write_activations",
]


def __dir__() -> list[str]:
    return sorted(__all__)
