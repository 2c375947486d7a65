"""A measure over all pairs of layers, steps and networks."""

import json
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, TypeAlias

import numpy as np
import torch
import xarray as xr
from tqdm.auto import tqdm

from repsim.datasets.messages import unknown
from repsim.datasets.recordings import (
    matrix_layers,
    networks,
    same_examples,
    select_layers,
)
from repsim.measures import registry
from repsim.measures.inputs import is_constant
from repsim.measures.registry import Measure

Recordings: TypeAlias = xr.Dataset | xr.DataTree
Layers: TypeAlias = str | Iterable[str] | None


class LayerRows:
    """One layer at one moment, read from the recording row by row when asked.

    Parameters
    ----------
    values : Variable, dims (example, unit)
        The layer; it may live on disk.
    what : str
        How errors call it.
    """

    def __init__(self, values: xr.Variable, what: str) -> None:
        if values.dims[0] != "example":
            values = values.transpose("example", ...)
        self._values = values
        self.what = what
        self.stored = not values._in_memory
        """Whether reading goes to a store (or a task graph), not to memory."""
        self.chunk = _stored_together(values) if self.stored else 1
        """How many rows are stored together, which are read together."""
        self._memory = None if self.stored else np.asarray(values.values)

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (examples, units)."""
        return self._values.shape

    @property
    def dtype(self) -> Any:
        """Return the dtype in the recording."""
        return self._values.dtype

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Return some rows, in memory."""
        if self._memory is not None:
            return self._memory[rows]
        return np.asarray(self._values[rows].values)


def _stored_together(values: xr.Variable) -> int:
    """Return how many examples a chunk holds."""
    chunks = values.chunksizes or values.encoding.get("preferred_chunks", {})
    size = chunks.get("example", 1)
    return int(size if isinstance(size, int) else max(size))


