"""Distances that independent repetitions agree on: unbiased by their noise."""

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from numpy.typing import ArrayLike

from repsim.core.devices import device_named, multiplying
from repsim.core.messages import unknown
from repsim.measures.dissimilarity.covariance import (
    Whitening,
    checked,
    noise_covariance,
    whitener,
)
from repsim.measures.dissimilarity.triangle import lengths, triangle
from repsim.measures.magnitudes import shifted
from repsim.measures.matrices import Nan, as_tensor, check_finite

_PRECISIONS = {"float64": torch.float64, "float32": torch.float32}


def crossnobis(
    folds: ArrayLike | torch.Tensor | xr.DataArray | Sequence[xr.DataArray],
    *,
    noise: ArrayLike | str | None = None,
    precision: str | None = None,
    device: str = "auto",
    nan: Nan = "raise",
) -> np.ndarray | xr.DataArray:
    r"""Return cross-validated squared Mahalanobis distances of all pairs of examples.

    .. math:: d_{ij} = \frac{1}{F (F - 1)} \sum_{f \ne g}
        (x_{fi} - x_{fj})^T \Sigma^{-1} (x_{gi} - x_{gj})

    summed over units. Noise that is independent between folds averages out: the
    expectation is the distance of the noiseless patterns, and single values can be
    negative.

    Parameters
    ----------
    folds : array_like or Tensor, shape (fold, example, unit), or DataArrays
        Repetitions of the same examples: two or more folds, three or more examples. A
        sequence of DataArrays, dims (example, unit), is matched by `example`; examples
        may be missing from a fold or stand in it several times.
    noise : None, array_like or "heldout"
        Σ. None is the identity. A covariance, shape (unit, unit), is taken as
        independent of the folds: from rests of a regression, say, or other
        recordings. One a fold, shape (fold, unit, unit): a pair of folds gets their
        mean. "heldout": each pair of folds gets the covariance of the *other* folds'
        residuals (`repsim.noise_covariance`), for which four folds or more are needed.
    precision : {"float64", "float32"}, optional
        Of the products and of the result; by default that of `folds`, and float32
        for half types.
    device : str
        "auto" takes an accelerator where there is one.
    nan : {"raise", "omit"}
        Whether an example that holds NaN is an error, or missing from that fold.

    Returns
    -------
    ndarray or DataArray, shape (n (n - 1) / 2,)
        In scipy's pair order; a DataArray with `example_a`, `example_b` where the
        folds have ids. NaN for a pair that no two folds tell about. rsatoolbox's
        values are these divided by the number of units.

    Raises
    ------
    ValueError
        If there are fewer than two folds (four for "heldout") or three examples,
        values are not finite, or a covariance does not fit or cannot be inverted.

    Notes
    -----
    None, an independent covariance and "heldout" are unbiased: where two examples do
    not differ, the mean of their distance is zero. A covariance from the *same* folds
    is not, whatever its shrinkage, since the noise that it takes out is the noise it
    has seen. Where examples are missing, inner products are averaged over all pairs
    of observations from different folds, as in rsatoolbox; take each fold's common
    offset off first.

    References
    ----------
    Walther et al. (2016). Reliability of dissimilarity measures for multi-voxel
    pattern analysis. NeuroImage 137, 188–200.
    https://doi.org/10.1016/j.neuroimage.2015.12.012

    Examples
    --------
    >>> folds = [[[0.0], [1.0], [3.0]], [[0.0], [2.0], [3.0]]]
    >>> crossnobis(folds)
    array([2., 9., 2.])
    """
    if nan not in ("raise", "omit"):
        raise ValueError(unknown("nan", nan, ["raise", "omit"]))
    parts, codes, names = _observations(folds, nan)
    if precision is None:
        wide = any(part.dtype == torch.float64 for part in parts)
        precision = "float64" if wide else "float32"
    if precision not in _PRECISIONS:
        raise ValueError(unknown("precision", precision, _PRECISIONS))
    where = device_named(device)
    exponent = 0
    if noise is None:
        exponent = _exponent(parts)
        parts = [shifted(part, -exponent) for part in parts]
    whole = all(np.array_equal(code, np.arange(len(names))) for code in codes)
    dtype = _PRECISIONS[precision] if whole else torch.float64
    parts = [part.to(where, dtype) for part in parts]
    if isinstance(noise, str) and noise != "heldout":
        raise ValueError(unknown("noise", noise, ["heldout"]))
    sigmas = None if isinstance(noise, str) else _covariances(noise, parts)
    if isinstance(noise, str):
        _expect_four(parts)
    if sigmas is not None and len(sigmas) == 1:
        turn = whitener(sigmas[0])
        parts = [turn(part, centre=whole) for part in parts]
        sigmas = None
    with multiplying("float32", where):
        if sigmas is None and not isinstance(noise, str):
            values = (
                _distances(torch.stack(parts))
                if whole
                else _unbalanced(parts, codes, len(names), [(None, slice(None))])
            )
        else:
            pairs = list(_whitenings(parts, codes, sigmas))
            if whole:
                both = [
                    _distances(turn(torch.stack([parts[f], parts[g]])))
                    for turn, (f, g) in pairs
                ]
                values = np.mean(both, axis=0)
            else:
                values = _unbalanced(parts, codes, len(names), pairs)
    if exponent:
        values = _scaled_back(values, exponent, precision)
    values = values.astype(precision, copy=False)
    return values if isinstance(names, range) else _named(values, names)


