"""
Two transformers of different depth
===================================

Layers of networks that do not match one to one: a vision transformer with two blocks
against one with five. If the deeper one did the same things more slowly, a bright ridge
would join the corners. Early in training it does not: with residual connections the
hidden layers of both are all alike, and only the outputs stand apart.
"""

import repsim

data = repsim.datasets.load("digits")
images, labels = repsim.datasets.to_tensors(data, "image")


def train(depth):
    net = repsim.networks.vit(
        images.shape[1:], 10, depth=depth, width=16, activation="gelu", seed=depth
    )
    rule = repsim.learning.make("bp", net, lr=1e-3)
    repsim.train(rule, data, 40, batch_size=32, progress=False)
    axes = {"hidden_*": "example token unit"}  # these blocks do not say it themselves
    return repsim.record(net, images[:150], axes=axes, reduce="flatten")


shallow, deep = train(2), train(5)
cells = repsim.compare(shallow, deep)
axes = repsim.plot.heatmap(cells, figsize=(6, 3.4), square=True)
_ = axes.set(xlabel="five blocks", ylabel="two blocks")

# %%
print(repsim.summary(cells))
