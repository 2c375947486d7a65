"""Work done where the data lie: on the workers of a dask cluster, if one is active.

What is sent to a worker is small: a function, and recordings as they were opened, which
each worker reads by itself. What comes back is small, too: sums, numbers, matrices of
layers. Activations never pass through the process that asks.
"""

import asyncio
import copy
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import xarray as xr

_WORKING: ContextVar[bool] = ContextVar("working", default=False)
"""Whether this is a task's work; a thread that helps it is given the same context."""


CONNECT = "20s"
"""How long a scheduler may take to answer."""

HERE = ("synchronous", "threads")
"""Schedulers of dask that are no cluster: all is done in this process."""

_HERE: ContextVar[str | None] = ContextVar("scheduler of this process", default=None)


@contextmanager
def using(scheduler: Any) -> Iterator[None]:
    """Take a client, the scheduler at an address, or none, for what is done inside."""
    if scheduler is None:
        yield
    elif isinstance(scheduler, str) and scheduler in HERE:
        token = _HERE.set(scheduler)
        try:
            yield
        finally:
            _HERE.reset(token)
    elif isinstance(scheduler, str) and "://" in scheduler:
        with connected(scheduler, set_as_default=False) as client, client.as_current():
            yield
    elif hasattr(scheduler, "as_current"):
        token = _HERE.set(None)
        try:
            with scheduler.as_current():
                yield
        finally:
            _HERE.reset(token)
    else:
        msg = (
            "Expected `scheduler` to be a dask client, an address such as "
            f"tcp://host:8786, or one of {', '.join(HERE)}, but got {scheduler!r}."
        )
        raise ValueError(msg)


@contextmanager
def connected(address: str, **options: Any) -> Iterator[Any]:
    """Give a client of the scheduler at an address, or say what to start."""
    try:
        from distributed import Client
    except ImportError as error:
        msg = (
            "Expected dask.distributed for `scheduler`, but it cannot be imported; "
            "run `pip install repsim-toolkit[dask]`."
        )
        raise ImportError(msg) from error
    try:
        _expect_answer(address)
        client = Client(address, timeout=CONNECT, **options)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, TimeoutError) as error:
        msg = (
            f"Expected a dask scheduler at {address!r}, but got "
            f"{str(error) or 'no answer'}; start one "
            "with `dask scheduler`, and workers with `dask worker ADDRESS`."
        )
        raise ValueError(msg) from error
    with client, _to_the_end(address):
        yield client


@contextmanager
def _to_the_end(address: str) -> Iterator[None]:
    """Say in a sentence that a scheduler was lost while it was at work."""
    try:
        yield
    except (OSError, CancelledError) as error:
        from distributed.comm.core import CommClosedError

        lost = isinstance(error, CommClosedError)
        if not (lost or getattr(error, "reason", "") == "scheduler-connection-lost"):
            raise
        msg = (
            f"Expected the dask scheduler at {address!r} to answer to the end, but "
            "the connection was lost; start one again and repeat the call (a study "
            "keeps the networks that are complete)."
        )
        raise ValueError(msg) from error


def _expect_answer(address: str) -> None:
    """Raise TimeoutError unless a scheduler says who it is.

    A client's own timeout ends with the connection: of one that is taken up and never
    answered it would wait for ever.
    """
    import distributed
    from dask.utils import parse_timedelta

    seconds = parse_timedelta(CONNECT)
    dask: Any = distributed

    async def ask() -> None:
        secret = dask.Security().get_connection_args("client")
        async with dask.rpc(address, connection_args=secret) as scheduler:
            await scheduler.identity()

    async def within() -> None:
        await asyncio.wait_for(ask(), seconds)

    # A loop of its own: the caller may be in one, as a notebook is.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, within()).result()


def active() -> Any | None:
    """Return the client in scope, or None: also within a task, which does its work."""
    if "distributed" not in sys.modules or working() or _HERE.get():
        return None
    from distributed import Client
    from distributed.worker import thread_state  # type: ignore[attr-defined]

    if hasattr(thread_state, "execution_state"):  # a task of somebody else's
        return None
    try:
        return Client.current(allow_global=True)  # type: ignore[no-untyped-call]
    except ValueError:
        return None


def worker_memory() -> int | None:
    """Return the bytes that each thread of the smallest worker may take, if told."""
    client = active()
    if client is None:
        return None
    limits = [
        worker["memory_limit"] // max(1, worker["nthreads"])
        for worker in client.scheduler_info(n_workers=-1)["workers"].values()
    ]
    return min(limits, default=0) or None


