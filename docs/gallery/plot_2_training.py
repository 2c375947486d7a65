"""
When in training layers come together
=====================================

One network against another seed, at five moments. Random weights keep the first layers
alike and lose likeness with depth; the first updates change the upper layers most;
then all come together, since both networks learn to separate the same classes.
"""

import repsim

data = repsim.datasets.load("digits")
inputs, labels = repsim.datasets.to_tensors(data, "flat")


def train(seed):
    net = repsim.networks.mlp(64, hidden=[48] * 5, classes=10, seed=seed)
    rule = repsim.learning.make("bp", net, lr=1e-3)
    moments = [0, 10, 40, 120, 300]
    with repsim.Recorder(rule, inputs[:300], steps=moments) as recorder:
        repsim.train(rule, data, 300, seed=seed, callbacks=[recorder], progress=False)
    return recorder.dataset()


cells = repsim.compare(train(0), train(1))
axes = repsim.plot.heatmaps(cells, col="step", columns=5, size=2.8)

# %%
# Matching layers alone, a line a step, from light to dark:

import xarray as xr

match = xr.DataArray(range(cells.sizes["layer_a"]), dims="layer")
line = cells.isel(layer_a=match, layer_b=match)
line = line.drop_vars("layer_b").rename(layer_a="name")
line = line.assign_coords(layer=line["name"].values).drop_vars("name")
axes = repsim.plot.layer_curve(line, hue="step", figsize=(5.5, 3.6))
_ = axes.set_ylim(0, 1.02)
