"""Workers that are processes of torch.distributed, on one machine or on several.

Every process makes the same rule and data and calls `train`; the one of rank r works
on part r alone. Between meetings activations and messages go from rank to rank, through
a thread at either end (gloo cannot be asked whether something has come), at most four
at a time as in the rings of one machine; at meetings all take each other's state, so
that each has the whole rule.
"""

import hashlib
import queue
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from threading import Event, Thread
from typing import Any, NoReturn, TypeVar, cast

import torch
from torch import Tensor, distributed

from repsim.core.interrupts import Interrupts
from repsim.core.threads import one_thread
from repsim.training.processes import (
    POLL,
    Giving,
    Lines,
    Stopped,
    Taking,
    Worker,
    packed,
    reason,
    refuse_dead,
    refuse_error,
    shapes_between,
    unpacked,
    where,
)
from repsim.training.segment_groups import Part


class _End:
    """One end of a line, its thread, and what has gone wrong there."""

    def __init__(self, rank: int, tag: int, shape: Sequence[int], like: Tensor) -> None:
        self.rank, self._tag = rank, tag
        # Room for a tensor, and in front of it for whether it is the end.
        room = 1 + torch.Size(shape).numel()
        self._buffer = torch.zeros(room, dtype=like.dtype)
        self.lost: RuntimeError | None = None
        self.stopped = Event()
        self._thread = Thread(target=self._work, daemon=True)

    def start(self, group: Any) -> None:
        """Begin to send or to receive."""
        self._group = group
        self._thread.start()

    def is_alive(self) -> bool:
        """Return whether the thread still works."""
        return self._thread.is_alive()

    def join(self, timeout: float) -> None:
        """Wait until all is sent, or the other end has said that nothing more comes."""
        self._thread.join(timeout)

    def _work(self) -> None:
        raise NotImplementedError


class Sender(_End):
    """Sends tensors of one shape to a rank: one in hand, and one that waits."""

    def __init__(self, rank: int, tag: int, shape: Sequence[int], like: Tensor) -> None:
        super().__init__(rank, tag, shape, like)
        self._waiting: queue.Queue[Tensor | None] = queue.Queue(1)

    def put(self, value: Tensor, timeout: float) -> bool:
        """Add a tensor; return whether there was room in time."""
        try:
            self._waiting.put(value.detach().clone(), timeout=timeout)
        except queue.Full:
            return False
        return True

    def _work(self) -> None:
        while self.lost is None:
            value = self._waiting.get()
            self._buffer[0] = float(value is None)
            if value is not None:
                self._buffer[1:].copy_(value.reshape(-1))
            try:
                distributed.send(self._buffer, self.rank, self._group, self._tag)
            except RuntimeError as error:
                self.lost = error
            if value is None:
                return

    def close(self) -> None:
        """Say that nothing more comes, and forget what waits."""
        with suppress(queue.Empty):
            while True:
                self._waiting.get_nowait()
        while self._thread.is_alive():
            try:
                self._waiting.put(None, timeout=POLL)
                return
            except queue.Full:
                continue


class Receiver(_End):
    """Receives tensors of one shape from a rank: one in hand, and one that waits."""

    def __init__(self, rank: int, tag: int, shape: Sequence[int], like: Tensor) -> None:
        super().__init__(rank, tag, shape, like)
        self._came: queue.Queue[Tensor] = queue.Queue(1)
        self._shape, self._discards = tuple(shape), Event()

    def get(self, timeout: float) -> Tensor | None:
        """Return the next tensor, or None where none has come in time."""
        try:
            return self._came.get(block=timeout > 0, timeout=timeout or None)
        except queue.Empty:
            return None

    def _work(self) -> None:
        while True:
            try:
                distributed.recv(self._buffer, self.rank, self._group, self._tag)
            except RuntimeError as error:
                self.lost = error
                return
            if self._buffer[0] > 0:
                self.stopped.set()
                return
            value = self._buffer[1:].reshape(self._shape).clone()
            while not self._discards.is_set():
                try:
                    self._came.put(value, timeout=POLL)
                    break
                except queue.Full:
                    continue

    def close(self) -> None:
        """Take what still comes, and throw it away, so that nobody waits."""
        self._discards.set()


End = TypeVar("End", Sender, Receiver)


