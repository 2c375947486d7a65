"""How far the mean over pairs of networks would move with other seeds."""

from typing import Any

import numpy as np
import xarray as xr

from repsim.comparison.all_pairs import compare
from repsim.inference.common_steps import Layers, as_list
from repsim.inference.jackknife import Estimates
from repsim.measures.catalogue import Measure

LEAST = 3
"""Networks of a rule below which nothing can be said of others."""


def over_networks(
    a: object,
    b: object,
    measure: Measure,
    layers: Layers,
    layers_b: Layers,
    options: dict[str, Any],
) -> tuple[tuple[Estimates, xr.DataArray], str]:
    """Return the mean over pairs of networks, whole and without each network."""
    left = _networks(a, "a")
    right = left if b is None else _networks(b, "b")
    listed = as_list(layers)
    cells = compare(
        xr.DataTree.from_dict({f"a/{k}": run for k, run in left.items()}),
        xr.DataTree.from_dict({f"b/{k}": run for k, run in right.items()}),
        measure,
        layers=listed,
        layers_b=listed if layers_b is None else layers_b,
        precision="float64",
        **options,
    )
    values = cells.transpose("network_a", "network_b", ...)
    apart = _apart(left, right, same=b is None)
    template = values.isel(network_a=0, network_b=0).reset_coords(drop=True)
    found = _without_each(values.values, apart, same=b is None)
    count = f"{len(left)}" if b is None else f"{len(left)} + {len(right)}"
    return (found, template), f"jackknife over {count} networks"


def _networks(tree: object, name: str) -> dict[str, xr.Dataset]:
    """Return the networks of one condition by seed."""
    if not isinstance(tree, xr.DataTree):
        msg = (
            f'Expected `{name}` to be the networks of a condition with over="seed", as '
            f'study["bp"], but got {type(tree).__name__}.'
        )
        raise TypeError(msg)
    found = {str(k): node.to_dataset() for k, node in tree.children.items()}
    found = {k: run for k, run in found.items() if run.data_vars}
    if not found and len(tree.children) == 1:
        return _networks(next(iter(tree.children.values())), name)
    if len(found) < LEAST:
        inside = ", ".join(str(k) for k in tree.children) or "nothing"
        msg = (
            f"Expected `{name}` to hold at least {LEAST} networks of one condition, as "
            f'study["bp"], but got {len(found)} (the tree holds {inside}); run more '
            "seeds, or name the condition."
        )
        raise ValueError(msg)
    return found


def _apart(
    left: dict[str, xr.Dataset], right: dict[str, xr.Dataset], *, same: bool
) -> np.ndarray:
    """Return which pairs count: not a network with itself, nor a shared beginning."""
    inits_a, inits_b = (
        [run.attrs.get("init_seed") for run in side.values()] for side in (left, right)
    )
    mask = np.array([[x is None or x != y for y in inits_b] for x in inits_a])
    if same:
        np.fill_diagonal(mask, False)
    return mask


def _without_each(values: np.ndarray, apart: np.ndarray, *, same: bool) -> Estimates:
    """Return the mean over the pairs that count, and without each network."""

    def mean(keep_a: np.ndarray, keep_b: np.ndarray) -> np.ndarray:
        chosen = apart & np.outer(keep_a, keep_b)
        return np.asarray(values[chosen].mean(0))

    all_a, all_b = (np.ones(size, dtype=bool) for size in apart.shape)
    without = []
    for i in range(len(all_a)):
        others = np.arange(len(all_a)) != i
        without.append(mean(others, others if same else all_b))
    if not same:
        for j in range(len(all_b)):
            without.append(mean(all_a, np.arange(len(all_b)) != j))
    samples = () if same else apart.shape
    return Estimates(mean(all_a, all_b), np.stack(without), None, samples)
