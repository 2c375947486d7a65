"""Neighbouring segments that one worker holds, and how it runs and trains them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.multiprocessing as mp
from torch import Tensor, distributed

from repsim.core.messages import whole
from repsim.core.modes import kept_modes
from repsim.learning import Diverged, Rule, Segment


def check_unlocked(rule: Rule, workers: int, x: Tensor, y: Tensor) -> None:
    """Refuse rules whose segments wait for each other, and too many workers."""
    whole(workers, "workers", 1)
    if x.device.type != "cpu":
        msg = f"Expected the network on the CPU for `workers`, but got {x.device}."
        raise ValueError(msg)
    if rule.info.backward_locked or rule.needs_vjp or not rule.in_parts:
        what = "backward locked: a block waits for the error from all above it"
        if not rule.info.backward_locked:
            what = "of one piece: its blocks do not learn on their own"
        msg = (
            f"Expected a rule that is not locked for `workers`, but rule {rule.name!r} "
            f"is {what}; use sg, dni, local or dfa, or leave `workers` out."
        )
        raise ValueError(msg)
    rule.check(x[:2], y[:2])
    if joined() > 1:
        check_joined(workers)
    if workers > len(rule.segments):
        more = "cut at more layers with at=" if "at" in rule.options else "take fewer"
        msg = (
            f"Expected `workers` up to the {len(rule.segments)} segments of rule "
            f"{rule.name!r}, but got {workers}; {more}."
        )
        raise ValueError(msg)
    if joined() == 1 and "fork" not in mp.get_all_start_methods():
        msg = (
            "Expected a system that can fork processes for `workers`, but this one "
            "cannot; leave `workers` out."
        )
        raise ValueError(msg)


def joined() -> int:
    """Return the number of processes that torch.distributed has joined; 1 for none."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return 1
    return int(distributed.get_world_size())


def check_joined(workers: int) -> None:
    """Refuse another number of workers than there are processes."""
    whole(workers, "workers", 1)
    if workers != joined():
        msg = (
            f"Expected `workers` to be the {joined()} processes that torch.distributed "
            f"has joined, a part each, but got {workers}; start as many (torchrun "
            f"--nproc-per-node {workers}), or cut into {joined()}."
        )
        raise ValueError(msg)


def shared_out(segments: Sequence[Segment], workers: int) -> list[list[Segment]]:
    """Return neighbouring segments for each worker, about equally many parameters."""
    sizes = np.cumsum([sum(p.numel() for p in s.parameters) for s in segments])
    parts: list[list[Segment]] = []
    first = 0
    for k in range(1, workers + 1):
        least, most = first + 1, len(segments) - (workers - k)
        nearest = int(np.abs(sizes - sizes[-1] * k / workers).argmin()) + 1
        last = len(segments) if k == workers else min(max(nearest, least), most)
        parts.append(list(segments[first:last]))
        first = last
    return parts


