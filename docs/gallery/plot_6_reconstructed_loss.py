"""
The loss that a synthetic gradient implies
==========================================

A synthetic gradient is a guess at dL/dh; integrated, it is a guess at the loss itself
(section 4 of the paper). Early in training the guess follows the true loss of each
example; late, when most examples are right and their gradients vanish, it no longer
does.
"""

import matplotlib.pyplot as plt
import torch
from scipy.stats import spearmanr
from torch.nn.functional import cross_entropy, one_hot

import repsim

data = repsim.datasets.load("digits")
x, y = repsim.datasets.to_tensors(data, "flat")
x, y = x[:400], y[:400]
net = repsim.networks.mlp(64, hidden=[48] * 4, classes=10, seed=0)
rule = repsim.learning.make("sg", net, lr=1e-3)
(split,) = rule.predictors  # the layer behind which the gradient is synthesised

figure, axes = plt.subplots(1, 3, figsize=(10, 3.4), layout="constrained")
done = 0
for ax, more in zip(axes, (10, 60, 400)):
    done += more
    repsim.train(rule, data, more, progress=False)
    with repsim.tap(net, split) as seen, torch.no_grad():
        true = cross_entropy(net(x), y, reduction="none")
    implied = repsim.learning.reconstructed_loss(
        rule.predictors[split], seen[split], one_hot(y, 10).float(), true_loss=true
    )
    rank = spearmanr(true, implied.values).statistic
    most = true <= true.quantile(0.98)  # a few large losses would hide the others
    ax.scatter(true[most], implied.values[most], s=5, alpha=0.5)
    ax.axline((0, 0), slope=1, color="0.6", lw=1, zorder=0)
    ax.set(
        title=f"update {done}: rank correlation {rank:.2f}",
        xlabel="true loss (nats)",
    )
axes[0].set_ylabel("loss implied by the predictor")
figure.suptitle(f"98 % of 400 examples, predictor behind {split}")

# %%
# The values are anchored at the true losses by one constant a label; ``curl`` says how
# far the predictor is from being a gradient of anything:

print(f"curl {implied.curl:.2f}")
