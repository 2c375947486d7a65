"""What several analyses read from a study."""

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from repsim.analyses import NotApplicable
from repsim.core.provenance import made_by
from repsim.core.scoring import Score
from repsim.datasets.recordings import layers, networks
from repsim.inference.matching import scored_by

UNTRAINED = "untrained"


def training(study: xr.DataTree) -> xr.Dataset:
    """Return the training records of all networks, over (condition, seed, …)."""
    records: dict[str, dict[str, xr.Dataset]] = {}
    for condition, seed in networks(study):
        branch = study[f"{condition}/{seed}"].children
        if "training" in branch:
            record = branch["training"].to_dataset().load()
            records.setdefault(condition, {})[seed] = record.drop_attrs()
    if not records:
        msg = "Expected training records beside the recordings, but the study has none."
        raise NotApplicable(msg)
    conditions = [
        xr.concat(list(of.values()), xr.Variable("seed", list(of)), join="outer")
        for of in records.values()
    ]
    return xr.concat(conditions, xr.Variable("condition", list(records)), join="outer")


def score(study: xr.DataTree) -> Score:
    """Return what the networks are scored by."""
    try:
        return scored_by(study)
    except ValueError as error:
        raise NotApplicable(str(error)) from error


def target(study: xr.DataTree, run: xr.Dataset) -> xr.DataArray | str:
    """Return what probes read: the label, or the study's targets of several outputs."""
    if "label" in run.coords:
        return "label"
    if "target" in study.data_vars and "sequence" not in run.coords:
        return study.to_dataset()["target"].load()
    msg = "Expected recordings with a `label` coordinate, but they have none."
    raise NotApplicable(msg)


def is_numeric(study: xr.DataTree, run: xr.Dataset) -> bool:
    """Return whether what the networks learn are numbers, no classes.

    What a study trained says so; of recordings made elsewhere, labels stored as
    floating-point numbers count as classes where they are 0 … k − 1.
    """
    if "task" in run.attrs:
        return str(run.attrs["task"]) == "regression"
    if "label" not in run.coords:
        return "target" in study.data_vars
    label = run["label"].values
    if label.dtype.kind != "f":
        return False
    kinds = np.unique(label)
    return not np.array_equal(kinds, np.arange(len(kinds)))


def spread_out(run: xr.Dataset) -> list[str]:
    """Return the layers of two units or more, whose rows can be correlated.

    A network that predicts one number has an output of a single unit.
    """
    return [name for name in layers(run) if run[name].shape[-1] > 1]


def splits(study: xr.DataTree) -> dict[str, list[str]]:
    """Return, by condition, the layers after which a gradient is synthesised."""
    marks: dict[str, list[str]] = {}
    for (condition, _), run in networks(study).items():
        listed = run.attrs.get("splits", [])
        marks[condition] = [listed] if isinstance(listed, str) else list(listed)
    return marks


def split_attrs(study: xr.DataTree) -> dict[str, list[str]]:
    """Return attrs that carry each condition's splits, where it has any."""
    return {f"splits_{c}": names for c, names in splits(study).items() if names}


def marks(result: xr.Dataset) -> dict[str, list[str]]:
    """Return the splits worth drawing; a mark at every layer marks nothing."""
    marked = {}
    for key, names in result.attrs.items():
        if str(key).startswith("splits_"):
            listed = [names] if isinstance(names, str) else list(names)
            if len(listed) <= 4:
                marked[str(key).removeprefix("splits_")] = listed
    return marked


def stack(found: dict[str, dict[str, xr.DataArray]]) -> xr.DataArray:
    """Return arrays by condition and seed as one, over (condition, seed, …)."""
    full = {condition: of for condition, of in found.items() if of}
    conditions = [
        xr.concat(list(of.values()), xr.Variable("seed", list(of)), join="outer")
        for of in full.values()
    ]
    return xr.concat(conditions, xr.Variable("condition", list(full)), join="outer")


def kin(run: xr.Dataset) -> str | None:
    """Return which coordinate keeps the tokens of one input together, if they are."""
    return "sequence" if "sequence" in run.coords else None


def last(run: xr.Dataset) -> xr.Dataset:
    """Return the recording's last moment."""
    return run.isel(step=-1) if "step" in run.dims else run


def first(run: xr.Dataset) -> xr.Dataset | None:
    """Return the untrained network, where it was recorded."""
    if "step" not in run.dims or int(run["step"].values[0]) != 0:
        return None
    return run.isel(step=0)


def initialisation(run: xr.Dataset) -> object:
    """Return what tells whether two networks began with the same weights."""
    return run.attrs.get("init_seed")


def rates(study: xr.DataTree) -> dict[str, str]:
    """Return each condition's learning rate as text, where recordings say it."""
    texts: dict[str, str] = {}
    for (condition, _), run in networks(study).items():
        options = run.attrs.get("rule_options")
        lr = json.loads(options).get("lr") if isinstance(options, str) else None
        if lr is not None:
            texts.setdefault(condition, f"{lr:g}")
    return texts


def provenance(**options: Any) -> dict[str, Any]:
    """Return attrs that say what made a result."""
    return made_by(**options)


def listed(names: Iterable[object]) -> str:
    """Return names in words: "a", "a and b", "a, b and c"."""
    words = [str(name) for name in names]
    return " and ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words)


def name_sides(axes: Iterable[Axes], reference: str) -> None:
    """Name the axes of heat maps of a reference against another."""
    for ax in axes:
        ax.set_ylabel(f"layer of {reference}" * bool(ax.get_ylabel()))
        ax.set_xlabel("layer of the other" * bool(ax.get_xlabel()))


def spread(values: xr.DataArray) -> str:
    """Return mean ± standard deviation over seeds, as text."""
    numbers = values.values[np.isfinite(values.values)]
    if numbers.size < 2:
        return f"{numbers.mean():.3f}" if numbers.size else "not measured"
    return f"{numbers.mean():.3f} ± {numbers.std(ddof=1):.3f}"


def view(
    name: str,
    cells: xr.DataArray,
    low: float,
    high: float,
    what: str = "layer",
) -> dict[str, Any]:
    """Return one kind of heat maps for the page: thousandths, as far as is shown."""
    scaled = 1000 * cells.transpose(..., f"{what}_a", f"{what}_b").values
    values = (
        np.where(np.isfinite(scaled), np.rint(scaled), 0).astype(int).astype(object)
    )
    values[~np.isfinite(scaled)] = None  # JSON knows no NaN
    return {"name": name, "low": low, "high": high, "values": values.tolist()}


def explorer(
    choices: dict[str, list[Any]],
    result: xr.Dataset | xr.DataArray,
    views: list[dict[str, Any]],
    what: str = "layer",
) -> dict[str, Any]:
    """Return what the page's chooser of heat maps needs; choices in order of dims.

    Cells lie along `<what>_a` and `<what>_b`, whose coordinates name them.
    """
    return {
        "choices": [{"name": k, "options": v} for k, v in choices.items()],
        "what": what,
        "rows": [str(name) for name in result[f"{what}_a"].values],
        "columns": [str(name) for name in result[f"{what}_b"].values],
        "views": views,
    }
