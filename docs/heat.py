"""The picture of README and front page: `python -P docs/heat.py docs/heat.png`."""

import sys

import matplotlib.pyplot as plt

import repsim

STEPS = [0, 20, 60, 200]
data = repsim.datasets.load("digits")
inputs, labels = repsim.datasets.to_tensors(data, "flat")


def train(rule, seed):
    """Return the recording of one network."""
    net = repsim.networks.mlp(64, hidden=[48] * 8, classes=10, seed=seed)
    learner = repsim.learning.make(rule, net, lr=1e-3, seed=seed)
    with repsim.Recorder(learner, inputs[:400], steps=STEPS) as recorder:
        repsim.train(
            learner, data, 200, seed=seed, callbacks=[recorder], progress=False
        )
    return recorder.dataset()


bp = [train("bp", seed) for seed in range(3)]
sg = [train("sg", 10 + seed) for seed in range(3)]
rules = sum(repsim.compare(a, b) for a in bp for b in sg) / 9
seeds = sum(repsim.compare(bp[i], bp[j]) for i, j in ((0, 1), (0, 2), (1, 2))) / 3
rules, seeds = (x.rename("cka").assign_attrs(measure="cka") for x in (rules, seeds))
gap = rules - seeds
top = float(abs(gap).max())

figure, axes = plt.subplots(2, 4, figsize=(10, 5.2), layout="compressed")
for k, step in enumerate(STEPS):
    upper, lower = axes[:, k]
    plain = {"cbar": False, "xticklabels": False, "yticklabels": False}
    repsim.plot.heatmap(
        rules.isel(step=k), ax=upper, splits={"layer_b": ["hidden_4"]}, **plain
    )
    repsim.plot.heatmap(
        gap.isel(step=k),
        ax=lower,
        difference=True,
        **(plain | {"vmin": -top, "vmax": top}),
    )
    upper.set(title=f"after {step} updates", xlabel="", ylabel="")
    lower.set(title="", xlabel="layers, synthetic gradient", ylabel="")
axes[0, 0].set_ylabel("layers,\nbackpropagation")
axes[1, 0].set_ylabel("minus two seeds of\nbackpropagation")
figure.colorbar(axes[0, 0].collections[0], ax=axes[0], label="debiased CKA")
figure.colorbar(axes[1, 0].collections[0], ax=axes[1], label="difference")
figure.savefig(sys.argv[1], dpi=80)
