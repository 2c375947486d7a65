"""
Do networks cluster by rule or by seed?
=======================================

Every network is one point: the distance of two points is how far their layers'
geometries are apart. The tree beside it says the same without squeezing it into a
plane; read the stress in the title before believing the plane.
"""

import matplotlib.pyplot as plt
import xarray as xr

import repsim

data = repsim.datasets.load("digits")
inputs, labels = repsim.datasets.to_tensors(data, "flat")


def train(rule, seed):
    net = repsim.networks.mlp(64, hidden=[32] * 4, classes=10, seed=seed)
    learner = repsim.learning.make(rule, net, lr=1e-3, seed=seed)
    repsim.train(learner, data, 150, seed=seed, progress=False)
    return repsim.record(net, inputs[:120], labels=labels[:120])


rules = ("bp", "sg", "dfa")
study = xr.DataTree.from_dict(
    {
        f"{rule}/{k}": train(rule, 10 * r + k)
        for r, rule in enumerate(rules)
        for k in range(3)
    }
)
distances = repsim.network_rdm(repsim.rdms(study), items="networks")

figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
repsim.plot.mds(distances, ax=axes[0], method="metric")
_ = repsim.plot.dendrogram(distances, ax=axes[1])
