"""An asynchronous run repeated in one process from its log of staleness."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr
from torch import Tensor

from repsim.core.threads import one_thread
from repsim.learning import Rule
from repsim.training.order import Data, Order, as_tensors
from repsim.training.segment_groups import make_parts, training_mode


@one_thread()
def replay(
    rule: Rule,
    data: Data,
    staleness: xr.DataArray | np.ndarray,
    *,
    batch_size: int = 128,
    seed: int = 0,
    start: int = 0,
) -> None:
    """Repeat an asynchronous run in this process, event by event.

    Parameters
    ----------
    rule : Rule
        As it was when the run began.
    data : Dataset or pair of Tensor
        The run's training data, as `repsim.train` takes them.
    staleness : DataArray or ndarray, shape (workers, updates)
        The run's, `log["staleness"]`: the number of batches that each worker had begun
        after the one whose message came in, −1 where none was to come.
    batch_size, seed, start : int
        The run's.

    Raises
    ------
    ValueError
        If the order of events is impossible, or it is none of workers and updates.
    TypeError
        If `data` is neither a Dataset nor a pair of tensors.

    Examples
    --------
    >>> import repsim
    >>> net = repsim.networks.mlp(4, hidden=[3, 3], classes=2, seed=0)
    >>> rule = repsim.learning.make("sg", net)
    >>> import torch
    >>> x, y = torch.rand(16, 4), torch.arange(16) % 2
    >>> replay(rule, (x, y), np.array([[0, 1, 0], [-1, -1, -1]]), batch_size=8)
    >>> rule.steps
    3
    """
    late = np.asarray(staleness)
    if late.ndim != 2:
        msg = (
            "Expected `staleness` of shape (workers, updates), but got "
            f'{late.shape}; give log["staleness"] whole.'
        )
        raise ValueError(msg)
    workers, updates = late.shape
    x, y = as_tensors(data, rule.network)
    rule.check(x[:2], y[:2])  # so that the rule knows its segments
    parts = make_parts(rule, workers, batches(rule, x, y, batch_size, seed))
    events = [_events(row, start, updates) for row in late.tolist()]
    up: dict[tuple[int, int], Tensor] = {}
    down: dict[tuple[int, int], Tensor] = {}
    with training_mode(rule):
        while any(events):
            moved = False
            for j, (part, todo) in enumerate(zip(parts, events, strict=True)):
                while todo and _ready(j, todo[0], up, down):
                    kind, step = todo.pop(0)
                    moved = True
                    if kind == "message":
                        part.message(step, down.pop((j, step)))
                        continue
                    h, sent = part.forward(step, up.pop((j - 1, step), None))
                    if j < workers - 1:
                        up[j, step] = h
                    if sent is not None and j:
                        below = range(j) if rule.info.sees_error else [j - 1]
                        down |= {(i, step): sent for i in below}
            if not moved:
                msg = (
                    "Expected staleness of one run, but got an order of events in "
                    f"which all workers wait; the first left is {events[0][:1]}."
                )
                raise ValueError(msg)
    rule.steps = start + updates


def _events(row: Sequence[int], start: int, updates: int) -> list[tuple[str, int]]:
    """Return one worker's events in their order."""
    steps = range(start + 1, start + updates + 1)
    events = []
    for now in steps:
        events.append(("forward", now))
        events += [
            ("message", step)
            for step, late in zip(steps, row, strict=True)
            if late >= 0 and step + late == now
        ]
    return events


def _ready(
    j: int, event: tuple[str, int], up: dict[Any, Tensor], down: dict[Any, Tensor]
) -> bool:
    kind, step = event
    if kind == "message":
        return (j, step) in down
    return j == 0 or (j - 1, step) in up


def batches(
    rule: Rule, x: Tensor, y: Tensor, batch_size: int, seed: int
) -> Callable[[int], tuple[Tensor, Tensor]]:
    """Return a function from a step to its batch."""
    order = Order(len(x), batch_size, seed)

    def batch(step: int) -> tuple[Tensor, Tensor]:
        picked = order[step - 1]
        inputs = x[picked]
        return inputs, rule.check(inputs, y[picked])

    return batch
