"""Sums over Gram matrices of examples, tile by tile: sample space, any kernel."""

from collections.abc import Sequence

import numpy as np
import torch

from repsim.measures.kernels.centred import Centred
from repsim.measures.kernels.hsic_sums import (
    TILE,
    Advance,
    LeftFactor,
    Sums,
    pair_products,
)


def linear_sums(x: Centred, split: int | None, advance: Advance) -> Sums:
    """Return the sums of linear kernels."""
    off, _ = _tiled(x, split, None, advance)
    norms = x.norms.cpu().numpy()
    return Sums.centred(norms.shape[1], off, norms @ norms.T, norms.sum(axis=1))


def kernel_sums(
    x: Centred, split: int | None, kernel: str, bandwidth: float, advance: Advance
) -> Sums:
    """Return the sums of kernels of distances, less their value at the median distance.

    Subtracting one number from all entries changes no centred sum and keeps float32
    from cancelling. NaN for a layer whose median distance is 0.
    """
    medians = [
        median_distance(layer, norms)
        for layer, norms in zip(x.layers, x.norms, strict=True)
    ]
    kernels = [
        Radial(median, bandwidth) if kernel == "rbf" else Linear(median)
        for median in medians
    ]
    off, rows = _tiled(x, split, kernels, advance)
    n = rows.shape[1]
    top = kernels[0].top
    full = rows + top
    return Sums(
        examples=n,
        off=off,
        diagonal=np.full_like(off, n * top**2),
        rows=rows @ rows.T,
        totals=rows.sum(axis=1),
        full_rows=full @ full.T,
        full_totals=full.sum(axis=1),
    )


class Radial:
    """exp(−d²/2σ²) less its value at the median distance."""

    def __init__(self, median: torch.Tensor, bandwidth: float) -> None:
        exponent = -0.5 / (bandwidth * median) ** 2
        self.exponent = torch.where(median > 0, exponent, torch.nan)
        self.middle = float(np.exp(-0.5 / bandwidth**2))
        self.top = 1.0 - self.middle

    def apply(
        self, tile: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor
    ) -> None:
        """Turn inner products into kernel values, in place."""
        squared_distances(tile, rows, columns)
        tile.mul_(self.exponent).exp_().sub_(self.middle)


class Linear:
    """1 − d in median distances."""

    top = 1.0

    def __init__(self, median: torch.Tensor) -> None:
        self.slope = torch.where(median > 0, -1 / median, torch.nan)

    def apply(
        self, tile: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor
    ) -> None:
        """Turn inner products into kernel values, in place."""
        squared_distances(tile, rows, columns)
        tile.sqrt_().mul_(self.slope).add_(1)


def squared_distances(
    tile: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor
) -> None:
    """Turn inner products into squared distances, in place."""
    tile.mul_(-2).add_(rows[:, None].to(tile.dtype))
    tile.add_(columns[None, :].to(tile.dtype)).clamp_(min=0)


def median_distance(x: torch.Tensor, norms: torch.Tensor) -> torch.Tensor:
    """Return the median distance between two different examples, where they are."""
    n, parts = len(x), []
    for i in range(0, n, TILE):
        tile = LeftFactor(x[i : i + TILE]).times(x[i:])
        tile = tile.float() if tile.dtype == torch.bfloat16 else tile
        squared_distances(tile, norms[i : i + TILE], norms[i:])
        upper = torch.ones_like(tile, dtype=torch.bool).triu_(1)
        parts.append(tile[upper])
    return middle(torch.cat(parts)).double().sqrt().mean()


def middle(values: torch.Tensor, device: str | None = None) -> torch.Tensor:
    """Return the two numbers in the middle of some; the processor's own way is NumPy's.

    Twice as fast as torch's there; elsewhere nothing leaves the device.
    """
    low, high = (len(values) - 1) // 2, len(values) // 2
    if (device or values.device.type) == "cpu":
        places = [low, high]
        return torch.from_numpy(np.partition(values.numpy(), places)[places])
    return torch.stack([values.kthvalue(k + 1).values for k in (low, high)])


def _tiled(
    x: Centred,
    split: int | None,
    kernels: Sequence[Radial | Linear] | None,
    advance: Advance,
) -> tuple[np.ndarray, np.ndarray]:
    """Sum products of all pairs of kernels over one triangle of tiles.

    Sums stay where the tiles are: each number fetched would wait for all before it.
    """
    layers, norms = x.layers, x.norms
    count, n = norms.shape
    off = torch.zeros(count, count, dtype=torch.float64, device=norms.device)
    sums = torch.zeros(count, n, dtype=torch.float64, device=norms.device)
    buffer = torch.empty(
        count * min(TILE, n) ** 2, dtype=layers[0].dtype, device=layers[0].device
    )
    for i in range(0, n, TILE):
        for j in range(i, n, TILE):
            rows, columns = slice(i, min(i + TILE, n)), slice(j, min(j + TILE, n))
            high, wide = rows.stop - i, columns.stop - j
            tiles = buffer[: count * high * wide].view(count, high, wide)
            for layer, tile in zip(layers, tiles, strict=True):
                LeftFactor(layer[rows]).times(layer[columns], out=tile)
            tiles = tiles.float() if tiles.dtype == torch.bfloat16 else tiles
            if kernels is not None:
                for tile, norm, kernel in zip(tiles, norms, kernels, strict=True):
                    kernel.apply(tile, norm[rows], norm[columns])
            if i == j:
                tiles.diagonal(dim1=1, dim2=2).zero_()
            if kernels is not None:
                sums[:, rows] += tiles.sum(dim=2).double()
                if i != j:
                    sums[:, columns] += tiles.sum(dim=1).double()
            part = pair_products(tiles.reshape(count, -1), split)
            off += part if i == j else 2 * part
            advance(1)
    return off.cpu().numpy(), sums.cpu().numpy()
