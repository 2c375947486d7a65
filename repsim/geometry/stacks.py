"""RDMs of whole recordings, labelled by layer, step and pair of examples."""

import warnings
from collections.abc import Iterable
from typing import Any, Literal, overload

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike

from repsim.core import cluster
from repsim.core.bars import progress_bar
from repsim.core.devices import device_named, multiplying
from repsim.core.messages import unknown
from repsim.core.provenance import repsim_version
from repsim.core.threads import calm
from repsim.datasets.recordings import is_stored, matrix, matrix_layers, networks
from repsim.geometry.profiles import class_margin as class_margin
from repsim.geometry.profiles import rdm_distance as rdm_distance
from repsim.measures.dissimilarity import MINIMUM, dissimilarities, whole_rows
from repsim.measures.dissimilarity.batched import is_small, small_rdms
from repsim.measures.dissimilarity.distances import METRICS, Metric
from repsim.measures.dissimilarity.given import aligned, in_order, n_examples
from repsim.measures.dissimilarity.rounded import OutOfRange, narrowed
from repsim.measures.dissimilarity.triangle import n_pairs
from repsim.measures.matrices import Nan, as_tensor, check_finite

Precision = Literal["float64", "float32"]


def rdms(
    run: xr.Dataset | xr.DataTree,
    *,
    metric: Metric = "correlation",
    layers: str | Iterable[str] | None = None,
    precision: Precision | None = None,
    noise: ArrayLike | None = None,
    device: str = "auto",
    nan: Nan = "raise",
    progress: bool = False,
    scheduler: Any = None,
) -> xr.DataArray:
    """Return the dissimilarity matrices of every layer, at every recorded step.

    Parameters
    ----------
    run : Dataset or DataTree
        A recording, dims ([step,] example, unit) per layer; or a study, whose
        networks must share layers, steps and examples.
    metric : str
        As in `repsim.rdm`.
    layers : str, iterable of str or None
        Layers, by name or pattern (`hidden_*`, `!head`); all by default.
    precision : {"float64", "float32"}, optional
        Of the arithmetic and the result; by default the layer's own dtype, float32
        for half types, and float64 where float32 does not hold the distances.
    noise : array_like, shape (unit, unit), optional
        Covariance over units for ``mahalanobis``, as in `repsim.rdm`.
    device : str
        Where the products are computed: "auto" takes an accelerator where there is
        one; the result is on the CPU.
    nan : {"raise", "omit"}
        Whether an example that holds NaN in a layer is an error, or its pairs are NaN.
    progress : bool
        Whether to show a bar over networks or steps.
    scheduler : distributed.Client, str or None
        Where what lies in a store is read and computed: a client, the address of a
        dask scheduler, or "threads" or "synchronous" for this process. None is the
        client in scope, if there is one.

    Returns
    -------
    DataArray, dims ([network,] [step,] layer, pair)
        Pairs in scipy's order, with the coordinates `example_a`, `example_b` (int32
        ids) and, where examples have labels, `label_a`, `label_b`. Of a study, with
        the coordinates `condition` and `seed` on `network`. At n = 5,000 examples
        12.5 million pairs take 50 MB a layer and step in float32.

    Raises
    ------
    TypeError
        If `run` is neither a recording nor a study.
    ValueError
        If a layer, metric, precision or device is unknown, a layer holds maps or
        values that are not finite, or there are fewer than three examples.

    Examples
    --------
    >>> run = xr.Dataset({"hidden": (("example", "hidden_unit"), np.eye(3))})
    >>> rdms(run, metric="sqeuclidean").sel(layer="hidden").values
    array([2., 2., 2.])
    """
    with cluster.using(scheduler):
        if metric not in METRICS:
            raise ValueError(unknown("metric", metric, METRICS))
        if precision not in (None, "float32", "float64"):
            raise ValueError(unknown("precision", precision, ["float32", "float64"]))
        if nan not in ("raise", "omit"):
            raise ValueError(unknown("nan", nan, ["raise", "omit"]))
        options = {"metric": metric, "precision": precision, "noise": noise, "nan": nan}
        if isinstance(run, xr.DataTree):
            runs = networks(run)
            parts = [
                rdms(part, layers=layers, device=device, **options)  # type: ignore[arg-type]
                for part in progress_bar(runs.values(), desc="RDMs", progress=progress)
            ]
            return _joined(parts, list(runs))
        names = matrix_layers(run, layers)
        n = run.sizes["example"]
        if n < MINIMUM:
            msg = (
                f"Expected at least {MINIMUM} examples, but got {n}: a single distance "
                "has nothing to be compared with."
            )
            raise ValueError(msg)
        steps = run.sizes.get("step")
        kind = precision or _precision(run, names)
        if is_stored(run, names) and (client := cluster.active()) is not None:
            # Alone, a narrow layer would not know that another one is wide.
            options["precision"] = precision or (
                "float64" if kind == "float64" else None
            )
            cells = [(s, k) for s in range(steps or 1) for k in range(len(names))]
            found = cluster.spread(
                client, _one, cells, run[names], names, options, device
            )
            wide = np.stack(found).reshape(steps or 1, len(names), -1)
            return _labelled(wide if steps else wide[0], run, names, metric)
        values = np.zeros((steps or 1, len(names), n_pairs(n)), kind)
        empty: list[str] = []
        where = device_named(device)
        with calm(), multiplying("float32", where):
            for s in progress_bar(range(steps or 1), desc="RDMs", progress=progress):
                layers_now = {}
                for k, name in enumerate(names):
                    x = as_tensor(matrix(run, name, s if steps else None))
                    what = f"layer {name!r}{_moment(run, s)}"
                    present = whole_rows(x, what) if nan == "omit" else None
                    if present is None:
                        check_finite(x, what)
                    layers_now[k] = x, present
                tried: set[int] = set()
                if noise is None and where.type == "cpu":
                    tried = _together(layers_now, metric, values[s])
                for k, (x, present) in layers_now.items():
                    given: dict[str, Any] = {
                        "metric": metric,
                        "noise": noise,
                        "present": present,
                        "tried": k in tried,
                    }
                    try:
                        near = narrowed(x, getattr(torch, values.dtype.name), where)
                        _, undefined = dissimilarities(near, out=values[s, k], **given)
                    except OutOfRange:
                        if precision is not None:
                            raise
                        values = values.astype(np.float64)
                        near = x.to(where, torch.float64)
                        _, undefined = dissimilarities(near, out=values[s, k], **given)
                    if undefined and names[k] not in empty:
                        empty.append(names[k])
        if empty:
            warnings.warn(
                f"Some examples have no {metric} distance in {', '.join(empty)}: their "
                "activations are "
                + ("zero" if metric == "cosine" else "constant")
                + ", "
                "and their pairs are NaN.",
                stacklevel=2,
            )
        return _labelled(values if steps else values[0], run, names, metric)


