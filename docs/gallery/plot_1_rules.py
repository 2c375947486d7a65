"""
Backpropagation against synthetic gradients
===========================================

Two rules, two seeds each. The left map is what two seeds of one rule do, the middle
one what the other rule does; the right one, their difference, is what to look at: on
the scale of CKA itself a difference of some hundredths is invisible.
"""

import matplotlib.pyplot as plt

import repsim

data = repsim.datasets.load("digits")
inputs, labels = repsim.datasets.to_tensors(data, "flat")


def train(rule, seed, **options):
    net = repsim.networks.mlp(64, hidden=[48] * 6, classes=10, seed=seed)
    learner = repsim.learning.make(rule, net, lr=1e-3, seed=seed, **options)
    with repsim.Recorder(learner, inputs[:300], labels=labels[:300], every=250) as seen:
        repsim.train(learner, data, 250, seed=seed, callbacks=[seen], progress=False)
    return seen.dataset().isel(step=-1)


bp, other, sg = train("bp", 0), train("bp", 1), train("sg", 2)

# %%
# The split, behind ``hidden_3``, is drawn as a dashed line.

seeds, rules = repsim.compare(bp, other), repsim.compare(bp, sg)
figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
repsim.plot.heatmap(seeds, ax=axes[0], cbar=False)
repsim.plot.heatmap(rules, ax=axes[1], splits={"layer_b": ["hidden_3"]})
repsim.plot.heatmap(rules - seeds, ax=axes[2], difference=True)
for ax, title in zip(axes, ("bp – bp, another seed", "bp – sg", "difference")):
    ax.set_title(title)
    ax.set(xlabel="layer of the second", ylabel="layer of the first")

# %%
# Two networks are no evidence. With several seeds of each,
# :func:`repsim.inference.seed_test` says whether rules differ by more than seeds do.

print(repsim.summary(rules))
