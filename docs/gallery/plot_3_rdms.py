"""
The geometry of classes, layer by layer
=======================================

Representational dissimilarity matrices of three rules: examples are sorted by class,
so dark squares along the diagonal are classes that a layer has gathered.
"""

import xarray as xr

import repsim

data = repsim.datasets.load("digits")
inputs, labels = repsim.datasets.to_tensors(data, "flat")
order = labels[:400].argsort()[::4]  # a hundred, of all classes


def train(rule, **options):
    net = repsim.networks.mlp(64, hidden=[48] * 5, classes=10, seed=0)
    learner = repsim.learning.make(rule, net, lr=1e-3, **options)
    repsim.train(learner, data, 250, progress=False)
    return repsim.record(net, inputs[order], labels=labels[order])


runs = {"bp": train("bp"), "sg": train("sg"), "none": train("none")}
rdms = xr.concat([repsim.rdms(run) for run in runs.values()], "condition")
rdms = rdms.assign_coords(condition=list(runs))
grid = repsim.plot.rdm_grid(rdms, splits={"sg": ["hidden_3"]}, height=1.4)

# %%
# How far apart classes are, less how far apart examples of one class are:

axes = repsim.plot.layer_curve(repsim.class_margin(rdms), figsize=(5.5, 3.4))

# %%
# ``none`` trains the output alone: its hidden layers are those of a random network.

print(repsim.summary(rdms.sel(condition="bp")))
