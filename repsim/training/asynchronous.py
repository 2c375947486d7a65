"""Segments in processes of their own: each learns without waiting for the others.

A worker holds neighbouring segments. Activations go up and messages come down through
rings of bounded length in shared memory; a worker that has handed an activation on
goes straight to its next batch, and takes a message from above whenever one is there.
How many batches late that was is the message's staleness; it fixes the whole order of
events, so that `replay` repeats a run to the last bit in one process.
"""

from collections.abc import Callable

import numpy as np
from torch import Tensor

from repsim.core.interrupts import Interrupts
from repsim.learning import Rule
from repsim.training.machines import Machines
from repsim.training.order import Order
from repsim.training.processes import Workers, stopped_at
from repsim.training.repetition import batches
from repsim.training.segment_groups import joined, make_parts


def run_apart(
    rule: Rule,
    data: tuple[Tensor, Tensor],
    workers: int,
    order: Order,
    span: tuple[int, int],
    meets: Callable[[int], bool],
    met: Callable[[int, int, dict[str, Tensor]], None],
) -> np.ndarray:
    """Train in processes, and return the staleness (worker, update) of all messages.

    Where torch.distributed has joined processes, these are the workers, and each of
    them calls this.
    """
    step, steps = span
    parts = make_parts(rule, workers, batches(rule, *data, order.size, order.seed))
    late: list[list[int]] = [[] for _ in parts]
    kind = Machines if joined() > 1 else Workers
    with Interrupts() as interrupts:
        with interrupts.patient():
            team: Machines | Workers = kind(parts, order.size, step, interrupts)
        try:
            while step < steps:
                later = range(step + 1, steps + 1)
                target = next(s for s in later if s == steps or meets(s))
                with interrupts.patient():
                    target = team.agreed(target)
                    losses, delays = team.run(target)
                for row, new in zip(late, delays, strict=True):
                    row += new
                try:
                    interrupts.check()
                    met(target, step, losses)
                except BaseException as error:
                    if target < steps:
                        with interrupts.patient():
                            team.leave(error)
                    raise
                step = target
        except (KeyboardInterrupt, ValueError) as error:
            if interrupts.pressed or isinstance(error, KeyboardInterrupt):
                raise stopped_at(rule) from None
            raise
        finally:
            with interrupts.patient():
                team.close()
    none = [-1] * (steps - span[0])
    return np.array([row or none for row in late], dtype=np.int64)
