"""One thread: what small matrices want, and what makes numbers repeatable."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread inside, and as before afterwards.

    Networks and matrices of a study are small: more threads cost more in waiting for
    each other than they save, and sums in another order give other last digits.
    Processes share the cores instead.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)
