"""Plots: DataArray in, Axes out; nothing is shown, saved or styled globally."""

from repsim.plot.curves import layer_curve as layer_curve
from repsim.plot.heat_maps import heatmap as heatmap
from repsim.plot.heat_maps import heatmaps as heatmaps
from repsim.plot.model_bars import models as models
from repsim.plot.moving import animate as animate
from repsim.plot.moving import slider as slider
from repsim.plot.network_maps import dendrogram as dendrogram
from repsim.plot.network_maps import mds as mds
from repsim.plot.rdm_grids import rdm_grid as rdm_grid
from repsim.plot.trajectories import dynamics as dynamics

__all__ = [
    "animate",
    "dendrogram",
    "dynamics",
    "heatmap",
    "heatmaps",
    "layer_curve",
    "mds",
    "models",
    "rdm_grid",
    "slider",
]


def __dir__() -> list[str]:
    return sorted(__all__)
