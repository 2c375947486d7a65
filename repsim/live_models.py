"""Two living networks compared in one pass over the data; nothing is stored."""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn

from repsim.capture.axes import AxesSaid
from repsim.capture.batches import Batch, Forward, batches_of, device_of, inputs_axis
from repsim.capture.distributed import part_of
from repsim.capture.isolation import undisturbed
from repsim.capture.masks import MaskSaid
from repsim.capture.rows import Reduce
from repsim.capture.selection import Layers, select, unwrap
from repsim.capture.session import Session, check_ready, network_of
from repsim.comparison.all_pairs import compare
from repsim.comparison.streaming import StreamingCKA
from repsim.core.bars import progress_bar
from repsim.core.devices import device_named
from repsim.datasets.pooling import check_how
from repsim.datasets.recordings import matrix_layers
from repsim.measures.catalogue import Measure, named

SUMS = 2**31
"""Bytes of sums over examples, beyond which rows are kept in memory instead."""

Rows = dict[str, np.ndarray]


def compare_models(
    model_a: Any,
    model_b: Any = None,
    batches: Any = None,
    *,
    layers: Layers = "*",
    layers_b: Layers | None = None,
    measure: str | Measure | Callable[..., float] = "cka",
    reduce: Reduce = None,
    axes: AxesSaid = None,
    mask: MaskSaid = None,
    forward: Forward | None = None,
    device: str = "auto",
    progress: bool = True,
) -> xr.DataArray:
    """Compare every layer of one living network with every layer of another.

    Both see each batch in eval mode and without gradients, and are left without a
    trace. Linear CKA is accumulated exactly, for batches of any size, and no activation
    is kept; other measures, and layers too wide for sums over examples, are computed
    at the end from rows in memory.

    Parameters
    ----------
    model_a, model_b : Module
        The networks; None for `model_b` compares the first with itself.
    batches : tensor, dict, or iterable
        As for `record`; for two networks that want different inputs (of two tokenisers,
        say) an iterable of pairs, one input for each: (a tensor, dict or list, and
        another). A second entry of one number for each example is labels.
    layers, layers_b : str, iterable of str or predicate
        Which layers of each; None for `layers_b` takes `layers`.
    measure : str, Measure or callable
        As for `compare`.
    reduce : {"flatten", "mean", "last", "first", "tokens"}, callable or None
        What becomes of maps and tokens, as for `record`; layers that have some want it.
    axes : mapping or None
        Which axis of an output is what, as for `record`, for both networks.
    mask : array (example, token), callable or None
        Which tokens count, as for `record`, for both networks.
    forward : callable or None
        `forward(model, batch) -> output`, for both networks.
    device : str
        Where to compute; "auto" is the accelerator if there is one. A network that
        lives elsewhere is copied there.
    progress : bool
        Show a bar.

    Returns
    -------
    DataArray, dims (layer_a, layer_b)
        As of `compare`; NaN where a layer is constant.

    Raises
    ------
    TypeError
        If a model is none.
    ValueError
        If layers, batches or examples do not fit, or a layer holds maps or tokens and
        `reduce` is None.

    See Also
    --------
    compare : Of recordings.
    StreamingCKA : In a loop of your own.

    Examples
    --------
    >>> import torch
    >>> nets = [nn.Sequential(nn.Linear(4, 3), nn.ReLU()) for _ in range(2)]
    >>> x = torch.randn(20, 4)
    >>> compare_models(*nets, [x[:7], x[7:]], progress=False).shape
    (2, 2)
    """
    if batches is None:
        msg = (
            "Expected `batches`, the inputs that both networks see, but got None; "
            "write compare_models(model_a, model_b, batches)."
        )
        raise ValueError(msg)
    check_how(reduce, "reduce", optional=True)
    chosen = named(measure)
    place = device_named(device)
    options = {"reduce": reduce, "axes": axes, "mask": mask, "forward": forward}
    sides = [_Side(model_a, layers, place, options)]
    if model_b is not None or layers_b is not None:
        other = model_a if model_b is None else model_b
        wanted = layers if layers_b is None else layers_b
        sides.append(_Side(other, wanted, place, options))
    axis = inputs_axis(batches, axes)
    pairs = _pairs(batches, len(sides), forward is not None, axis)
    rows: list[list[Rows]] = [[] for _ in sides]
    streaming: StreamingCKA | None = None
    with ExitStack() as stack:
        for side in sides:
            stack.enter_context(undisturbed(side.network))
        for i, pair in enumerate(progress_bar(pairs, progress=progress, unit="batch")):
            seen = [s.rows(batch) for s, batch in zip(sides, pair, strict=True)]
            if i == 0 and chosen.name == "cka" and _fits(seen):
                streaming = StreamingCKA()
            if streaming is None:
                for held, new in zip(rows, seen, strict=True):
                    held.append(new)
            else:
                on = [
                    {n: torch.from_numpy(v).to(place) for n, v in side.items()}
                    for side in seen
                ]
                streaming.update(*on)
    names = [type(side.network).__name__ for side in sides]
    apart = len(set(names)) > 1
    called = dict(zip(("recording_a", "recording_b"), names, strict=False))
    if streaming is not None:
        cells = streaming.compute().assign_attrs(device=str(place))
    else:
        runs = [_joined(held) for held in rows]
        cells = compare(runs[0], runs[1] if runs[1:] else None, chosen, device=device)
    return cells.assign_attrs(called if apart else {})


