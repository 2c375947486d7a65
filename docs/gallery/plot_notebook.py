"""
In a notebook
=============

``import repsim`` gives every recording, result and study of xarray an accessor,
``.repsim``: what one asks of it, in a line. This page is a notebook, too: the download
is at its end.
"""

import sklearn.datasets
import torch
from IPython.display import HTML
from matplotlib import pyplot as plt
from torch import nn

import repsim

x, y = sklearn.datasets.load_digits(return_X_y=True)
x, y = torch.tensor(x / 16, dtype=torch.float32), torch.tensor(y)


def train(seed):
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 10)
    )
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    with repsim.Recorder(model, x[:200], labels=y[:200], every=20) as recorder:
        for _ in range(80):
            rows = torch.randint(200, len(x), (64,))
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
            recorder.step()
    return recorder.dataset()


run, other = train(0), train(1)
run.repsim

# %%
# The recording itself is an ``xarray.Dataset``: a variable a layer.

run

# %%
# A layer at a moment, and the heat map of the last one:

run.repsim.matrix("2").shape

# %%

_ = run.repsim.plot.heatmap(other, figsize=(4.6, 3.8))

# %%
# A result says a sentence, and is a tidy table.

cells = run.repsim.compare(other)
cells.repsim.summary()

# %%

cells.repsim.table().head()

# %%
# All moments side by side:

_ = cells.repsim.plot.heatmaps(col="step", columns=3, size=2.6)

# %%
# With ipywidgets ``cells.repsim.plot.slider()`` puts the steps under a slider; where
# the page is to be read without a kernel, a film has one, too.

page = repsim.plot.animate(cells).to_jshtml()
plt.close()
HTML(page)
