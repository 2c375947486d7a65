"""Inner products of Gram matrices: what HSIC is made of, for all pairs of layers.

For centred X (n, p) and Y (n, q), with Gram matrices K = XXᵀ and L = YYᵀ,

    ⟨K, L⟩ = ‖XᵀY‖²,

so the sum over n² pairs of examples (sample space, 2n²(p + q) operations once a layer)
equals one over pq pairs of units (feature space, 2npq operations a pair of layers).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from repsim.measures.inputs import DTYPES, Matrix, is_constant, read

TILE = 512
"""Rows of a Gram tile: large enough for the product, small enough for the cache."""

WIDE = 2048
"""Columns that are multiplied at once in feature space."""

FEW = 128
"""Up to so many examples float64 is free, and the estimators cancel most."""


@dataclass(frozen=True)
class Sums:
    """What HSIC needs of kernel matrices K of one side and L of the other.

    Attributes
    ----------
    cross : ndarray, shape (layers_a, layers_b)
        The sum of K∘L off the diagonal, for all pairs.
    own : ndarray, shape (layers_a + layers_b,)
        The sum of K∘K off the diagonal; in a self comparison (layers_a,).
    rows : ndarray, shape (layers_a + layers_b, examples)
        Sums of the rows of K without its diagonal.
    diagonals : ndarray, shape (layers_a + layers_b, examples)
        The diagonals of K.
    """

    cross: np.ndarray
    own: np.ndarray
    rows: np.ndarray
    diagonals: np.ndarray


@dataclass(frozen=True)
class Centred:
    """One representation with its mean taken off and its scale made harmless.

    Attributes
    ----------
    x : Tensor, shape (examples, units)
        Centred, times a power of two that brings its mean square near 1, so that
        fourth powers neither overflow nor vanish in float32.
    scale : float
        That power of two.
    norms : Tensor of float64, shape (examples,)
        Squared norms of the rows of `x`, the diagonal of the Gram matrix.
    constant : bool
        Whether all rows are the same.
    """

    x: torch.Tensor
    scale: float
    norms: torch.Tensor
    constant: bool


def working_dtype(precision: str, device: str) -> torch.dtype:
    """Return the dtype of the products: bfloat16 only where it is multiplied as such.

    Parameters
    ----------
    precision : str
        What was asked for.
    device : str
        Where.

    Returns
    -------
    dtype
        float32 for bfloat16 on a CPU without such products: the values are rounded
        to bfloat16 all the same, only the speed differs.
    """
    if precision == "bfloat16" and not multiplies_bfloat16(device):
        return torch.float32
    return DTYPES[precision]


def multiplies_bfloat16(device: str) -> bool:
    """Return whether the device has products of bfloat16.

    Parameters
    ----------
    device : str
        "cpu", "cuda", …

    Returns
    -------
    bool
        True for accelerators and for CPUs with AVX512-BF16 or AMX.
    """
    if torch.device(device).type != "cpu":
        return True
    capability = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(capability is not None and capability())


def centre(source: Matrix, precision: str, device: str) -> Centred:
    """Read a representation and centre it.

    Parameters
    ----------
    source : matrix, shape (examples, units)
        The representation.
    precision : str
        Of the products.
    device : str
        Where they are computed.

    Returns
    -------
    Centred
        The representation, ready for products.
    """
    raw = read(source).to(device)
    precision = "float64" if len(raw) <= FEW else precision
    kind = torch.float64 if precision == "float64" else torch.float32
    # The first row comes off before the mean, in float64 where an offset is stored
    # in a wider type: differences of near numbers are exact, sums of them are not.
    x = (raw - raw[:1]).to(kind)
    constant = is_constant(raw)
    x -= x.mean(dim=0, keepdim=True)
    power = float(torch.linalg.vector_norm(x)) / max(x.numel(), 1) ** 0.5
    scale = 2.0 ** -round(np.log2(power)) if power > 0 and np.isfinite(power) else 1.0
    x *= scale
    if precision == "bfloat16":
        x = x.bfloat16()
    norms = x.to(kind).square().sum(dim=1).double()
    return Centred(x.to(working_dtype(precision, device)), scale, norms, constant)


def cheaper_in_samples(n: int, p: Sequence[int], q: Sequence[int] | None) -> bool:
    """Return whether sample space costs fewer operations than feature space.

    Parameters
    ----------
    n : int
        Examples.
    p, q : sequence of int
        Units of the layers on each side; `q=None` is a self comparison.

    Returns
    -------
    bool
        Whether to build Gram matrices of examples.
    """
    return operations(n, p, q, "sample") < operations(n, p, q, "feature")


def operations(n: int, p: Sequence[int], q: Sequence[int] | None, space: str) -> float:
    """Return how many operations all pairs take.

    Parameters
    ----------
    n : int
        Examples.
    p, q : sequence of int
        Units of the layers on each side; `q=None` is a self comparison.
    space : str
        "feature" or "sample".

    Returns
    -------
    float
        Floating-point operations; those in sample space count 1.2 times, because
        smaller tiles reach a smaller share of the machine's peak.
    """
    every = [*p, *(q or [])]
    if space == "sample":
        half = (n + TILE) * n / 2
        return half * (2 * 1.2 * sum(every) + 6 * len(every) ** 2)
    own = sum(min(w * w * n, n * n * w) for w in every)
    if q is None:
        return float(n * (sum(p) ** 2 + sum(w * w for w in p)))
    return float(2 * (n * sum(p) * sum(q) + own))


def feature_sums(
    xs: Sequence[Centred],
    ys: Sequence[Centred] | None,
    advance: Callable[[int], object],
) -> Sums:
    """Return the sums of linear kernels by products of units, ⟨K, L⟩ = ‖XᵀY‖².

    Parameters
    ----------
    xs, ys : sequence of Centred
        The sides; `ys=None` is a self comparison.
    advance : callable
        Told how many pairs of layers were done.

    Returns
    -------
    Sums
        In float64; rows of a centred Gram matrix add up to 0, so those without the
        diagonal are known from it.
    """
    left, right = _groups(xs), None if ys is None else _groups(ys)
    cross = np.zeros((len(xs), len(xs if ys is None else ys)))
    for i, (rows, x, ends_x) in enumerate(left):
        for columns, y, ends_y in left[i:] if right is None else right:
            part = _squares(x.T @ y, ends_x, ends_y)
            if right is None:
                cross[columns, rows] = part.T
                part = (part + part.T) / 2 if columns == rows else part
            cross[rows, columns] = part
            advance(part.size)
    own = np.diagonal(cross)
    if ys is not None:
        own = np.array([_own(side.x) for side in (*xs, *ys)])
    norms = torch.stack([side.norms for side in (*xs, *(ys or []))]).cpu().numpy()
    second = norms if ys is None else norms[len(xs) :]
    diagonal = norms[: len(xs)] @ second.T
    return Sums(cross - diagonal, own - (norms * norms).sum(1), -norms, norms)


def _groups(
    sides: Sequence[Centred],
) -> list[tuple[slice, torch.Tensor, list[int]]]:
    """Lay layers side by side until they are wide enough for a fast product."""
    groups: list[tuple[slice, torch.Tensor, list[int]]] = []
    start, width = 0, 0
    for i, side in enumerate(sides):
        width += side.x.shape[1]
        last = i + 1 == len(sides)
        if last or width + sides[i + 1].x.shape[1] > WIDE:
            members = [s.x for s in sides[start : i + 1]]
            x = members[0] if len(members) == 1 else torch.cat(members, dim=1)
            ends = np.cumsum([m.shape[1] for m in members]).tolist()
            groups.append((slice(start, i + 1), x, ends))
            start, width = i + 1, 0
    return groups


def _squares(tile: torch.Tensor, rows: list[int], columns: list[int]) -> np.ndarray:
    """Return the sum of squares of every block of a product."""
    squared = (tile if tile.dtype != torch.bfloat16 else tile.float()).square_()
    inside = _membership(columns, squared)
    thin = (squared @ inside).double()
    return (_membership(rows, thin).T @ thin).cpu().numpy()


def _membership(ends: list[int], like: torch.Tensor) -> torch.Tensor:
    """Return the indicator (units, layers) of which unit belongs to which layer."""
    inside = torch.zeros(ends[-1], len(ends), dtype=like.dtype, device=like.device)
    start = 0
    for j, end in enumerate(ends):
        inside[start:end, j] = 1
        start = end
    return inside


def _own(x: torch.Tensor) -> float:
    """Return ‖XᵀX‖² = ‖XXᵀ‖², by the smaller of the two, one triangle of blocks."""
    wide = x.T if x.shape[1] <= x.shape[0] else x
    total, step = 0.0, max(128, min(WIDE, len(wide) // 2))
    for start in range(0, len(wide), step):
        rows = wide[start : start + step]
        total += float(_squares(rows @ rows.T, [len(rows)], [len(rows)])[0, 0])
        rest = wide[start + step :]
        if len(rest):
            part = _squares(rows @ rest.T, [len(rows)], [len(rest)])
            total += 2 * float(part[0, 0])
    return total
