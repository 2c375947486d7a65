"""Switches of the whole process, that threads which overlap turn together."""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack


class Shared:
    """Turn a switch of the whole process while any thread is inside.

    The first thread turns it and the last one out gives it back: each giving back what
    it found would leave it turned for good where two of them overlap.
    """

    def __init__(self, turned: Callable[[], AbstractContextManager[object]]) -> None:
        self._turned = turned
        self._lock = threading.Lock()
        self._inside = 0
        self._held = ExitStack()

    def __enter__(self) -> None:
        """Turn it, if nobody is inside."""
        with self._lock:
            if not self._inside:
                self._held.enter_context(self._turned())
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        """Give it back, if nobody is left inside."""
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._held.close()
