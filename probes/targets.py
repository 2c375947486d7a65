"""What is probed for, checked once, and the examples it is learnt and tested on."""

from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike
from sklearn.model_selection import train_test_split

from repsim.core.messages import seed_number, unknown

SHOWN = 5


@dataclass(frozen=True)
class Target:
    """One value for each example."""

    name: str
    values: np.ndarray
    classes: np.ndarray | None

    @property
    def continuous(self) -> bool:
        """Whether the target is a number to be regressed on."""
        return self.classes is None


def some(classes: np.ndarray) -> str:
    """Return the first few of many classes, for a sentence."""
    more = f" and {len(classes) - SHOWN} more" if len(classes) > SHOWN else ""
    return f"{classes[:SHOWN].tolist()!r}{more}"


def per_example(run: xr.Dataset, values: str | ArrayLike, what: str) -> tuple[str, Any]:
    """Return the name and the values, one for each example, of what a user gave."""
    if isinstance(values, str):
        known = [
            str(name)
            for name, variable in run.variables.items()
            if variable.dims == ("example",)
        ]
        if values not in known:
            message = unknown(what, values, known)
            raise ValueError(f"{message} Record with labels=…, or pass an array.")
        name, array = values, run[values].values
    else:
        name = str(getattr(values, "name", None) or "array")
        array = np.asarray(values)
        expect_same_order(run, values, what)
    n = run.sizes["example"]
    if array.shape != (n,):
        msg = (
            f"Expected `{what}` to hold one value for each of the {n} examples, but "
            f"got shape {array.shape}."
        )
        raise ValueError(msg)
    # What is stored as objects may be numbers, and is judged as what it is.
    array = (
        np.asarray(pd.Series(array).infer_objects()) if array.dtype == "O" else array
    )
    lost = int(pd.isna(array).sum())
    if array.dtype.kind == "f":
        lost = int((~np.isfinite(array)).sum())
    if lost:
        msg = (
            f"Expected `{what}` {name!r} to be known for every example, but {lost} of "
            f"{n} are missing or infinite; leave those examples out with "
            "run.isel(example=…)."
        )
        raise ValueError(msg)
    return name, array


def expect_same_order(run: xr.Dataset, values: Any, what: str) -> None:
    """Raise where values carry example ids that are not the recording's, in order."""
    if not isinstance(values, xr.DataArray):
        return
    if "example" not in run.coords or "example" not in values.coords:
        return
    if not np.array_equal(values["example"], run["example"]):
        msg = (
            f"Expected `{what}` to have the recording's examples in their order, but "
            "its `example` coordinate differs; reorder it, as in "
            f'{what}.sel(example=run["example"]).'
        )
        raise ValueError(msg)


def resolve(run: xr.Dataset, target: str | ArrayLike, regression: bool) -> Target:
    """Return the target of a recording, ready to be probed for."""
    name, values = per_example(run, target, "target")
    numeric = values.dtype.kind in "fiu"
    if regression or (numeric and bool((values != np.floor(values)).any())):
        return _continuous(name, values, numeric)
    values = values.astype(str) if values.dtype.kind == "O" else values
    classes, codes, counts = np.unique(values, return_inverse=True, return_counts=True)
    if len(classes) < 2:
        msg = (
            f"Expected `target` {name!r} to have at least 2 classes, but every "
            f"example has {classes.tolist()[0]!r}."
        )
        raise ValueError(msg)
    if counts.min() < 2:
        rare = some(classes[counts < 2])
        msg = (
            f"Expected every class of `target` {name!r} to have at least 2 examples, "
            f"one to learn from and one held out, but {rare} have 1; leave them "
            "out with run.isel(example=…)."
        )
        raise ValueError(msg)
    return Target(name, codes, classes)


def _continuous(name: str, values: np.ndarray, numeric: bool) -> Target:
    if not numeric:
        msg = (
            f"Expected `target` {name!r} to be numbers for a regression, but got "
            f"values of type {values.dtype}; give a classifier as `estimator`."
        )
        raise ValueError(msg)
    values = values.astype(np.float64)
    if np.ptp(values) == 0:
        msg = (
            f"Expected `target` {name!r} to vary, but every example has "
            f"{float(values[0])!r}."
        )
        raise ValueError(msg)
    return Target(name, values, None)


def split(target: Target, test_size: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of training and held-out examples."""
    if not isinstance(test_size, Real) or not 0 < float(test_size) < 1:
        msg = f"Expected `test_size` to be between 0 and 1, but got {test_size!r}."
        raise ValueError(msg)
    n = len(target.values)
    k = 2 if target.classes is None else len(target.classes)
    held = int(np.ceil(n * test_size))
    if min(held, n - held) < k:
        msg = (
            f"Expected `test_size` to leave at least {k} examples on either side, "
            f"but {test_size} of {n} examples leaves {n - held} and {held}."
        )
        raise ValueError(msg)
    train, test = train_test_split(
        np.arange(n),
        test_size=float(test_size),
        random_state=seed_number(seed),
        stratify=None if target.classes is None else target.values,
    )
    if target.classes is not None:
        lost = np.setdiff1d(np.arange(k), target.values[train])
        if lost.size:
            msg = (
                f"Expected a training example of every class of `target` "
                f"{target.name!r}, but `test_size`={test_size} leaves none of "
                f"{some(target.classes[lost])}; hold out less."
            )
            raise ValueError(msg)
    return np.sort(train), np.sort(test)
