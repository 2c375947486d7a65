"""What goes in and what comes out, both as xarray."""

from repsim.datasets.recordings import layers as layers
