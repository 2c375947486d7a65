"""A measure over all pairs of layers, steps and networks."""

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
import torch
import xarray as xr

from repsim.comparison.naming import names_of
from repsim.comparison.operands import (
    Layers,
    LayerSource,
    Operand,
    as_list,
    same_steps,
)
from repsim.comparison.rows_of_pairs import described, on_workers
from repsim.core import cluster
from repsim.core.bars import progress_bar
from repsim.core.devices import device_named
from repsim.core.messages import unknown, whole
from repsim.core.provenance import repsim_version
from repsim.datasets.recordings import same_examples
from repsim.measures.catalogue import Choice, Measure, named
from repsim.measures.kernels.sketched import sketched_cka
from repsim.measures.kernels.streamed import on_device, within

Recordings: TypeAlias = xr.Dataset | xr.DataTree


def compare(
    a: Recordings,
    b: Recordings | None = None,
    measure: Choice = "cka",
    *,
    layers: Layers = None,
    layers_b: Layers = None,
    precision: str | None = None,
    device: str = "auto",
    progress: bool = False,
    memory: int | None = None,
    device_memory: int | None = None,
    scheduler: Any = None,
    **options: Any,
) -> xr.DataArray:
    """Compare every layer of one recording with every layer of another.

    Parameters
    ----------
    a : Dataset or DataTree
        A recording, or a study (condition/seed) all of whose networks are compared.
    b : Dataset, DataTree or None
        The other side; None compares `a` with itself.
    measure : str, Measure or callable
        A name of `repsim.measures.names()`, or any function f(x, y) -> float of two
        arrays (examples, units).
    layers, layers_b : str, iterable of str or None
        Which layers of each side, by name or pattern (`hidden_*`, `!head`); None
        means all of them, and for `layers_b` those of `layers` where it is given.
    precision : {"float64", "float32", "tf32", "bfloat16"} or None
        Of the products; None is the recording's own (float32 for half types), or
        float64 where the measure needs it. "tf32" rounds what is multiplied to 10 bits,
        as a GPU's fast float32 products do, whatever torch's global switch says.
    device : str
        Where to compute; "auto" is the accelerator if there is one.
    progress : bool
        Show a bar.
    memory : int or None
        Bytes that the sums of layers read from a store may take; less means that they
        are read more often. None takes an eighth of what is free. The attributes say
        the plan: `space`, `reads`, `passes`, `bytes`.
    device_memory : int or None
        Bytes that linear kernels may hold on the device; layers that need more go there
        by blocks. None takes half of what a GPU has free, and all of the CPU's.
    scheduler : distributed.Client, str or None
        Where what lies in a store is read and computed: a client, the address of a
        dask scheduler, or "threads" or "synchronous" for this process. None is the
        client in scope, if there is one.
    **options
        The measure's own, as in `repsim.cka`; linear CKA also takes `batch`. With
        `nan="omit"` the examples that hold NaN in any layer compared are left out,
        moment by moment. `sketch=k` (and `seed`) takes linear CKA from k random
        directions of each layer, at n k² in place of n d² operations a pair, and gives
        its standard error as the coordinate `standard_error`.

    Returns
    -------
    DataArray, dims ([step,] layer_a, layer_b)
        With a study (network_a, network_b, [step,] layer_a, layer_b), where the
        networks carry their condition and seed. NaN where a layer is constant. The
        attributes `recording_a` and `recording_b` name two recordings, where their
        places or attributes tell them apart.

    Raises
    ------
    TypeError
        If a side is neither a recording nor a study, or an option does not exist.
    ValueError
        If examples, steps or layers do not match, a layer is not a matrix, numbers
        are not finite, or a name does not exist. The same examples in another order,
        told by their ids, are brought to the order of `a`.

    See Also
    --------
    StreamingCKA : The same without storing activations.

    Examples
    --------
    >>> import numpy as np, xarray as xr, repsim
    >>> x = np.random.default_rng(0).normal(size=(50, 3))
    >>> run = xr.Dataset({name: (("example", f"{name}_unit"), x) for name in "ab"})
    >>> repsim.compare(run).round(3).values.tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """
    with cluster.using(scheduler):
        chosen = named(measure)
        sketch = options.pop("sketch", None)
        if sketch is None:
            chosen.check_options(options)
        else:
            _check_sketch(chosen, options)
        left, right = _sides(a, b, layers, layers_b)
        steps = _common_steps(left, right)
        precision = _precision(chosen, precision, [left, right])
        device = str(device_named(device))
        moments: list[int | None] = [None] if steps is None else list(range(len(steps)))
        values: list[np.ndarray] = []
        flat = ConstantLayers()
        errors: list[np.ndarray] = []
        how: dict[str, Any] = {}
        client = cluster.active() if left.stored and right.stored else None
        memory = None if memory is None else whole(memory, "memory", 2**20)
        if device_memory is not None:
            device_memory = whole(device_memory, "device_memory", 2**20)
        with once(), within(memory, on_device(device, device_memory)):
            for moment in progress_bar(moments, progress=progress and len(moments) > 1):
                xs = left.sources(moment)
                ys = None if right is left else right.sources(moment)
                if sketch is not None:
                    value, error = sketched_cka(
                        xs,
                        ys,
                        sketch=sketch,
                        precision=precision,
                        device=device,
                        **options,
                    )
                    values.append(value)
                    errors.append(error)
                    flat.note(value, xs, ys)
                    continue
                if chosen.describe is not None and (not values or client is not None):
                    how = chosen.describe(xs, ys, **(chosen.defaults() | options))
                    if client is not None and "streamed" not in how:
                        how |= described(chosen, xs, ys, options)
                    if left.steps is None or right.steps is None:
                        # The single moment is read again for every step.
                        how["reads"] = how.get("reads", 1) * len(moments)
                if client is not None and "streamed" not in how:
                    values.append(
                        on_workers(client, chosen, xs, ys, precision, device, options)
                    )
                    flat.note(values[-1], xs, ys)
                    continue
                values.append(
                    chosen.all_pairs(
                        xs,
                        ys,
                        precision=precision,
                        device=device,
                        progress=progress and len(moments) == 1,
                        **options,
                    )
                )
                flat.note(values[-1], xs, ys)
        flat.warn()
        asked = options if sketch is None else {**options, "sketch": sketch}
        attrs = _attrs(chosen, asked, precision, device) | how
        if isinstance(a, xr.Dataset) and isinstance(b, xr.Dataset):
            attrs |= names_of(a, b)
        result = _labelled(np.stack(values), left, right, steps, attrs)
        if errors:
            spread = _labelled(np.stack(errors), left, right, steps, attrs)
            result = result.assign_coords(standard_error=spread.variable)
        return result


