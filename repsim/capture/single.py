"""Forward hooks → activations: look at a pass, or record a network once."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import xarray as xr
from torch import Tensor, nn

from repsim.capture.axes import AxesSaid
from repsim.capture.batches import (
    Batch,
    Forward,
    as_array,
    batches_of,
    inputs_axis,
    inputs_hash,
    known_rows,
)
from repsim.capture.distributed import StoreRanks, part_of, shard_again
from repsim.capture.header import Header
from repsim.capture.hooks import Hooks, recording
from repsim.capture.isolation import eager, undisturbed
from repsim.capture.live import Live
from repsim.capture.masks import MaskSaid
from repsim.capture.opening import Place
from repsim.capture.origin import provenance
from repsim.capture.rows import Reduce
from repsim.capture.selection import Found, Layers, select, unwrap
from repsim.capture.session import (
    OnError,
    Session,
    check_names,
    check_ready,
    network_of,
)
from repsim.core.messages import whole
from repsim.datasets.pooling import check_how
from repsim.datasets.store.reader import read


@contextmanager
def tap(
    model: nn.Module,
    layers: Layers = "*",
    *,
    detach: bool = True,
    axes: AxesSaid = None,
    mask: MaskSaid = None,
    reduce: Reduce = None,
) -> Iterator[dict[str, Tensor]]:
    """See the outputs of layers in every forward pass of the block.

    Parameters
    ----------
    model : Module
        Any module; its mode and gradients are left as they are.
    layers : str, iterable of str or predicate
        A glob (`*` stays within one path segment, `**` crosses dots; the default
        means direct children), names, or `f(name, module) -> bool`; "!" before a
        pattern leaves out: `["**", "!**.gate"]`. `attn@1` is a further tensor of an
        output, `attn@input` what the layer was given.
    detach : bool
        Give copies without a graph; False gives copies that gradients reach.
    axes : mapping or None
        Which axis is what, as for `record`; the examples of those layers come first.
    mask : array (example, token), callable or None
        Which tokens count for `reduce`, as for `record`.
    reduce : {"flatten", "mean", "last", "first", "tokens"}, callable or None
        What becomes of maps and tokens; None gives outputs as they are.

    Yields
    ------
    dict of str to Tensor
        Layer -> its output in the last forward pass, a copy that later operations
        in place do not change. A module called again gives `<layer>@call2`.

    Raises
    ------
    ValueError
        If a name or pattern matches nothing; the nearest names are listed.

    Examples
    --------
    >>> import torch
    >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> with tap(net, ["0", "2"]) as seen:
    ...     out = net(torch.ones(5, 4))
    >>> {name: tuple(tensor.shape) for name, tensor in seen.items()}
    {'0': (5, 3), '2': (5, 2)}
    """
    seen: dict[str, Tensor] = {}
    inner = unwrap(network_of(model))
    check_how(reduce, "reduce", optional=True)
    choices = select(inner, layers)
    live = Live(inner, choices, axes, mask, reduce)

    def emit(name: str, found: Found) -> None:
        tensor = live.rows(name, found)
        seen[name] = (tensor.detach() if detach else tensor).clone()

    hooks = Hooks(choices, emit)
    hooks.counting = False  # outside a pass of the whole network nothing is "again"

    def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if recording.get() is None:
            hooks.begin()
            live.begin(args, kwargs)
            hooks.counting = True
            seen.clear()

    def leave(*_: object) -> None:
        hooks.counting = False

    around = [inner.register_forward_pre_hook(enter, with_kwargs=True)]
    around.append(inner.register_forward_hook(leave, always_call=True))
    try:
        with hooks, eager:
            yield seen
    finally:
        for handle in around:
            handle.remove()


def record(
    model: Any,
    batches: Any,
    layers: Layers = "*",
    labels: Any = None,
    examples: Any = None,
    store: Any = None,
    group: str | None = None,
    reduce: Reduce = None,
    forward: Forward | None = None,
    step: int | None = None,
    *,
    attrs: Mapping[str, Any] | None = None,
    axes: AxesSaid = None,
    mask: MaskSaid = None,
    on_error: OnError = "raise",
    storage_options: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Record what the layers of a network answer to a set of examples.

    In eval mode, without gradients, and without a trace in the network, its mode
    or any random state.

    Parameters
    ----------
    model : Module
        Any network, or a learning rule (its `network` is recorded).
    batches : tensor, dict, or iterable
        A tensor; inputs or (inputs, labels) batch by batch, a `DataLoader` for one;
        dicts are passed as `model(**batch)`.
    layers : str, iterable of str or predicate
        As for `tap`.
    labels : array of shape (example,) or None
        Labels, where the batches carry none.
    examples : array of shape (example,) or None
        Ids in the source data; 0, 1, … by default.
    store : str, Path, zarr store or None
        A new zarr store, written batch by batch, also elsewhere ("s3://…", "gs://…");
        None keeps it in memory.
    group : str or None
        A place in the store, `"bp/0"`.
    reduce : {"flatten", "mean", "last", "first", "tokens"}, callable or None
        What becomes of maps and tokens, as for `repsim.reduce`: None keeps them as
        named dims, a callable maps a tensor (n, …) to (n, units) and may take `mask`
        (n, positions), `layer` (its name) and `batch` (as it came), too.
    forward : callable or None
        `forward(model, batch) -> output` for models that need more than a call.
    step : int or None
        The number of updates made; gives the recording a `step` dim of length 1.
    attrs : mapping or None
        Further attributes: `seed`, `init_seed`, `dataset`, …
    axes : mapping or None
        Which axis of an output is what, by pattern, `example` among them:
        `{"layers.*": "token example unit", "stages.*": "example y x channel"}`, and
        under "inputs" those of the inputs; the last pattern that matches wins. Where
        nothing is said, modules are asked and a few examples are tried.
    mask : array (example, token), callable or None
        Which tokens count: an array, `f(batch)`, or by default the `attention_mask`
        of a dict batch. Kept beside token layers; everything that pools obeys it.
    on_error : {"raise", "skip"}
        What a layer that cannot be recorded does: raise, or be left out with a
        warning.
    storage_options : mapping or None
        What fsspec needs for a store elsewhere: keys, an endpoint.

    Returns
    -------
    Dataset
        A recording: one variable a layer, dims ([step,] example, <layer>_unit).

    Raises
    ------
    FileExistsError
        If the place in the store is taken.
    ValueError
        If layers, batches or labels do not fit.

    Examples
    --------
    >>> import torch
    >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> run = record(net, torch.ones(5, 4), layers=["0", "2"])
    >>> dict(run.sizes)
    {'example': 5, '0_unit': 3, '2_unit': 2}
    """
    network = unwrap(network_of(model))
    choices = select(network, layers)
    check_ready(network)
    known = None if labels is None else len(as_array(labels))
    known = None if reduce == "tokens" else known
    step = None if step is None else whole(step, "step")
    check_how(reduce, "reduce", optional=True)
    check_names(choices, stored=store is not None)
    session = Session(
        network,
        choices,
        reduce=reduce,
        forward=forward,
        axes=axes,
        mask=mask,
        on_error=on_error,
    )
    head = provenance(model, network, reduce=reduce, attrs=attrs, axes=axes)
    axis = inputs_axis(batches, axes, labels, examples)
    part = part_of(model, network, stored=store is not None)
    place, header = Place(store, group, storage_options), Header(labels, examples, head)
    stream: Iterable[Batch] = batches_of(batches, whole=forward is not None, axis=axis)
    if part == "shares":
        held = None
        if isinstance(batches, Tensor | np.ndarray | Mapping | list):
            stream = held = list(stream)
            head["inputs_sha256"] = inputs_hash(held)
        rows = known_rows(held, reduce)
        sink, shared = place.shared(session, header, held, rows)
        stream = shared or stream
    else:
        sink = place.sink(part, session, header, known)
    session.use(sink)
    try:
        with undisturbed(network):  # a shuffling DataLoader draws numbers, too
            session.record(iter(stream), step, header)
            shard_again(network)
        session.warn_unreached()
        sink.finish()
    finally:
        sink.close()
    if part == "shares" and place.path is not None:
        StoreRanks().exchange("closed")  # the first rank has written what all return
        return read(place.path)
    return sink.dataset()
