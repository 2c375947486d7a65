"""What of several networks is compared: the layers they share, and which moments."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from repsim.comparison.operands import Layers as Layers
from repsim.comparison.operands import Runs as Runs
from repsim.comparison.operands import as_list as as_list
from repsim.comparison.operands import common_layers as common_layers
from repsim.core.messages import unknown
from repsim.measures import catalogue as registry
from repsim.measures.catalogue import Choice, Measure, named

Steps = int | Sequence[int] | str | None


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


def directed(measure: Choice) -> Measure:
    """Return a measure of which it is known whether larger means more similar."""
    chosen = named(measure)
    if not isinstance(measure, str | Measure) and chosen.name not in registry.names():
        msg = (
            "Expected `measure` to be a registered measure, but got the function "
            f"{chosen.name!r}; a test must know whether larger means more similar, so "
            "register it first with repsim.measures.register."
        )
        raise TypeError(msg)
    return chosen
