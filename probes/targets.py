"""What is probed for: a coordinate or an array over the examples, checked once."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike

from repsim.core.messages import unknown

TaskKind = Literal["classification", "regression"]

SHOWN = 5

CODES = 20
"""Most classes that numbers 0 … k − 1 are taken for where the probe is a ridge."""


@dataclass(frozen=True)
class Target:
    """What is known of each example: one thing, or several outputs (example, output).

    Classes are kept as codes 0 … k − 1; several of them are labels, present or not.
    """

    name: str
    values: np.ndarray
    classes: np.ndarray | None
    outputs: list[Any] | None = None

    @property
    def continuous(self) -> bool:
        """Whether the target is a number to be regressed on."""
        return self.classes is None


def some(classes: np.ndarray) -> str:
    """Return the first few of many classes, for a sentence."""
    more = f" and {len(classes) - SHOWN} more" if len(classes) > SHOWN else ""
    return f"{classes[:SHOWN].tolist()!r}{more}"


def per_example(
    run: xr.Dataset, values: str | ArrayLike, what: str, *, several: bool = False
) -> tuple[str, Any]:
    """Return the name and the values, one for each example, of what a user gave.

    With `several`, also a matrix (example, output).
    """
    if isinstance(values, str):
        known = [
            str(name)
            for name, variable in run.variables.items()
            if variable.dims == ("example",)
            or (several and name in run.coords and _is_matrix(variable))
        ]
        if values not in known:
            more = "Record with labels=…, or pass an array."
            raise ValueError(unknown(what, values, known, more))
        name, array = values, run[values].values
    else:
        name = str(getattr(values, "name", None) or "array")
        array = np.asarray(values)
        expect_same_order(run, values, what)
    n = run.sizes["example"]
    if array.shape[:1] != (n,) or array.ndim > 1 + several or not array.size:
        msg = (
            f"Expected `{what}` to hold one value for each of the {n} examples, but "
            f"got shape {array.shape}."
        )
        raise ValueError(msg)
    # What is stored as objects may be numbers, and is judged as what it is.
    if array.dtype == "O":
        array = np.asarray(pd.Series(array.ravel()).infer_objects())
        array = array.reshape(n, *([-1] if several and array.size > n else []))
    lost = pd.isna(array) if array.dtype.kind != "f" else ~np.isfinite(array)
    if lost.any():
        rows = int(lost.reshape(n, -1).any(axis=1).sum())
        msg = (
            f"Expected `{what}` {name!r} to be known for every example, but {rows} of "
            f"{n} are missing or infinite; leave those examples out with "
            "run.isel(example=…)."
        )
        raise ValueError(msg)
    return name, array


def _is_matrix(variable: xr.Variable) -> bool:
    return variable.ndim == 2 and variable.dims[0] == "example"


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


def resolve(
    run: xr.Dataset,
    target: str | ArrayLike,
    task: TaskKind | None = None,
    *,
    regresses: bool = False,
    doubts: bool = False,
) -> Target:
    """Return the target of a recording, ready to be probed for.

    Without a `task`, numbers are regressed on where they are not all whole, where the
    probe `regresses`, and, where it `doubts`, unless they look like codes of classes.
    """
    if task is not None and task not in get_args(TaskKind):
        raise ValueError(unknown("task", task, get_args(TaskKind)))
    name, values = per_example(run, target, "target", several=True)
    numeric = values.dtype.kind in "fiu"
    whole = not numeric or not bool((values != np.floor(values)).any())
    if task is None:
        unlike = doubts and numeric and not (name == "label" or _are_codes(values))
        task = "regression" if regresses or not whole or unlike else "classification"
    outputs = None
    if values.ndim == 2:
        outputs = _outputs(run[target] if isinstance(target, str) else target, values)
    if task == "regression":
        return _continuous(name, values, numeric, outputs)
    if not whole:
        msg = (
            f"Expected `target` {name!r} to be classes, but got numbers that are not "
            'whole; leave out task="classification", or cut them into classes first.'
        )
        raise ValueError(msg)
    if outputs is not None:
        return _labels(name, values, outputs)
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
        advice = ', or give task="regression"' if numeric else ""
        msg = (
            f"Expected every class of `target` {name!r} to have at least 2 examples, "
            f"one to learn from and one held out, but {rare} have 1; leave them "
            f"out with run.isel(example=…){advice}."
        )
        raise ValueError(msg)
    return Target(name, codes, classes)


def _are_codes(values: np.ndarray) -> bool:
    """Return whether whole numbers are the codes 0 … k − 1 of a few classes."""
    kinds = np.unique(values)
    return len(kinds) <= CODES and np.array_equal(kinds, np.arange(len(kinds)))


def _outputs(given: Any, values: np.ndarray) -> list[Any]:
    """Return the names of a target's outputs: the coordinate's, or numbers."""
    if isinstance(given, xr.DataArray) and given.dims[1] in given.coords:
        return list(given[given.dims[1]].values.tolist())
    return list(range(values.shape[1]))


def _labels(name: str, values: np.ndarray, outputs: list[Any]) -> Target:
    """Return several labels of each example, each of them there or not."""
    if not np.isin(values, (0, 1)).all():
        msg = (
            f"Expected `target` {name!r} of several outputs to hold labels, 0 or 1, "
            f"but got {some(np.unique(values))}; probe for one output at a time, or "
            'give task="regression".'
        )
        raise ValueError(msg)
    codes = values.astype(np.int64)
    rare = np.minimum(codes.sum(axis=0), (1 - codes).sum(axis=0)) < 2
    if rare.any():
        msg = (
            f"Expected every label of `target` {name!r} to be there, and not there, "
            f"for at least 2 examples, but {some(np.asarray(outputs)[rare])} are not; "
            "leave them out."
        )
        raise ValueError(msg)
    return Target(name, codes, np.array([0, 1]), outputs)


def _continuous(
    name: str, values: np.ndarray, numeric: bool, outputs: list[Any] | None
) -> Target:
    if not numeric:
        msg = (
            f"Expected `target` {name!r} to be numbers for a regression, but got "
            f"values of type {values.dtype}; give a classifier as `estimator`."
        )
        raise ValueError(msg)
    values = values.astype(np.float64)
    constant = np.ptp(values, axis=0) == 0
    if constant.any():
        first = float(values.reshape(len(values), -1)[0, int(np.argmax(constant))])
        msg = f"Expected `target` {name!r} to vary, but every example has {first!r}."
        raise ValueError(msg)
    return Target(name, values, None, outputs)
