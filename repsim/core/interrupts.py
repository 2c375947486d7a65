"""What becomes of Ctrl-C while something is under way that it must not cut in two."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import FrameType, TracebackType
from typing import Any, Self


class Interrupts:
    """Ctrl-C as a flag inside `patient` blocks, and as ever outside of them.

    A terminal, and torchrun once more, interrupt all processes of a run. Each may then
    be at a call that only the others can end, so it notes the first interrupt, ends in
    order, and is not cut off there by the second.
    """

    def __init__(self) -> None:
        self.pressed = False
        self._patient = False
        self._before: Any = None

    def __enter__(self) -> Self:
        """Take Ctrl-C over, where this thread is the one it comes to."""
        before = signal.getsignal(signal.SIGINT)
        if _is_main() and callable(before):
            self._before = before
            signal.signal(signal.SIGINT, self._press)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give it back."""
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _press(self, number: int, frame: FrameType | None) -> None:
        self.pressed = True
        if not self._patient:
            self._before(number, frame)

    @contextmanager
    def patient(self) -> Iterator[None]:
        """Note interrupts inside the block."""
        self._patient = True
        try:
            yield
        finally:
            self._patient = False

    def check(self) -> None:
        """Interrupt here if there was one."""
        if self.pressed:
            raise KeyboardInterrupt


@contextmanager
def interrupted_later() -> Iterator[None]:
    """Hold the first Ctrl-C back until the block is left; a second one acts at once.

    An interrupt in the middle of giving states back would leave half of them.
    """
    before = signal.getsignal(signal.SIGINT)
    if not _is_main() or not callable(before):
        yield
        return
    held: list[tuple[int, FrameType | None]] = []

    def hold(number: int, frame: FrameType | None) -> None:
        if held:
            before(number, frame)
        held.append((number, frame))

    signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if held:
            before(*held[0])


@contextmanager
def not_for_children() -> Iterator[None]:
    """Let processes that are started here not see Ctrl-C, and this thread see it after.

    A terminal interrupts all of them; one that is still importing would end with a
    traceback of its own. Whoever started them ends them.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # which unblocks whatever was blocked before
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _is_main() -> bool:
    """Return whether this is the thread that signals come to."""
    return threading.current_thread() is threading.main_thread()
