"""One background thread that works jobs off in order, with a bounded backlog."""

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable

BACKLOG = 128 * 2**20
"""Bytes that may wait to be written before `submit` waits."""

IDLE = 1.0
"""Seconds without a job after which the thread ends; the next job starts another."""


class _State:
    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.jobs: deque[tuple[Callable[[], None], int]] = deque()
        self.waiting = 0  # bytes
        self.busy = False
        self.closed = False
        self.error: BaseException | None = None
        self.process = os.getpid()
        self.running = False


def _run(state: _State) -> None:
    while True:
        with state.changed:
            while not state.jobs and not state.closed:
                if not state.changed.wait(IDLE) and not state.jobs:
                    break
            if not state.jobs:
                state.running = False
                return
            job, size = state.jobs.popleft()
            state.busy = True
            skip = state.error is not None
        try:
            if not skip:
                job()
        except BaseException as error:
            with state.changed:
                state.error = error
        del job
        with state.changed:
            state.waiting -= size
            state.busy = False
            state.changed.notify_all()


def _drain(state: _State) -> None:
    if os.getpid() != state.process:  # a forked child has the state, not the thread
        return
    with state.changed:
        while state.jobs or state.busy:
            state.changed.wait()
        state.closed = True
        state.changed.notify_all()


class Worker:
    """Run jobs in order in the background.

    After a job has failed, the later ones are left out (a commit mark must not
    follow a lost object) and every call raises that job's error.
    """

    def __init__(self, backlog: int = BACKLOG) -> None:
        self._backlog = backlog
        self._state = _State()
        self._thread: threading.Thread | None = None
        # Works off the backlog when the owner is forgotten or Python ends.
        self._finalize = weakref.finalize(self, _drain, self._state)

    def submit(self, job: Callable[[], None], size: int = 0) -> None:
        """Queue a job that holds `size` bytes; wait while too much is queued."""
        state = self._state
        with state.changed:
            if not state.running:
                state.running = True
                self._thread = threading.Thread(
                    target=_run, args=(state,), name="repsim-writer", daemon=True
                )
                self._thread.start()
            while (
                state.error is None
                and state.waiting
                and state.waiting + size > self._backlog
            ):
                state.changed.wait()
            if state.error is not None:
                raise state.error
            state.jobs.append((job, size))
            state.waiting += size
            state.changed.notify_all()

    def flush(self) -> None:
        """Wait until every job is done, and raise the error of one that failed."""
        state = self._state
        with state.changed:
            while state.jobs or state.busy:
                state.changed.wait()
            if state.error is not None:
                raise state.error

    def close(self) -> None:
        """Work off what waits and end the thread; never raises a job's error."""
        self._finalize()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