class Machines:
    """The process itself among those of one run, as `Workers` has all of them."""

    def __init__(
        self, parts: Sequence[Part], n: int, start: int, interrupts: Interrupts
    ) -> None:
        self.parts, self.rule, self.interrupts = parts, parts[0].rule, interrupts
        self.rank = int(distributed.get_rank())
        # Groups of their own: gloo whatever the default, and no thread in the other's.
        timeout = _timeout()
        self.control: Any = distributed.new_group(backend="gloo", timeout=timeout)
        self.group: Any = distributed.new_group(backend="gloo", timeout=timeout)
        self._check_alike(n, start)
        self.ends: list[Sender | Receiver] = []
        self.worker = Worker(parts[self.rank], self._lines(n), start, self._pause)
        self.kept = packed(parts[self.rank])
        for end in self.ends:
            end.start(self.group)

    def _check_alike(self, n: int, start: int) -> None:
        """Refuse rules that differ from process to process."""
        mark = hashlib.sha256(f"{n} {start}".encode())
        batch = self.parts[0].batch(start + 1)
        for tensor in (*self.rule.network.state_dict().values(), *batch):
            flat = tensor.detach().contiguous().reshape(-1)
            mark.update(flat.view(torch.uint8).numpy().tobytes())
        digests: list[Any] = [None] * len(self.parts)
        distributed.all_gather_object(digests, mark.hexdigest(), group=self.control)
        if len(set(digests)) > 1:
            msg = (
                "Expected every process to train the same rule on the same data, but "
                "weights, batches or steps differ; give network, rule and train the "
                "same seeds in all."
            )
            raise ValueError(msg)

    def _lines(self, n: int) -> Lines:
        """Return what joins this worker to the others, and keep their ends."""
        like = next(self.rule.network.parameters())
        shapes, hears = shapes_between(self.parts, n)
        j, k = self.rank, len(self.parts)

        # A tag a line: those upward have even ones, those downward odd ones.
        below: Taking | None = None
        above: Giving | None = None
        messages: Taking | None = None
        if j:
            below = self._kept(Receiver(j - 1, 2 * j, shapes[j - 1], like))
        if j < k - 1:
            above = self._kept(Sender(j + 1, 2 * j + 2, shapes[j], like))
        if j in hears:
            of, shape = hears[j]
            messages = self._kept(Receiver(of, 2 * j + 1, shape, like))
        out = [
            self._kept(Sender(i, 2 * i + 1, shape, like))
            for i, (of, shape) in hears.items()
            if of == j
        ]
        return Lines(below, above, messages, out)

    def _kept(self, end: End) -> End:
        self.ends.append(end)
        return end

    def _pause(self) -> float:
        self.interrupts.check()
        for end in self.ends:
            if end.lost is not None:
                self._refuse_lost(end.rank, end.lost)
            if end.stopped.is_set():
                raise Stopped
        return POLL

    def agreed(self, target: int) -> int:
        """Return the first process's next meeting, which is everyone's."""
        said = [target]
        try:
            distributed.broadcast_object_list(said, 0, group=self.control)
        except RuntimeError as error:
            self._refuse_lost(None, error)
        return said[0]

    def run(self, target: int) -> tuple[dict[str, Tensor], list[list[int]]]:
        """Work until this step, and share states; raise if a process ends."""
        mine: Any
        try:
            # As workers of one machine, so that a run repeats bit for bit.
            with one_thread():
                self.worker.advance(target)
            mine = packed(self.parts[self.rank]), self.worker.told()
        except Stopped:
            mine = None
        except _Lost:
            raise
        except (Exception, KeyboardInterrupt) as error:  # Told to all.
            mine = reason(error, self.worker.done)
        told = self._shared(mine)
        for j, reply in enumerate(told):
            if reply is not None and len(reply) == 3:
                refuse_error(self.parts, j, reply)
        losses = unpacked(self.parts, [state for state, _ in told])
        self.rule.steps = target
        self.kept = told[self.rank][0]
        return losses, [late for _, late in told]

    def _shared(self, mine: Any) -> list[Any]:
        """Return what all have come to, which is how each learns of another's end."""
        if mine is None or len(mine) == 3:
            self._close()  # so that nobody waits for what will not come
        told: list[Any] = [None] * len(self.parts)
        try:
            distributed.all_gather_object(told, mine, group=self.control)
        except RuntimeError as error:
            self._refuse_lost(None, error)
        return told

    def leave(self, error: BaseException) -> None:
        """Tell the others, who go on to the next meeting, that there is none."""
        with suppress(_Lost):
            self.agreed(self.rule.steps)
            self._shared(reason(error, self.worker.done))

    def _refuse_lost(self, rank: int | None, error: RuntimeError) -> NoReturn:
        who = "another process" if rank is None else where(self.parts, rank)
        first = str(error).partition("\n")[0]
        try:
            refuse_dead(self.parts, who, f" or cannot be reached ({first})")
        except ValueError as sentence:
            raise _Lost(str(sentence)) from error

    def _close(self) -> None:
        for end in self.ends:
            end.close()

    def close(self) -> None:
        """End the threads, and take the own part back to the latest meeting."""
        self._close()
        lost = any(end.lost is not None for end in self.ends)
        deadline = time.monotonic() + (0.1 if lost else WAIT)
        for end in self.ends:
            end.join(max(deadline - time.monotonic(), 0.01))
        if self.worker.done != self.rule.steps:
            unpacked([self.parts[self.rank]], [self.kept])
        if not any(end.is_alive() for end in self.ends):
            for group in (self.group, self.control):
                distributed.destroy_process_group(group)


def _timeout() -> timedelta | None:
    """Return how long the processes wait for each other, as they were joined with.

    A new group has half an hour, whatever was given; where torch does not tell what
    was, that stays.
    """
    joined: Any = distributed.group.WORLD
    with suppress(AttributeError, RuntimeError):  # told by no public name
        return cast(
            timedelta, joined._get_backend(torch.device("cpu")).options._timeout
        )
    return None


class _Lost(ValueError):
    """A process of the run has ended."""


WAIT = 5.0
"""Seconds that a process waits for the others to end their lines."""
