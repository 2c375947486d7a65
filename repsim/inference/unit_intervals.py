r"""What all units would show, from those that were recorded.

Linear CKA is a sum over pairs of units, and its norms count every unit with itself:
with few of many units recorded the norms are too large, and CKA too small. As
examples are debiased by leaving out i = j, so are units.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from repsim.inference.jackknife import Estimates, pairs_across, pairs_within
from repsim.inference.layer_pairs import LayerPair
from repsim.measures.catalogue import Measure
from repsim.measures.magnitudes import array_near_one

LEAST = 3
"""Units of a layer below which nothing can be said of others."""


def over_units(
    pair: LayerPair, measure: Measure, options: dict[str, Any]
) -> tuple[tuple[Estimates, xr.DataArray], str]:
    """Return CKA of all units, and without each unit of both layers."""
    if (
        measure.name != "cka"
        or set(options) - {"debiased", "kernel"}
        or (
            options.get("kernel", "linear") != "linear"
            or not options.get("debiased", True)
        )
    ):
        msg = (
            'Expected debiased linear CKA with over="unit", but got '
            f"{measure.name} with {options}; only there units are known to add up."
        )
        raise ValueError(msg)
    template = pair.cells(slice(None), measure, options)
    steps = template.sizes.get("step")
    same_run = pair.a.identical(pair.b)
    tables = []
    for step in range(steps) if steps else [None]:
        xs, ys = pair.matrices(step)
        for layers, names in ((xs, pair.layers_a), (ys, pair.layers_b)):
            for x, name in zip(layers, names, strict=True):
                if x.shape[1] < LEAST:
                    msg = (
                        f"Expected at least {LEAST} units to generalise over, but got "
                        f"{x.shape[1]} in {name!r}; take over='example'."
                    )
                    raise ValueError(msg)
        tables.append([[_cell(x, y) for y in ys] for x in xs])
    most_a = max(x.shape[1] for x in xs)
    most_b = max(y.shape[1] for y in ys)
    shape = template.shape
    value = np.full(shape, np.nan).reshape(-1, *shape[-2:])
    pairs = np.full(value.shape, np.nan)
    without = np.full((most_a + most_b, *value.shape), np.nan)
    for s, cells in enumerate(tables):
        for i, row in enumerate(cells):
            for j, cell in enumerate(row):
                whole, left, right = cell.whole, cell.left, cell.right
                pairs[s, i, j] = cell.pairs
                if same_run and pair.layers_a[i] == pair.layers_b[j]:
                    # The same units on both sides: one, whatever units there are.
                    whole, left, right = 1.0, left * 0 + 1, right * 0 + 1
                    pairs[s, i, j] = 0.0
                value[s, i, j] = whole
                # Layers of other sizes: repeated in the mean and the squares alike.
                without[:most_a, s, i, j] = _padded(left, whole, most_a)
                without[most_a:, s, i, j] = _padded(right, whole, most_b)
    # A constant layer is like nothing, itself included.
    value = np.where(np.isnan(template.values), np.nan, value.reshape(shape))
    estimates = Estimates(
        value,
        without.reshape(-1, *shape),
        pairs.reshape(shape),
        (most_a, most_b),
    )
    _warn_of_few(estimates, template)
    return (estimates, template), "closed-form jackknife over the units of both layers"


def _padded(values: np.ndarray, whole: float, count: int) -> np.ndarray:
    """Return as many values with the same jackknife variance as those given have."""
    own = len(values)
    if own == count:
        return values
    middle = values.mean()
    deviation = values - middle
    want = (own - 1) / own * (deviation**2).sum()
    out = np.zeros(count)
    out[:own] = deviation
    now = (count - 1) / count * (deviation**2).sum()
    out *= np.sqrt(want / now) if now > 0 else 0.0
    return np.asarray(out + whole + (own - 1) / (count - 1) * (middle - whole))


@dataclass(frozen=True)
class _Cell:
    """Unit-debiased CKA, without each unit of x and of y, and what pairs add."""

    whole: float
    left: np.ndarray
    right: np.ndarray
    pairs: float


def _cell(x: np.ndarray, y: np.ndarray) -> _Cell:
    """Return unit-debiased CKA of two layers."""
    x, y = (
        side - side.mean(0) for side in (array_near_one(x)[0], array_near_one(y)[0])
    )
    xy, xx, yy = _products(x, y), _products(x, x), _products(y, y)
    # A unit with itself tells nothing of two.
    np.fill_diagonal(xx, 0)
    np.fill_diagonal(yy, 0)
    p, q = xy.shape

    def ratio(both: Any, a: Any, b: Any, p: int, q: int) -> Any:
        both = both / (p * q)
        norms = a / (p * (p - 1)) * b / (q * (q - 1))
        with np.errstate(invalid="ignore", divide="ignore"):
            return both / np.sqrt(np.where(norms > 0, norms, np.nan))

    total, norm_x, norm_y = (float(table.sum()) for table in (xy, xx, yy))
    whole = float(ratio(total, norm_x, norm_y, p, q))
    # Without unit u the pairs (u, v) and (v, u) go.
    rest_x, rest_y = norm_x - 2 * xx.sum(1), norm_y - 2 * yy.sum(1)
    left = ratio(total - xy.sum(1), rest_x, norm_y, p - 1, q)
    right = ratio(total - xy.sum(0), norm_x, rest_y, p, q - 1)
    # A layer of one direction left has no norm: its unit then tells nothing.
    left, right = (np.where(np.isfinite(v), v, whole) for v in (left, right))
    if not np.isfinite(whole):
        return _Cell(np.nan, left, right, np.nan)
    means = norm_x / (p * (p - 1)), norm_y / (q * (q - 1))
    pairs = pairs_across(xy) / (means[0] * means[1])
    for table, mean in ((xx, means[0]), (yy, means[1])):
        pairs = pairs + (whole / (2 * mean)) ** 2 * pairs_within(table)
    bounded = float(np.clip(whole, -1, 1))
    return _Cell(bounded, np.clip(left, -1, 1), np.clip(right, -1, 1), float(pairs))


def _products(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return n(n-3) times debiased HSIC of every unit of x with every unit of y."""
    n = len(x)
    a, b = x**2, y**2
    table = (x.T @ y) ** 2 - (1 + 2 / (n - 2)) * (a.T @ b)
    table += np.outer(a.sum(0), b.sum(0)) / ((n - 1) * (n - 2))
    return np.asarray(table)


def _warn_of_few(found: Estimates, template: xr.DataArray) -> None:
    """Warn where the units that were recorded are far from telling of all."""
    with np.errstate(invalid="ignore"):
        gap = np.abs(found.value - template.values)
    far = gap > 0.1
    if bool(far.any()):
        warnings.warn(
            f"Few of many units: in {int(far.sum())} of {far.size} cells the measure "
            "on the recorded units is more than 0.1 from what all units would show; "
            "record more units, or read `estimate` and its interval.",
            UserWarning,
            stacklevel=4,
        )
