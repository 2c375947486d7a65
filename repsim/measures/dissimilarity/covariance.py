"""Noise over units: its covariance from residuals, and taking it out by whitening."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike

from repsim.core.messages import unknown

Shrinkage = Literal["diagonal", "identity", "full", "variances"]
Whitening = Callable[..., torch.Tensor]
METHODS: tuple[str, ...] = ("diagonal", "identity", "full", "variances")


def noise_covariance(
    residuals: ArrayLike | torch.Tensor,
    *,
    method: Shrinkage = "diagonal",
    dof: int | None = None,
) -> np.ndarray:
    r"""Return the covariance of units' noise, shrunk so that it can be inverted.

    - ``diagonal``: :math:`\lambda \operatorname{diag}(S) + (1 - \lambda) S`, the
      intensity of Schäfer & Strimmer (2005)
    - ``identity``: :math:`\lambda \bar s I + (1 - \lambda) S`, the intensity of
      Ledoit & Wolf (2004)
    - ``full``: the sample covariance S; ``variances``: its diagonal

    Parameters
    ----------
    residuals : array_like or Tensor, shape (observation, unit) or (fold, example, unit)
        Residuals, less their mean; of folds, what each example's repetitions leave
        about their mean.
    method : str
        One of the above.
    dof : int, optional
        Degrees of freedom: by default observations − 1, for folds
        (folds − 1) × examples.

    Returns
    -------
    ndarray of float64, shape (unit, unit)
        For `noise` in `repsim.rdm`, and in `repsim.crossnobis` where the residuals
        are not of the same folds: there that would be biased (see "heldout").

    Raises
    ------
    ValueError
        If the method is unknown, values are not finite, or there are fewer than two
        observations or folds.

    References
    ----------
    Schäfer & Strimmer (2005). Stat. Appl. Genet. Mol. Biol. 4, 32.
    https://doi.org/10.2202/1544-6115.1175

    Ledoit & Wolf (2004). J. Multivar. Anal. 88, 365–411.
    https://doi.org/10.1016/S0047-259X(03)00096-4

    Examples
    --------
    >>> noise = np.random.default_rng(0).normal(size=(500, 3)) * [1, 2, 3]
    >>> noise_covariance(noise, method="variances").diagonal().round()
    array([1., 4., 9.])
    """
    if method not in METHODS:
        raise ValueError(unknown("method", method, METHODS))
    rows, natural = _residuals(residuals)
    freedom = natural if dof is None else dof
    if freedom < 1:
        msg = f"Expected `dof` to be at least 1, but got {freedom}."
        raise ValueError(msg)
    sums = rows.T @ rows
    if method == "variances":
        return np.diag(np.diag(sums) / freedom)
    if method == "full":
        return np.asarray(sums / freedom)
    if method == "identity":
        # Imported here: with it `import repsim` would take longer.
        from sklearn.covariance import ledoit_wolf

        shrunk = ledoit_wolf(rows, assume_centered=True)[0]
        return np.asarray(shrunk * (len(rows) / freedom))
    squares = (rows**2).T @ (rows**2)
    return _towards_diagonal(sums, squares, len(rows), freedom)


def _residuals(given: ArrayLike | torch.Tensor) -> tuple[np.ndarray, int]:
    if isinstance(given, torch.Tensor):
        given = given.detach().cpu().numpy()
    values = np.asarray(given, dtype=np.float64)
    if values.ndim not in (2, 3) or len(values) < 2:
        msg = (
            "Expected `residuals` to have shape (observation, unit) or (fold, "
            f"example, unit) with two or more of the first, but got {values.shape}."
        )
        raise ValueError(msg)
    if not np.isfinite(values).all():
        msg = "Expected `residuals` to be finite, but got NaN or infinite values."
        raise ValueError(msg)
    values = values - values.mean(0, keepdims=True)
    if values.ndim == 2:
        return values, len(values) - 1
    folds, n, d = values.shape
    return values.reshape(-1, d), (folds - 1) * n


def _towards_diagonal(
    sums: np.ndarray, squares: np.ndarray, n: int, dof: int
) -> np.ndarray:
    s = sums / dof
    variances = np.diag(s)
    # A unit without noise has no correlation with any other.
    scale = np.where(variances > 0, variances, np.inf)
    deviations = np.sqrt(scale)
    mean = sums / np.outer(deviations, deviations) / (n - 1)
    mean_squares = squares / np.outer(scale, scale) / (n - 1)
    uncertainty = n / dof**2 * (mean_squares - mean**2)
    off = ~np.eye(len(s), dtype=bool)
    size = np.sum(mean[off] ** 2)
    share = 1.0 if size == 0 else float(np.clip(uncertainty[off].sum() / size, 0, 1))
    return np.asarray(s * np.where(off, 1 - share, 1.0))


def checked(noise: ArrayLike, d: int) -> torch.Tensor:
    """Check a covariance over units and return it in float64."""
    sigma = torch.as_tensor(np.asarray(noise, dtype=np.float64))
    if sigma.shape != (d, d):
        msg = (
            f"Expected `noise` to be a covariance of shape ({d}, {d}), but got "
            f"{tuple(sigma.shape)}."
        )
        raise ValueError(msg)
    if not bool(torch.isfinite(sigma).all()) or not torch.allclose(sigma, sigma.T):
        msg = "Expected `noise` to be finite and symmetric, but got one that is not."
        raise ValueError(msg)
    return sigma


def whitener(sigma: torch.Tensor) -> Whitening:
    """Return what makes noise of covariance `sigma` (unit, unit) the identity.

    It takes rows (…, example, unit), and takes off their common offset, which distances
    do not see, unless told `centre=False`. Units that neither vary nor are noisy tell
    nothing and become zero.
    """
    variances = sigma.diagonal()
    alive = torch.nonzero(variances > 0)[:, 0]
    dead = torch.nonzero(variances <= 0)[:, 0]
    # Units of other sizes are no singularity: judged as correlations.
    size = variances[alive].sqrt()
    factor, failed = torch.linalg.cholesky_ex(
        sigma[alive][:, alive] / size / size[:, None]
    )
    # The factor's condition is the root of the covariance's.
    if int(failed) or (len(alive) and float(torch.linalg.cond(factor)) > 1e7):
        msg = (
            "Expected a covariance that can be inverted, but got a singular one; "
            "shrink it, as noise_covariance(…, method='identity') does, or take "
            "more observations than units."
        )
        raise ValueError(msg)

    def whitened(x: torch.Tensor, centre: bool = True) -> torch.Tensor:
        _expect_silent(x, dead.to(x.device))
        if centre:
            x = x - x.mean(-2, keepdim=True)
        here = alive.to(x.device)
        rows = x.reshape(-1, x.shape[-1])
        solved = torch.linalg.solve_triangular(
            factor.to(x.device),
            (rows[:, here].double() / size.to(x.device)).T,
            upper=False,
        )
        out = torch.zeros_like(rows)
        out[:, here] = solved.T.to(x.dtype)
        return out.reshape(x.shape)

    return whitened


def _expect_silent(x: torch.Tensor, dead: torch.Tensor) -> None:
    """Raise if units without noise vary: no distance is finite in them."""
    if not len(dead):
        return
    part = x[..., dead]
    varies = (part.amax(-2) != part.amin(-2)).reshape(-1, len(dead)).any(0)
    odd = dead[varies].tolist()
    if odd:
        units = ", ".join(map(str, odd[:5])) + (", …" if len(odd) > 5 else "")
        msg = (
            "Expected noise in every unit that varies, but got a variance of zero in "
            f"unit {units}; leave these units out, or shrink by "
            "noise_covariance(…, method='identity')."
        )
        raise ValueError(msg)