@contextmanager
def once() -> Iterator[None]:
    """Let through each warning once, however many pairs or steps gave it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for text, kind in dict.fromkeys((str(w.message), w.category) for w in caught):
        # Past this function and contextlib, to the line that called `compare`.
        warnings.warn(text, kind, stacklevel=4)


class ConstantLayers:
    """Collects the layers without similarity to anything, for one warning."""

    def __init__(self) -> None:
        self._constant: dict[str, None] = {}
        self._spread: dict[str, None] = {}

    def note(
        self, values: np.ndarray, xs: list[LayerSource], ys: list[LayerSource] | None
    ) -> None:
        """Find the layers behind rows and columns without a number."""
        empty = np.isnan(values)
        if not empty.any():
            return
        flat = [np.zeros(size, dtype=bool) for size in empty.shape]
        sides = [(0, xs, empty)] + ([] if ys is None else [(1, ys, empty.T)])
        for side, layers, cells in sides:
            for i in np.flatnonzero(cells.all(axis=1)):
                flat[side][i] = layers[i].is_constant()
                if flat[side][i]:
                    self._constant[layers[i].what] = None
        if ys is None:
            flat[1] = flat[0]
        for side, layers, cells in sides:
            for i in np.flatnonzero(~flat[side]):
                rest = cells[i][~flat[1 - side]]
                if rest.size and rest.all():
                    self._spread[layers[i].what] = None

    def warn(self) -> None:
        """Warn once, naming them."""
        reasons = [
            f"{reason}: {_some(list(names))}"
            for reason, names in (
                ("constant over the examples", self._constant),
                ("without spread to compare", self._spread),
            )
            if names
        ]
        if reasons:
            warnings.warn(
                f"No similarity (NaN) where a layer is {', or '.join(reasons)}.",
                UserWarning,
                stacklevel=3,
            )


def _some(names: list[str], most: int = 8) -> str:
    """Return the first names in words."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return "; ".join(names[:most]) + more


