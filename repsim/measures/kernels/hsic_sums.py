"""Inner products of Gram matrices: what HSIC is made of, for all pairs of layers.

For centred X (n, p) and Y (n, q), with Gram matrices K = XXᵀ and L = YYᵀ,

    ⟨K, L⟩ = ‖XᵀY‖²,

so the sum over n² pairs of examples (sample space, 2n²(p + q) operations once a layer)
equals one over pq pairs of units (feature space, 2npq operations a pair of layers).
"""

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch

from repsim.core.threads import shared
from repsim.measures.kernels.centred import Centred, Group, membership

TILE = 512
"""Rows of a Gram tile: large enough for the product, small enough for the cache."""

WORTH = 1 << 22
"""Multiplications from which another routine repays preparing its left side."""

Advance = Callable[[int], object]
"""Told how much was done, for a bar."""


@cache
def intel() -> bool:
    """Return whether `torch.mm` is at its best here.

    It calls MKL, which on other makers' processors takes twice as long as oneDNN; on
    Intel's it is a tenth faster and needs no copies.
    """
    known = Path("/proc/cpuinfo")
    name = known.read_text() if known.exists() else platform.processor()
    return "GenuineIntel" in name


class LeftFactor:
    """The left side of products x yᵀ, prepared once for several right sides."""

    def __init__(self, x: torch.Tensor) -> None:
        self._x = x
        there = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        single = x.device.type == "cpu" and x.dtype == torch.float32
        self._able = single and there and not intel()
        self._prepared: torch.Tensor | None = None

    def times(
        self,
        y: torch.Tensor,
        offsets: torch.Tensor | None = None,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return x yᵀ + offsets."""
        if self._able and self._x.numel() * len(y) >= WORTH:
            if self._prepared is None:
                self._prepared = self._x.to_mkldnn()
            product = torch.nn.functional.linear(self._prepared, y, offsets).to_dense()
            return product if out is None else out.copy_(product)
        if offsets is None:
            return torch.mm(self._x, y.T, out=out)
        return torch.addmm(offsets, self._x, y.T, out=out)

    def add_to(self, total: torch.Tensor, y: torch.Tensor) -> None:
        """Add x yᵀ to a total, without another matrix as large where that can be."""
        if self._able or total.dtype != self._x.dtype:
            total += self.times(y)
        else:
            total.addmm_(self._x, y.T)


@dataclass(frozen=True)
class Sums:
    """What HSIC needs of the kernel matrices K and L of every pair of layers.

    With K̃ the matrix K without its diagonal; all arrays are over (layers, layers) or
    (layers,), in float64. Pairs that nobody asked for are left at 0.
    """

    examples: int
    off: np.ndarray
    diagonal: np.ndarray
    rows: np.ndarray
    totals: np.ndarray
    full_rows: np.ndarray
    full_totals: np.ndarray

    @classmethod
    def centred(
        cls, examples: int, off: np.ndarray, diagonal: np.ndarray, traces: np.ndarray
    ) -> "Sums":
        """Return the sums where rows of K add up to 0, so those of K̃ to −diagonal."""
        nothing = np.zeros_like(diagonal)
        none = np.zeros_like(traces)
        return cls(examples, off, diagonal, diagonal, -traces, nothing, none)

    def hsic(self, debiased: bool) -> tuple[np.ndarray, np.ndarray]:
        """Return HSIC of every pair of layers, and of each with itself."""
        n = self.examples
        if debiased:
            size, rows, totals = self.off, self.rows, self.totals
            row_weight, total_weight = 2 / (n - 2), 1 / ((n - 1) * (n - 2))
            scale = n * (n - 3)
        else:
            size = self.off + self.diagonal
            rows, totals = self.full_rows, self.full_totals
            row_weight, total_weight, scale = 2 / n, 1 / n**2, (n - 1) ** 2
        values = size - row_weight * rows + total_weight * np.outer(totals, totals)
        own = np.diagonal(values)
        noise = 1e-13 * (np.diagonal(size) + np.diagonal(self.diagonal))
        own = np.where(own > noise, own, np.nan)
        return np.asarray(values / scale), own / scale


def feature_sums(x: Centred, split: int | None, advance: Advance) -> Sums:
    """Return the sums of linear kernels by products of units, ⟨K, L⟩ = ‖XᵀY‖²."""
    # Added up where the products are: one number fetched is a wait for all before it.
    shape, place = (x.count, x.count), x.norms.device
    squares = torch.zeros(shape, dtype=torch.float64, device=place)

    def multiply(job: tuple[Group, Group] | Group) -> None:
        if isinstance(job, Group):
            squares.diagonal()[job.layers] = own_squares(job)
            return
        a, b = job
        part = block_squares(LeftFactor(a.x.T).times(b.x.T), a.ends, b.ends)
        squares[a.layers, b.layers] = part
        if split is None:
            squares[b.layers, a.layers] = part.T
        advance(part.numel())

    jobs: list[tuple[Group, Group] | Group] = []
    for i, group in enumerate(x.groups):
        left = split is None or group.layers.start < split
        others = x.groups[i + 1 :] if split is None else x.groups
        for strip in group.strips() if left else ():
            if split is None:
                jobs.append((strip, group.cut(strip.layers.start, group.layers.stop)))
            jobs += [(strip, b) for b in others if b.layers.start >= (split or 0)]
        if split is not None:
            jobs.append(group)
    on_cpu = place.type == "cpu"
    shared(multiply, jobs, sum(g.x.numel() for g in x.groups) if on_cpu else 0)
    if split is None:  # A strip's own square was multiplied twice.
        squares = (squares + squares.T) / 2
    norms = x.norms.cpu().numpy()
    diagonal = norms @ norms.T
    off = squares.cpu().numpy() - diagonal
    return Sums.centred(norms.shape[1], off, diagonal, norms.sum(1))


def pair_products(flat: torch.Tensor, split: int | None) -> torch.Tensor:
    """Return inner products of rows: of all pairs, or across the split and of each."""
    if split is None:
        return (flat @ flat.T).double()
    shape = (len(flat), len(flat))
    products = torch.zeros(shape, dtype=torch.float64, device=flat.device)
    products[:split, split:] = flat[:split] @ flat[split:].T
    for i, row in enumerate(flat):
        products[i, i] = row @ row
    return products


def block_squares(
    product: torch.Tensor, rows: Sequence[int], columns: Sequence[int]
) -> torch.Tensor:
    """Return the sum of squares of every block of a product, wherever it lies.

    Each is added up in the same order, so that equal layers have equal numbers.
    """
    wide = product.float() if product.dtype == torch.bfloat16 else product
    starts, count = [0, *columns[:-1]], len(columns)
    if all(
        end - start == columns[0] for start, end in zip(starts, columns, strict=True)
    ):
        lengths = torch.linalg.vector_norm(wide.view(len(wide), count, -1), dim=2)
    else:
        lengths = torch.empty(len(wide), count, dtype=wide.dtype, device=wide.device)
        for i, (start, end) in enumerate(zip(starts, columns, strict=True)):
            torch.linalg.vector_norm(wide[:, start:end], dim=1, out=lengths[:, i])
    thin = lengths.double().square_()
    blocks: torch.Tensor = membership(rows, thin).T @ thin
    return blocks


def own_squares(group: Group) -> torch.Tensor:
    """Return ‖XᵀX‖² of every layer of a group, in one call where all are narrow."""
    parts = group.parts()
    (n, width), same = parts[0].shape, len({part.shape[1] for part in parts}) == 1
    if len(parts) == 1 or not same or width > min(n, TILE // 4):
        return torch.stack([own_square(part) for part in parts])
    rows = group.x.float() if group.x.dtype == torch.bfloat16 else group.x
    layers = rows.T.reshape(len(parts), width, n)
    own = torch.bmm(layers, layers.transpose(1, 2))
    lengths = torch.linalg.vector_norm(own, dim=2).double()
    squares: torch.Tensor = lengths.square().sum(dim=1)
    return squares


def own_square(x: torch.Tensor) -> torch.Tensor:
    """Return ‖XᵀX‖² = ‖XXᵀ‖², by the smaller of the two, one triangle of blocks."""
    # torch rounds products of bfloat16 to it; over few of them this does not average.
    x = x.float() if x.dtype == torch.bfloat16 and min(x.shape) <= TILE // 2 else x
    wide = x.T if x.shape[1] <= x.shape[0] else x
    total = torch.zeros((), dtype=torch.float64, device=x.device)
    step = max(128, min(4 * TILE, -(-len(wide) // 4)))
    for start in range(0, len(wide), step):
        part, rest = wide[start : start + step], wide[start + step :]
        rows = LeftFactor(part)
        total += _square(rows.times(part))
        if len(rest):
            total += 2 * _square(rows.times(rest))
    return total


def _square(x: torch.Tensor) -> torch.Tensor:
    """Return the sum of squares, added up in float64 over rows."""
    x = x.float() if x.dtype == torch.bfloat16 else x
    rows: torch.Tensor = torch.linalg.vector_norm(x, dim=1).double()
    return rows.square().sum()


def operations(n: int, p: Sequence[int], q: Sequence[int] | None, space: str) -> float:
    """Return how many operations all pairs take."""
    every = [*p, *(q or [])]
    if space == "sample":
        half = (n + TILE) * n / 2
        return half * (2 * 1.2 * sum(every) + 6 * len(every) ** 2)
    own = sum(min(w * w * n, n * n * w) for w in every)
    if q is None:
        return float(n * (sum(p) ** 2 + sum(w * w for w in p)))
    return float(2 * n * sum(p) * sum(q) + 1.25 * own)
