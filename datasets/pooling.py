"""Maps and tokens as units: one kernel for live and for stored activations."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from repsim.core.reductions import HOWS

How = Literal["flatten", "mean", "last", "first", "tokens"] | Callable[..., Any]

_FEATURES = ("unit", "channel", "head", "key", "layer")
_POSITIONS = ("token", "query", "time", "position", "x", "y", "z")
_OFFERED = ("mask", "layer", "batch")


def check_how(how: Any, what: str, *, optional: bool = False) -> None:
    """Refuse what is no way to turn maps and tokens into units."""
    if callable(how) or (isinstance(how, str) and how in HOWS):
        return
    if optional and how is None:
        return
    choices = ["None"] if optional else []
    choices += [repr(h) for h in HOWS]
    msg = (
        f"Expected `{what}` to be {', '.join(choices)} or a callable, but got {how!r}."
    )
    raise ValueError(msg)


def how_named(how: Any) -> str:
    """Return what the attribute `reduce` says."""
    if how is None or isinstance(how, str):
        return how or "none"
    return str(getattr(how, "__qualname__", type(how).__name__))


def positions(axes: Sequence[str]) -> list[int]:
    """Return which axes (those of the examples left out) are places, not features.

    Names that nobody knows are places beside known features and features beside known
    places; where all are unknown, the first is the feature, as a map's channel is.
    """
    if len(axes) < 2:
        return []
    features = [i for i, a in enumerate(axes) if a in _FEATURES]
    places = [i for i, a in enumerate(axes) if a in _POSITIONS]
    if features:
        return [i for i in range(len(axes)) if i not in features]
    return places if len(places) < len(axes) and places else list(range(1, len(axes)))


def by_position(values: Tensor, axes: Sequence[str]) -> Tensor:
    """Return values (n, …) as (n, positions, units)."""
    places = [1 + i for i in positions(axes)]
    moved = values.movedim(places, list(range(1, 1 + len(places))))
    cut = 1 + len(places)
    count, units = (
        int(np.prod(shape, dtype=np.int64))
        for shape in (moved.shape[1:cut], moved.shape[cut:])
    )
    return moved.reshape(len(values), count, units)


def pooled(
    name: str,
    values: Tensor,
    axes: Sequence[str],
    how: How,
    mask: Tensor | None = None,
    batch: Any = None,
) -> Tensor:
    """Return values (n, …) as (n, units), with "tokens" as (positions, units).

    `mask`, of shape (n, positions), is True where a position counts.
    """
    if callable(how):
        return _called(name, values, how, mask, batch)
    if how == "flatten" or not positions(axes):
        return values.flatten(1) if values.ndim > 2 else values
    values, kind = _wide(values), values.dtype
    kind = kind if kind.is_floating_point or kind.is_complex else values.dtype
    if how == "mean" and mask is None:
        return values.mean([1 + i for i in positions(axes)]).flatten(1).to(kind)
    if how in ("last", "first") and len(positions(axes)) > 1:
        msg = (
            f"Expected layer {name!r} to have tokens in one order for reduce={how!r}, "
            f"but got places along ({', '.join(axes[i] for i in positions(axes))}); "
            'take "mean" or "flatten".'
        )
        raise ValueError(msg)
    rows = by_position(values, axes)
    if mask is None:
        mask = torch.ones(rows.shape[:2], dtype=torch.bool)
    mask = mask.to(rows.device)
    if how == "tokens":
        return rows[mask].to(kind)
    if how == "mean":
        # Not a product with the mask: padding may hold NaN.
        kept = rows.masked_fill(~mask[..., None], 0)
        return (kept.sum(1) / mask.sum(1)[:, None]).to(kind)
    place = torch.arange(mask.shape[1], device=rows.device)
    there = place.where(mask, -1 if how == "last" else mask.shape[1])
    index = there.amax(1) if how == "last" else there.amin(1)
    out = rows[torch.arange(len(rows)), index.clamp(0, mask.shape[1] - 1)]
    return out.masked_fill(~mask.any(1)[:, None], torch.nan).to(kind)


def _wide(values: Tensor) -> Tensor:
    """Return half types as float32, whose sums do not overflow, integers as float64."""
    if values.dtype in (torch.float16, torch.bfloat16):
        return values.float()
    plain = values.is_floating_point() or values.is_complex()
    return values if plain else values.double()


def _called(
    name: str, values: Tensor, how: Callable[..., Any], mask: Tensor | None, batch: Any
) -> Tensor:
    """Return what a user's callable makes of a layer, checked."""
    offered = {"mask": mask, "layer": name, "batch": batch}
    try:
        out = how(values, **{k: offered[k] for k in asked_for(how)})
    except Exception as error:
        error.add_note(
            f"(`reduce` was called with layer {name!r}, {tuple(values.shape)})"
        )
        raise
    if isinstance(out, np.ndarray):
        out = torch.from_numpy(out)
    if not isinstance(out, Tensor) or out.ndim != 2 or len(out) != len(values):
        got = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        msg = (
            f"Expected `reduce` to map layer {name!r} from {tuple(values.shape)} to "
            f"(n, units), but got {got}."
        )
        raise ValueError(msg)
    return out


def asked_for(how: Callable[..., Any]) -> list[str]:
    """Return which of mask, layer and batch a callable takes, by their names."""
    try:
        parameters = inspect.signature(how).parameters
    except (TypeError, ValueError):  # of a builtin nothing is known
        return []
    names = list(parameters)[1:]
    return [n for n in _OFFERED if n in names]
