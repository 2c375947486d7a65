"""What goes in and what comes out, both as xarray."""

from repsim.datasets.inputs.loading import load as load
from repsim.datasets.inputs.loading import names as names
from repsim.datasets.inputs.loading import to_tensors as to_tensors
from repsim.datasets.recordings import layers as layers
