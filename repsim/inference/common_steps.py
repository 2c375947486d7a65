"""What of several networks is compared: the layers they share, and which moments."""

from collections.abc import Iterable, Sequence

import numpy as np
import xarray as xr

from repsim.core.messages import unknown
from repsim.datasets.recordings import matrix_layers, same_examples, select_layers

Runs = dict[tuple[str, str], xr.Dataset]
Steps = int | Sequence[int] | str | None
Layers = str | Iterable[str] | None


def as_list(layers: Layers) -> list[str] | None:
    """Return names as a list, so that an iterator serves more than once."""
    if layers is None:
        return None
    return [layers] if isinstance(layers, str) else [str(name) for name in layers]


def common_layers(runs: Runs, layers: Layers = None) -> list[str]:
    """Return the layers of several networks, which must share them and the examples."""
    asked = as_list(layers)
    first = next(iter(runs))
    listed = matrix_layers(runs[first], asked)
    for key, run in runs.items():
        theirs = select_layers(run)
        odd = [name for name in listed if name not in theirs]
        odd += [name for name in theirs if asked is None and name not in listed]
        if odd:
            common = [name for name in listed if name in theirs]
            msg = (
                "Expected all networks to have the same layers, but "
                f"{'/'.join(first)} and {'/'.join(key)} differ in {', '.join(odd)}; "
                f"name common ones, as in layers={common!r}."
            )
            raise ValueError(msg)
        matrix_layers(run, listed)
        try:
            same_examples(runs[first], run)
        except ValueError as error:
            msg = f"{error} These are {'/'.join(first)} and {'/'.join(key)}."
            raise ValueError(msg) from None
    return listed


def moments(runs: Runs, step: Steps) -> list[int | None]:
    """Return the steps asked for, [None] for recordings of a single moment."""
    stepped = {key: run for key, run in runs.items() if "step" in run.dims}
    if step is None and not stepped:
        return [None]
    if len(stepped) < len(runs):
        msg = (
            f"Expected all networks to have steps, but {len(runs) - len(stepped)} of "
            f"{len(runs)} are single moments; select one moment of each, as in "
            "run.isel(step=-1)."
        )
        raise ValueError(msg)
    known = {key: run["step"].values.tolist() for key, run in stepped.items()}
    if step is None:
        ends = {steps[-1] for steps in known.values()}
        if len(ends) > 1:
            msg = (
                "Expected all networks to end at the same step, but got "
                f"{', '.join(str(e) for e in sorted(ends))}; choose one with step=."
            )
            raise ValueError(msg)
        return [ends.pop()]
    common = set.intersection(*(set(steps) for steps in known.values()))
    if isinstance(step, str):
        if step != "all":
            raise ValueError(unknown("step", step, ["all"]))
        return sorted(common)
    wanted = [step] if isinstance(step, int | np.integer) else list(step)
    for one in wanted:
        if one not in common:
            raise ValueError(unknown("step", one, sorted(common)))
    return [int(one) for one in wanted]


def at(run: xr.Dataset, moment: int | None) -> xr.Dataset:
    """Return a recording at one of those moments."""
    return run if moment is None else run.sel(step=moment)
