"""What the input already gives away."""

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator

from repsim.datasets.recordings import networks
from repsim.probes.layers import probe_layers
from repsim.probes.targets import expect_same_order


def probe_input(
    run: xr.Dataset | xr.DataTree,
    target: str | ArrayLike = "label",
    *,
    inputs: ArrayLike | xr.DataArray | None = None,
    estimator: str | BaseEstimator | None = None,
    test_size: float = 0.25,
    seed: int = 0,
) -> xr.Dataset:
    """Return how well the same probe reads the target from the input itself.

    What a probe reads from pixels is no achievement of a layer.

    Parameters
    ----------
    run : Dataset or DataTree
        A recording, for its examples and target, or a study.
    target : str or array-like, shape (example,)
        As for `probe_layers`.
    inputs : array-like, shape (example, …), optional
        The recorded inputs, in the recording's order; more dims are flattened. A
        study keeps them in the variable `input` of its root.
    estimator : str, estimator or None
        As for `probe_layers`.
    test_size : float
        As for `probe_layers`.
    seed : int
        As for `probe_layers`; the same gives the same split.

    Returns
    -------
    Dataset
        The variables of `probe_layers`, without dims.

    Raises
    ------
    ValueError
        If there are no inputs, not one for each example, or in another order.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> label = np.arange(80) % 2
    >>> run = xr.Dataset(
    ...     {"h": (("example", "h_unit"), rng.normal(size=(80, 3)))},
    ...     coords={"label": ("example", label)},
    ... )
    >>> pixels = rng.normal(size=(80, 4)) + 9 * label[:, None]
    >>> float(probe_input(run, inputs=pixels)["accuracy"])
    1.0
    """
    if isinstance(run, xr.DataTree):
        if inputs is None and "input" in run.data_vars:
            inputs = run.to_dataset()["input"].values
        run = _first(run)
    if inputs is None:
        msg = (
            "Expected `inputs`, the recorded inputs, but got none, and the recording "
            "holds none; pass inputs=…, in the recording's order."
        )
        raise ValueError(msg)
    expect_same_order(run, inputs, "inputs")
    values = np.asarray(inputs)
    n = run.sizes["example"]
    if not values.ndim or len(values) != n:
        msg = (
            f"Expected `inputs` to hold one input for each of the {n} examples, but "
            f"got shape {values.shape}."
        )
        raise ValueError(msg)
    kept = run.drop_vars([str(name) for name in run.data_vars])
    kept = kept.drop_dims([dim for dim in kept.dims if dim != "example"])
    kept.attrs = {}
    kept["input"] = (("example", "input_unit"), values.reshape(n, -1))
    found = probe_layers(
        kept, target, estimator=estimator, test_size=test_size, seed=seed
    )
    return found.isel(layer=0, drop=True)


def _first(study: xr.DataTree) -> xr.Dataset:
    return next(iter(networks(study).values()))
