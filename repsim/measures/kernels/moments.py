"""HSIC of linear kernels from sums over examples, which may come in any batches.

For the linear kernel Song et al.'s estimator needs of two layers X and Y only XᵀY, the
sums of x and y, and, with the squared norms k = ‖x‖² and l = ‖y‖² of the rows, the sums
of k, l, kl, kx, ly, kY and lX. All of them add up over batches, and all of them can be
carried from one origin to another, so nothing depends on how the examples were cut.
"""

from collections.abc import Sequence

import numpy as np
import torch

from repsim.core.threads import shared
from repsim.measures.kernels.centred import (
    STRIP,
    WIDE,
    cached_rows,
    grouped,
    membership,
    rounded,
)
from repsim.measures.kernels.hsic_sums import LeftFactor, Sums, block_squares
from repsim.measures.magnitudes import shifted


class Moments:
    """Sums over the examples seen so far, of some layers and their pairs."""

    def __init__(
        self,
        widths: Sequence[int],
        split: int | None = None,
        dtype: torch.dtype = torch.float64,
        device: str | torch.device = "cpu",
        precision: str = "float64",
    ) -> None:
        self.widths = [int(width) for width in widths]
        self.split = split
        self.examples = 0
        self.exponents = np.zeros(len(self.widths), dtype=int)
        """k of each layer, of which 2ᵏ times is summed."""
        self._dtype = dtype
        self._precision = precision
        self._ends = np.cumsum(self.widths).tolist()
        total, count = self._ends[-1], len(self.widths)
        self._inside = membership(
            self._ends, torch.empty(0, dtype=torch.float64, device=device)
        )

        def zeros(*shape: int) -> torch.Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        self._origin = zeros(total)
        self._sum = zeros(total)
        self._norm = zeros(count)
        self._sum_norm = zeros(total, count)
        self._norm_norm = zeros(count, count)
        # Kept from one update to the next: fresh memory costs as much as what is done.
        self._units = torch.empty(total, 0, dtype=dtype, device=device)
        kept = torch.float32 if dtype == torch.bfloat16 else dtype
        self._tiles = _tiles(self.widths, split, on_cpu=self.device.type == "cpu")
        self._products = [
            torch.zeros(
                self._width(rows), self._width(columns), dtype=kept, device=device
            )
            for rows, columns in self._tiles
        ]

    @property
    def device(self) -> torch.device:
        """Return where the sums live."""
        return self._origin.device

    def update(self, x: torch.Tensor) -> None:
        """Add examples."""
        if not len(x):
            return
        x = x.double() if self._dtype == torch.float64 else x.float()
        if not self.examples:
            # The first row, so that a constant layer is exactly 0 from here on, and
            # the mean of what is left, so that later sums do not cancel.
            first = x[:1].double()
            self._origin = (first + (x - x[:1]).double().mean(dim=0)).flatten()
        self.examples += len(x)
        units = self._by_unit(x)

        def multiply(job: tuple[tuple[slice, slice], torch.Tensor]) -> None:
            (rows, columns), product = job
            a, b = units[self._columns(rows)], units[self._columns(columns)]
            LeftFactor(a).add_to(product, b)

        jobs = zip(self._tiles, self._products, strict=True)
        shared(multiply, jobs, x.numel() if x.device.type == "cpu" else 0)

    def _by_unit(self, x: torch.Tensor) -> torch.Tensor:
        """Take the origin off, add up all but products, return (units, examples)."""
        if self._units.shape[1] != len(x):
            shape = (x.shape[1], len(x))
            self._units = torch.empty(shape, dtype=self._dtype, device=x.device)
        units = self._units
        origin, inside = self._origin.to(x.dtype), self._inside.to(x.dtype)
        spans = cached_rows(x)
        found: list[tuple[torch.Tensor, ...]] = [()] * len(spans)

        def add_up(i: int) -> None:
            part = rounded(x[spans[i]] - origin, self._precision)
            units[:, spans[i]] = part.T
            norm = part.square() @ inside
            wide = norm.double()
            found[i] = (part.sum(dim=0), norm.sum(dim=0), part.T @ norm, wide.T @ wide)

        shared(add_up, range(len(spans)), x.numel() if x.device.type == "cpu" else 0)
        for sums in found:  # in their order, whichever thread came first
            self._sum += sums[0]
            self._norm += sums[1]
            self._sum_norm += sums[2]
            self._norm_norm += sums[3]
        return units

    def rescale(self, exponents: np.ndarray) -> None:
        """Go on with layers times other powers of two, as if always so."""
        moved = torch.as_tensor(exponents - self.exponents, device=self.device)
        self.exponents = np.array(exponents)
        if not bool(moved.any()):
            return
        by_unit = moved.repeat_interleave(
            torch.as_tensor(self.widths, device=self.device)
        )
        self._origin = shifted(self._origin, by_unit)
        self._sum = shifted(self._sum, by_unit)
        self._norm = shifted(self._norm, 2 * moved)
        both = by_unit[:, None] + 2 * moved
        self._sum_norm = shifted(self._sum_norm, both)
        self._norm_norm = shifted(self._norm_norm, 2 * (moved[:, None] + moved))
        for (rows, columns), product in zip(self._tiles, self._products, strict=True):
            a, b = by_unit[self._columns(rows)], by_unit[self._columns(columns)]
            product.copy_(shifted(product.double(), a[:, None] + b))

    def shift(self, by: torch.Tensor) -> None:
        """Carry all sums to another origin."""
        n, d = self.examples, by
        square = d.square() @ self._inside
        turned = torch.zeros_like(self._sum_norm)
        both = torch.zeros_like(self._norm_norm)
        for (rows, columns), product in zip(self._tiles, self._products, strict=True):
            a, b = self._columns(rows), self._columns(columns)
            part_a = self._inside[a, rows] * d[a, None]
            part_b = self._inside[b, columns] * d[b, None]
            # Σ x (y·d), and from it Σ (x·d)(y·d).
            right = product.double() @ part_b
            left = product.double().T @ part_a
            turned[a, columns] = right
            turned[b, rows] = left
            both[rows, columns] = part_a.T @ right
            both[columns, rows] = both[rows, columns].T.clone()
            product += torch.outer(self._sum[a], d[b]) + torch.outer(
                d[a], self._sum[b] + n * d[b]
            )
        # Σ (x·d) l and Σ x·d, by layer.
        along = self._inside.T @ (d[:, None] * self._sum_norm)
        drift = self._inside.T @ (d * self._sum)
        old = self._norm
        new = old + 2 * drift + n * square
        self._norm_norm = (
            self._norm_norm
            + 2 * (along + along.T)
            + torch.outer(square, old)
            + torch.outer(old, square)
            + 4 * both
            + 2 * (torch.outer(square, drift) + torch.outer(drift, square))
            + n * torch.outer(square, square)
        )
        self._sum_norm = (
            self._sum_norm
            + 2 * turned
            + torch.outer(self._sum, square)
            + torch.outer(d, new)
        )
        self._norm = new
        self._sum = self._sum + n * d
        self._origin = self._origin - d

    def forget(self) -> None:
        """Give back the room of a block, which else waits and travels with the sums."""
        self._units = self._units.new_empty((self._units.shape[0], 0))

    def merge(self, other: "Moments") -> None:
        """Add what other moments have seen."""
        if not other.examples:
            return
        # What is all 0 says nothing about the size of a layer.
        mine, theirs = self._is_zero(), other._is_zero()
        common = np.where(
            mine,
            other.exponents,
            np.where(
                theirs, self.exponents, np.minimum(self.exponents, other.exponents)
            ),
        )
        self.rescale(common)
        other.rescale(common)
        if not self.examples:
            self._origin = other._origin.to(self._origin.device).clone()
        other.shift(other._origin - self._origin.to(other._origin.device))
        self.examples += other.examples
        for total, added in (
            (self._sum, other._sum),
            (self._norm, other._norm),
            (self._sum_norm, other._sum_norm),
            (self._norm_norm, other._norm_norm),
            *zip(self._products, other._products, strict=True),
        ):
            total += added.to(total.device)

    def merged(self, other: "Moments") -> "Moments":
        """Add what other moments have seen, and return these."""
        self.merge(other)
        return self

    def _is_zero(self) -> np.ndarray:
        """Return which layers were 0 in all examples seen."""
        size = self._norm + self._inside.T @ self._origin.abs()
        return np.asarray((size == 0).cpu().numpy())

    def sums(self) -> Sums:
        """Return what HSIC needs, of the pairs kept."""
        self.shift(-self._sum / max(self.examples, 1))
        squares = torch.zeros_like(self._norm_norm)
        for (rows, columns), product in zip(self._tiles, self._products, strict=True):
            ends = (self._local_ends(rows), self._local_ends(columns))
            part = block_squares(product, *ends)
            squares[rows, columns] = part
            squares[columns, rows] = part.T
        # A strip's own square was multiplied twice.
        squares = (squares + squares.T) / 2
        diagonal = self._norm_norm.cpu().numpy()
        off = squares.cpu().numpy() - diagonal
        return Sums.centred(self.examples, off, diagonal, self._norm.cpu().numpy())

    def _local_ends(self, layers: slice) -> list[int]:
        """Return where layers end among their own columns."""
        return list(np.cumsum(self.widths[layers]).tolist())

    def _width(self, layers: slice) -> int:
        """Return the units of a run of layers."""
        return sum(self.widths[layers])

    def _columns(self, layers: slice) -> slice:
        """Return the columns of a run of layers."""
        stop = self._ends[layers.stop - 1]
        return slice(stop - self._width(layers), stop)


def _tiles(
    widths: Sequence[int], split: int | None, on_cpu: bool
) -> list[tuple[slice, slice]]:
    """Return the runs of layers whose products are kept."""
    runs = grouped(widths, split, WIDE)
    if split is None:
        # One triangle: each strip with itself and all after it, run by run.
        strips = grouped(widths, None, STRIP) if on_cpu else runs
        return [
            (strip, slice(max(run.start, strip.start), run.stop))
            for strip in strips
            for run in runs
            if run.stop > strip.start
        ]
    left = [run for run in runs if run.start < split]
    right = [run for run in runs if run.start >= split]
    own = [(slice(i, i + 1), slice(i, i + 1)) for i in range(len(widths))]
    return [*((a, b) for a in left for b in right), *own]