def spread(
    client: Any, function: Callable[..., Any], items: Iterable[Any], *shared: Any
) -> list[Any]:
    """Return function(item, *shared) of every item, one task each, in their order.

    Warnings of the tasks are given here, each once. What is lost with a worker is done
    again.
    """
    held = [client.submit(_same, _Held(_light(one)), pure=False) for one in shared]
    futures = [
        client.submit(_worked, function, item, *held, pure=False) for item in items
    ]
    with _to_the_end(client.scheduler.address):
        done = client.gather(futures)
    _warn([told for _, told in done])
    return [result for result, _ in done]


def reduced(
    client: Any,
    function: Callable[..., Any],
    items: Sequence[Any],
    merge: Callable[[Any, Any], Any],
    finish: Callable[[Any], Any],
    *shared: Any,
    once: Callable[..., Any] | None = None,
) -> Any:
    """Return finish(merge(…)) of function(item, *shared) of every item.

    With `once`, of function(item, *shared, once(*shared)), which is read once for all.
    Neighbours are merged two by two, in an order that depends on the items alone: the
    result is the same to the last bit for any number of workers.
    """
    held = [client.submit(_same, _Held(_light(one)), pure=False) for one in shared]
    if once is not None:
        held.append(client.submit(_summed, once, *held, pure=False))
    level = [
        client.submit(_summed, function, item, *held, pure=False) for item in items
    ]
    depth = 0
    while len(level) > 1:
        depth += 1
        # First what lets go of results: else all parts would be held before any merge.
        pairs = [
            client.submit(_merged, merge, *level[i : i + 2], pure=False, priority=depth)
            for i in range(0, len(level) - 1, 2)
        ]
        level = pairs + ([level[-1]] if len(level) % 2 else [])
    with _to_the_end(client.scheduler.address):
        return client.submit(_finished, finish, level[0], pure=False).result()


@dataclass(frozen=True)
class _Held:
    """A value whose size dask does not ask: to tell a recording's, it would read it."""

    value: Any


def _light(value: Any) -> Any:
    """Return a recording with its coordinates in memory: a task waits for no other."""
    if not isinstance(value, xr.Dataset):
        return value
    far = {n: c.compute() for n, c in value.coords.items() if not c.variable._in_memory}
    return value.assign_coords(far) if far else value


def _same(value: _Held) -> _Held:
    """Hold a value on the cluster; unlike scattered data it is made again if lost."""
    return value


@contextmanager
def _working() -> Iterator[None]:
    """Do a task as if there were no cluster."""
    before = _WORKING.set(True)
    try:
        yield
    finally:
        _WORKING.reset(before)


def working() -> bool:
    """Whether this thread does a task for a cluster."""
    return _WORKING.get()


def reading() -> dict[str, str]:
    """Return how a dask array is computed: within a task, by the task itself.

    Given with each computation: dask's settings are the whole process's, and a task
    that ends after its client was closed would leave them behind.
    """
    if working():
        return {"scheduler": "synchronous"}
    here = _HERE.get()
    return {"scheduler": here} if here else {}


_ONE = threading.RLock()
"""Warnings belong to the whole process: two threads would cross."""


def _worked(function: Callable[..., Any], *args: Any) -> tuple[Any, list[Any]]:
    """Do a task; return its result and its warnings."""
    with (
        _ONE,
        _working(),
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("always")
        result = function(*_unpacked(args))
    return result, [(str(w.message), w.category) for w in caught]


def _summed(function: Callable[..., Any], *args: Any) -> Any:
    with _working():
        return function(*_unpacked(args))


def _unpacked(args: tuple[Any, ...]) -> list[Any]:
    return [one.value if isinstance(one, _Held) else one for one in args]


def _merged(merge: Callable[[Any, Any], Any], a: Any, b: Any) -> Any:
    # Copies: a task must leave what it was given as it is, for others and for repeats.
    return merge(copy.deepcopy(a), copy.deepcopy(b))


def _finished(finish: Callable[[Any], Any], one: Any) -> Any:
    return finish(copy.deepcopy(one))


def _warn(lists: Iterable[list[Any]]) -> None:
    for text, category in dict.fromkeys(told for one in lists for told in one):
        warnings.warn(text, category, stacklevel=4)
