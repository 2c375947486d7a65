"""CKA of wide layers from random projections, with its standard error."""

from collections.abc import Sequence

import numpy as np
import torch

from repsim.core.messages import flag, seed_number, whole
from repsim.core.threads import shared
from repsim.measures.kernels import hsic_matrix
from repsim.measures.kernels.centred import cached_rows
from repsim.measures.magnitudes import exponent, near_one, shifted
from repsim.measures.matrices import Matrix, check_finite, note_constant, read

GROUPS = 8
"""Independent parts of a sketch; their spread gives the standard error."""

BLOCK = 1 << 26
"""Numbers of a layer that are read at once."""

PROJECTED = 1 << 19
"""Numbers that a thread projects at once: a product large enough, near the cache."""


def sketched_cka(
    xs: Sequence[Matrix],
    ys: Sequence[Matrix] | None,
    *,
    sketch: int,
    seed: int = 0,
    precision: str = "float32",
    device: str = "cpu",
    debiased: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Return linear CKA of all pairs from `sketch` random directions, and its error.

    With Gaussian Ω of k columns, E XΩΩᵀXᵀ/k = XXᵀ, and HSIC is linear in either Gram
    matrix: between independent Ω it stays unbiased, so that of a layer with itself is
    taken between different parts of its sketch only. The ratio is corrected, and its
    error found, by leaving out one part of all layers after the other (jackknife).
    """
    sketch, seed = whole(sketch, "sketch", 2 * GROUPS), seed_number(seed)
    debiased = flag(debiased, "debiased")
    every = [*xs, *(ys or [])]
    width = -(-sketch // GROUPS)
    parts: list[torch.Tensor] = []
    for i, source in enumerate(every):
        parts += _parts(source, width, np.random.default_rng([seed, i]), device)
    values, _, exponents = hsic_matrix(
        parts,
        None,
        precision=precision,
        device=device,
        progress=False,
        kernel="linear",
        debiased=debiased,
        bandwidth=1.0,
    )
    values = np.ldexp(values, -2 * np.add.outer(exponents, exponents))
    count = len(every)
    cells = values.reshape(count, GROUPS, count, GROUPS).transpose(0, 2, 1, 3)
    second = slice(None) if ys is None else slice(len(xs), None)
    left = slice(None) if ys is None else slice(0, len(xs))
    whole_one = _ratio(cells, np.arange(GROUPS))[left, second]
    without = np.stack(
        [
            _ratio(cells, np.delete(np.arange(GROUPS), g))[left, second]
            for g in range(GROUPS)
        ]
    )
    mean = without.mean(axis=0)
    error = np.sqrt((GROUPS - 1) * ((without - mean) ** 2).mean(axis=0))
    corrected = GROUPS * whole_one - (GROUPS - 1) * mean
    if ys is None:
        # A layer is itself: nothing is estimated there.
        own = np.where(np.isfinite(np.diagonal(corrected)), 1.0, np.nan)
        np.fill_diagonal(corrected, own)
        np.fill_diagonal(error, np.where(np.isfinite(own), 0.0, np.nan))
    return np.clip(corrected, -1, 1), error


def _ratio(cells: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Return CKA from the HSIC of parts, (layers, layers, parts, parts)."""
    cells = cells[:, :, kept[:, None], kept]
    apart = ~np.eye(len(kept), dtype=bool)
    values = cells.mean(axis=(2, 3))
    own = np.array([cells[i, i][apart].mean() for i in range(len(cells))])
    # Of a layer with itself only different parts are independent.
    np.fill_diagonal(values, own)
    size = np.sqrt(np.where(own > 0, own, np.nan))
    return np.asarray(values / np.outer(size, size))


def _parts(
    source: Matrix, width: int, rng: np.random.Generator, device: str
) -> list[torch.Tensor]:
    """Return the independent projections of one layer, read block by block."""
    n, units = int(source.shape[0]), int(source.shape[1])
    directions = torch.as_tensor(rng.normal(size=(units, GROUPS * width)))
    first = read(source, 0, 1).to(device)
    dtype = torch.float64 if first.dtype == torch.float64 else torch.float32
    first, directions = first.to(dtype), directions.to(device, dtype)
    made = torch.empty(n, directions.shape[1], dtype=dtype, device=device)
    rows = max(1, BLOCK // units)
    flat, by = True, 0
    for start in range(0, n, rows):
        raw = read(source, start, min(n, start + rows), check=False)
        block, out = raw.to(device).to(dtype), made[start : start + rows]
        by = exponent(block - first) if start == 0 else by

        def project(
            span: slice,
            block: torch.Tensor = block,
            out: torch.Tensor = out,
            by: int = by,
        ) -> None:
            torch.mm(shifted(block[span] - first, by), directions, out=out[span])

        on_cpu = made.device.type == "cpu"
        shared(project, cached_rows(block, PROJECTED), block.numel() if on_cpu else 0)
        if not bool(torch.isfinite(out.sum())):
            check_finite(raw, getattr(source, "what", "the representation"))
        flat = flat and not bool(out.any()) and bool((block == first).all())
    note_constant(source, flat)
    projected = near_one(made, dtype)[0]
    return list(torch.split(projected, width, dim=1))
