"""How much of a geometry models explain: partial correlation and regression."""

import warnings
from typing import Literal

import numpy as np
import xarray as xr

from repsim.core.messages import unknown
from repsim.core.provenance import made_by
from repsim.measures.dissimilarity.given import aligned, as_rdms, crossed
from repsim.measures.dissimilarity.ranks import doubled
from repsim.measures.magnitudes import array_near_one

Correlation = Literal["spearman", "pearson"]


def partial_rsa(
    rdms: xr.DataArray,
    models: xr.DataArray,
    controls: xr.DataArray,
    *,
    method: Correlation = "spearman",
) -> xr.DataArray:
    r"""Return RSA with other RDMs taken out of both sides.

    .. math:: r = \operatorname{corr}(e_d, e_m)

    with :math:`e_d, e_m` the residuals of RDM and model (for ``spearman``: of their
    ranks) after regression on the controls and a constant.

    Parameters
    ----------
    rdms : DataArray, dims (…, pair)
        From `repsim.rdms`.
    models : DataArray, dims ([other,] pair)
        From `repsim.model_rdms`, or RDMs of another network.
    controls : DataArray, dims ([other,] pair)
        What to take out: the inputs' RDM, for instance.
    method : {"spearman", "pearson"}
        On ranks, or on the distances themselves.

    Returns
    -------
    DataArray, dims (…, [other])
        NaN where nothing is left of a side. A dim on both sides gets the suffixes
        `_a` and `_b`.

    Raises
    ------
    ValueError
        If ids or numbers of pairs differ, or the method is unknown.

    Notes
    -----
    Where both sides have `example_a` and `example_b`, pairs are matched by them. Pairs
    are NaN in any of the RDMs are left out of all, with a warning.

    Examples
    --------
    >>> stack = xr.DataArray([[1.0, 2.0, 4.0, 3.0]], dims=("layer", "pair"))
    >>> model = xr.DataArray([1.0, 2.0, 3.0, 4.0], dims="pair")
    >>> pixels = xr.DataArray([1.0, 0.0, 0.0, 1.0], dims="pair")
    >>> partial_rsa(stack, model, pixels).round(2).values
    array([0.89])
    """
    if method not in ("spearman", "pearson"):
        raise ValueError(unknown("method", method, ["spearman", "pearson"]))
    left, right, taken = _matched(rdms, models=models, controls=controls)
    kept = _without_missing([_flat(part) for part in (left, right, taken)])
    if method == "spearman":
        kept = [np.stack([doubled(row) for row in part]) for part in kept]
    else:
        kept = [_scaled(part)[0] for part in kept]
    a, b = _residuals(kept[0], kept[2]), _residuals(kept[1], kept[2])
    out = crossed(a @ b.T, left, right, "partial_rsa")
    return out.assign_attrs(
        {**left.attrs, **made_by(measure="partial_rsa", method=method)}
    )


def _matched(rdms: xr.DataArray, **others: xr.DataArray) -> list[xr.DataArray]:
    """Return RDMs of all sides with the first one's pairs, matched by ids."""
    first = as_rdms(rdms)
    parts = {name: as_rdms(part, name) for name, part in others.items()}
    return [
        first,
        *(aligned(first, part, ("`rdms`", f"`{k}`")) for k, part in parts.items()),
    ]


def _flat(rdms: xr.DataArray) -> np.ndarray:
    return np.asarray(rdms.values.reshape(-1, rdms.sizes["pair"]), np.float64)


