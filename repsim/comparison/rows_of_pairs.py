"""All pairs of stored layers on the workers of a cluster, a row or a pair a task."""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import xarray as xr

from repsim.comparison.operands import LayerSource
from repsim.core import cluster
from repsim.datasets.recordings import is_stored
from repsim.measures.catalogue import Measure
from repsim.measures.matrices import note_constant

Sides = tuple[list[LayerSource], list[LayerSource] | None]
How = tuple[Measure, str, str, dict[str, Any]]

HELD_BYTES = 2**28
"""Layers that a task holds at once beside its row's own: their numbers in float64.

Fixed, and not a share of the worker's memory, so that the same layers go together on
any worker.
"""


def on_workers(
    client: Any,
    measure: Measure,
    xs: list[LayerSource],
    ys: list[LayerSource] | None,
    precision: str,
    device: str,
    options: dict[str, Any],
) -> np.ndarray:
    """Return what `measure.all_pairs` would, each row from a worker that reads it."""
    how = (measure, precision, device, options)
    values: np.ndarray
    if options.get("nan") == "omit":
        # Which examples are whole is a question to all layers at once.
        [(values, flat)] = cluster.spread(client, _every_pair, [None], (xs, ys), how)
    else:
        rows = cluster.spread(client, _row, range(len(xs)), (xs, ys), how)
        values = _joined([row for row, _ in rows], ys is None and measure.symmetric)
        flat = _agreed([noted for _, noted in rows])
    for source, constant in zip([*xs, *(ys or [])], flat, strict=True):
        if constant is not None:
            note_constant(source, constant)
    return values


def described(
    measure: Measure,
    xs: list[LayerSource],
    ys: list[LayerSource] | None,
    options: dict[str, Any],
) -> dict[str, Any]:
    """Say how often layers are read, for the attributes of a result.

    A row reads its own layer once with each of the others that are held together.
    """
    if options.get("nan") == "omit":
        return {}
    half = ys is None and measure.symmetric
    columns = xs if ys is None else ys
    own, other = Counter[int](), Counter[int]()
    for i in range(len(xs)):
        start = i if half else 0
        own[i] = len(list(_held_together(columns[start:])))
        other.update(range(start, len(columns)))
    if ys is None:
        reads = own + other
        most = max(reads.values())
    else:
        most = max(*own.values(), *other.values())
    held = sum(own[i] * _bytes(x) for i, x in enumerate(xs))
    held += sum(other[j] * _bytes(y) for j, y in enumerate(columns))
    return {"space": "rows of pairs", "reads": most, "bytes": held}


def _bytes(source: LayerSource) -> int:
    return math.prod(source.shape) * int(source.dtype.itemsize)


def _every_pair(_: None, sides: Sides, how: How) -> tuple[np.ndarray, list[Any]]:
    (xs, ys), (measure, precision, device, options) = sides, how
    values = measure.all_pairs(xs, ys, precision=precision, device=device, **options)
    return values, [source.constant for source in [*xs, *(ys or [])]]


def _row(i: int, sides: Sides, how: How) -> tuple[np.ndarray, list[Any]]:
    (xs, ys), (measure, precision, device, options) = sides, how
    start = i if ys is None and measure.symmetric else 0
    others = xs[start:] if ys is None else ys
    values = [
        measure.all_pairs([xs[i]], some, precision=precision, device=device, **options)[
            0
        ]
        for some in _held_together(others)
    ]
    return np.concatenate(values), [s.constant for s in [*xs, *(ys or [])]]


def _held_together(sources: list[LayerSource]) -> Iterator[list[LayerSource]]:
    """Give neighbours that may be in memory at once, one at least."""
    some: list[LayerSource] = []
    held = 0
    for source in sources:
        size = 8 * math.prod(source.shape)
        if some and held + size > HELD_BYTES:
            yield some
            some, held = [], 0
        some.append(source)
        held += size
    yield some


def _joined(rows: list[np.ndarray], half: bool) -> np.ndarray:
    if not half:
        return np.stack(rows)
    values = np.empty((len(rows), len(rows)))
    for i, row in enumerate(rows):
        values[i, i:] = values[i:, i] = row
    return values


def _agreed(noted: list[list[Any]]) -> list[Any]:
    """Return what any task has found out about each layer."""
    return [
        next((c for c in one if c is not None), None)
        for one in zip(*noted, strict=True)
    ]


def pairs_on_workers(
    one_pair: Callable[..., xr.Dataset],
    a: xr.Dataset,
    b: xr.Dataset,
    names_a: list[str],
    names_b: list[str],
    *how: Any,
) -> xr.Dataset | None:
    """Return one_pair(names, a, b, *how) of every pair, read where it is computed.

    None without a cluster, or where a recording is in memory.
    """
    client = cluster.active()
    if client is None or not (is_stored(a, names_a) and is_stored(b, names_b)):
        return None
    pairs = [(x, y) for x in names_a for y in names_b]
    found = cluster.spread(client, one_pair, pairs, a, b, *how)
    rows = [found[i : i + len(names_b)] for i in range(0, len(found), len(names_b))]
    options: dict[str, Any] = {"coords": "minimal", "compat": "override"}
    options |= {"data_vars": "minimal", "join": "override", "combine_attrs": "override"}
    cells: xr.Dataset = xr.concat(
        [xr.concat(row, "layer_b", **options) for row in rows], "layer_a", **options
    )
    return cells
