"""Control tasks: targets that carry nothing a layer could know about the examples."""

import warnings

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from repsim.probes.splits import Split
from repsim.probes.targets import Target, per_example


def shuffled(
    target: Target, sides: Split, kin: np.ndarray | None, seed: list[int]
) -> np.ndarray:
    """Return the target's values, shuffled over the examples of either side.

    Shuffling within the sides keeps the classes in proportion on both. Where the
    members of a group share their value, as repeats of a stimulus do, they go on
    sharing one: else what a probe memorises would be underrated.
    """
    rng = np.random.default_rng(seed)
    values = target.values.copy()
    first = None if kin is None else np.unique(kin, return_index=True)[1]
    if first is not None and (values == values[first][kin]).all():
        for side in sides:
            groups, members = np.unique(kin[side], return_inverse=True)  # type: ignore[index]
            values[side] = rng.permutation(values[first][groups])[members]
        return values
    for side in sides:
        values[side] = rng.permutation(values[side])
    return values


def grouped(
    target: Target, types: np.ndarray, sides: Split, seed: list[int]
) -> np.ndarray:
    """Return one random value for each type, drawn as often as the target has it."""
    train, test = sides
    kinds, codes = np.unique(types, return_inverse=True)
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
    rng = np.random.default_rng(seed)
    while True:
        drawn = rng.choice(target.values, size=len(kinds))
        if (np.ptp(drawn[learnt], axis=0) > 0).all():
            return np.asarray(drawn[codes])


def control_values(
    run: xr.Dataset,
    target: Target,
    control: bool | str | ArrayLike,
    sides: Split,
    kin: np.ndarray | None,
    seed: int,
    draw: int = 0,
) -> tuple[str, np.ndarray]:
    """Return the control's name and values."""
    if isinstance(control, (bool, np.bool_)):
        return "shuffled", shuffled(target, sides, kin, [seed, 1, draw])
    name, types = per_example(run, control, "control")
    types = types.astype(str) if types.dtype.kind == "O" else types
    values = grouped(target, types, sides, [seed, 2, draw])
    strange = int((~np.isin(types[sides[1]], types[sides[0]])).sum())
    if strange and draw == 0:
        warnings.warn(
            f"{strange} of {len(sides[1])} held-out examples belong to groups without "
            "a training example: no probe can know their control labels, which lowers "
            "the control's score and raises the selectivity.",
            stacklevel=2,
        )
    return name, values
