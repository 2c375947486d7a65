"""Worker processes: rings in shared memory, messages, and what ends a worker."""

import io
import os
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import torch
import torch.multiprocessing as mp
from torch import Tensor

from repsim.core.interrupts import Interrupts, not_for_children
from repsim.learning import Diverged, Rule
from repsim.training.segment_groups import Part

CAPACITY = 4
"""Activations, and messages, that may wait between two workers."""


POLL = 0.005
"""Seconds after which a waiting worker looks whether something else has come."""


Context = Any


class Ring:
    """A bounded queue of tensors of one shape, from one process to another."""

    def __init__(self, context: Context, shape: Sequence[int], like: Tensor) -> None:
        slots: Any = torch.zeros(CAPACITY, *shape, dtype=like.dtype)
        self._slots: Tensor = slots.share_memory_()
        self._free = context.Semaphore(CAPACITY)
        self._filled = context.Semaphore(0)
        self._sent = self._taken = 0

    def put(self, value: Tensor, timeout: float) -> bool:
        """Add a tensor; return whether there was room in time."""
        if not self._free.acquire(timeout=timeout):
            return False
        self._slots[self._sent % CAPACITY].copy_(value)
        self._sent += 1
        self._filled.release()
        return True

    def get(self, timeout: float) -> Tensor | None:
        """Return the next tensor, or None where none has come in time."""
        if not self._filled.acquire(timeout=timeout):
            return None
        value: Tensor = self._slots[self._taken % CAPACITY].clone()
        self._taken += 1
        self._free.release()
        return value


class Giving(Protocol):
    """The end of a bounded queue between two workers that is given to."""

    def put(self, value: Tensor, timeout: float) -> bool:
        """Add a tensor; return whether there was room in time."""


class Taking(Protocol):
    """The end of a bounded queue between two workers that is taken from."""

    def get(self, timeout: float) -> Tensor | None:
        """Return the next tensor, or None where none has come in time."""


@dataclass
class Lines:
    """What joins one worker to the others."""

    below: Taking | None
    above: Giving | None
    messages_in: Taking | None
    messages_out: Sequence[Giving]


class Stopped(Exception):  # noqa: N818
    """The run has been stopped from outside this worker."""


class Worker:
    """One worker's way through the batches, whatever carries what it hands on."""

    def __init__(
        self, part: Part, lines: Lines, start: int, pause: Callable[[], float]
    ) -> None:
        self.part, self.lines, self.pause = part, lines, pause
        self.done = self.heard = start
        self.staleness: list[int] = []

    def advance(self, target: int) -> None:
        """Work until this step, and until every message for it has come."""
        while self.done < target:
            self._batch()
        while self.lines.messages_in is not None and self.heard < self.done:
            self._hear(self.pause())

    def told(self) -> list[int]:
        """Return the staleness of the messages since the last time, and forget it."""
        told, self.staleness = self.staleness, []
        return told

    def _batch(self) -> None:
        h, lines = None, self.lines
        while lines.below is not None and h is None:
            h = lines.below.get(self.pause())
            # A message may not come between a batch's number and its start.
        self.done += 1
        up, down = self.part.forward(self.done, h)
        if down is not None:
            for line in lines.messages_out:
                while not line.put(down, self.pause()):
                    self._listen()
        while lines.above is not None and not lines.above.put(up, self.pause()):
            self._listen()
        self._listen()

    def _hear(self, timeout: float) -> None:
        message = None
        if self.lines.messages_in is not None:
            message = self.lines.messages_in.get(timeout)
        if message is not None:
            self.heard += 1
            self.staleness.append(self.done - self.heard)
            self.part.message(self.heard, message)

    def _listen(self) -> None:
        before = -1
        while before < self.heard:
            before = self.heard
            self._hear(0)


def work(
    part: Part, lines: Lines, commands: Any, stop: Any, start: int, parent: int
) -> None:
    """Run one worker until it is told to end, or its parent has gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)

    def pause() -> float:
        if stop.is_set() or os.getppid() != parent:
            raise Stopped
        return POLL

    worker = Worker(part, lines, start, pause)
    try:
        while True:
            while not commands.poll(POLL):
                pause()
            target = commands.recv()
            if target is None:
                return
            worker.advance(target)
            commands.send((packed(part), worker.told()))
    except Stopped:
        return
    except Exception as error:  # Told to the one who trains, in whatever worker.
        commands.send(reason(error, worker.done))


def packed(part: Part) -> bytes:
    """Return a part's state and latest losses as bytes."""
    file = io.BytesIO()
    torch.save({**part.state(), "losses": part.losses}, file)
    return file.getvalue()


def unpacked(parts: Sequence[Part], states: Sequence[bytes]) -> dict[str, Tensor]:
    """Give all parts their states, and return the losses."""
    losses: dict[str, Tensor] = {}
    for part, content in zip(parts, states, strict=True):
        state = torch.load(io.BytesIO(content), weights_only=True)
        part.load(state)
        for name, value in state["losses"].items():
            losses[name] = losses[name] + value if name in losses else value
    return losses


Reason = tuple[str, str, int]
"""What ended a worker: the error's kind, its words, and the step."""


def reason(error: BaseException, step: int) -> Reason:
    """Return what ended a worker, as others are told."""
    text = f"{error}" if isinstance(error, ValueError) else traceback.format_exc()
    if isinstance(error, KeyboardInterrupt):
        text = "Ctrl-C."
    return type(error).__name__, text, step


