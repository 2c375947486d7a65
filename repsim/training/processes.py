"""Worker processes: rings in shared memory, messages, and what ends a worker."""

import io
import os
import signal
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.multiprocessing as mp
from torch import Tensor

from repsim.learning import Diverged
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


@dataclass
class Lines:
    """What joins one worker to the others."""

    stop: Any
    commands: Any
    below: Ring | None
    above: Ring | None
    messages_in: Ring | None
    messages_out: list[Ring]


class Stopped(Exception):  # noqa: N818
    """The run has been stopped from outside this worker."""


def work(part: Part, lines: Lines, start: int, parent: int) -> None:
    """Run one worker until it is told to end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    done, heard = start, start
    staleness: list[int] = []

    def pause() -> float:
        if lines.stop.is_set() or os.getppid() != parent:
            raise Stopped
        return POLL

    def hear(timeout: float) -> None:
        nonlocal heard
        message = None
        if lines.messages_in is not None:
            message = lines.messages_in.get(timeout)
        if message is not None:
            heard += 1
            staleness.append(done - heard)
            part.message(heard, message)

    def listen() -> None:
        before = -1
        while before < heard:
            before = heard
            hear(0)

    try:
        while True:
            while not lines.commands.poll(POLL):
                pause()
            target = lines.commands.recv()
            if target is None:
                return
            while done < target:
                h = None
                while lines.below is not None and h is None:
                    h = lines.below.get(pause())
                    # A message may not come between a batch's number and its start.
                done += 1
                up, down = part.forward(done, h)
                if down is not None:
                    for ring in lines.messages_out:
                        while not ring.put(down, pause()):
                            listen()
                while lines.above is not None and not lines.above.put(up, pause()):
                    listen()
                listen()
            while lines.messages_in is not None and heard < done:
                hear(pause())
            file = io.BytesIO()
            torch.save({**part.state(), "losses": part.losses}, file)
            lines.commands.send((file.getvalue(), staleness))
            staleness = []
    except Stopped:
        return
    except Exception as error:  # Told to the one who trains, in whatever worker.
        text = f"{error}" if isinstance(error, ValueError) else traceback.format_exc()
        lines.commands.send((type(error).__name__, text, done))


class Workers:
    """The processes of one run."""

    def __init__(self, parts: Sequence[Part], n: int, start: int) -> None:
        self.parts = parts
        self.rule = parts[0].rule
        context = mp.get_context("fork")
        like = next(self.rule.network.parameters())
        shapes = self.rule.shapes
        k = len(parts)
        ups = [
            Ring(context, (n, *shapes[part.segments[-1].name]), like)
            for part in parts[:-1]
        ]
        downs: list[Ring | None] = [None] * k
        outs: list[list[Ring]] = [[] for _ in parts]
        for j in range(k - 1):
            if self.rule.info.sees_error:
                ring = Ring(context, (n, *shapes[self.rule.last]), like)
                outs[-1].append(ring)
            elif self.rule.needs_incoming:
                ring = Ring(context, (n, *shapes[parts[j].segments[-1].name]), like)
                outs[j + 1].append(ring)
            else:
                continue
            downs[j] = ring
        self.stop = context.Event()
        self.pipes: list[Any] = []
        self.processes: list[Any] = []
        for j, part in enumerate(parts):
            mine, theirs = context.Pipe()
            lines = Lines(
                stop=self.stop,
                commands=theirs,
                below=ups[j - 1] if j else None,
                above=ups[j] if j < k - 1 else None,
                messages_in=downs[j],
                messages_out=outs[j],
            )
            process = context.Process(
                target=work, args=(part, lines, start, os.getpid()), daemon=True
            )
            process.start()
            self.pipes.append(mine)
            self.processes.append(process)

    def run(self, target: int) -> tuple[dict[str, Tensor], list[list[int]]]:
        """Let all work until this step, and take their state; raise if one ends."""
        for j, pipe in enumerate(self.pipes):
            try:
                pipe.send(target)
            except ConnectionError:
                self._refuse_dead(j)
        replies: dict[int, Any] = {}
        while len(replies) < len(self.pipes):
            for j, pipe in enumerate(self.pipes):
                if j not in replies and pipe.poll(POLL):
                    try:
                        reply = pipe.recv()
                    except (EOFError, ConnectionError):
                        self._refuse_dead(j)
                        continue
                    if len(reply) == 3:
                        self._refuse_error(j, *reply)
                    replies[j] = reply
                elif j not in replies and not self.processes[j].is_alive():
                    if not pipe.poll(0):
                        self._refuse_dead(j)
        losses: dict[str, Tensor] = {}
        for j, part in enumerate(self.parts):
            state = torch.load(io.BytesIO(replies[j][0]), weights_only=True)
            part.load(state)
            for name, value in state["losses"].items():
                losses[name] = losses[name] + value if name in losses else value
        self.rule.steps = target
        return losses, [replies[j][1] for j in range(len(self.parts))]

    def _where(self, j: int) -> str:
        return (
            f"worker {j + 1} of {len(self.parts)}, which ends with block "
            f"{self.parts[j].segments[-1].name!r}"
        )

    def _refuse_dead(self, j: int) -> None:
        self.processes[j].join(1)
        code = self.processes[j].exitcode
        msg = (
            f"Expected all workers to live, but {self._where(j)}, has ended with exit "
            f"code {code}; the rule is as after step {self.rule.steps}, from where "
            f"train(start={self.rule.steps}) goes on."
        )
        raise ValueError(msg)

    def _refuse_error(self, j: int, kind: str, text: str, step: int) -> None:
        if kind == Diverged.__name__:
            raise Diverged(
                f"{text} The rule is as after step {self.rule.steps}, the last "
                "checkpoint."
            )
        msg = (
            f"Expected all workers to end in order, but {self._where(j)}, has stopped "
            f"at step {step} with {kind}: {text} The rule is as after step "
            f"{self.rule.steps}, the last checkpoint."
        )
        raise ValueError(msg)

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
