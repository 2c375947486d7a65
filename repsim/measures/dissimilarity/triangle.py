"""The upper triangle of a symmetric product, condensed, without the square matrix.

Everything that is a function of inner products (correlation, cosine, Euclidean,
crossnobis) is one product of all rows with each other, of which a band of rows right of
the diagonal exists at a time: n = 5,000 examples need the 12.5 million pairs themselves
and one band.
"""

from collections.abc import Callable

import numpy as np
import torch
from scipy.spatial.distance import squareform

from repsim.measures.kernels.products import LeftFactor

_BANDS = (64, 192)
"""Fewest and most rows of a band: narrow ones waste less left of the diagonal."""

_SQUARE = 400
"""Rows up to which the whole square is small enough to be made at once."""

WORTH = 1 << 26
"""Multiplications from which single precision repays leaving the buffer for bands."""

Product = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], np.ndarray]
"""(x, y, offsets) -> x yᵀ + offsets."""


def n_pairs(n: int) -> int:
    """Return the number of pairs among n things."""
    return n * (n - 1) // 2


def lengths(rows: torch.Tensor) -> torch.Tensor:
    """Return the Euclidean norm of each row of (…, unit) in float64.

    Long rows are added up by parts: one float32 sum over thousands loses digits.
    """
    parts = [
        torch.linalg.vector_norm(part, dim=-1).double()
        for part in torch.split(rows, 1024, -1)
    ]
    norms: torch.Tensor = torch.linalg.vector_norm(torch.stack(parts), dim=0)
    return norms


def triangle(
    rows: torch.Tensor,
    scale: float | torch.Tensor,
    across: torch.Tensor,
    down: torch.Tensor | None = None,
    *,
    limits: tuple[float | None, float | None] | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    r"""Return :math:`a_j + b_i + \sum_k s_k x_{ik} x_{jk}` with i < j, condensed."""
    n, rows = len(rows), rows.contiguous()
    if rows.device.type == "cpu" and n <= _SQUARE and n * n * rows.shape[1] < WORTH:
        return _at_once(rows, scale, across, down, limits, out)
    added = None if down is None else down.cpu().numpy()
    if out is None:
        out = np.empty(n_pairs(n), _dtype(rows))
    height = min(max(n // 8, _BANDS[0]), _BANDS[1])
    product = _product(rows, height)
    at = first = 0
    for start in range(0, n, height):
        stop = min(start + height, n)
        band = product(rows[start:stop] * scale, rows[start:], across[start:])
        if added is not None:
            band += added[start:stop, None]
        for i in range(stop - start):
            width = n - start - i - 1
            out[at : at + width] = band[i, i + 1 :]
            at += width
        if limits is not None:
            # The band is still in the cache.
            np.clip(out[first:at], *limits, out=out[first:at])
            first = at
    return out


def _at_once(
    rows: torch.Tensor,
    scale: float | torch.Tensor,
    across: torch.Tensor,
    down: torch.Tensor | None,
    limits: tuple[float | None, float | None] | None,
    out: np.ndarray | None,
) -> np.ndarray:
    """Compute the whole square, offsets included: the fewest calls for a small one."""
    n = len(rows)
    one = np.ones(n, _dtype(rows))
    right = rows.numpy()
    left = right * (scale.numpy() if isinstance(scale, torch.Tensor) else scale)
    extra = [(one, across.numpy())] + ([] if down is None else [(down.numpy(), one)])
    left = np.column_stack([left, *(a for a, _ in extra)])
    right = np.column_stack([right, *(b for _, b in extra)])
    upper = squareform(left @ right.T, force="tovector", checks=False)
    if limits is not None:
        np.clip(upper, *limits, out=upper)
    if out is None:
        return np.asarray(upper)
    out[:] = upper
    return out


def _product(rows: torch.Tensor, height: int) -> Product:
    """Return the fastest routine here for bands of `height` of these rows."""
    worth = len(rows) ** 2 * rows.shape[1] >= WORTH
    if rows.device.type != "cpu" or (rows.dtype == torch.float32 and worth):
        return _torch
    # One buffer for all bands: a fresh one is a page fault every 4 KiB.
    buffer = np.empty(height * len(rows), _dtype(rows))

    def blas(x: torch.Tensor, y: torch.Tensor, offsets: torch.Tensor) -> np.ndarray:
        band = buffer[: len(x) * len(y)].reshape(len(x), len(y))
        np.matmul(x.numpy(), y.numpy().T, out=band)
        band += offsets.numpy()
        return band

    return blas


def _torch(x: torch.Tensor, y: torch.Tensor, offsets: torch.Tensor) -> np.ndarray:
    return np.asarray(LeftFactor(x).times(y, offsets).cpu())


def _dtype(rows: torch.Tensor) -> str:
    return str(rows.dtype).removeprefix("torch.")