def _distances(x: torch.Tensor) -> np.ndarray:
    """Return the distances by one product of the folds' mean and contrasts.

    The matrix of all ordered pairs of different folds, 11ᵀ − I, has the eigenvalues
    F − 1 (the mean) and −1 (F − 1 contrasts): with the folds turned to these, side by
    side, F products do instead of F (F − 1).
    """
    folds, n, units = x.shape
    start = torch.cat([torch.ones(folds, 1), torch.eye(folds)[:, : folds - 1]], 1)
    basis, _ = torch.linalg.qr(start.to(x))
    turned = x.new_empty(n, folds, units)
    for k in range(folds):
        turned[:, k] = torch.tensordot(basis[:, k], x, 1)
    # A common offset of a fold is no distance, but it would cost digits.
    turned -= turned.mean(0)
    weights = x.new_full((folds,), -1 / (folds * (folds - 1)))
    weights[0] = 1 / folds
    own = (lengths(turned).square() @ weights.double()).to(x.dtype)
    rows = turned.reshape(n, folds * units)
    return triangle(rows, -2 * weights.repeat_interleave(units), own, own)


def _unbalanced(
    parts: list[torch.Tensor],
    codes: list[np.ndarray],
    n: int,
    pairs: Sequence[tuple[Whitening | None, Any]],
) -> np.ndarray:
    """Return distances from inner products averaged over pairs of observations.

    Sums of an example's observations in each fold do for all of them: those of
    different folds are the product of the totals less the folds' own.
    """
    sums, counts = [], []
    for part, code in zip(parts, codes, strict=True):
        where = torch.from_numpy(code).to(part.device)
        sums.append(part.new_zeros(n, part.shape[1]).index_add_(0, where, part))
        counts.append(torch.bincount(where, minlength=n).double())
    total = parts[0].new_zeros(n, n)
    times = torch.zeros_like(total)
    for turn, chosen in pairs:
        if turn is None:
            some, several = torch.stack(sums), torch.stack(counts)
        else:
            some = turn(torch.stack([sums[k] for k in chosen]), centre=False)
            several = torch.stack([counts[k] for k in chosen])
        for across, values in ((total, some), (times, several[..., None])):
            across += values.sum(0) @ values.sum(0).T
            across -= torch.einsum("fiu,fju->ij", values, values)
    products = (total / times).cpu().numpy()
    products[times.cpu().numpy() < 0.5] = np.nan
    own = np.diagonal(products)
    i, j = np.triu_indices(n, 1)
    return np.asarray(own[i] + own[j] - 2 * products[i, j])


def _whitenings(
    parts: list[torch.Tensor], codes: list[np.ndarray], sigmas: torch.Tensor | None
) -> Iterator[tuple[Whitening, tuple[int, int]]]:
    """Yield pairs of folds with their whitening, by their own or the others' noise."""
    for f, g in combinations(range(len(parts)), 2):
        if sigmas is None:
            others = [k for k in range(len(parts)) if k not in (f, g)]
            left = _residuals([parts[k] for k in others], [codes[k] for k in others])
            sigma = torch.from_numpy(noise_covariance(left[0], dof=left[1]))
        else:
            sigma = (sigmas[f] + sigmas[g]) / 2
        yield whitener(sigma), (f, g)


def _residuals(
    parts: list[torch.Tensor], codes: list[np.ndarray]
) -> tuple[np.ndarray, int]:
    """Return what observations leave about their example's mean, and its freedom."""
    rows = torch.cat(parts).double().cpu().numpy()
    _, kind, times = np.unique(
        np.concatenate(codes), return_inverse=True, return_counts=True
    )
    means = np.zeros((len(times), rows.shape[1]))
    np.add.at(means, kind, rows)
    left = rows - (means / times[:, None])[kind]
    freedom = len(rows) - len(times)
    if freedom < 1:
        msg = (
            "Expected every two folds to leave examples that repeat in the others for "
            "noise='heldout', but got none; pass a covariance."
        )
        raise ValueError(msg)
    return left[times[kind] > 1], freedom


def _covariances(
    noise: ArrayLike | None, parts: list[torch.Tensor]
) -> torch.Tensor | None:
    """Return one covariance for all folds or one for each, (k, unit, unit)."""
    if noise is None:
        return None
    units = parts[0].shape[1]
    given = [noise] if np.ndim(noise) == 2 else list(noise)  # type: ignore[arg-type]
    if len(given) not in (1, len(parts)):
        msg = (
            f"Expected `noise` to be one covariance or one for each of {len(parts)} "
            f"folds, but got {len(given)}."
        )
        raise ValueError(msg)
    return torch.stack([checked(sigma, units) for sigma in given])