@dataclass
class Part:
    """One worker's segments, and the events that they go through."""

    rule: Rule
    segments: list[Segment]
    generator: torch.Generator
    batch: Callable[[int], tuple[Tensor, Tensor]]
    losses: dict[str, Tensor] = field(default_factory=dict)

    @property
    def is_top(self) -> bool:
        """Whether the output lies here."""
        return self.segments[-1].above is None

    @contextmanager
    def _own_numbers(self) -> Iterator[None]:
        before, self.rule.generator = self.rule.generator, self.generator
        try:
            yield
        finally:
            self.rule.generator = before

    def forward(self, step: int, h: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Take one batch up; return what is handed on, and the message down."""
        x, y = self.batch(step)
        h = x if h is None else h
        self.losses = {}
        with self._own_numbers():
            for segment in self.segments:
                h = segment.forward(h, step)
            down: Tensor | None = None
            if self.rule.info.sees_error:
                if self.is_top:
                    down = self.segments[-1].error(y, at=step)
                    self._count(self.segments[-1])
                    self.segments[-1].update(step)
                    self.learn_below(step, y, down)
                return h, down
            for segment in self.segments[::-1]:
                segment.error(y, at=step, incoming=self._from_inside(segment, down))
                if segment.above is None:
                    self._count(segment)
                down = segment.update(step)
                if segment.above is not None:
                    self._count(segment)
            kept = () if self.is_top else self.segments[-1:]
            for segment in self.segments:
                if segment not in kept or not self.rule.needs_incoming:
                    segment.forget(step)
        self._check(step)
        return h, down

    def _from_inside(self, segment: Segment, down: Tensor | None) -> Tensor | None:
        return None if segment is self.segments[-1] else down

    def learn_below(self, step: int, y: Tensor, error: Tensor) -> None:
        """Update by the error at the output, which has arrived."""
        for segment in self.segments:
            if segment.above is not None:
                segment.error(y, output_error=error, at=step)
                segment.update(step)
            segment.forget(step)

    def message(self, step: int, message: Tensor) -> None:
        """Take what has come from above for an earlier batch."""
        with self._own_numbers():
            if self.rule.info.sees_error:
                self.learn_below(step, self.batch(step)[1], message)
            else:
                top = self.segments[-1]
                top.losses = {}
                top.learn(message, step)
                top.forget(step)
                self._count(top)
        self._check(step)

    def _count(self, segment: Segment) -> None:
        for name, value in segment.losses.items():
            old = self.losses.get(name)
            self.losses[name] = value if old is None else old + value

    def _check(self, step: int) -> None:
        for name, value in self.losses.items():
            if not torch.isfinite(value):
                msg = (
                    f"Expected a finite loss, but got {name} = {float(value)} at step "
                    f"{step} of rule {self.rule.name!r}, in the segments up to "
                    f"{self.segments[-1].name!r}; try a smaller learning rate."
                )
                raise Diverged(msg)

    @property
    def parameters(self) -> list[Tensor]:
        """All that this part trains."""
        blocks = [p for s in self.segments for p in s.parameters]
        beside = [
            p
            for s in self.segments
            if s.above is not None
            for p in self.rule.learned(s.name)
        ]
        return [*blocks, *beside]

    def state(self) -> dict[str, Any]:
        """Return this part of the rule's state."""
        names = [name for s in self.segments for name in s.names]
        optimizers = [o.state for o in self.rule.optimizers.values()]
        return {
            "parameters": [p.detach() for p in self.parameters],
            "buffers": [b for n in names for b in self.rule.blocks[n].buffers()],
            "optimizers": [[s.get(p) for s in optimizers] for p in self.parameters],
            "generator": self.generator.get_state(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take this part of the rule's state."""
        names = [name for s in self.segments for name in s.names]
        buffers = [b for n in names for b in self.rule.blocks[n].buffers()]
        with torch.no_grad():
            for parameter, value in zip(
                self.parameters, state["parameters"], strict=True
            ):
                parameter.copy_(value)
            for buffer, value in zip(buffers, state["buffers"], strict=True):
                buffer.copy_(value)
        for parameter, states in zip(self.parameters, state["optimizers"], strict=True):
            for optimizer, kept in zip(
                self.rule.optimizers.values(), states, strict=True
            ):
                if kept is not None:
                    optimizer.state[parameter] = kept
        self.generator.set_state(state["generator"])


def make_parts(
    rule: Rule, workers: int, batch: Callable[[int], tuple[Tensor, Tensor]]
) -> list[Part]:
    """Return the workers' parts, each with random numbers of its own."""
    parts = []
    for k, segments in enumerate(shared_out(rule.segments, workers)):
        seed = int(
            np.random.SeedSequence([rule.seed, rule.steps, k]).generate_state(1)[0]
        )
        generator = torch.Generator().manual_seed(seed)
        parts.append(Part(rule, segments, generator, batch))
    return parts


@contextmanager
def training_mode(rule: Rule) -> Iterator[None]:
    """Train mode and flushed denormals, both put back as they were.

    Adam's moments of units that have died decay into denormal numbers, which cost
    up to 1.4 times after some hundred steps.
    """
    tiny = torch.tensor(1e-40)
    flushed = float(tiny * 1.0) == 0.0
    with kept_modes(rule.network, training=True):
        torch.set_flush_denormal(True)
        try:
            yield
        finally:
            torch.set_flush_denormal(flushed)