class _Side:
    """One network, and the rows that its layers give of a batch."""

    def __init__(
        self,
        model: Any,
        layers: Layers,
        device: torch.device,
        options: Mapping[str, Any],
    ) -> None:
        network = unwrap(network_of(model))
        check_ready(network)
        part_of(model, network)  # in shards all ranks compare, or none
        here = device_of(network)
        if here is not None and device.type != "cpu" and here.type != device.type:
            network = copy.deepcopy(network).to(device)
        self.network: nn.Module = network
        self._session = Session(network, select(network, layers), **options)

    def rows(self, batch: Batch) -> Rows:
        """Return layer -> (example, unit), and refuse maps and tokens."""
        run = self._session.outputs(batch)
        matrix_layers(run)
        return {str(n): run[n].values for n in run.data_vars}


def _pairs(
    data: Any, sides: int, whole: bool, axis: int
) -> Iterator[tuple[Batch, ...]]:
    """Yield one batch for each side: the same, or the halves of a pair."""
    if isinstance(data, torch.Tensor | np.ndarray | Mapping):
        for batch in batches_of(data, whole=whole, size=256, axis=axis):
            yield (batch,) * sides
        return
    for item in data:
        if sides == 2 and _is_pair_of_inputs(item):
            halves = [next(batches_of([half], whole=whole, axis=axis)) for half in item]
            yield halves[0], halves[1]
        else:
            yield (next(batches_of([item], whole=whole, axis=axis)),) * sides


def _is_pair_of_inputs(item: Any) -> bool:
    if not isinstance(item, tuple | list) or len(item) != 2:
        return False
    second = item[1]
    if isinstance(second, Mapping | tuple | list):
        return True
    return len(getattr(second, "shape", ())) > 1 and int(np.prod(second.shape[1:])) > 1


def _fits(seen: list[Rows]) -> bool:
    """Whether sums over examples of these widths fit into memory."""
    widths = [sum(v.shape[1] for v in side.values()) for side in seen]
    return bool(8 * widths[0] * widths[-1] <= SUMS)


def _joined(parts: list[Rows]) -> xr.Dataset:
    """Return all rows as a recording in memory."""
    if not parts:
        msg = "Expected at least one batch to compare on, but got none."
        raise ValueError(msg)
    return xr.Dataset(
        {
            name: (
                ("example", f"{name}_unit"),
                np.concatenate([p[name] for p in parts]),
            )
            for name in parts[0]
        }
    )
