"""The activation dataset: what a recording and a study look like."""

import re
import warnings
from collections.abc import Iterable, Iterator

import numpy as np
import xarray as xr

from repsim.core import cluster
from repsim.core.globs import chosen
from repsim.core.messages import unknown

SCHEMA = 1
"""Version of the recording's layout, kept in `attrs["repsim_schema"]`."""


def layers(run: xr.Dataset) -> list[str]:
    """Return the names of the layers of a recording, in network order.

    Parameters
    ----------
    run : Dataset
        A recording, or any Dataset with variables over `example`.

    Returns
    -------
    list of str
        The names in `run.attrs["layers"]` that are present; without that
        attribute, the variables with an `example` dim, in their order. Error
        signals (`<layer>@error`, `<layer>@true_error`) are not layers.

    Raises
    ------
    TypeError
        If `run` is not a Dataset.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> layers(xr.Dataset({"hidden": (("example", "hidden_unit"), np.ones((3, 2)))}))
    ['hidden']
    """
    if not isinstance(run, xr.Dataset):
        msg = (
            f"Expected a recording (xarray.Dataset), but got {type(run).__name__}; "
            "open a stored one with repsim.open_recording."
        )
        raise TypeError(msg)
    listed = run.attrs.get("layers")
    if isinstance(listed, str) and listed not in run.data_vars:
        # Some formats keep a list as text: '["a", "b"]', or "a, b".
        listed = [n for n in re.split(r"[\[\]\"',\s]+", listed) if n in run.data_vars]
        listed = listed or None
    if listed is not None:
        names = [listed] if isinstance(listed, str) else [str(n) for n in listed]
        return [name for name in names if name in run.data_vars]
    return [
        str(name)
        for name in run.data_vars
        if "example" in run.variables[name].dims
        and not str(name).endswith(("@error", "@true_error"))
    ]


def select_layers(
    run: xr.Dataset, names: str | Iterable[str] | None = None, what: str = "layers"
) -> list[str]:
    """Return the asked-for layers of a recording, all of them by default.

    Names may be patterns, as where a recording is made: `hidden_*`, `!head`.
    """
    known = layers(run)
    if not known:
        msg = "Expected a recording with layers, but no variable has an `example` dim."
        raise ValueError(msg)
    if names is None:
        return known
    asked = [names] if isinstance(names, str) else [str(n) for n in names]
    if not asked:
        return []
    wanted, odd = chosen(asked, known)
    if odd is not None:
        raise ValueError(unknown(what, odd, known))
    return wanted


def matrix_layers(
    run: xr.Dataset, names: str | Iterable[str] | None = None, what: str = "layers"
) -> list[str]:
    """Return layers that are matrices (example × unit), and refuse maps and tokens."""
    wanted = select_layers(run, names, what)
    for name in wanted:
        held = run.variables[name].dims
        dims = [str(d) for d in held if d not in ("step", "example")]
        if len(dims) != 1 or "example" not in held:
            if f"{name}_token" in held:
                how = (
                    'repsim.reduce(run, "tokens") makes each token an example, '
                    '"mean", "last" or "first" a row of each text'
                )
            else:
                how = (
                    'repsim.reduce(run, "flatten") asks what a layer says and where, '
                    'repsim.reduce(run, "mean") only what'
                )
            msg = (
                f"Expected layer {name!r} to have dims ([step,] example, unit), but "
                f"got ({', '.join(str(d) for d in held)}); reduce maps and tokens "
                f"first (reduce=, --reduce): {how}."
            )
            raise ValueError(msg)
    return wanted


def matrix(run: xr.Dataset, layer: str, step: int | None = None) -> np.ndarray:
    """Return one layer at one moment as an array (example, unit), read once."""
    variable = run.variables[layer]
    if step is not None and "step" in variable.dims:
        variable = variable.isel(step=step)
    unit = next(d for d in variable.dims if d != "example")
    rows = variable.transpose("example", unit).compute(**cluster.reading())
    return np.asarray(rows.values)


def is_stored(run: xr.Dataset, names: Iterable[str]) -> bool:
    """Whether layers lie in a store (or a task graph), which others can read, too."""
    return not any(run.variables[name]._in_memory for name in names)


def same_examples(a: xr.Dataset, b: xr.Dataset) -> None:
    """Raise unless two recordings saw the same examples."""
    n_a, n_b = a.sizes.get("example", 0), b.sizes.get("example", 0)
    if n_a != n_b:
        msg = (
            f"Expected both recordings to hold the same examples, but got {n_a} and "
            f"{n_b}; record both networks on the same inputs."
        )
        raise ValueError(msg)
    if "example" in a.coords and "example" in b.coords:
        differ = np.flatnonzero(a["example"].values != b["example"].values)
        if differ.size:
            msg = (
                "Expected both recordings to hold the same examples, but their ids "
                f"differ in {differ.size} of {n_a} places; record both networks on "
                "the same inputs, or select common examples first."
            )
            raise ValueError(msg)
    sha_a, sha_b = a.attrs.get("inputs_sha256"), b.attrs.get("inputs_sha256")
    if sha_a and sha_b and sha_a != sha_b:
        msg = (
            "Expected both recordings to be made on the same inputs, but their "
            f"inputs_sha256 differ ({str(sha_a)[:8]}… and {str(sha_b)[:8]}…)."
        )
        raise ValueError(msg)
    for name in ("sequence", "position"):
        if name in a.coords and name in b.coords and (a[name] != b[name]).any():
            msg = (
                "Expected both recordings to hold the same tokens, but their "
                f"`{name}` differ; record both networks with the same mask."
            )
            raise ValueError(msg)
    _warn_of_ways(a, b)


_WAYS = {"reduce": "`reduce`", "mask_sha256": "`mask`", "axes": "`axes`"}


def _warn_of_ways(a: xr.Dataset, b: xr.Dataset) -> None:
    """Warn where both sides were brought into units, and in different ways."""
    ways = [str(run.attrs.get("reduce", "none")) for run in (a, b)]
    if "none" in ways:
        return
    for key, what in _WAYS.items():
        there = [str(run.attrs.get(key, "none")) for run in (a, b)]
        if there[0] != there[1] and (key != "axes" or "none" not in there):
            warnings.warn(
                f"The recordings were made with different {what} ({there[0][:40]} and "
                f"{there[1][:40]}): what differs between them may be that alone.",
                UserWarning,
                stacklevel=4,
            )


def networks(study: xr.DataTree) -> dict[tuple[str, str], xr.Dataset]:
    """Return the recordings of a study by condition and seed, in the tree's order."""
    if not isinstance(study, xr.DataTree):
        msg = (
            "Expected a study (xarray.DataTree of condition/seed), but got "
            f"{type(study).__name__}; open one with repsim.open_study."
        )
        raise TypeError(msg)
    runs = dict(_networks(study))
    if not runs:
        msg = (
            "Expected a study with recordings at /<condition>/<seed>, but found none; "
            'build one with xr.DataTree.from_dict({"bp/0": run}).'
        )
        raise ValueError(msg)
    return runs


def _networks(study: xr.DataTree) -> Iterator[tuple[tuple[str, str], xr.Dataset]]:
    for condition, branch in study.children.items():
        for seed, node in branch.children.items():
            run = node.to_dataset()
            if run.data_vars:
                yield (condition, seed), run
