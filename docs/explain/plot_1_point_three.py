"""
What does a debiased CKA of .3 mean?
====================================

Nothing by itself. This page makes 0.3 in two ways that have little in common, and shows
what to hold beside it.
"""

import matplotlib.pyplot as plt
import numpy as np

import repsim

rng = np.random.default_rng(0)
n, d = 500, 50

# %%
# Shared and private dimensions
# -----------------------------
# Two layers of 50 units, k of them the same. Of equal variance, CKA is about the share
# of what is common: 0.3 is 15 shared units of 50.

common = np.arange(0, d + 1, 5)
shared = [
    repsim.cka(x, np.concatenate([x[:, :k], rng.normal(size=(n, d - k))], 1))
    for k in common
    for x in [rng.normal(size=(n, d))]
]

# %%
# One loud direction
# ------------------
# CKA weighs directions by the *square* of their variance. One common unit with s times
# the standard deviation of the rest brings the same 0.3 while 49 units of 50 are
# unrelated, and goes on towards 1.

scales = np.linspace(1, 6, 16)


def loud(s):
    x, y = rng.normal(size=(2, n, d))
    x[:, 0] = y[:, 0] = s * rng.normal(size=n)
    return repsim.cka(x, y)


single = [np.mean([loud(s) for _ in range(3)]) for s in scales]

figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained", sharey=True)
axes[0].plot(common, shared, "o-")
axes[0].set(
    xlabel="common units of 50", ylabel="debiased CKA", title="many, each alike"
)
axes[1].plot(scales, single, "o-")
axes[1].set(xlabel="size of the one common unit", title="one, but loud")
for ax in axes:
    ax.axhline(0.3, color="0.6", ls="--", lw=1)

# %%
# So look at how many directions a layer uses
# (:func:`repsim.effective_dimension`) before reading a CKA, and at a measure that weighs
# directions equally, such as ``regularized_cca``, beside it.
#
# How large is chance, how large is noise?
# ----------------------------------------
# Debiased CKA of unrelated layers is 0 on average, whatever the numbers of units and
# examples; the *biased* one is not. The band is what chance alone does.

sizes = [20, 40, 80, 160, 320, 640]
debiased, biased = (
    np.array(
        [
            [repsim.cka(*rng.normal(size=(2, m, 100)), debiased=how) for _ in range(20)]
            for m in sizes
        ]
    )
    for how in (True, False)
)
figure, ax = plt.subplots(figsize=(5.5, 3.4), layout="constrained")
for values, name in ((debiased, "debiased"), (biased, "biased")):
    ax.plot(sizes, values.mean(1), "o-", label=name)
    ax.fill_between(sizes, values.min(1), values.max(1), alpha=0.2)
ax.axhline(0.3, color="0.6", ls="--", lw=1)
ax.set(
    xscale="log",
    xlabel="examples",
    ylabel="CKA",
    title="two unrelated layers of 100 units",
)
ax.set_xticks(sizes, [str(m) for m in sizes])
ax.minorticks_off()
_ = ax.legend()

# %%
# Of unrelated layers the debiased CKA is 0 with a spread that shrinks with the number of
# examples; the biased one passes 0.3 without any relation until examples outnumber the
# units by far. For your own layers:
# :func:`repsim.inference.permutation_test` (is it more than chance?),
# :func:`repsim.inference.confidence` (how far would it move with other examples?), and
# two seeds of one rule (how alike is alike?): 0.3 between rules is little where seeds
# have 0.9, and much where seeds have 0.35.
