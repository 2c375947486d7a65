"""Processes that share the work of a study, and who may write into its folder."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from threading import Thread
from typing import Any
from zlib import crc32

import joblib

from repsim.core import cluster
from repsim.core.interrupts import not_for_children

try:
    import fcntl
except ImportError:  # Windows has no such lock: there nothing is held against others.
    fcntl = None  # type: ignore[assignment]

Run = Callable[[list[Any]], Iterator[Any]]

CLAIMS = ".claims"
"""Folder of a study in which workers hold the cells that they train."""

WORKERS = ".workers"
"""Folder of a study on which its workers hold a lock, all of them together."""

WAIT = 60.0
"""Seconds to wait for workers whose leader died; they look every half second."""


@contextmanager
def occupied(out: Path, wait: float = WAIT) -> Iterator[None]:
    """Hold a study's folder, so that no other process works in it meanwhile."""
    msg = (
        f"Expected {out} to be free, but another process works in it; wait until it "
        "has ended, or choose another `out`."
    )
    with _lock(out, shared=False, wait=0, msg=msg):
        # Nobody leads this study; what its late leader's workers do ends first.
        if (out / WORKERS).is_dir():
            with _lock(out / WORKERS, shared=False, wait=wait, msg=msg):
                pass
        yield


@contextmanager
def _lock(folder: Path, *, shared: bool, wait: float, msg: str) -> Iterator[None]:
    """Hold an advisory lock on a folder; the kernel drops it when a process dies."""
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        _acquire(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, wait, msg)
        yield
    finally:
        os.close(handle)


def _acquire(handle: int, kind: int, wait: float, msg: str) -> None:
    end = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise BlockingIOError(msg) from None
            time.sleep(0.1)
        except OSError:
            # A file system without locks on folders: work on without one.
            return
        else:
            return


@contextmanager
def workers(jobs: int | None, out: Path) -> Iterator[Run]:
    """Give a function that runs delayed calls and yields their results as they come."""
    if jobs == 1:
        yield lambda calls: (f(*a, **k) for f, a, k in calls)
        return
    (out / WORKERS).mkdir(exist_ok=True)
    context = joblib.parallel.get_active_backend()[1]
    number = jobs or (None if context not in (None, 1) else joblib.cpu_count())
    leader = os.getpid()
    with joblib.Parallel(number, return_as="generator_unordered") as parallel:

        def run(calls: list[Any]) -> Iterator[Any]:
            with not_for_children():
                jobs = (joblib.delayed(_in_worker)(leader, out, *c) for c in calls)
                return iter(parallel(jobs))

        yield run


def jobs_at(store: Path, jobs: int | None, scheduler: str | None = None) -> int | None:
    """Return how many processes may work: one where no other one sees the store."""
    if not str(store).startswith("memory:"):
        return jobs
    elsewhere = joblib.parallel.get_active_backend()[1] not in (None, 1)
    if scheduler is not None or (elsewhere if jobs is None else jobs > 1):
        got = f"jobs={jobs}" if jobs is not None else "workers elsewhere"
        msg = (
            f"Expected jobs=1 for recordings at {store}, which this process alone "
            f"sees, but got {got}; give a store that others see, such as s3://…, or "
            "none."
        )
        raise ValueError(msg)
    return 1


@contextmanager
def on_scheduler(address: str | None) -> Iterator[None]:
    """Let the work inside go to the dask workers of a scheduler, where one is named."""
    if address is None:
        yield
        return
    with (
        cluster.connected(address) as client,
        joblib.parallel_config("dask", client=client, n_jobs=-1),
    ):
        yield


@contextmanager
def claimed(out: Path, cell: str) -> Iterator[None]:
    """Hold one cell of a study, which another worker may have been given, too.

    A scheduler gives a task to a second worker when it has lost sight of the first one,
    which may still be at it: the second one waits here, and finds the cell complete.
    """
    folder = out / CLAIMS
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{cell.replace('/', '-')}-{crc32(cell.encode()):08x}"
    handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if fcntl is not None:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _in_worker(
    leader: int,
    out: Path,
    call: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Run a call in a worker that ends with its leader."""
    _end_with(leader)
    msg = f"Expected {out} to be free for a worker, but another study writes to it."
    with _lock(out / WORKERS, shared=True, wait=WAIT, msg=msg):
        return call(*args, **kwargs)


@cache
def _end_with(leader: int) -> None:
    """End this process soon after the one that started it has died.

    Otherwise a worker whose leader was killed would go on writing while the study is
    already being continued. A worker on another machine has another parent: it is
    left to whoever runs it.
    """
    if os.getppid() != leader:
        return

    def watch() -> None:
        while os.getppid() == leader:
            time.sleep(0.5)
        os._exit(1)

    Thread(target=watch, daemon=True).start()
