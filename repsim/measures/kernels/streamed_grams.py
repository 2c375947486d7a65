"""Gram matrices of stored layers with more units than fit, a run of rows at a time.

Wide layers (maps, flattened) have few examples for their units, so that products of
examples are cheap; but neither the numbers nor all products need fit into memory. Of a
run of rows the products with all examples are made layer by layer, added up over all
pairs of layers, and forgotten. A layer is read once for its mean, once as the rows of
all runs, and once for each run.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from repsim.measures.kernels.centred import CACHED, at_least
from repsim.measures.kernels.hsic_sums import Advance, Sums, pair_products
from repsim.measures.kernels.streamed import BLOCK, Blocks, chunk_rows
from repsim.measures.magnitudes import shifted
from repsim.measures.matrices import Matrix


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
    layers = [_Layer(source, precision, device) for source in sources]
    rows = tile_rows(n, [int(source.shape[1]) for source in sources], budget)
    kind = torch.float64 if precision == "float64" else torch.float32
    off = torch.zeros(count, count, dtype=torch.float64, device=device)
    sizes = torch.zeros(count, n, dtype=torch.float64, device=device)
    for start in range(0, n, rows):
        stop = min(n, start + rows)
        grams = torch.empty(count, stop - start, n, dtype=kind, device=device)
        for i, layer in enumerate(layers):
            own = torch.cat([block.clone() for _, block in layer.blocks(start, stop)])
            size = torch.linalg.vector_norm(own, dim=1, dtype=torch.float64)
            sizes[i, start:stop] = size.square()
            for begin, block in layer.blocks(0, n):
                grams[i, :, begin : begin + len(block)] = own @ block.T
            within = torch.arange(stop - start, device=device)
            grams[i, within, within + start] = 0
            advance(1)
        parts = grams.flatten(1).split(CACHED, dim=1)  # type: ignore[no-untyped-call]
        for part in parts:
            off += pair_products(part, split)
    norms = sizes.cpu().numpy()
    products = off.cpu().numpy()
    sums = Sums.centred(n, products, norms @ norms.T, norms.sum(axis=1))
    exponents = np.array([layer.exponent for layer in layers])
    return sums, exponents, norms.sum(axis=1) == 0


class _Layer:
    """A layer that is read in blocks of rows, centred and near 1."""

    def __init__(self, source: Matrix, precision: str, device: str) -> None:
        self._source, self._precision, self._device = source, precision, device
        chunk = chunk_rows(source)
        rows = max(1, BLOCK // (8 * int(source.shape[1])))
        self._rows = max(1, rows // chunk) * chunk if rows > chunk else rows
        self._mean: torch.Tensor | None = None
        self.exponent = 0
        self._measure()

    def _measure(self) -> None:
        """Find the mean, and the power of two that the largest numbers need."""
        n = int(self._source.shape[0])
        total = torch.zeros(self._source.shape[1], dtype=torch.float64)
        total = total.to(self._device)
        for _, block, scale in self._read(0, n):
            if scale != self.exponent and bool(total.any()):
                total = shifted(total, scale - self.exponent)
            self.exponent = scale
            total += block.double().sum(dim=0)
        self._mean = total / n

    def _read(self, start: int, stop: int) -> Iterator[tuple[int, torch.Tensor, int]]:
        edges = [*range(start, stop, self._rows), stop]
        blocks = Blocks(
            [self._source],
            self._precision,
            self._device,
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
            yield begin, block - self._mean.to(block.dtype)