def _expect_four(parts: list[torch.Tensor]) -> None:
    if len(parts) < 4:
        msg = (
            "Expected at least four folds for noise='heldout', which whitens two by "
            f"the residuals of the others, but got {len(parts)}; pass a covariance "
            "that is independent of the folds, or None."
        )
        raise ValueError(msg)


def _exponent(parts: list[torch.Tensor]) -> int:
    """Return the largest number's exponent of two, 0 where its square is in range."""
    peak = max(float(part.abs().max()) if part.numel() else 0.0 for part in parts)
    exponent = int(np.frexp(peak)[1])
    narrow = any(part.dtype != torch.float64 for part in parts)
    return exponent if abs(exponent) > (40 if narrow else 400) else 0


def _scaled_back(values: np.ndarray, exponent: int, precision: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        wide = np.ldexp(values.astype(np.float64), 2 * exponent)
    size = np.nanmax(np.abs(wide), initial=0.0)
    limits = np.finfo(precision)
    if size > limits.max or size < limits.tiny < np.nanmax(np.abs(values), initial=0.0):
        msg = (
            f"Expected distances that {precision} holds, but got some near "
            f"2^{2 * exponent}; multiply the folds by a power of two first."
        )
        raise ValueError(msg)
    return wide


def _observations(
    folds: Any, nan: str
) -> tuple[list[torch.Tensor], list[np.ndarray], range | pd.Index]:
    """Return each fold's rows, which example each is of, and the examples' ids."""
    if isinstance(folds, xr.DataArray) and folds.ndim == 3 and "example" in folds.dims:
        first = next(d for d in ("fold", *folds.dims) if d in folds.dims)
        folds = folds.transpose(first, "example", ...)
        folds = list(folds) if "example" in folds.coords else folds.values
    if isinstance(folds, xr.DataArray):
        folds = folds.values
    labelled = isinstance(folds, Sequence) and all(
        isinstance(fold, xr.DataArray) and "example" in fold.coords for fold in folds
    )
    if labelled:
        parts, labels = [], []
        for fold in folds:
            fold = fold.transpose("example", ...)
            parts.append(as_tensor(fold.values))
            labels.append(fold["example"].values)
        known = pd.Index(pd.unique(np.concatenate(labels)))
        names: range | pd.Index = known
        codes = [known.get_indexer(part) for part in labels]
        # In one order, so that complete folds need no bookkeeping.
        orders = [np.argsort(code, kind="stable") for code in codes]
        parts = [p[torch.from_numpy(o)] for p, o in zip(parts, orders, strict=True)]
        codes = [np.asarray(c[o]) for c, o in zip(codes, orders, strict=True)]
    else:
        given = as_tensor(folds if isinstance(folds, torch.Tensor) else _stacked(folds))
        if given.ndim != 3:
            raise ValueError(_shape(tuple(given.shape)))
        parts, names = list(given), range(given.shape[1])
        codes = [np.arange(len(names)) for _ in parts]
    shapes = {tuple(part.shape[1:]) for part in parts}
    units = next(iter(shapes)) if len(shapes) == 1 else ()
    if len(parts) < 2 or len(names) < 3 or len(units) != 1 or not units[0]:
        sizes = [len(parts), len(names), *(units or ["?"])]
        raise ValueError(_shape(tuple(sizes)))
    if nan == "omit":
        keep = [~part.isnan().any(1) for part in parts]
        codes = [c[k.cpu().numpy()] for c, k in zip(codes, keep, strict=True)]
        parts = [part[k] for part, k in zip(parts, keep, strict=True)]
    for part in parts:
        check_finite(part, "`folds`")
    return parts, codes, names


def _shape(shape: tuple[Any, ...]) -> str:
    return (
        "Expected `folds` to have shape (fold, example, unit) with at least two "
        f"folds, three examples and one unit, but got ({', '.join(map(str, shape))})."
    )


def _stacked(folds: Any) -> np.ndarray:
    try:
        return np.asarray(folds)
    except (TypeError, ValueError) as error:
        shapes = [np.shape(fold) for fold in folds]
        msg = (
            "Expected `folds` to be numbers of the same shape (example, unit) in each "
            f"fold, but got {', '.join(str(s) for s in shapes)}; keep the examples "
            "that every fold has, name them by `example` in DataArrays, or put NaN "
            "where one is missing and pass nan='omit'."
        )
        raise ValueError(msg) from error


def _named(values: np.ndarray, names: pd.Index) -> xr.DataArray:
    i, j = np.triu_indices(len(names), 1)
    return xr.DataArray(
        values,
        dims="pair",
        coords={
            "example_a": ("pair", names.values[i]),
            "example_b": ("pair", names.values[j]),
        },
        name="crossnobis",
    )