def _check_sketch(measure: Measure, options: dict[str, Any]) -> None:
    """Raise unless a measure and its options can be had from a sketch."""
    if measure.name != "cka":
        msg = f"Expected `sketch` with measure 'cka' only, but got {measure.name!r}."
        raise ValueError(msg)
    for name in options:
        if name not in ("debiased", "seed"):
            raise TypeError(unknown("options of a sketch", name, ["debiased", "seed"]))


def _sides(
    a: Recordings, b: Recordings | None, layers: Layers, layers_b: Layers
) -> tuple[Operand, Operand]:
    """Return both sides, one object where a recording is compared with itself."""
    first = as_list(layers)
    if b is None and layers_b is None:
        left = Operand.of(a, first, "layers")
        return left, left
    second, what = (first, "layers") if layers_b is None else (layers_b, "layers_b")
    names = ("", "") if b is None else (" of `a`", " of `b`")
    left = Operand.of(a, first, "layers", names[0])
    like = left.networks[0].run
    other = a if b is None else b
    return left, Operand.of(other, as_list(second), what, names[1], like)


def _common_steps(left: Operand, right: Operand) -> xr.DataArray | None:
    """Return the steps of a comparison; a single moment goes with every step."""
    same_examples(left.networks[0].run, right.networks[0].run)
    if left.steps is not None and right.steps is not None:
        same_steps(left.steps, right.steps, "both recordings")
    steps = right.steps if left.steps is None else left.steps
    if steps is not None and not steps.size:
        msg = "Expected a recording with at least one step, but got none."
        raise ValueError(msg)
    return steps


def _precision(measure: Measure, asked: str | None, sides: Sequence[Operand]) -> str:
    """Return the precision: as asked, as the measure needs, or as recorded."""
    if asked is not None:
        if asked not in measure.precisions:
            raise ValueError(unknown("precision", asked, measure.precisions))
        return asked
    if measure.default_precision is not None:
        return measure.default_precision
    kinds = set().union(*(side.dtypes for side in sides))
    narrow = all(kind.kind == "f" and kind.itemsize <= 4 for kind in kinds)
    return "float32" if narrow else "float64"


def _attrs(
    measure: Measure,
    options: dict[str, Any],
    precision: str,
    device: str,
) -> dict[str, Any]:
    """Say how the numbers were made."""
    attrs: dict[str, Any] = {
        "measure": measure.name,
        "options": json.dumps(
            measure.defaults() | options, default=str, sort_keys=True
        ),
        "precision": precision,
        "device": device,
        "larger_is_more_similar": int(measure.larger_is_more_similar),
        "repsim_version": repsim_version(),
        "torch_version": str(torch.__version__),
    }
    if measure.bounds is not None and np.isfinite(measure.bounds).all():
        attrs["bounds"] = [float(bound) for bound in measure.bounds]
    return attrs


def _labelled(
    values: np.ndarray,
    left: Operand,
    right: Operand,
    steps: xr.DataArray | None,
    attrs: dict[str, Any],
) -> xr.DataArray:
    """Return the numbers with their names."""
    shape = (
        len(values),
        len(left.networks),
        len(left.layers),
        len(right.networks),
        len(right.layers),
    )
    full = xr.DataArray(
        values.reshape(shape).transpose(1, 3, 0, 2, 4),
        dims=("network_a", "network_b", "step", "layer_a", "layer_b"),
        coords={"layer_a": left.layers, "layer_b": right.layers},
        name=attrs["measure"],
        attrs=attrs,
    )
    for letter, side in (("a", left), ("b", right)):
        dim = f"network_{letter}"
        if not side.is_study:
            full = full.isel({dim: 0})
            continue
        seeds = [str(network.seed) for network in side.networks]
        whole = all(seed.isdecimal() for seed in seeds)
        full = full.assign_coords(
            {
                dim: [network.label for network in side.networks],
                f"condition_{letter}": (dim, [n.condition for n in side.networks]),
                f"seed_{letter}": (dim, [int(s) for s in seeds] if whole else seeds),
            }
        )
    return full.isel(step=0) if steps is None else full.assign_coords(step=steps)
