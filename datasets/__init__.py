"""What goes in and what comes out, both as xarray."""

from repsim.datasets.catalogue import load as load
from repsim.datasets.catalogue import names as names
from repsim.datasets.catalogue import to_tensors as to_tensors
from repsim.datasets.recordings import layers as layers
