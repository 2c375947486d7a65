"""Maps and tokens of a recording as units, block by block."""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from repsim.datasets.pooling import (
    How,
    by_position,
    check_how,
    how_named,
    pooled,
    positions,
)
from repsim.datasets.recordings import layers

BLOCK = 2**26
"""Bytes of a layer that are read at once."""


def reduce(run: xr.Dataset, how: How) -> xr.Dataset:
    r"""Turn the maps and tokens of a recording into units.

    The mean over space or tokens, all values side by side, one token, or every token
    as an example of its own:

    .. math:: h_{ic} = \frac{1}{|P_i|} \sum_{p \in P_i} a_{icp}
        \quad\text{or}\quad h_{i,(c,p)} = a_{icp}
        \quad\text{or}\quad h_{(i,p),c} = a_{icp},\ p \in P_i

    where :math:`P_i` are the positions of example *i* that its mask does not leave out.

    Parameters
    ----------
    run : Dataset
        A recording; layers with dims ([step,] example, <layer>_channel,
        <layer>_y, <layer>_x) or ([step,] example, <layer>_token, <layer>_unit) are
        reduced. Those that have units already are kept by all but "tokens" (which
        leaves them out) and callables. The boolean coordinate `mask` (example,
        token), or `<layer>_mask`, says which positions count.
    how : {"mean", "flatten", "last", "first", "tokens"} or callable
        "mean" asks what a layer says wherever it says it; "flatten" keeps where, too,
        and is what maps are usually compared by; "last" and "first" take one unmasked
        token; with "tokens" the unmasked tokens are the examples, with coordinates
        `sequence` (the source example's id) and `position`, and `label` each token's.
        A callable maps every layer's tensor (example, …) to (example, units), one
        step at a time; it may take `mask` (example, positions) and `layer`, too.

    Returns
    -------
    Dataset
        Layers with dims ([step,] example, <layer>_unit); `attrs["reduce"]` says how.
        A stored recording is read in blocks; "flatten" and "tokens" of one are not
        read before they are asked for.

    Raises
    ------
    ValueError
        If `how` is none of these, a callable returns another shape, layers have
        places and no order of tokens ("last", "first"), or different tokens ("tokens").

    Examples
    --------
    >>> maps = np.arange(24.0).reshape(2, 3, 2, 2)
    >>> dims = ("example", "conv_channel", "conv_y", "conv_x")
    >>> reduce(xr.Dataset({"conv": (dims, maps)}), "mean")["conv"].values[0]
    array([1.5, 5.5, 9.5])
    """
    check_how(how, "how")
    known = layers(run)
    signals = [f"{n}@{s}" for n in known for s in ("error", "true_error")]
    names = [*known, *(s for s in signals if s in run.data_vars)]
    sources = {name: _Source(run, name) for name in names}
    reduced: dict[str, xr.Variable] = {}
    mask = None
    if how == "tokens":
        sources, mask = _same_tokens(run, sources)
    for name, source in sources.items():
        if callable(how) or len(source.axes) != 1:
            reduced[name] = source.reduced(how)
    # Dropped first: a dim such as <layer>_unit may change its length.
    dropped = names if how == "tokens" else list(reduced)
    rest = run.drop_vars([*dropped, *_lost(run, reduced)])
    if mask is not None:
        rest = rest.drop_vars([n for n, c in rest.coords.items() if "token" in c.dims])
        rest = _with_tokens(rest, run, mask)
    merged = rest.assign(reduced)
    order = [n for n in run.data_vars if n in merged.data_vars]
    attrs = {**run.attrs, "reduce": how_named(how)}
    if "layers" in attrs:
        attrs["layers"] = [n for n in known if n in merged.data_vars]
    return merged[order].assign_attrs(attrs)


def _lost(run: xr.Dataset, reduced: dict[str, xr.Variable]) -> list[str]:
    """Name the coordinates along dims that are reduced away."""
    dims = {d for n in reduced for d in run[n].dims} - {"step", "example"}
    if dims:
        dims.add("token")
    return [str(n) for n, c in run.coords.items() if dims & set(c.dims)]


