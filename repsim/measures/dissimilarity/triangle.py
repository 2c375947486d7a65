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

from repsim.core.threads import spread
from repsim.measures.kernels.hsic_sums import LeftFactor, intel

_BANDS = (64, 192)
"""Fewest and most rows of a band: narrow ones waste less left of the diagonal."""

AT_ONCE = 400
"""Rows up to which the whole square is small enough to be made at once."""

WORTH = 1 << 26
"""Multiplications from which single precision repays leaving the buffer for bands."""

Band = Callable[[int, int], np.ndarray]
"""(start, stop) -> these rows of the square, from the diagonal on; for one use."""


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
    out: np.ndarray | None = None,
) -> np.ndarray:
    r"""Return :math:`a_j + b_i + \sum_k s_k x_{ik} x_{jk}` with i < j, condensed."""
    n, rows = len(rows), rows.contiguous()
    if down is None:
        down = torch.zeros_like(across)
    if rows.device.type == "cpu" and n <= AT_ONCE and n * n * rows.shape[1] < WORTH:
        return _at_once(rows, scale, across, down, out)
    if out is None:
        out = np.empty(n_pairs(n), _dtype(rows))
    height = min(max(n // 8, _BANDS[0]), _BANDS[1])

    def writer() -> Callable[[int], None]:
        bands = _bands(rows, scale, across, down, height)

        def write(start: int) -> None:
            stop, at = min(start + height, n), start * n - start * (start + 1) // 2
            band = bands(start, stop)
            for i in range(start + 1, min(stop + 1, n)):
                end = at + n - i
                out[at:end] = band[i - start - 1, i - start :]
                at = end

        return write

    # The longest bands come first, so that threads end together.
    starts = range(0, n, height)
    if rows.device.type == "cpu" and n * n * rows.shape[1] >= WORTH:
        spread(writer, starts)
    else:
        write = writer()
        for start in starts:
            write(start)
    return out


def _at_once(
    rows: torch.Tensor,
    scale: float | torch.Tensor,
    across: torch.Tensor,
    down: torch.Tensor,
    out: np.ndarray | None,
) -> np.ndarray:
    """Compute the whole square: the fewest calls for a small one."""
    right = rows.numpy()
    square = right * (scale.numpy() if isinstance(scale, torch.Tensor) else scale)
    square = square @ right.T
    square += across.numpy()
    square += down.numpy()[:, None]
    upper = squareform(square, force="tovector", checks=False)
    if out is None:
        return np.asarray(upper)
    out[:] = upper
    return out


def _bands(
    rows: torch.Tensor,
    scale: float | torch.Tensor,
    across: torch.Tensor,
    down: torch.Tensor,
    height: int,
) -> Band:
    """Return the fastest routine here for bands of `height` of these rows."""
    single = rows.dtype == torch.float32 and len(rows) ** 2 * rows.shape[1] >= WORTH

    def factored(start: int, stop: int) -> np.ndarray:
        left = LeftFactor(rows[start:stop] * scale)
        band = left.times(rows[start:], across[start:]).cpu().numpy()
        band += down[start:stop, None].cpu().numpy()
        return np.asarray(band)

    if rows.device.type != "cpu" or (single and not intel()):
        return factored
    fast = single or intel()
    # One buffer for all bands: a fresh one is a page fault every 4 KiB.
    buffer = torch.empty(height * len(rows), dtype=rows.dtype)

    def buffered(start: int, stop: int) -> np.ndarray:
        left, right = rows[start:stop], rows[start:]
        band = buffer[: len(left) * len(right)].view(len(left), len(right))
        if fast:
            torch.add(down[start:stop, None], across[start:], out=band)
            if isinstance(scale, torch.Tensor):
                return np.asarray(band.addmm_(left * scale, right.T).numpy())
            return np.asarray(band.addmm_(left, right.T, alpha=scale).numpy())
        values = band.numpy()
        np.matmul((left * scale).numpy(), right.numpy().T, out=values)
        values += across[start:].numpy()
        values += down[start:stop, None].numpy()
        return values

    return buffered


def _dtype(rows: torch.Tensor) -> str:
    return str(rows.dtype).removeprefix("torch.")
