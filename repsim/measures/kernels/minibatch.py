"""HSIC averaged over batches: cheaper than all examples at once, and another number."""

from collections.abc import Sequence
from numbers import Integral

import numpy as np
import torch

from repsim.measures.kernels.centred import at_least, rounded, working_dtype
from repsim.measures.kernels.hsic_sums import (
    Advance,
    LeftFactor,
    Sums,
    pair_products,
)
from repsim.measures.kernels.streamed import Blocks
from repsim.measures.matrices import Matrix, note_constant


def check_batch(batch: int, n: int, kernel: str) -> None:
    """Raise unless batches of that size can be made."""
    if (
        isinstance(batch, bool)
        or not isinstance(batch, Integral)
        or not 4 <= batch <= n
    ):
        msg = (
            f"Expected `batch` to lie in [4, {n}], a whole number, for {n} examples, "
            f"but got {batch!r}."
        )
        raise ValueError(msg)
    if kernel != "linear":
        msg = f"Expected `kernel` to be linear with `batch`, but got {kernel!r}."
        raise ValueError(msg)


def batch_edges(n: int, batch: int) -> list[int]:
    """Return where batches begin and end: equal ones, nearest to the size asked for."""
    count = max(1, min(round(n / batch), n // 4))
    return [round(i * n / count) for i in range(count + 1)]


def batch_hsic(
    sources: Sequence[Matrix],
    split: int | None,
    batch: int,
    precision: str,
    device: str,
    debiased: bool,
    advance: Advance,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the mean of HSIC over batches of neighbouring examples, by their rows.

    Of all pairs, of each layer with itself, both of layers times 2ᵏ, and k: Nguyen,
    Raghu & Kornblith (2021), arXiv:2010.15327.
    """
    n, count = int(sources[0].shape[0]), len(sources)
    precision = at_least(precision, n)
    edges = batch_edges(n, batch)
    blocks = Blocks(sources, precision, device, edges)
    ends = np.cumsum([int(source.shape[1]) for source in sources]).tolist()
    rows = max(b - a for a, b in zip(edges, edges[1:], strict=False))
    widths = [int(source.shape[1]) for source in sources]
    dtype = working_dtype(precision, device, rows, widths)
    buffer = torch.empty(count * rows * rows, dtype=dtype, device=device)
    values, traces = np.zeros((count, count)), np.zeros(count)
    exponents = blocks.exponents.copy()
    for block in blocks:
        moved, exponents = blocks.exponents - exponents, blocks.exponents.copy()
        values = np.ldexp(values, 2 * np.add.outer(moved, moved))
        block -= block.mean(dim=0, keepdim=True)
        block = rounded(block, precision)
        sums = _batch_sums(block.to(dtype), ends, split, buffer)
        values += len(block) / n * sums.hsic(debiased)[0]
        traces -= sums.totals
        advance(1)
    flat = traces == 0
    for source, one in zip(sources, flat, strict=True):
        note_constant(source, one)
    values[flat] = values[:, flat] = np.nan
    own = np.diagonal(values)
    return values, np.where(own > 0, own, np.nan), exponents


def _batch_sums(
    block: torch.Tensor, ends: Sequence[int], split: int | None, buffer: torch.Tensor
) -> Sums:
    """Return the sums of the linear kernels of one centred batch."""
    n, count = len(block), len(ends)
    tiles = buffer[: count * n * n].view(count, n, n)
    for i, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
        layer = block[:, start:end]
        LeftFactor(layer).times(layer, out=tiles[i])
    tiles = tiles.float() if tiles.dtype == torch.bfloat16 else tiles
    diagonals = tiles.diagonal(dim1=1, dim2=2)
    norms = diagonals.double().clone().cpu().numpy()
    diagonals.zero_()
    off = pair_products(tiles.view(count, -1), split).cpu().numpy()
    return Sums.centred(n, off, norms @ norms.T, norms.sum(axis=1))
