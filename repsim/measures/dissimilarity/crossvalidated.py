"""Distances that independent repetitions agree on: unbiased by their noise."""

import numpy as np
import torch
from numpy.typing import ArrayLike

from repsim.core.devices import device_named
from repsim.core.messages import unknown
from repsim.measures.dissimilarity.covariance import checked, whiten
from repsim.measures.dissimilarity.triangle import lengths, triangle
from repsim.measures.matrices import check_finite

_PRECISIONS = {"float64": torch.float64, "float32": torch.float32}


def crossnobis(
    folds: ArrayLike | torch.Tensor,
    *,
    noise: ArrayLike | None = None,
    precision: str | None = None,
    device: str = "auto",
) -> np.ndarray:
    r"""Return cross-validated squared Mahalanobis distances of all pairs of examples.

    .. math:: d_{ij} = \frac{1}{F (F - 1)} \sum_{f \ne g}
        (x_{fi} - x_{fj})^T \Sigma^{-1} (x_{gi} - x_{gj})

    summed over units. Noise that is independent between folds averages out: the
    expectation is the distance of the noiseless patterns, and single values can be
    negative.

    Parameters
    ----------
    folds : array_like or Tensor, shape (fold, example, unit)
        Repetitions of the same examples: two or more folds, three or more examples.
    noise : array_like, shape (unit, unit), optional
        Σ, as from `repsim.noise_covariance`; the identity by default.
    precision : {"float64", "float32"}, optional
        Of the products and of the result; by default that of `folds`, and float32
        for half types.
    device : str
        "auto" takes an accelerator where there is one.

    Returns
    -------
    ndarray, shape (n (n - 1) / 2,)
        In scipy's pair order. rsatoolbox's values are these divided by the number of
        units.

    Raises
    ------
    ValueError
        If there are fewer than two folds or three examples, values are not finite,
        or the covariance does not fit or cannot be inverted.

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
    x = _folds(folds)
    if precision is None:
        precision = "float64" if x.dtype == torch.float64 else "float32"
    if precision not in _PRECISIONS:
        raise ValueError(unknown("precision", precision, _PRECISIONS))
    x = x.to(device_named(device), _PRECISIONS[precision])
    if noise is not None:
        x = whiten(x - x.mean(1, keepdim=True), checked(noise, x.shape[-1]))
    return _distances(x)


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


def _folds(folds: ArrayLike | torch.Tensor) -> torch.Tensor:
    given = folds.detach() if isinstance(folds, torch.Tensor) else _stacked(folds)
    if given.ndim != 3 or given.shape[0] < 2 or given.shape[1] < 3 or not given.numel():
        msg = (
            "Expected `folds` to have shape (fold, example, unit) with at least two "
            f"folds, three examples and one unit, but got {tuple(given.shape)}."
        )
        raise ValueError(msg)
    if not given.is_floating_point():
        given = given.double()
    check_finite(given, "`folds`")
    return given


def _stacked(folds: ArrayLike) -> torch.Tensor:
    try:
        return torch.as_tensor(np.asarray(folds))
    except (TypeError, ValueError) as error:
        shapes = [np.shape(fold) for fold in folds]  # type: ignore[union-attr]
        msg = (
            "Expected `folds` to be numbers of the same shape (example, unit) in each "
            f"fold, but got {', '.join(str(s) for s in shapes)}; keep the examples "
            "that every fold has."
        )
        raise ValueError(msg) from error
