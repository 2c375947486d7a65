"""Representational dissimilarity: how far apart a layer puts each pair of examples."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from repsim.core.bars import progress_bar
from repsim.core.devices import multiplying
from repsim.core.messages import unknown
from repsim.core.threads import calm
from repsim.measures import catalogue as registry
from repsim.measures.dissimilarity.comparators import METHODS, Method, similarities
from repsim.measures.dissimilarity.covariance import Whitening, checked, whitener
from repsim.measures.dissimilarity.distances import METRICS, Metric, condensed
from repsim.measures.dissimilarity.rounded import OutOfRange, narrowed
from repsim.measures.dissimilarity.triangle import n_pairs
from repsim.measures.matrices import (
    Matrix,
    Nan,
    check_examples,
    check_finite,
    is_constant,
    pair,
    read,
    warn_constant,
)
from repsim.measures.matrices import (
    checked as checked_matrix,
)

MINIMUM = 3
"""Fewer examples than this have no geometry to compare."""


def rdm(
    x: Matrix,
    *,
    metric: Metric = "correlation",
    noise: ArrayLike | None = None,
    nan: Nan = "raise",
) -> np.ndarray:
    r"""Return the dissimilarities of all pairs of examples, condensed.

    With rows :math:`x_i`, and :math:`\tilde x_i` a row without its mean:

    - ``correlation``:
      :math:`1 - \tilde x_i^T \tilde x_j / (\|\tilde x_i\| \|\tilde x_j\|)`
    - ``cosine``: :math:`1 - x_i^T x_j / (\|x_i\| \|x_j\|)`
    - ``euclidean``: :math:`\|x_i - x_j\|`, ``sqeuclidean`` its square
    - ``cityblock``: :math:`\sum_k |x_{ik} - x_{jk}|`
    - ``mahalanobis``: :math:`\sqrt{(x_i - x_j)^T \Sigma^{-1} (x_i - x_j)}`

    Parameters
    ----------
    x : array, Tensor or DataArray, shape (example, unit)
        Activations; at least three examples. Computed in float64.
    metric : str
        The distance; names and values are those of `scipy.spatial.distance.pdist`.
    noise : array_like, shape (unit, unit), optional
        Σ for ``mahalanobis``; by default the covariance of `x` over its examples,
        which needs more examples than units. See `repsim.noise_covariance`.
    nan : {"raise", "omit"}
        Whether an example that holds NaN is an error, or its pairs are NaN.

    Returns
    -------
    ndarray, shape (n (n - 1) / 2,)
        In float64, pairs in scipy's order (0, 1), (0, 2), …. Pairs with a constant row
        (``correlation``) or a zero row (``cosine``) are NaN, with one warning.

    Raises
    ------
    ValueError
        If `x` is not a finite matrix of at least three rows, the metric is unknown,
        or the covariance cannot be inverted.

    References
    ----------
    Kriegeskorte, Mur & Bandettini (2008). Representational similarity analysis:
    connecting the branches of systems neuroscience. Front. Syst. Neurosci. 2, 4.
    https://doi.org/10.3389/neuro.06.004.2008

    Examples
    --------
    >>> rdm([[0.0, 0.0], [3.0, 4.0], [0.0, 4.0]], metric="euclidean")
    array([5., 4., 3.])
    """
    data = checked_matrix(x, "x", nan=nan).double()
    present = whole_rows(data, "`x`") if nan == "omit" else None
    check_examples(len(data) if present is None else int(present.sum()), MINIMUM)
    values, empty = dissimilarities(data, metric, noise, present=present)
    if empty:
        warnings.warn(_empty_rows(empty, len(data), metric), stacklevel=2)
    return values


def dissimilarities(
    x: torch.Tensor,
    metric: str,
    noise: ArrayLike | None = None,
    out: np.ndarray | None = None,
    *,
    scaled: bool = False,
    tried: bool = False,
    present: torch.Tensor | None = None,
) -> tuple[np.ndarray, int]:
    """Return condensed distances in `x`'s dtype, and how many rows are undefined."""
    if metric not in METRICS:
        raise ValueError(unknown("metric", metric, METRICS))
    if present is not None and not bool(present.all()):
        values, empty = dissimilarities(x[present], metric, noise, scaled=scaled)
        i, j = np.triu_indices(len(x), 1)
        there = present.cpu().numpy()
        if out is None:
            out = np.empty(len(i), values.dtype)
        out[:] = np.nan
        out[there[i] & there[j]] = values
        return out, empty
    turn = None
    if metric == "mahalanobis":
        turn, metric = _whitening(x, noise), "euclidean"
    elif noise is not None:
        msg = (
            f"Expected `noise` only with metric='mahalanobis', but got it with "
            f"metric={metric!r}; drop one of them."
        )
        raise ValueError(msg)
    return condensed(x, metric, out, scaled=scaled, tried=tried, turn=turn)


def whole_rows(x: torch.Tensor, what: str) -> torch.Tensor:
    """Return which rows hold no NaN; the others are left out, infinities are not."""
    present = ~x.isnan().any(1)
    check_finite(x[present], what)
    return present