def _scaled(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return rows brought near one by powers of two, and these: squares overflow."""
    parts = [array_near_one(row) for row in rows]
    return np.stack([row for row, _ in parts]), np.array([by for _, by in parts])


def _without_missing(stacks: list[np.ndarray]) -> list[np.ndarray]:
    widths = {part.shape[1] for part in stacks}
    if len(widths) > 1:
        msg = (
            "Expected all RDMs to have the same pairs of examples, but got "
            f"{' and '.join(str(w) for w in sorted(widths))} pairs."
        )
        raise ValueError(msg)
    keep = ~np.logical_or.reduce([np.isnan(part).any(0) for part in stacks])
    if keep.all():
        return stacks
    if keep.sum() < 3:
        msg = (
            "Expected at least three pairs of examples that are NaN in none of the "
            f"RDMs, but got {keep.sum()} of {len(keep)}; leave out an RDM that is NaN."
        )
        raise ValueError(msg)
    warnings.warn(
        f"{np.count_nonzero(~keep)} of {len(keep)} pairs are NaN in one of the RDMs "
        "and were left out.",
        stacklevel=3,
    )
    return [part[:, keep] for part in stacks]


def _residuals(rows: np.ndarray, controls: np.ndarray) -> np.ndarray:
    """Return rows of unit length with the controls and their mean taken out."""
    taken = np.column_stack([np.ones(rows.shape[1]), controls.T])
    basis, triangle = np.linalg.qr(taken)
    basis = basis[:, np.abs(np.diag(triangle)) > 1e-10 * np.abs(triangle).max()]
    rest = rows - (rows @ basis) @ basis.T
    rest -= (rest @ basis) @ basis.T
    norms = np.linalg.norm(rest, axis=1, keepdims=True)
    norms[norms < 1e-10 * np.linalg.norm(rows, axis=1, keepdims=True)] = np.nan
    return np.asarray(rest / norms)


def rdm_regression(
    rdms: xr.DataArray, models: xr.DataArray, *, method: Correlation = "pearson"
) -> xr.Dataset:
    r"""Return the linear combination of model RDMs that comes closest to each RDM.

    .. math:: d \approx b_0 + \sum_k b_k m_k

    Parameters
    ----------
    rdms : DataArray, dims (…, pair)
        From `repsim.rdms`.
    models : DataArray, dims (model, pair)
        From `repsim.model_rdms`.
    method : {"pearson", "spearman"}
        On the distances themselves or on their ranks.

    Returns
    -------
    Dataset, dims (…[, model])
        `coefficient` (model) in the RDM's unit per unit of the model, `beta` (model)
        the same with both sides scaled to unit variance, `unique` (model) the share
        of variance lost without that model, `r2` of all together.

    Raises
    ------
    ValueError
        If ids or numbers of pairs differ, the method is unknown, or models are
        constant or linearly dependent.

    Notes
    -----
    Where both sides have `example_a` and `example_b`, pairs are matched by them. Pairs
    that are NaN in any of the RDMs are left out of all, with a warning.

    Examples
    --------
    >>> stack = xr.DataArray([[0.1, 0.9, 0.8, 0.2]], dims=("layer", "pair"))
    >>> models = xr.DataArray([[0.0, 1.0, 1.0, 0.0]], dims=("model", "pair"),
    ...                       coords={"model": ["label"]})
    >>> rdm_regression(stack, models)["r2"].round(2).values
    array([0.98])
    """
    if method not in ("spearman", "pearson"):
        raise ValueError(unknown("method", method, ["pearson", "spearman"]))
    left, models = _matched(rdms, models=models)
    if models.ndim == 1:
        models = models.expand_dims("model")
    if "model" not in models.dims and models.ndim == 2:
        models = models.rename({models.dims[0]: "model"})
    if "model" not in models.coords:
        named = [f"model {k}" for k in range(models.sizes["model"])]
        models = models.assign_coords(model=named if len(named) > 1 else ["model"])
    y, x = _without_missing([_flat(left), _flat(models)])
    if method == "spearman":
        y, x = (np.stack([doubled(row) / 2 for row in part]) for part in (y, x))
    (y, large), (x, units) = _scaled(y), _scaled(x)
    y, x = y - y.mean(1, keepdims=True), x - x.mean(1, keepdims=True)
    _expect_independent(x, models)
    total = np.sum(y**2, axis=1)
    total[total == 0] = np.nan
    scaled = np.linalg.solve(x @ x.T, x @ y.T).T
    coefficient = np.ldexp(scaled, units - large[:, None])
    r2 = _explained(x, y) / total
    unique = np.stack(
        [r2 - _explained(np.delete(x, k, 0), y) / total for k in range(len(x))], 1
    )
    beta = scaled * np.linalg.norm(x, axis=1) / np.sqrt(total)[:, None]
    outer = left.shape[:-1]
    names = [str(v) for v in models["model"].values]
    dims = left.dims[:-1]
    parts = {"coefficient": coefficient, "beta": beta, "unique": unique}
    return xr.Dataset(
        {k: ((*dims, "model"), v.reshape(*outer, len(x))) for k, v in parts.items()}
        | {"r2": (dims, r2.reshape(outer))},
        coords={k: v for k, v in left.coords.items() if "pair" not in v.dims}
        | {"model": names},
        attrs={**left.attrs, **made_by(measure="rdm_regression", method=method)},
    )


def _expect_independent(x: np.ndarray, models: xr.DataArray) -> None:
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    scale = np.where(norms > 0, norms, 1)
    if np.linalg.matrix_rank((x / scale) @ (x / scale).T, tol=1e-10) < len(x):
        names = ", ".join(str(v) for v in models["model"].values)
        msg = (
            f"Expected model RDMs that vary and do not add up to one another, but got "
            f"dependent ones among {names}; leave one out."
        )
        raise ValueError(msg)


def _explained(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the sum of squares of each row of y within the span of x's rows."""
    if not len(x):
        return np.zeros(len(y))
    basis, _ = np.linalg.qr(x.T)
    return np.asarray(np.sum((y @ basis) ** 2, axis=1))
