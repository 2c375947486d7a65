"""Gram matrices of stored layers with more units than fit, a run of rows at a time.

Wide layers (maps, flattened) have few examples for their units, so that products of
examples are cheap; but neither the numbers nor all products need fit into memory. Of a
run of rows the products with all examples are made layer by layer, added up over all
pairs of layers, and forgotten. A layer is read once for its mean, once as the rows of
all runs, and once for each run. On a cluster a task is the mean of a layer, then a run.
"""

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np
import torch

from repsim.core import cluster
from repsim.core.devices import multiplying
from repsim.measures.kernels.centred import CACHED, at_least
from repsim.measures.kernels.hsic_sums import Advance, Sums, pair_products
from repsim.measures.kernels.streamed import BLOCK, Blocks, can_spread, chunk_rows
from repsim.measures.magnitudes import shifted
from repsim.measures.matrices import Matrix

Parts: TypeAlias = tuple[torch.Tensor, torch.Tensor]
"""Sums over runs of rows of all pairs of layers, and (layers, rows) sizes."""


def tile_rows(n: int, widths: Sequence[int], budget: int) -> int:
    """Return how many rows at once: of one layer, and of all layers' Gram matrices."""
    return max(1, min(n, budget // 2 // (8 * max(n * len(widths), *widths))))


def streamed_grams(
    sources: Sequence[Matrix],
    split: int | None,
    precision: str,
    device: str,
    budget: int,
    advance: Advance,
) -> tuple[Sums, np.ndarray, np.ndarray]:
    """Return the sums of linear kernels, k of each layer, and which are constant."""
    n, count = int(sources[0].shape[0]), len(sources)
    precision = at_least(precision, n)
    rows = tile_rows(n, [int(source.shape[1]) for source in sources], budget)
    spans = [(start, min(n, start + rows)) for start in range(0, n, rows)]
    client = cluster.active() if can_spread(sources) else None
    if client is None:
        layers = [_Layer(source, precision, device) for source in sources]
        off = torch.zeros(count, count, dtype=torch.float64, device=device)
        parts = []
        for span in spans:
            products, part = _tile(span, layers, split, advance)
            off += products
            parts.append(part)
        sizes = torch.cat(parts, dim=1)
    else:
        read_there = (list(sources), precision, device)
        layers = cluster.spread(client, _measured, range(count), *read_there)
        off, sizes = cluster.reduced(
            client, _tile_sent, spans, _joined, tuple, layers, split
        )
        advance(len(spans) * count)
    norms = sizes.cpu().numpy()
    sums = Sums.centred(n, off.cpu().numpy(), norms @ norms.T, norms.sum(axis=1))
    exponents = np.array([layer.exponent for layer in layers])
    return sums, exponents, norms.sum(axis=1) == 0


def _tile(
    span: tuple[int, int],
    layers: Sequence["_Layer"],
    split: int | None,
    advance: Advance = lambda done: None,
) -> Parts:
    """Return the sums over a run of rows, and the sizes of these rows, by layer."""
    (start, stop), (first, *_) = span, layers
    n, device = first.rows, first.device
    kind = torch.float64 if first.precision == "float64" else torch.float32
    grams = torch.empty(len(layers), stop - start, n, dtype=kind, device=device)
    sizes = []
    for i, layer in enumerate(layers):
        own = torch.cat([block.clone() for _, block in layer.blocks(start, stop)])
        size = torch.linalg.vector_norm(own, dim=1, dtype=torch.float64)
        sizes.append(size.square())
        for begin, block in layer.blocks(0, n):
            grams[i, :, begin : begin + len(block)] = own @ block.T
        within = torch.arange(stop - start, device=device)
        grams[i, within, within + start] = 0
        advance(1)
    off = torch.zeros(len(layers), len(layers), dtype=torch.float64, device=device)
    for part in grams.flatten(1).split(CACHED, dim=1):  # type: ignore[no-untyped-call]
        off += pair_products(part, split)
    return off, torch.stack(sizes)


# What a worker of a cluster does.


def _measured(
    i: int, sources: Sequence[Matrix], precision: str, device: str
) -> "_Layer":
    with multiplying(precision, device):
        return _Layer(sources[i], precision, device).sent()


def _tile_sent(
    span: tuple[int, int], layers: Sequence["_Layer"], split: int | None
) -> Parts:
    with multiplying(layers[0].precision, layers[0].device):
        off, sizes = _tile(span, layers, split)
    return off.cpu(), sizes.cpu()


def _joined(one: Parts, following: Parts) -> Parts:
    return one[0] + following[0], torch.cat([one[1], following[1]], dim=1)


class _Layer:
    """A layer that is read in blocks of rows, centred and near 1."""

    def __init__(self, source: Matrix, precision: str, device: str) -> None:
        self._source, self.precision, self.device = source, precision, device
        self.rows = int(source.shape[0])
        chunk = chunk_rows(source)
        most = max(1, BLOCK // (8 * int(source.shape[1])))
        self._together = max(1, most // chunk) * chunk if most > chunk else most
        self._mean: torch.Tensor | None = None
        self.exponent = 0
        self._measure()

    def _measure(self) -> None:
        """Find the mean, and the power of two that the largest numbers need."""
        total = torch.zeros(self._source.shape[1], dtype=torch.float64)
        total = total.to(self.device)
        for _, block, scale in self._read(0, self.rows):
            if scale != self.exponent and bool(total.any()):
                total = shifted(total, scale - self.exponent)
            self.exponent = scale
            total += block.double().sum(dim=0)
        self._mean = total / self.rows

    def sent(self) -> "_Layer":
        """Return the layer as it can be sent to whoever has no such device."""
        assert self._mean is not None
        self._mean = self._mean.cpu()
        return self

    def _read(self, start: int, stop: int) -> Iterator[tuple[int, torch.Tensor, int]]:
        edges = [*range(start, stop, self._together), stop]
        blocks = Blocks(
            [self._source],
            self.precision,
            self.device,
            edges=edges,
            span=(start, stop),
        )
        for begin, block in zip(edges, blocks, strict=False):
            yield begin, block, int(blocks.exponents[0])

    def blocks(self, start: int, stop: int) -> Iterator[tuple[int, torch.Tensor]]:
        """Yield where a block of rows begins, and the block."""
        assert self._mean is not None
        for begin, block, scale in self._read(start, stop):
            if scale != self.exponent:  # earlier blocks may be far smaller
                block = shifted(block, self.exponent - scale)
            yield begin, block - self._mean.to(block)