def _empty_rows(count: int, n: int, metric: str) -> str:
    kind = "zero" if metric == "cosine" else "constant"
    return (
        f"{count} of {n} examples are {kind} and have no {metric} with any other: "
        "their pairs are NaN."
    )


def _whitening(x: torch.Tensor, noise: ArrayLike | None) -> Whitening:
    """Return what makes Euclidean distances those of Mahalanobis."""
    n, d = x.shape
    if noise is None:
        if n <= d:
            msg = (
                "Expected more examples than units to invert their covariance, but "
                f"got {n} examples of {d} units; pass `noise`, as from "
                "repsim.noise_covariance."
            )
            raise ValueError(msg)
        sigma = torch.cov(x.T.to(torch.float64)).reshape(d, d)
    else:
        sigma = checked(noise, d)
    return whitener(sigma)


def rsa(
    x: Matrix,
    y: Matrix,
    *,
    metric: Metric = "correlation",
    method: Method = "spearman",
    nan: Nan = "raise",
) -> float:
    """Return how similar the dissimilarities of two representations are.

    Parameters
    ----------
    x, y : array, Tensor or DataArray, shape (example, unit)
        Activations of the same examples; the numbers of units may differ.
    metric : str
        Distance between examples, as in `repsim.rdm`.
    method : str
        Similarity between RDMs, as in `repsim.compare_rdms`.
    nan : {"raise", "omit"}
        Whether an example that holds NaN on a side is an error or left out.

    Returns
    -------
    float
        NaN, with a warning, where a side is constant.

    Raises
    ------
    ValueError
        If the numbers of examples differ, or see `repsim.rdm`.

    References
    ----------
    Kriegeskorte, Mur & Bandettini (2008). Front. Syst. Neurosci. 2, 4.
    https://doi.org/10.3389/neuro.06.004.2008

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(10, 3))
    >>> round(rsa(x, 5 * x), 6)
    1.0
    """
    left, right = pair(x, y, MINIMUM, nan)
    if warn_constant(left, right):
        return float("nan")
    return float(rsa_pairs([left], [right], metric=metric, method=method)[0, 0])


def rsa_pairs(
    xs: Sequence[Matrix],
    ys: Sequence[Matrix] | None = None,
    *,
    precision: str = "float64",
    device: str = "cpu",
    progress: bool = False,
    metric: Metric = "correlation",
    method: Method = "spearman",
    nan: Nan = "raise",
) -> np.ndarray:
    """Return `rsa` between every x and every y, each RDM computed and ranked once.

    A condensed RDM takes 4 bytes a pair in float32 and its ranks 4 more: for twenty
    layers and n = 5,000 examples 1 GB each.
    """
    if metric not in METRICS:
        raise ValueError(unknown("metric", metric, METRICS))
    if method not in METHODS:
        raise ValueError(unknown("method", method, METHODS))
    empty: list[int] = []
    total = len(xs) + (0 if ys is None else len(ys))
    with (
        calm(),
        progress_bar(total=total, desc="RDMs", progress=progress) as bar,
        multiplying("float32", device),
    ):
        both = [
            None
            if rows is None
            else _rdm_stack(rows, metric, precision, device, nan, empty, bar.update)
            for rows in (xs, ys)
        ]
    if any(empty):
        warnings.warn(
            f"Up to {max(empty)} examples have no {metric} distance in "
            f"{np.count_nonzero(empty)} of {total} representations: their pairs were "
            "left out of the comparison.",
            stacklevel=3,
        )
    assert both[0] is not None
    with calm():
        return similarities(both[0], both[1], method, device)[0]


def _rdm_stack(
    rows: Sequence[Matrix],
    metric: str,
    precision: str,
    device: str,
    nan: Nan,
    empty: list[int],
    done: Callable[[], object],
) -> np.ndarray:
    """Return one RDM a row; `empty` learns how many examples of each are undefined."""
    out = np.empty((0, 0))
    for k, source in enumerate(rows):
        x = read(source, check=nan == "raise")
        what = getattr(source, "what", f"representation {k}")
        present = whole_rows(x, what) if nan == "omit" else None
        if present is None:
            check_finite(x, what)
        if k == 0:
            check_examples(len(x), MINIMUM)
            out = np.zeros((len(rows), n_pairs(len(x))), precision)
        if is_constant(x if present is None else x[present]):
            # Its distances are zero but for rounding, which would be ranked.
            out[k] = np.nan
        else:
            given: dict[str, Any] = {
                "metric": metric,
                "scaled": True,
                "present": present,
            }
            try:
                near = narrowed(x, getattr(torch, out.dtype.name), device)
                _, undefined = dissimilarities(near, out=out[k], **given)
            except OutOfRange:
                out = out.astype(np.float64)
                near = x.to(device, torch.float64)
                _, undefined = dissimilarities(near, out=out[k], **given)
            empty.append(undefined)
        done()
    return out


registry.register(
    "rsa",
    rsa,
    larger_is_more_similar=True,
    bounds=(-1.0, 1.0),
    invariances=("permutation", "isotropic_scaling"),
    pairs=rsa_pairs,
)
