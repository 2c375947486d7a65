"""Layers that are read block by block, in memory that does not grow with n."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch

from repsim.core import cluster
from repsim.core.devices import devices_of, free_on, multiplying
from repsim.core.free_memory import available_memory
from repsim.core.threads import shared
from repsim.measures.kernels.centred import at_least, working_dtype
from repsim.measures.kernels.hsic_sums import Advance, Sums
from repsim.measures.kernels.moments import Moments
from repsim.measures.magnitudes import MODEST, shifted
from repsim.measures.matrices import Matrix, read

BUDGET: int | None = None
"""Bytes that sums and products may take; None is what the machine has, see `budget`."""

LEAST = 2**28
"""Bytes that are always taken to be there."""

SPANS = (8, 32)
"""Runs of examples that workers sum up apart, at least and at most."""

BLOCK = 2**28
"""Bytes of one block of examples at most, all layers together."""

ENOUGH = (2**22, 1024)
"""Bytes or rows of a block from which a processor gains nothing by a larger one.

What is done once a block, adding its products to the sums, is then a few hundredths of
multiplying; and a worker's memory is the same for ten times the examples.
"""


_ASKED: ContextVar[int | None] = ContextVar("memory", default=None)
_DEVICE: ContextVar[int | None] = ContextVar("device_memory", default=None)


@contextmanager
def within(memory: int | None, device_memory: int | None = None) -> Iterator[None]:
    """Keep sums and products of what is read by blocks within so many bytes.

    And all that lies on the device, blocks and sums, within `device_memory`.
    """
    asked, device = _ASKED.set(memory), _DEVICE.set(device_memory)
    try:
        yield
    finally:
        _ASKED.reset(asked)
        _DEVICE.reset(device)


def on_device(device: str, asked: int | None) -> int | None:
    """Return the bytes that a device may hold: as asked, or half of what it has free.

    A power of two, so that a plan does not hang on what else runs; None for the CPU.
    """
    if asked is not None:
        return asked
    free = free_on(device)
    return None if free is None else int(2 ** int(np.log2(max(free // 2, LEAST))))


def device_limit() -> int | None:
    """Return the bytes that the device may hold in this comparison, if it is told."""
    return _DEVICE.get()


def fits_device(sources: Sequence[Matrix]) -> bool:
    """Whether all layers and what is made of them fit: thrice their numbers."""
    limit = device_limit()
    if limit is None:
        return True
    n, widths = int(sources[0].shape[0]), [int(s.shape[1]) for s in sources]
    return 3 * 8 * n * sum(widths) <= limit


def block_bytes() -> int:
    """Return the bytes of one block: two are there at once, and one turned about."""
    limit = device_limit()
    return BLOCK if limit is None else min(BLOCK, limit // 8)


def block_rows(row_bytes: int, device: str) -> int:
    """Return how many examples a block holds, however many there are."""
    most = block_bytes() // row_bytes
    if torch.device(device).type == "cpu":
        size, rows = ENOUGH
        most = min(most, max(rows, size // row_bytes))
    return most


def budget() -> int:
    """Return the bytes that products of one pass may take; more need more passes.

    Where nobody says, an eighth of the memory that is free, as a power of two: so that
    a plan does not hang on what else runs; on a cluster that of the smallest worker.
    """
    asked, limit = _ASKED.get() or BUDGET, device_limit()
    if asked is None:
        free = cluster.worker_memory() or available_memory()
        asked = int(max(LEAST, 2 ** int(np.log2(max(free // 8, 1)))))
    return asked if limit is None else min(asked, limit // 2)


@dataclass(frozen=True)
class Pass:
    """One reading of some layers."""

    layers: list[int]
    split: int | None


def streamed_sums(
    sources: Sequence[Matrix],
    split: int | None,
    precision: str,
    device: str,
    advance: Advance,
) -> tuple[Sums, np.ndarray, np.ndarray]:
    """Return the sums of linear kernels of stored layers, block by block."""
    n, count = int(sources[0].shape[0]), len(sources)
    widths = [int(source.shape[1]) for source in sources]
    precision = at_least(precision, n)
    off, diagonal = np.zeros((count, count)), np.zeros((count, count))
    traces, exponents = np.zeros(count), np.zeros(count, dtype=int)
    dtype = working_dtype(precision, device, n, widths)
    client = cluster.active() if can_spread(sources) else None
    for one in passes(widths, split, budget()):
        sum_up = partial(_span_there, one.split, dtype, precision, device)
        read_here = [sources[i] for i in one.layers]
        if client is None:
            moments = on_devices(
                one.split, dtype, precision, device, read_here, advance
            )
            part, scales = sums_of(moments)
        else:
            spans = spans_of(read_here, one.split)
            part, scales = cluster.reduced(
                client,
                sum_up,
                spans,
                Moments.merged,
                sums_of,
                read_here,
                once=first_rows,
            )
            advance(len(spans))
        where = np.ix_(one.layers, one.layers)
        kept = part.off + part.diagonal != 0
        off[where] = np.where(kept, part.off, off[where])
        diagonal[where] = np.where(kept, part.diagonal, diagonal[where])
        traces[one.layers] = -part.totals
        exponents[one.layers] = scales
    return Sums.centred(n, off, diagonal, traces), exponents, traces == 0


def on_devices(
    split: int | None,
    dtype: torch.dtype,
    precision: str,
    device: str,
    sources: Sequence[Matrix],
    advance: Advance,
) -> Moments:
    """Return the sums over all examples, of which each device takes its share."""
    places, n = devices_of(device), int(sources[0].shape[0])
    edges = [round(n * i / len(places)) for i in range(len(places) + 1)]
    spans = list(zip(edges, edges[1:], strict=False))

    def share(place: str, span: tuple[int, int]) -> Moments:
        how = (split, dtype, precision, place)
        return span_moments(*how, span, sources, advance=advance)

    if len(places) == 1:
        return share(places[0], spans[0])
    with ThreadPoolExecutor(len(places)) as threads:
        jobs = [
            threads.submit(copy_context().run, share, place, span)
            for place, span in zip(places, spans, strict=True)
        ]
        first, *rest = [job.result() for job in jobs]
    for other in rest:
        first.merge(other)
    return first


def _span_there(
    split: int | None, dtype: torch.dtype, precision: str, device: str, *rest: Any
) -> Moments:
    """Return `span_moments` on a worker, where nobody else says how it multiplies."""
    with multiplying(precision, device):
        return span_moments(split, dtype, precision, device, *rest)


def span_moments(
    split: int | None,
    dtype: torch.dtype,
    precision: str,
    device: str,
    span: tuple[int, int],
    sources: Sequence[Matrix],
    firsts: Sequence[torch.Tensor] | None = None,
    advance: Advance = lambda done: None,
) -> Moments:
    """Return the sums over a run of the examples, read block by block."""
    moments = Moments(
        [int(source.shape[1]) for source in sources],
        split,
        dtype,
        device,
        precision=precision,
    )
    # Of workers each has its core, and room for one chunk.
    far = firsts is None
    blocks = Blocks(sources, precision, device, span=span, firsts=firsts, far=far)
    for block in blocks:
        moments.rescale(blocks.exponents)
        moments.update(block)
        advance(1)
    moments.forget()
    return moments


def first_rows(sources: Sequence[Matrix]) -> list[torch.Tensor]:
    """Return the first example of each layer, about which all runs are summed."""
    return [read(source, 0, 1) for source in sources]


def sums_of(moments: Moments) -> tuple[Sums, np.ndarray]:
    """Return what HSIC needs, and k of each layer, of which 2ᵏ times was summed."""
    return moments.sums(), moments.exponents


def can_spread(sources: Sequence[Matrix]) -> bool:
    """Whether workers can read all layers by themselves."""
    return all(getattr(source, "stored", False) for source in sources)


def chunk_rows(source: Matrix) -> int:
    """Return how many rows are unpacked at once."""
    return max(1, int(getattr(source, "chunk", 1)))


def number_of_spans(n: int, widths: Sequence[int], split: int | None) -> int:
    """Return into how many runs to cut examples: each has sums to send and to merge.

    Not more than examples outweigh these sums, and the same for any number of workers.
    """
    left = sum(widths[:split])
    sums = left * (left / 2 if split is None else sum(widths[split:]))
    return int(np.clip(n * sum(widths) // max(1, 2 * sums), *SPANS))


def spans_of(sources: Sequence[Matrix], split: int | None) -> list[tuple[int, int]]:
    """Cut the examples into runs of whole chunks."""
    n = int(sources[0].shape[0])
    number = number_of_spans(n, [int(s.shape[1]) for s in sources], split)
    chunk = max(map(chunk_rows, sources))
    if chunk > n // 2:  # each run unpacks all of its chunk
        number = SPANS[0]
        chunk = min(chunk, max(1, n // number))
    rows = max(1, -(-n // number // chunk)) * chunk
    edges = [*range(0, n, rows), n]
    return list(zip(edges, edges[1:], strict=False))


def passes(widths: Sequence[int], split: int | None, memory: int) -> list[Pass]:
    """Return which layers are read together so that their products fit the budget."""
    every = list(range(len(widths)))
    left, right = every[:split], [] if split is None else every[split:]
    total = [sum(widths[i] for i in side) for side in (left, right)]
    products = total[0] ** 2 / 2 if split is None else total[0] * total[1]
    if products * 8 <= memory:
        return [Pass(every, split)]
    runs = _runs(left, widths, memory)
    if split is not None:
        return [Pass(a + b, len(a)) for a in runs for b in _runs(right, widths, memory)]
    across = [Pass(a + b, len(a)) for i, a in enumerate(runs) for b in runs[i + 1 :]]
    return [*(Pass(run, None) for run in runs), *across]


def reads(every: Sequence[Pass]) -> int:
    """Return how often a layer is read, at most."""
    seen = [layer for one in every for layer in one.layers]
    return max(seen.count(layer) for layer in set(seen))


class Blocks:
    """Blocks of examples of some layers beside each other, each chunk read once."""

    def __init__(
        self,
        sources: Sequence[Matrix],
        precision: str,
        device: str,
        edges: Sequence[int] | None = None,
        span: tuple[int, int] | None = None,
        firsts: Sequence[torch.Tensor] | None = None,
        far: bool = True,
    ) -> None:
        self._firsts = firsts
        self._far = far
        self._sources = sources
        self._precision = precision
        self._device = device
        self._edges = edges
        self._span = span or (0, int(sources[0].shape[0]))
        self._rests: list[torch.Tensor | None] = [None] * len(sources)
        self.exponents = np.zeros(len(sources), dtype=int)
        """k of each layer, whose last block was multiplied by 2ᵏ to come near 1."""
        self._varies = [False] * len(sources)

    def __iter__(self) -> Iterator[torch.Tensor]:
        """Yield blocks (examples, units of all layers)."""
        begin, end = self._span
        width = sum(int(source.shape[1]) for source in self._sources)
        kind = torch.float64 if self._precision == "float64" else torch.float32
        most = block_rows(width * kind.itemsize, self._device)
        rows = max(256, min(end - begin, most))
        edges = self._edges or [*range(begin, end, rows), end]
        rows = int(np.diff(edges).max())
        out = torch.empty(rows, width, dtype=kind, device=self._device)
        # Of the first of all examples, also in a later run: sums about it add up.
        known = (self._firsts or first_rows(self._sources)) if begin else []
        firsts = [x.to(self._device) for x in known]
        firsts = [
            x if x.dtype.itemsize >= kind.itemsize else x.to(kind) for x in firsts
        ]
        spans = list(zip(edges, edges[1:], strict=False))
        starts = np.cumsum([0, *(int(source.shape[1]) for source in self._sources)])

        def differ(job: tuple[int, torch.Tensor, torch.Tensor]) -> None:
            # Differences from the first row are exact for near numbers, and exactly
            # 0 for a constant layer.
            i, into, part = job
            wider = part if part.dtype.itemsize >= kind.itemsize else part.to(kind)
            if len(firsts) == i:
                firsts.append(wider[:1].clone())
            torch.sub(wider, firsts[i], out=into)
            self._bring_near_one(i, into, wider, firsts[i])

        for (start, stop), parts in zip(spans, self._ahead(spans), strict=True):
            block = out[: stop - start]
            jobs = [
                (i, block[:, starts[i] : starts[i + 1]], part)
                for i, part in enumerate(
                    part.to(self._device, non_blocking=True) for part in parts
                )
            ]
            on_cpu = block.device.type == "cpu"
            shared(differ, jobs, block.numel() if on_cpu and firsts else 0)
            yield block

    def _ahead(self, spans: list[tuple[int, int]]) -> Iterator[list[torch.Tensor]]:
        """Yield the parts of each block, while a thread reads those of the next ones.

        Where the device is another one they lie in pinned memory, from which it takes
        them while the last block is multiplied.
        """
        if len(spans) == 1 or not any(getattr(s, "stored", 0) for s in self._sources):
            for span in spans:
                yield self._parts(*span)
            return
        context = copy_context()

        def parts_of(span: tuple[int, int]) -> list[torch.Tensor]:
            return context.run(self._parts, *span)

        reader = ThreadPoolExecutor(1, thread_name_prefix="repsim-reader")
        try:
            later = iter(spans)
            coming = deque(
                reader.submit(parts_of, span)
                for span in islice(later, self._blocks_ahead(spans))
            )
            while coming:
                parts = coming.popleft().result()
                coming += [reader.submit(parts_of, span) for span in islice(later, 1)]
                yield parts
        finally:
            reader.shutdown(cancel_futures=True)

    def _blocks_ahead(self, spans: list[tuple[int, int]]) -> int:
        """Return how many blocks are read ahead: those of a chunk, where they fit.

        A chunk is unpacked at once; were only its first block awaited, the rest of
        its time would be spent waiting for it. So two chunks of each layer are there.
        """
        rows = spans[0][1] - spans[0][0]
        chunk = max(map(chunk_rows, self._sources))
        held = sum(chunk_rows(s) * int(s.shape[1]) * 8 for s in self._sources)
        fits = self._far and torch.device(self._device).type == "cpu"
        return max(1, chunk // rows) if fits and 2 * held <= budget() else 1

    def _parts(self, start: int, stop: int) -> list[torch.Tensor]:
        """Read rows of every layer."""
        parts = [self._read(i, start, stop) for i in range(len(self._sources))]
        pinned = torch.device(self._device).type == "cuda"
        return [part.pin_memory() for part in parts] if pinned else parts

    def _bring_near_one(
        self, i: int, into: torch.Tensor, x: torch.Tensor, first: torch.Tensor
    ) -> None:
        """Scale a block of a layer as those before, or down where it is far larger."""
        known = self._varies[i]
        size = _largest(into)
        if self.exponents[i] == 0 and (0 if known else 1 / MODEST) < size < MODEST:
            self._varies[i] = True
            return
        # The difference of finite numbers may be infinite, and that of halves is not.
        apart = x.double() / 2 - first.double() / 2
        size = _largest(apart)
        if size == 0:
            into.zero_()
            return
        power = int(np.frexp(size)[1]) + 1
        if not known or power + self.exponents[i] > np.log2(MODEST):
            self.exponents[i] = -power
        self._varies[i] = True
        into.copy_(shifted(apart, int(self.exponents[i]) + 1))

    def _read(self, i: int, start: int, stop: int) -> torch.Tensor:
        """Return rows of a layer, reading whole chunks and keeping what is over."""
        source, rest = self._sources[i], self._rests[i]
        known = 0 if rest is None else len(rest)
        if known < stop - start:
            chunk = chunk_rows(source)
            end = min(self._span[1], -(-stop // chunk) * chunk)
            fresh = read(source, start + known, end)
            rest = fresh if rest is None or not known else torch.cat([rest, fresh])
        assert rest is not None
        self._rests[i] = _let_go(rest[stop - start :])
        return rest[: stop - start]


def _let_go(rest: torch.Tensor) -> torch.Tensor | None:
    """Return rows without the others they were read with, once those are more.

    A copy for each block would copy a long chunk over and over.
    """
    if not len(rest):
        return None
    held = rest.untyped_storage().nbytes()
    return rest.clone() if held > 2 * rest.nbytes else rest


def _runs(layers: list[int], widths: Sequence[int], memory: int) -> list[list[int]]:
    """Cut layers into runs whose products with each other fit the budget."""
    widest, runs, width = (memory / 8) ** 0.5, [[layers[0]]], widths[layers[0]]
    for layer in layers[1:]:
        if width + widths[layer] > widest:
            runs.append([])
            width = 0
        runs[-1].append(layer)
        width += widths[layer]
    return runs


def _largest(x: torch.Tensor) -> float:
    """Return the largest size among numbers, without a temporary."""
    low, high = torch.aminmax(x)
    return max(-float(low), float(high))
