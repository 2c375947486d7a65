"""
What a linear probe reads, and what it could have memorised
===========================================================

A probe's accuracy says something about a layer only beside its control: the same
probe fitted to shuffled labels. What the control reaches on the examples that it was
fitted to is memory, not knowledge.
"""

import matplotlib.pyplot as plt

import repsim

data = repsim.datasets.load("digits")
inputs, labels = repsim.datasets.to_tensors(data, "flat")
net = repsim.networks.mlp(64, hidden=[48] * 6, classes=10, seed=0)
rule = repsim.learning.make("bp", net, lr=1e-3)
with repsim.Recorder(
    rule, inputs[:500], labels=labels[:500], steps=[0, 20, 200]
) as seen:
    repsim.train(rule, data, 200, callbacks=[seen], progress=False)

scores = repsim.probes.probe_layers(seen.dataset(), control=True)

figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
repsim.plot.layer_curve(scores["accuracy"], hue="step", ax=axes[0])
last = scores.isel(step=-1)
repsim.plot.layer_curve(
    last["accuracy"],
    ax=axes[1],
    baselines={
        "shuffled labels, training": last["control_train_accuracy"],
        "most frequent class": last["chance"],
    },
)
axes[0].set(title="over training", ylim=(0, 1.02))
_ = axes[1].set(title="after training, with its control", ylim=(0, 1.02))

# %%
print(repsim.summary(scores))
