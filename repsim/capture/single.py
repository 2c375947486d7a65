"""Forward hooks → activations: look at a pass, or record a network once."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import xarray as xr
from torch import Tensor, nn

from repsim.capture.batches import Forward, as_array, batches_of
from repsim.capture.hooks import Hooks, recording
from repsim.capture.isolation import eager, undisturbed
from repsim.capture.origin import provenance
from repsim.capture.rows import Reduce, check_reduce
from repsim.capture.selection import Layers, select, unwrap
from repsim.capture.session import Header, Session, check_ready, network_of, open_sink
from repsim.core.messages import whole


@contextmanager
def tap(
    model: nn.Module, layers: Layers = "*", *, detach: bool = True
) -> Iterator[dict[str, Tensor]]:
    """See the outputs of layers in every forward pass of the block.

    Parameters
    ----------
    model : Module
        Any module; its mode and gradients are left as they are.
    layers : str, iterable of str or predicate
        A glob (`*` stays within one path segment, `**` crosses dots; the default
        means direct children), names, or `f(name, module) -> bool`.
    detach : bool
        Give copies without a graph; False gives copies that gradients reach.

    Yields
    ------
    dict of str to Tensor
        Layer -> its output in the last forward pass, a copy that later operations
        in place do not change. A module called again gives `<layer>@call2`.

    Raises
    ------
    ValueError
        If a name or pattern matches nothing; the names that exist are listed.

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

    def emit(name: str, tensor: Tensor) -> None:
        seen[name] = (tensor.detach() if detach else tensor).clone()

    hooks = Hooks(select(inner, layers), emit)
    hooks.counting = False  # outside a pass of the whole network nothing is "again"

    def enter(*_: object) -> None:
        if recording.get() is None:
            hooks.begin()
            hooks.counting = True
            seen.clear()

    def leave(*_: object) -> None:
        hooks.counting = False

    around = [inner.register_forward_pre_hook(enter)]
    around.append(inner.register_forward_hook(leave, always_call=True))
    try:
        with hooks, eager():
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
    store : str, Path or None
        A new zarr store, written batch by batch; None keeps it in memory.
    group : str or None
        A place in the store, `"bp/0"`.
    reduce : "flatten", "mean", callable or None
        What becomes of maps and tokens: None keeps them as named dims, a callable
        maps a tensor (n, …) to (n, units).
    forward : callable or None
        `forward(model, batch) -> output` for models that need more than a call.
    step : int or None
        The number of updates made; gives the recording a `step` dim of length 1.
    attrs : mapping or None
        Further attributes: `seed`, `init_seed`, `dataset`, …

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
    step = None if step is None else whole(step, "step")
    check_reduce(reduce)
    head = provenance(model, network, reduce=reduce, attrs=attrs)
    sink = open_sink(store, group, attrs=head, examples=known)
    session = Session(network, choices, sink, reduce=reduce, forward=forward)
    try:
        with undisturbed(network):  # a shuffling DataLoader draws numbers, too
            batch_stream = batches_of(batches, whole=forward is not None)
            session.record(batch_stream, step, Header(labels, examples, head))
        session.warn_unreached()
        sink.finish()
    finally:
        sink.close()
    return sink.dataset()
