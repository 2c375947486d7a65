"""Sums over Gram matrices of examples, tile by tile: sample space, any kernel."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from repsim.measures.products import TILE, Centred, Sums


def linear_sums(
    xs: Sequence[Centred],
    ys: Sequence[Centred] | None,
    advance: Callable[[int], object],
) -> Sums:
    """Return the sums of linear kernels.

    Parameters
    ----------
    xs, ys : sequence of Centred
        The sides; `ys=None` is a self comparison.
    advance : callable
        Told how many tiles were done.

    Returns
    -------
    Sums
        In float64; rows of a centred Gram matrix add up to 0, so those without the
        diagonal are known from it.
    """
    every = [*xs, *(ys or [])]
    off, _ = _tiled(every, None, advance)
    norms = torch.stack([side.norms for side in every]).cpu().numpy()
    return Sums(_cross(off, len(xs), ys), np.diagonal(off), -norms, norms)


def radial_sums(
    xs: Sequence[Centred],
    ys: Sequence[Centred] | None,
    bandwidth: float,
    advance: Callable[[int], object],
) -> Sums:
    """Return the sums of RBF kernels, less the kernel's value at the median distance.

    Subtracting one number from all entries changes no centred sum and keeps float32
    from cancelling.

    Parameters
    ----------
    xs, ys : sequence of Centred
        The sides; `ys=None` is a self comparison.
    bandwidth : float
        In median distances.
    advance : callable
        Told how many tiles were done.

    Returns
    -------
    Sums
        In float64; NaN for a layer whose median distance is 0.
    """
    every = [*xs, *(ys or [])]
    kernels = [Radial(median_distance(side), bandwidth) for side in every]
    off, rows = _tiled(every, kernels, advance)
    n = rows.shape[1]
    top = np.array([[1.0 - kernel.middle] for kernel in kernels])
    diagonals = np.repeat(top, n, axis=1)
    return Sums(_cross(off, len(xs), ys), np.diagonal(off), rows, diagonals)


def _cross(every: np.ndarray, count: int, ys: Sequence[Centred] | None) -> np.ndarray:
    """Return the block between both sides of a matrix over all layers."""
    return every if ys is None else every[:count, count:]


class Radial:
    """exp(−d²/2σ²) less its value at the median distance.

    Parameters
    ----------
    median : float
        The median distance between examples.
    bandwidth : float
        σ in median distances.
    """

    def __init__(self, median: float, bandwidth: float) -> None:
        self.exponent = -0.5 / (bandwidth * median) ** 2 if median > 0 else float("nan")
        self.middle = float(np.exp(-0.5 / bandwidth**2))

    def apply(
        self, tile: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor
    ) -> torch.Tensor:
        """Turn inner products into kernel values, in place."""
        squared_distances(tile, rows, columns)
        return tile.mul_(self.exponent).exp_().sub_(self.middle)


def squared_distances(
    tile: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor
) -> torch.Tensor:
    """Turn inner products into squared distances, in place.

    Parameters
    ----------
    tile : Tensor, shape (rows, columns)
        Inner products of centred representations.
    rows, columns : Tensor
        Squared norms.

    Returns
    -------
    Tensor
        `tile`.
    """
    tile.mul_(-2).add_(rows[:, None].to(tile.dtype))
    return tile.add_(columns[None, :].to(tile.dtype)).clamp_(min=0)


def median_distance(side: Centred) -> float:
    """Return the median distance between two different examples.

    Parameters
    ----------
    side : Centred
        A representation.

    Returns
    -------
    float
        In the units of `side.x`.
    """
    n = len(side.x)
    squared = []
    for i in range(0, n, TILE):
        rows = side.x[i : i + TILE]
        tile = _product(rows, side.x[i:])
        squared_distances(tile, side.norms[i : i + TILE], side.norms[i:])
        upper = torch.ones_like(tile, dtype=torch.bool).triu_(1)
        squared.append(tile[upper].cpu().numpy())
    values = np.concatenate(squared)
    low, high = (len(values) - 1) // 2, len(values) // 2
    middle = np.partition(values, (low, high))[[low, high]].astype(np.float64)
    return float(np.sqrt(middle).mean())


def _product(rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Return inner products in at least float32."""
    tile = rows @ columns.T
    return tile.float() if tile.dtype == torch.bfloat16 else tile


def _tiled(
    xs: Sequence[Centred],
    kernels: Sequence[Radial] | None,
    advance: Callable[[int], object],
) -> tuple[np.ndarray, np.ndarray]:
    """Sum products of all pairs of kernels over one triangle of tiles."""
    n, count = len(xs[0].x), len(xs)
    off, sums = np.zeros((count, count)), np.zeros((count, n))
    kind = xs[0].x.dtype
    buffer = torch.empty(count * TILE * TILE, dtype=kind, device=xs[0].x.device)
    for i in range(0, n, TILE):
        for j in range(i, n, TILE):
            rows, columns = slice(i, min(i + TILE, n)), slice(j, min(j + TILE, n))
            shape = (count, rows.stop - i, columns.stop - j)
            tiles = buffer[: np.prod(shape)].view(shape)
            for side, tile in zip(xs, tiles, strict=True):
                torch.mm(side.x[rows], side.x[columns].T, out=tile)
            tiles = tiles.float() if kind == torch.bfloat16 else tiles
            if kernels is not None:
                for side, tile, kernel in zip(xs, tiles, kernels, strict=True):
                    kernel.apply(tile, side.norms[rows], side.norms[columns])
            if i == j:
                tiles.diagonal(dim1=1, dim2=2).zero_()
            if kernels is not None:
                sums[:, rows] += tiles.sum(dim=2).double().cpu().numpy()
                if i != j:
                    sums[:, columns] += tiles.sum(dim=1).double().cpu().numpy()
            flat = tiles.reshape(count, -1)
            part = (flat @ flat.T).double().cpu().numpy()
            off += part if i == j else 2 * part
            advance(1)
    return off, sums
