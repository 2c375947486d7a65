"""Tables of numbers, with numbers to predict: the diabetes of scikit-learn."""

import numpy as np
import xarray as xr

NAMES = ("diabetes",)

TEST = 110
"""Test examples of diabetes, a quarter; drawn with seed 0."""


def diabetes(split: str) -> xr.Dataset:
    """Return scikit-learn's 442 patients; no network needed.

    Ten measurements, standardised by the training examples' means and deviations, and
    how far the disease has gone a year later.
    """
    from sklearn.datasets import load_diabetes  # as in images.py
    from sklearn.model_selection import train_test_split

    bunch = load_diabetes(scaled=False)
    train, test = train_test_split(
        np.arange(len(bunch.target)), test_size=TEST, random_state=0
    )
    rows = bunch.data[train]
    chosen = np.sort(train if split == "train" else test)
    values = (bunch.data[chosen] - rows.mean(0)) / rows.std(0)
    return xr.Dataset(
        {
            "features": (("example", "feature"), values.astype(np.float32)),
            "label": ("example", bunch.target[chosen].astype(np.float32)),
        },
        coords={"example": chosen.astype(np.int64)},
        attrs={
            "name": "diabetes",
            "split": split,
            "source": "sklearn.datasets.load_diabetes (Efron et al. 2004)",
            "licence": "public domain",
        },
    )
