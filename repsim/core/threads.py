"""One thread: what small matrices want, and what makes numbers repeatable."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from threadpoolctl import ThreadpoolController, threadpool_limits


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


@cache
def _libraries() -> ThreadpoolController:
    """Return the numeric libraries loaded by now, looked for once: that takes long."""
    return ThreadpoolController()


@contextmanager
def calm(size: int, worth: int = 1 << 18) -> Iterator[None]:
    """Compute on one thread where matrices of `size` entries repay no second one."""
    before = torch.get_num_threads()
    if size >= worth or before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        with _libraries().limit(limits=1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)