def _one(
    cell: tuple[int, int],
    run: xr.Dataset,
    names: list[str],
    options: dict[str, Any],
    device: str,
) -> np.ndarray:
    """Return the RDM of one layer at one moment, as a worker reads and computes it."""
    moment, name = cell[0], names[cell[1]]
    one = run.isel(step=moment) if "step" in run.dims else run
    return np.asarray(rdms(one, layers=[name], device=device, **options).values[0])


def _together(
    layers: dict[int, tuple[torch.Tensor, torch.Tensor | None]],
    metric: str,
    out: np.ndarray,
) -> set[int]:
    """Write the RDMs of small layers, those of one width at once, and take them out.

    Returns those that are small but not plain.
    """
    widths: dict[int, list[int]] = {}
    for k, (x, present) in layers.items():
        if present is None and is_small(len(x), x.shape[1], metric):
            widths.setdefault(x.shape[1], []).append(k)
    for group in widths.values():
        stack = np.stack([layers[k][0].double().numpy() for k in group])
        # Fresh memory costs as much as the distances: of all layers it is there.
        whole = len(group) == len(out)
        rows = out if whole else np.empty((len(group), out.shape[1]), out.dtype)
        for k, row, plain in zip(
            group, rows, small_rdms(stack, metric, rows), strict=True
        ):
            if plain:
                if not whole:
                    out[k] = row
                del layers[k]
    return {k for group in widths.values() for k in group if k in layers}


def _precision(run: xr.Dataset, names: list[str]) -> str:
    """Return float64 where any layer has it, else float32."""
    wide = any(run.variables[name].dtype.itemsize > 4 for name in names)
    return "float64" if wide else "float32"


def _moment(run: xr.Dataset, s: int) -> str:
    if "step" not in run.coords:
        return ""
    return f" at step {np.atleast_1d(run['step'].values)[s]}"


def _labelled(
    values: np.ndarray, run: xr.Dataset, names: list[str], metric: str
) -> xr.DataArray:
    dims = ("step", "layer", "pair") if values.ndim == 3 else ("layer", "pair")
    coords: dict[str, object] = {"layer": names, **_pair_coords(run)}
    if "step" in dims and "step" in run.coords:
        coords["step"] = run["step"].values
    kept = ("rule", "rule_options", "seed", "init_seed", "dataset", "network", "splits")
    attrs = {key: run.attrs[key] for key in kept if key in run.attrs}
    attrs |= {
        "measure": "rdm",
        "metric": metric,
        "precision": str(values.dtype),
        "repsim_version": repsim_version(),
    }
    # A DataArray's constructor copies coordinates, here as large as the RDMs.
    return xr.Dataset({metric: (dims, values, attrs)}, coords=coords)[metric]