def compare(
    a: Recordings,
    b: Recordings | None = None,
    measure: str | Measure | Callable[..., float] = "cka",
    *,
    layers: Layers = None,
    layers_b: Layers = None,
    precision: str | None = None,
    device: str = "auto",
    progress: bool = False,
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
        Which layers of each side; None means all of them, and for `layers_b` those
        of `layers` where it is given.
    precision : {"float64", "float32", "bfloat16"} or None
        Of the products; None is the recording's own (float32 for half types), or
        float64 where the measure needs it.
    device : str
        Where to compute; "auto" is the accelerator if there is one.
    progress : bool
        Show a bar.
    **options
        The measure's own, as in `repsim.cka`; linear CKA also takes `batch`.

    Returns
    -------
    DataArray, dims ([step,] layer_a, layer_b)
        With a study (network_a, network_b, [step,] layer_a, layer_b), where the
        networks carry their condition and seed. NaN where a layer is constant.

    Raises
    ------
    TypeError
        If a side is neither a recording nor a study, or an option does not exist.
    ValueError
        If examples, steps or layers do not match, a layer is not a matrix, numbers
        are not finite, or a name does not exist.

    See Also
    --------
    StreamingCKA : the same without storing activations.

    Examples
    --------
    >>> import numpy as np, xarray as xr, repsim
    >>> x = np.random.default_rng(0).normal(size=(50, 3))
    >>> run = xr.Dataset({name: (("example", f"{name}_unit"), x) for name in "ab"})
    >>> repsim.compare(run).round(3).values.tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """
    chosen = _measure(measure)
    _check_options(chosen, options)
    left = Side.of(a, layers, "layers")
    right = left
    if b is not None or layers_b is not None:
        wanted, what = (
            (layers, "layers") if layers_b is None else (layers_b, "layers_b")
        )
        right = Side.of(a if b is None else b, wanted, what)
    steps = _common_steps(left, right)
    precision = _precision(chosen, precision, [left, right])
    device = _device(device)
    moments: list[int | None] = [None] if steps is None else list(range(len(steps)))
    values, constant = [], Constant()
    how: dict[str, Any] = {}
    for moment in tqdm(moments, disable=not progress or len(moments) == 1):
        xs = left.rows(moment)
        ys = None if right is left else right.rows(moment)
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
        constant.look(values[-1], xs, ys)
        if not how and chosen.describe is not None:
            how = chosen.describe(xs, ys, **(chosen.defaults() | options))
    constant.warn()
    attrs = _attrs(chosen, options, precision, device) | how
    return _labelled(np.stack(values), left, right, steps, attrs)


@dataclass(frozen=True)
class Network:
    """One network of a comparison, with its place in a study if it has one."""

    run: xr.Dataset
    condition: str | None = None
    seed: str | None = None

    @property
    def label(self) -> str | None:
        """Return "condition/seed"."""
        return None if self.condition is None else f"{self.condition}/{self.seed}"


@dataclass(frozen=True)
class Side:
    """One side of a comparison: some networks, with the same layers and steps."""

    networks: list[Network]
    layers: list[str]
    steps: xr.DataArray | None

    @classmethod
    def of(cls, recordings: Recordings, layers: Layers, what: str) -> "Side":
        """Return a side from what the user gave, checked."""
        if isinstance(recordings, xr.DataTree):
            found = [
                Network(run, condition, seed)
                for (condition, seed), run in networks(recordings).items()
            ]
        else:
            found = [Network(recordings)]
        chosen = matrix_layers(found[0].run, _listed(layers), what)
        for other in found[1:]:
            _same_layers(found[0], other, chosen, asked=layers is not None)
            matrix_layers(other.run, chosen, what)
            same_examples(found[0].run, other.run)
        steps = [_steps(network.run) for network in found]
        for network, step in zip(found, steps, strict=True):
            _same_steps(steps[0], step, f"{found[0].label} and {network.label}")
        return cls(found, chosen, steps[0])

    @property
    def is_study(self) -> bool:
        """Return whether the side is a study."""
        return self.networks[0].condition is not None

    def rows(self, moment: int | None) -> list[LayerRows]:
        """Return the layers of all networks at one moment, networks outermost."""
        found = []
        for network in self.networks:
            for layer in self.layers:
                values, where = network.run.variables[layer], f"layer {layer!r}"
                if network.label is not None:
                    where += f" of {network.label}"
                if moment is not None and "step" in values.dims:
                    values = values.isel(step=moment)
                    where += f" at step {_number(network.run, moment)}"
                found.append(LayerRows(values, where))
        return found


class Constant:
    """Collects the layers that do not vary, for one warning."""

    def __init__(self) -> None:
        self._found: dict[str, None] = {}

    def look(
        self, values: np.ndarray, xs: list[LayerRows], ys: list[LayerRows] | None
    ) -> None:
        """Find the layers behind rows and columns without a number."""
        empty = np.isnan(values)
        suspects = [xs[i] for i in np.flatnonzero(empty.all(axis=1))]
        if ys is not None:
            suspects += [ys[j] for j in np.flatnonzero(empty.all(axis=0))]
        for suspect in suspects:
            if suspect.what not in self._found and is_constant(suspect[:]):
                self._found[suspect.what] = None

    def warn(self) -> None:
        """Warn once, naming them."""
        if self._found:
            warnings.warn(
                "Constant over the examples, so without similarity (NaN): "
                f"{'; '.join(self._found)}.",
                UserWarning,
                stacklevel=3,
            )


def _measure(measure: str | Measure | Callable[..., float]) -> Measure:
    """Return a measure from a name or a function."""
    if isinstance(measure, Measure):
        return measure
    if isinstance(measure, str):
        return registry.get(measure)
    if callable(measure):
        for name in registry.names():
            if registry.get(name).function is measure:
                return registry.get(name)
        name = getattr(measure, "__name__", type(measure).__name__)
        # Nothing is known of a plain function, its symmetry included.
        return Measure(name, measure, larger_is_more_similar=True, symmetric=False)
    msg = (
        "Expected `measure` to be a name or a function f(x, y), but got "
        f"{type(measure).__name__}."
    )
    raise TypeError(msg)


def _check_options(measure: Measure, options: dict[str, Any]) -> None:
    """Raise if the measure has no such option."""
    known = measure.defaults()
    for name in options:
        if name not in known and not measure.takes_any_option():
            raise TypeError(unknown(f"options of {measure.name}", name, known))


def _listed(layers: Layers) -> list[str] | None:
    """Return names as a list, so that an iterator serves both sides."""
    if layers is None:
        return None
    return [layers] if isinstance(layers, str) else [str(name) for name in layers]


def _same_layers(
    first: Network, other: Network, chosen: list[str], *, asked: bool
) -> None:
    """Raise if networks of a study do not have the same layers to compare."""
    theirs = select_layers(other.run)
    missing = [name for name in chosen if name not in theirs]
    extra = [] if asked else [name for name in theirs if name not in chosen]
    if missing or extra:
        common = [name for name in chosen if name in theirs]
        msg = (
            f"Expected the networks of a study to have the same layers, but "
            f"{first.label} and {other.label} differ in "
            f"{', '.join(missing + extra)}; name common ones, as in layers={common!r}."
        )
        raise ValueError(msg)


def _steps(run: xr.Dataset) -> xr.DataArray | None:
    """Return the steps of a recording, or None for a single moment."""
    return run["step"] if "step" in run.dims else None


def _number(run: xr.Dataset, position: int) -> int:
    """Return the number of updates behind a position."""
    return int(run["step"].values[position])


def _same_steps(a: xr.DataArray | None, b: xr.DataArray | None, who: str) -> None:
    """Raise if two recordings have steps that differ."""
    if a is None and b is None:
        return
    if a is None or b is None or not np.array_equal(a.values, b.values):
        shown = ["none" if s is None else f"{s.size} ({_span(s)})" for s in (a, b)]
        msg = (
            f"Expected {who} to have the same steps, but got {shown[0]} and "
            f"{shown[1]}; select common ones with .sel(step=…), or one moment with "
            ".isel(step=-1)."
        )
        raise ValueError(msg)


def _span(steps: xr.DataArray) -> str:
    """Return the first and last step in words."""
    if not steps.size:
        return "empty"
    return f"{int(steps.values[0])} to {int(steps.values[-1])}"


def _common_steps(left: Side, right: Side) -> xr.DataArray | None:
    """Return the steps of a comparison; a single moment goes with every step."""
    same_examples(left.networks[0].run, right.networks[0].run)
    if left.steps is not None and right.steps is not None:
        _same_steps(left.steps, right.steps, "both recordings")
    steps = right.steps if left.steps is None else left.steps
    if steps is not None and not steps.size:
        msg = "Expected a recording with at least one step, but got none."
        raise ValueError(msg)
    return steps


def _precision(measure: Measure, asked: str | None, sides: Sequence[Side]) -> str:
    """Return the precision: as asked, as the measure needs, or as recorded."""
    if asked is not None:
        if asked not in measure.precisions:
            raise ValueError(unknown("precision", asked, measure.precisions))
        return asked
    if measure.default_precision is not None:
        return measure.default_precision
    kinds = {
        network.run.variables[layer].dtype
        for side in sides
        for network in side.networks
        for layer in side.layers
    }
    narrow = all(kind.kind == "f" and kind.itemsize <= 4 for kind in kinds)
    return "float32" if narrow else "float64"


def _device(device: str) -> str:
    """Return where to compute."""
    if device != "auto":
        return str(torch.device(device))
    return "cuda" if torch.cuda.is_available() else "cpu"


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
        "repsim_version": version("repsim"),
        "torch_version": str(torch.__version__),
    }
    if measure.bounds is not None and np.isfinite(measure.bounds).all():
        attrs["bounds"] = [float(bound) for bound in measure.bounds]
    return attrs


def _labelled(
    values: np.ndarray,
    left: Side,
    right: Side,
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
