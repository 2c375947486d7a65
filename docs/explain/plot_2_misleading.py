"""
Five ways to be misled
======================

Each row does something harmless, or harmful, to a layer; each column is a measure. A
measure that stays at its best has not seen the change; one that falls has. Which of
the two is right depends on the question.
"""

import numpy as np
import xarray as xr

import repsim

rng = np.random.default_rng(0)
n, d = 400, 20
x = rng.normal(size=(n, d)) * np.linspace(2, 0.5, d)  # some directions matter more

rotation = np.linalg.qr(rng.normal(size=(d, d)))[0]
stretch = np.exp(rng.normal(size=d))
outlier = x.copy()
outlier[0] *= 40
noisy = x.copy()
noisy[:, 10:] = rng.normal(size=(n, d - 10)) * x[:, 10:].std(0)
cluster = np.repeat(np.eye(2), n // 2, 0) @ rng.normal(size=(2, d)) * 6
changed = {
    "rotated": x @ rotation,
    "units rescaled": x * stretch,
    "quiet half replaced": noisy,
    "unrelated, one huge example": outlier,
    "unrelated, two classes": cluster + rng.normal(size=(n, d)),
}
partner = {
    "unrelated, one huge example": np.concatenate(
        [outlier[:1], rng.normal(size=(n - 1, d))]
    ),
    "unrelated, two classes": cluster[:, ::-1] + rng.normal(size=(n, d)),
}

measures = {
    "cka": "CKA",
    "biased": "CKA, biased",
    "cca": "CCA",
    "svcca": "SVCCA",
    "linear_predictivity": "R²",
    "mutual_knn": "k-NN",
    "rsa": "RSA",
    "hard_unit_matching": "units matched",
}


def value(name, x, y):
    if name == "biased":
        return repsim.cka(x, y, debiased=False)
    return repsim.measures.get(name)(x, y)


values = xr.DataArray(
    [
        [value(name, partner.get(how, x), y) for name in measures]
        for how, y in changed.items()
    ],
    dims=("change", "measure"),
    coords={"change": list(changed), "measure": list(measures.values())},
    name="value",
)
axes = repsim.plot.heatmap(
    values, figsize=(9, 3.2), square=False, annot=True, fmt=".2f", vmin=0, vmax=1
)
axes.invert_yaxis()
_ = axes.set(xlabel="", ylabel="", title="value of the measure (1 is alike)")

# %%
# Read by row:
#
# - **Rotated.** Nothing that a linear reader could use has changed. Matching single units
#   sees it (and, a little, RSA by correlation, which centres each example over its
#   units). If single units are the question, that is the measure.
# - **Units rescaled.** CCA and R² ignore it by definition. CKA, neighbours and RSA see
#   that other directions now dominate.
# - **The quiet half replaced.** CKA hardly notices: it weighs directions by their squared
#   variance. CCA, which weighs all alike, falls to about half.
# - **One huge example.** *Biased* CKA is decided by it alone. The debiased one leaves out
#   how similar an example is to itself, and is not fooled; nor are held-out R², ranks
#   and neighbours. Matched units are.
# - **Two classes.** Whatever separates the classes is alike to anything that does. All
#   layers of all trained networks are somewhat alike for this reason. Compare within
#   classes, or with another seed, before calling it similarity.
#
# Which one, then?
# ----------------
# Begin with debiased CKA and two seeds. Beside it put one measure that ignores *more*
# (``regularized_cca``: any linear map) and one that ignores *less* (``procrustes_distance``, a
# metric; ``hard_unit_matching`` for units). Where they agree, the conclusion does not
# hang on the measure.
