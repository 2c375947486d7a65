"""How many threads compute: one for small matrices, one for each block of large."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import cache
from typing import TypeVar

import torch
from threadpoolctl import ThreadpoolController, threadpool_limits

Item = TypeVar("Item")

_given: ContextVar[int] = ContextVar("threads that torch had outside", default=1)


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
def alone() -> Iterator[None]:
    """Let torch compute on one thread inside; `spread` still knows how many it had.

    Its threads meet after each pass over the numbers, and wait longer for each other
    than a pass takes, most of all where other processes want the cores, too.
    """
    before = torch.get_num_threads()
    token = _given.set(max(_given.get(), before))
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        _given.reset(token)


@contextmanager
def calm(size: int = 0, worth: int = 1 << 18) -> Iterator[None]:
    """Compute on one thread where matrices of `size` entries repay no second one."""
    if size >= worth or torch.get_num_threads() == 1:
        yield
        return
    with alone(), _libraries().limit(limits=1, user_api="blas"):
        yield


def spread(make: Callable[[], Callable[[Item], object]], items: Iterable[Item]) -> None:
    """Do what `make` returns for each item once, on as many threads as torch has.

    Each calls `make` for a worker of its own, takes the next item when it has done one,
    and computes alone: the arithmetic is the same on any number of threads.
    """
    queue = iter(items)

    def work() -> None:
        torch.set_num_threads(1)
        _given.set(1)
        do = make()
        for item in queue:
            do(item)

    with alone(), _libraries().limit(limits=1, user_api="blas"):
        others = _given.get() - 1
        with ThreadPoolExecutor(max(others, 1)) as pool:
            started = [pool.submit(copy_context().run, work) for _ in range(others)]
            copy_context().run(work)
            for other in started:
                other.result()


SHARED = 1 << 18
"""Numbers from which work on them is shared among threads: some tenths of a ms."""


def shared(do: Callable[[Item], object], items: Iterable[Item], size: int) -> None:
    """Do something for each item once, on all threads where `size` numbers repay it."""
    if size >= SHARED:
        spread(lambda: do, items)
        return
    for item in items:
        do(item)
