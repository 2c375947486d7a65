"""Outputs of a living network as rows: for `tap` and for comparisons of two."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from repsim.capture.axes import Axes, AxesSaid, Order, misfit
from repsim.capture.batches import Batch
from repsim.capture.masks import Masks, MaskSaid, is_ragged, padded
from repsim.capture.rows import Reduce
from repsim.capture.selection import Choice, Found, given_tensors, named_layers
from repsim.datasets.pooling import pooled, positions


class Live:
    """Turns outputs as they come: examples first, and reduced, where that is asked."""

    def __init__(
        self,
        network: nn.Module,
        choices: Mapping[str, Choice],
        axes: AxesSaid,
        mask: MaskSaid,
        reduce: Reduce,
    ) -> None:
        self._axes = Axes(axes, {"": network, **named_layers(network)[0]}, choices)
        self._masks = Masks(mask, network)
        self._reduce = reduce
        self._raw = axes is None and reduce is None
        self._size: int | None = None
        self._batch: Any = None

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Take up the inputs of a pass."""
        self._batch = kwargs or (args[0] if args else None)
        given = given_tensors(args, kwargs).values()
        first = next((t for t in given if isinstance(t, Tensor) and t.ndim), None)
        said = self._axes.inputs
        axis = 0 if said is None else said.index("example")
        self._size = None if first is None else first.shape[axis]
        self._masks.begin(Batch(self._batch, kwargs=kwargs), 0, self._size)

    def rows(self, name: str, found: Found) -> Tensor:
        """Return an output with the examples first, reduced where that is asked."""
        own = None
        if is_ragged(found):
            tensor, own = padded(found)
            order = Order(0, ("token", "unit"))
        else:
            assert isinstance(found, Tensor)
            if self._raw:
                return found
            tensor, order = found, self._order(name, found)
        rows = tensor.movedim(order.example, 0)
        if self._reduce is None:
            return rows
        places = [rows.shape[1 + i] for i in positions(order.rest)]
        count = int(np.prod(places, dtype=np.int64))
        tokens = "token" in order.rest
        mask = own if own is not None else self._masks.of(name, count, tokens=tokens)
        mask = mask if places else None
        return pooled(name, rows, order.rest, self._reduce, mask, self._batch)

    def _order(self, name: str, tensor: Tensor) -> Order:
        shape = tuple(tensor.shape)
        size = self._size
        said = self._axes.said(name)
        if size is None or said is not None:
            axis = 0 if said is None else said.index("example")
            size = shape[axis] if len(shape) > axis else 0
        order = self._axes.decide(name, shape, size)
        if order is None and shape and shape[0] == size:
            order = self._axes.with_example(name, shape, 0)
        if order is None:
            raise ValueError(misfit(name, shape, size, 0))
        return order