class _Source:
    """One layer of a recording, with its mask, and what it becomes."""

    def __init__(self, run: xr.Dataset, name: str) -> None:
        variable = run[name].variable
        lead = [d for d in ("step", "example") if d in variable.dims]
        self.name, self.lead = name, lead
        self.variable = variable.transpose(*lead, ...)
        self.layer = name.removesuffix("@true_error").removesuffix("@error")
        inner = self.variable.dims[len(lead) :]
        self.axes = [axis_of(self.layer, str(d)) for d in inner]
        self.shape = self.variable.shape[len(lead) :]
        places = positions(self.axes)
        self.places = int(np.prod([self.shape[i] for i in places], dtype=np.int64))
        self.mask = self._mask(run) if places else None

    def _mask(self, run: xr.Dataset) -> np.ndarray | None:
        own = f"{self.layer}_mask"
        for name in (own, "mask"):
            if name in run.coords and run[name].ndim == 2:
                mask = np.asarray(run[name].transpose("example", ...).values, bool)
                if mask.shape[1] == self.places:
                    return mask
                if name == own or "token" in self.axes:
                    warnings.warn(
                        f"The mask has {mask.shape[1]} positions and layer "
                        f"{self.name!r} {self.places}: all of these are used.",
                        UserWarning,
                        stacklevel=4,
                    )
        return None

    def reduced(self, how: How) -> xr.Variable:
        """Return the layer as units: read now, or where it stays large, when asked."""
        dims = (*self.lead, f"{self.layer}_unit")
        rows = self.variable.sizes["example"]
        chosen = None
        if how == "tokens":
            chosen = (
                np.ones((rows, self.places), bool) if self.mask is None else self.mask
            )
        if how in ("flatten", "tokens") and not self.variable._in_memory:
            later = _Later(self.variable, self.lead, self.axes, chosen)
            data = indexing.LazilyIndexedArray(later)
            variable = xr.Variable(dims, data, self.variable.attrs)
            variable.encoding["preferred_chunks"] = later.chunks(dims)
            return variable
        parts = [self._moment(moment, how) for moment in self._moments()]
        if "step" not in self.lead:
            return xr.Variable(dims, parts[0], self.variable.attrs)
        empty = np.empty((0, rows, 0))
        values = np.stack(parts) if parts else empty
        return xr.Variable(dims, values, self.variable.attrs)

    def _moments(self) -> Iterator[xr.Variable]:
        if "step" not in self.lead:
            yield self.variable
            return
        for i in range(self.variable.sizes["step"]):
            yield self.variable.isel(step=i)

    def _moment(self, moment: xr.Variable, how: How) -> np.ndarray:
        """Reduce one moment, read in blocks: (example, …) to (example, unit)."""
        rows = moment.sizes["example"]
        each = max(1, moment.nbytes // max(1, rows))
        # A callable may look at all examples at once.
        block = max(1, rows) if callable(how) else max(1, BLOCK // each)
        parts = []
        for start in range(0, max(1, rows), block):
            part = slice(start, start + block)
            values = torch.from_numpy(np.array(moment[part].values))
            mask = None if self.mask is None else torch.from_numpy(self.mask[part])
            out = pooled(self.name, values, self.axes, how, mask)
            parts.append(out.numpy())
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


class _Later(BackendArray):
    """A stored layer flattened, or its tokens as rows, read when asked for."""

    def __init__(
        self,
        variable: xr.Variable,
        lead: Sequence[str],
        axes: Sequence[str],
        chosen: np.ndarray | None,
    ) -> None:
        self._variable, self._axes = variable, axes
        self._stepped = "step" in lead
        inner = variable.shape[len(lead) :]
        places = [inner[i] for i in positions(axes)]
        units = int(np.prod(inner, dtype=np.int64))
        rows = variable.sizes["example"]
        self._place = None
        self._each = 1.0
        if chosen is not None:
            self._place = np.argwhere(chosen)
            units //= int(np.prod(places, dtype=np.int64))
            self._each = len(self._place) / max(1, rows)
            rows = len(self._place)
        steps = (variable.sizes["step"],) if self._stepped else ()
        self.shape = (*steps, rows, units)
        self.dtype = variable.dtype

    def chunks(self, dims: tuple[str, ...]) -> dict[str, int]:
        """Return how much of each dim lies together."""
        held = self._variable.encoding.get("preferred_chunks", {})
        rows = max(1, int(held.get("example", 1) * self._each))
        sizes = dict(zip(dims, self.shape, strict=True))
        return {**sizes, "example": rows, **({"step": 1} if self._stepped else {})}

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        """Return what an indexer of xarray asks for."""
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._read
        )

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        *steps, rows, units = key
        numbers = np.atleast_1d(np.arange(self.shape[-2])[rows])
        if self._stepped and not isinstance(steps[0], int | np.integer):
            which = np.arange(self.shape[0])[steps[0]]
            parts = [self._moment(int(i), numbers)[:, units] for i in which]
            tail = self._moment(0, numbers[:0])[:, units].shape[1:]
            out = np.stack(parts) if parts else np.empty((0, len(numbers), *tail))
            single = out[:, 0] if np.ndim(np.arange(self.shape[-2])[rows]) == 0 else out
            return np.asarray(single, self.dtype)
        moment = self._moment(int(steps[0]) if self._stepped else None, numbers)
        moment = moment[:, units]
        return moment[0] if np.ndim(np.arange(self.shape[-2])[rows]) == 0 else moment

    def _moment(self, step: int | None, numbers: np.ndarray) -> np.ndarray:
        """Return some rows of one moment, of shape (len(numbers), units)."""
        moment = self._variable if step is None else self._variable[step]
        if self._place is None:
            values = np.asarray(moment[numbers].values)
            return values.reshape(len(numbers), self.shape[-1])
        sequence, position = self._place[numbers].T
        unique, inverse = np.unique(sequence, return_inverse=True)
        held = torch.from_numpy(np.array(moment[unique].values))
        rows: np.ndarray = by_position(held, self._axes).numpy()
        return np.asarray(rows[inverse, position])


def _same_tokens(
    run: xr.Dataset, sources: dict[str, _Source]
) -> tuple[dict[str, _Source], np.ndarray]:
    """Return the layers with tokens and their common mask; others are left out."""
    with_tokens = {n: s for n, s in sources.items() if positions(s.axes)}
    if not with_tokens:
        msg = 'Expected layers with tokens for "tokens", but all have units alone.'
        raise ValueError(msg)
    out = [n for n in sources if n not in with_tokens]
    if out:
        warnings.warn(
            f'Left out by "tokens", as they hold no tokens: {", ".join(out)}.',
            UserWarning,
            stacklevel=3,
        )
    first = next(iter(with_tokens.values()))
    shape = (run.sizes["example"], first.places)
    mask = np.ones(shape, bool) if first.mask is None else first.mask
    for name, source in with_tokens.items():
        theirs = np.ones((shape[0], source.places), bool)
        theirs = theirs if source.mask is None else source.mask
        if theirs.shape != mask.shape or (theirs != mask).any():
            msg = (
                f"Expected all layers to have the same tokens, but {first.name!r} has "
                f"{mask.sum()} in {first.places} positions and {name!r} "
                f"{theirs.sum()} in {source.places}; take layers of one tower, as in "
                "run[[…]]."
            )
            raise ValueError(msg)
    return with_tokens, mask


def _with_tokens(rest: xr.Dataset, run: xr.Dataset, mask: np.ndarray) -> xr.Dataset:
    """Give every token its sequence, position, label and what else is known of it."""
    sequence, position = np.nonzero(mask)
    ids = run["example"].values if "example" in run.coords else np.arange(len(mask))
    coords: dict[str, Any] = {
        str(n): ("example", c.values[sequence])
        for n, c in rest.coords.items()
        if c.dims == ("example",) and n != "example"
    }
    label = run.coords.get("label")
    if label is not None and label.ndim == 2:
        coords["label"] = ("example", label.values[mask])
    coords["example"] = np.arange(len(sequence))
    coords["sequence"] = ("example", ids[sequence])
    coords["position"] = ("example", position)
    others = [n for n, c in rest.coords.items() if "example" in c.dims]
    return rest.drop_vars(others).assign_coords(coords)


def axis_of(layer: str, dim: str) -> str:
    """Return what a dim's name says beside its layer's: "token" of "h.0_token"."""
    return dim.removeprefix(f"{layer}_").rstrip("_").rpartition("_")[2]