def _pair_coords(run: xr.Dataset) -> dict[str, tuple[str, np.ndarray]]:
    n = run.sizes["example"]
    ids = run["example"].values if "example" in run.coords else np.arange(n)
    labels = {"example": _compact(ids)}
    if "label" in run.coords and run["label"].dims == ("example",):
        labels["label"] = _compact(run["label"].values)
    coords = {}
    for name, values in labels.items():
        # Without the indices of all pairs, which would take as much as the RDMs.
        first = np.repeat(values, np.arange(n - 1, -1, -1))
        coords[f"{name}_a"] = ("pair", first)
        second = np.concatenate([values[i + 1 :] for i in range(n)])
        coords[f"{name}_b"] = ("pair", second)
    return coords


def _compact(values: np.ndarray) -> np.ndarray:
    """Return integers as int32 where they fit: there are n² / 2 of them."""
    if np.issubdtype(values.dtype, np.integer) and values.size:
        bounds = np.iinfo(np.int32)
        if bounds.min <= values.min() and values.max() <= bounds.max:
            return values.astype(np.int32)
    return values


def _joined(parts: list[xr.DataArray], names: list[tuple[str, str]]) -> xr.DataArray:
    first, same = parts[0], []
    for part, (condition, seed) in zip(parts, names, strict=True):
        for dim in (d for d in first.dims if d != "pair"):
            shared = part.sizes.get(dim) == first.sizes[dim]
            if not shared or not part[dim].equals(first[dim]):
                msg = (
                    f"Expected all networks of a study to share their {dim}s, but "
                    f"{condition}/{seed} differs from {'/'.join(names[0])}; select "
                    "what they share first."
                )
                raise ValueError(msg)
        same.append(aligned(first, part, ("/".join(names[0]), f"{condition}/{seed}")))
    out = xr.DataArray(
        np.stack([part.values for part in same]),
        dims=("network", *first.dims),
        coords=first.coords,
        attrs={
            key: value
            for key, value in first.attrs.items()
            if all(part.attrs.get(key) == value for part in parts)
        },
        name=first.name,
    )
    return out.assign_coords(
        condition=("network", [c for c, _ in names]),
        seed=("network", [s for _, s in names]),
    )


@overload
def squareform(rdms: xr.DataArray) -> xr.DataArray: ...
@overload
def squareform(rdms: np.ndarray) -> np.ndarray: ...
def squareform(rdms: xr.DataArray | np.ndarray) -> xr.DataArray | np.ndarray:
    """Return condensed RDMs as square, symmetric matrices with a zero diagonal.

    Parameters
    ----------
    rdms : DataArray, dims (…, pair), or ndarray, shape (…, pair)
        From `repsim.rdms` or `repsim.rdm`.

    Returns
    -------
    DataArray, dims (…, example_a, example_b), or ndarray, shape (…, n, n)
        In the same order of examples, with labels kept as `label_a`, `label_b`.
        Labelled pairs may come in any order.

    Raises
    ------
    ValueError
        If the number of pairs is not n (n - 1) / 2 for any n, or `pair` is missing.

    Examples
    --------
    >>> squareform(np.array([1.0, 2.0, 3.0]))
    array([[0., 1., 2.],
           [1., 0., 3.],
           [2., 3., 0.]])
    """
    if not isinstance(rdms, xr.DataArray):
        return _square(np.asarray(rdms))
    if "pair" not in rdms.dims:
        msg = (
            "Expected `rdms` to have a dim `pair`, but got "
            f"({', '.join(str(d) for d in rdms.dims)}); use repsim.rdms."
        )
        raise ValueError(msg)
    rdms = in_order(rdms.transpose(..., "pair"))
    squares = _square(rdms.values)
    n = squares.shape[-1]
    dims = (*rdms.dims[:-1], "example_a", "example_b")
    coords = {k: v for k, v in rdms.coords.items() if "pair" not in v.dims}
    out = xr.DataArray(squares, dims=dims, coords=coords, attrs=rdms.attrs)
    for kind in ("example", "label"):
        if f"{kind}_a" in rdms.coords:
            a, b = rdms[f"{kind}_a"].values, rdms[f"{kind}_b"].values
            # Pairs (0, 1), (0, 2), … come first: together they name every example.
            names = np.concatenate([a[:1], b[: n - 1]])
            out = out.assign_coords(
                {f"{kind}_a": ("example_a", names), f"{kind}_b": ("example_b", names)}
            )
    return out.rename(rdms.name)


def _square(values: np.ndarray) -> np.ndarray:
    m = values.shape[-1] if values.ndim else 0
    n = n_examples(m)
    if m < 1 or n is None:
        msg = (
            "Expected the last dim to hold the n (n - 1) / 2 pairs of n examples, but "
            f"got {m}."
        )
        raise ValueError(msg)
    out = np.zeros((*values.shape[:-1], n, n), values.dtype)
    i, j = np.triu_indices(n, 1)
    out[..., i, j] = values
    out[..., j, i] = values
    return out
