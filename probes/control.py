"""Control tasks: targets that carry nothing a layer could know about the examples."""

import warnings

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from repsim.probes.targets import Target, per_example


def shuffled(
    target: Target, train: np.ndarray, test: np.ndarray, seed: int
) -> np.ndarray:
    """Return the target's values, shuffled over the examples of either side.

    Shuffling within the sides keeps the classes in proportion on both.
    """
    rng = np.random.default_rng([seed, 1])
    values = target.values.copy()
    for side in (train, test):
        values[side] = rng.permutation(values[side])
    return values


def grouped(
    target: Target,
    groups: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    seed: int,
) -> np.ndarray:
    """Return one random value for each group, drawn as often as the target has it."""
    kinds, codes = np.unique(groups, return_inverse=True)
    learnt = np.unique(codes[train])
    if len(learnt) < 2:
        msg = (
            "Expected `control` to have at least 2 groups among the training "
            f"examples, but got {len(learnt)}."
        )
        raise ValueError(msg)
    if not np.isin(codes[test], learnt).any():
        msg = (
            "Expected `control` to group examples so that held-out ones share groups "
            f"with training ones, but none of {len(kinds)} groups is shared; use "
            "control=True to measure what the probe memorises."
        )
        raise ValueError(msg)
    strange = int((~np.isin(codes[test], learnt)).sum())
    if strange:
        warnings.warn(
            f"{strange} of {len(test)} held-out examples belong to groups without a "
            "training example: no probe can know their control labels, which lowers "
            "the control's score and raises the selectivity.",
            stacklevel=2,
        )
    rng = np.random.default_rng([seed, 2])
    while True:
        drawn = rng.choice(target.values, size=len(kinds))
        if len(np.unique(drawn[learnt])) > 1:
            return np.asarray(drawn[codes])


def control_values(
    run: xr.Dataset,
    target: Target,
    control: bool | str | ArrayLike,
    train: np.ndarray,
    test: np.ndarray,
    seed: int,
) -> tuple[str, np.ndarray]:
    """Return the control's name and values."""
    if isinstance(control, (bool, np.bool_)):
        return "shuffled", shuffled(target, train, test, seed)
    name, groups = per_example(run, control, "control")
    groups = groups.astype(str) if groups.dtype.kind == "O" else groups
    return name, grouped(target, groups, train, test, seed)