def where(parts: Sequence[Part], j: int) -> str:
    """Return a worker in words."""
    last = parts[j].segments[-1].name
    return f"worker {j + 1} of {len(parts)}, which ends with block {last!r}"


def refuse_error(parts: Sequence[Part], j: int, why: Reason) -> NoReturn:
    """Raise what has ended a worker."""
    kind, text, step = why
    at = parts[0].rule.steps
    if kind == Diverged.__name__:
        raise Diverged(f"{text} The rule is as after step {at}, the last checkpoint.")
    msg = (
        f"Expected all workers to end in order, but {where(parts, j)}, has stopped at "
        f"step {step} with {kind}: {text} The rule is as after step {at}, the last "
        "checkpoint."
    )
    raise ValueError(msg)


def refuse_dead(parts: Sequence[Part], who: str, how: str) -> NoReturn:
    """Raise that a worker has ended without a word."""
    at = parts[0].rule.steps
    msg = (
        f"Expected all workers to live, but {who}, has ended{how}; the rule is as "
        f"after step {at}, from where train(start={at}) goes on."
    )
    raise ValueError(msg)


def stopped_at(rule: Rule) -> KeyboardInterrupt:
    """Return Ctrl-C with where the rule is."""
    at = rule.steps
    return KeyboardInterrupt(
        f"Stopped by Ctrl-C; the rule is as after step {at}, from where "
        f"train(start={at}) goes on."
    )


def shapes_between(
    parts: Sequence[Part], n: int
) -> tuple[list[tuple[int, ...]], dict[int, tuple[int, tuple[int, ...]]]]:
    """Return the shapes of what goes up, and for each hearer whom it hears, and what.

    Worker j hands activations to j + 1; where the rule's blocks want messages, j hears
    them of j + 1, or of the last one where what counts is the error at the output.
    """
    rule = parts[0].rule
    k = len(parts)
    ups = [(n, *rule.shapes[part.segments[-1].name]) for part in parts[:-1]]
    hears: dict[int, tuple[int, tuple[int, ...]]] = {}
    for j in range(k - 1):
        if rule.info.sees_error:
            hears[j] = k - 1, (n, *rule.shapes[rule.last])
        elif rule.needs_incoming:
            hears[j] = j + 1, ups[j]
    return ups, hears


class Workers:
    """The processes of one run."""

    def __init__(
        self, parts: Sequence[Part], n: int, start: int, interrupts: Interrupts
    ) -> None:
        self.parts, self.interrupts = parts, interrupts
        self.rule = parts[0].rule
        context = mp.get_context("fork")
        like = next(self.rule.network.parameters())
        shapes, hears = shapes_between(parts, n)
        ups = [Ring(context, shape, like) for shape in shapes]
        downs = {j: Ring(context, shape, like) for j, (_, shape) in hears.items()}
        self.stop = context.Event()
        self.pipes: list[Any] = []
        self.processes: list[Any] = []
        for j, part in enumerate(parts):
            mine, theirs = context.Pipe()
            lines = Lines(
                below=ups[j - 1] if j else None,
                above=ups[j] if j < len(parts) - 1 else None,
                messages_in=downs.get(j),
                messages_out=[downs[i] for i, (of, _) in hears.items() if of == j],
            )
            process = context.Process(
                target=work,
                args=(part, lines, theirs, self.stop, start, os.getpid()),
                daemon=True,
            )
            with not_for_children():
                process.start()
            self.pipes.append(mine)
            self.processes.append(process)

    def agreed(self, target: int) -> int:
        """Return the next meeting: there is one who decides it."""
        return target

    def run(self, target: int) -> tuple[dict[str, Tensor], list[list[int]]]:
        """Let all work until this step, and take their state; raise if one ends."""
        for j, pipe in enumerate(self.pipes):
            try:
                pipe.send(target)
            except ConnectionError:
                self._refuse_dead(j)
        replies: dict[int, Any] = {}
        while len(replies) < len(self.pipes):
            self.interrupts.check()
            for j, pipe in enumerate(self.pipes):
                if j not in replies and pipe.poll(POLL):
                    try:
                        reply = pipe.recv()
                    except (EOFError, ConnectionError):
                        self._refuse_dead(j)
                    if len(reply) == 3:
                        refuse_error(self.parts, j, reply)
                    replies[j] = reply
                elif j not in replies and not self.processes[j].is_alive():
                    if not pipe.poll(0):
                        self._refuse_dead(j)
        told = [replies[j] for j in range(len(self.parts))]
        losses = unpacked(self.parts, [state for state, _ in told])
        self.rule.steps = target
        return losses, [late for _, late in told]

    def leave(self, error: BaseException) -> None:
        """End the run between two meetings: these workers are told by `close`."""

    def _refuse_dead(self, j: int) -> NoReturn:
        self.processes[j].join(1)
        code = self.processes[j].exitcode
        refuse_dead(self.parts, where(self.parts, j), f" with exit code {code}")

    def close(self) -> None:
        """End all processes, whatever has happened."""
        self.stop.set()
        deadline = time.monotonic() + 5
        for process in self.processes:
            process.join(max(deadline - time.monotonic(), 0.1))
            if process.is_alive():
                process.kill()
                process.join()
        for pipe in self.pipes:
            pipe.close()
