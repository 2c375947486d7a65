"""
Model RDMs beneath a noise ceiling
==================================

Which layer explains measured dissimilarities best, and could any model do better?
Six simulated subjects see the geometry of digits through noise. Bars carry intervals
over subjects *and* stimuli; a dot says more than nothing, a triangle that a model stays
below the ceiling, a line that two models differ.
"""

import numpy as np

import repsim

data = repsim.datasets.load("digits")
inputs, labels = repsim.datasets.to_tensors(data, "flat")
some = labels[:300].argsort()[::5]  # sixty, of all classes
net = repsim.networks.mlp(64, hidden=[48] * 3, classes=10, seed=0)
rule = repsim.learning.make("bp", net, lr=1e-3)
repsim.train(rule, data, 150, progress=False)
rdms = repsim.rdms(repsim.record(net, inputs[some], labels=labels[some]))

rng = np.random.default_rng(0)
truth = rdms.sel(layer="hidden_2").values
brain = truth + 0.25 * rng.normal(size=(6, truth.size))  # (subject, pair)

models = {str(name): rdms.sel(layer=name) for name in rdms["layer"].values}
models |= {"class": repsim.model_rdms(rdms, same=["label"]).isel(model=0)}
test = repsim.inference.model_test(brain, models, over=("rdm", "example"))
_ = repsim.plot.models(test, figsize=(6, 3.8))

# %%
print(repsim.summary(test))
