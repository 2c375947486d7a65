"""HSIC and centred kernel alignment."""

import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from tqdm.auto import tqdm

from repsim.datasets.messages import unknown
from repsim.measures import grams, products
from repsim.measures.inputs import Matrix, check_examples, pair, warn_constant
from repsim.measures.products import Sums
from repsim.measures.registry import register

Kernel = Literal["linear", "rbf"]


def hsic(
    x: Matrix,
    y: Matrix,
    *,
    kernel: Kernel = "linear",
    debiased: bool = True,
    bandwidth: float = 1.0,
) -> float:
    r"""Hilbert-Schmidt independence criterion of two representations.

    Unbiased (Song et al. 2012), with K̃ and L̃ the kernel matrices with a zero
    diagonal,

    .. math:: HSIC_1 = \frac{1}{n(n-3)}\left[\mathrm{tr}\,\tilde K\tilde L
        + \frac{1^T\tilde K1\;1^T\tilde L1}{(n-1)(n-2)}
        - \frac{2}{n-2}1^T\tilde K\tilde L1\right]

    and biased (Gretton et al. 2005), :math:`\mathrm{tr}(KHLH)/(n-1)^2`.

    Parameters
    ----------
    x, y : array, tensor or DataArray, shape (examples, units)
        Two representations of the same examples.
    kernel : {"linear", "rbf"}
        x·x', or exp(−d²/2σ²) with σ = bandwidth × the median distance.
    debiased : bool
        Which estimator.
    bandwidth : float
        Of the RBF kernel, in median off-diagonal distances.

    Returns
    -------
    float
        The estimator, in the product of both sides' squared units for the linear
        kernel; NaN with a warning where a side is constant.

    Raises
    ------
    ValueError
        If the shapes do not match, a value is not finite, or there are fewer than
        4 examples (2 for the biased form).

    References
    ----------
    Song et al. (2012), Feature selection via dependence maximization, JMLR 13.
    Gretton et al. (2005), doi:10.1007/11564089_7.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[0.0], [1.0], [2.0], [3.0]])
    >>> round(hsic(x, x, debiased=False), 4)
    2.7778
    """
    return _pair("hsic", x, y, kernel, debiased, bandwidth)


def cka(
    x: Matrix,
    y: Matrix,
    *,
    kernel: Kernel = "linear",
    debiased: bool = True,
    bandwidth: float = 1.0,
) -> float:
    r"""Centred kernel alignment of two representations.

    .. math:: CKA(x, y) = \frac{HSIC(x, y)}{\sqrt{HSIC(x, x)\,HSIC(y, y)}}

    Debiased, all three are Song et al.'s unbiased estimators, so independent
    representations give 0 on average however many units they have (and sometimes a
    little less than 0); biased, it is the CKA of Kornblith et al. (2019), which is
    near 1 for pure noise once units outnumber examples.

    Parameters
    ----------
    x, y : array, tensor or DataArray, shape (examples, units)
        Two representations of the same examples.
    kernel : {"linear", "rbf"}
        x·x', or exp(−d²/2σ²) with σ = bandwidth × the median distance.
    debiased : bool
        Which estimator.
    bandwidth : float
        Of the RBF kernel, in median off-diagonal distances.

    Returns
    -------
    float
        In (−1, 1] debiased, in [0, 1] biased; NaN with a warning where a side is
        constant, or where all its examples are equally far apart (debiased).

    Raises
    ------
    ValueError
        If the shapes do not match, a value is not finite, or there are fewer than
        4 examples (2 for the biased form).

    Notes
    -----
    Invariant to rotation, reordering, uniform scaling and shifts of either side; not
    to other linear maps. Costs min(2npq, 2n²(p + q)) operations a pair.

    References
    ----------
    Kornblith et al. (2019), Similarity of neural network representations revisited,
    arXiv:1905.00414. Nguyen et al. (2021), arXiv:2010.15327.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(100, 5))
    >>> round(cka(x, 3 * x + 1), 6)
    1.0
    """
    return _pair("cka", x, y, kernel, debiased, bandwidth)


def _pair(
    name: str, x: Matrix, y: Matrix, kernel: Kernel, debiased: bool, bandwidth: float
) -> float:
    """Compute one pair through the very code that computes all of them."""
    a, b = pair(x, y, least=4 if debiased else 2)
    flat = warn_constant(a, b)
    function = cka_pairs if name == "cka" else hsic_pairs
    value = float(
        function(
            [a],
            [b],
            device=str(a.device),
            kernel=kernel,
            debiased=debiased,
            bandwidth=bandwidth,
        )[0, 0]
    )
    if np.isnan(value) and not flat:
        warnings.warn(
            "The examples of a side are all equally far apart, so there is no "
            "similarity; the value is NaN.",
            UserWarning,
            stacklevel=3,
        )
    return value


def cka_pairs(
    xs: Sequence[Matrix],
    ys: Sequence[Matrix] | None = None,
    *,
    precision: str = "float64",
    device: str = "cpu",
    progress: bool = False,
    kernel: Kernel = "linear",
    debiased: bool = True,
    bandwidth: float = 1.0,
) -> np.ndarray:
    """Return CKA between every x and every y; see `cka` and `Measure.all_pairs`."""
    cross, own_x, own_y = hsic_terms(
        xs,
        ys,
        precision=precision,
        device=device,
        progress=progress,
        kernel=kernel,
        debiased=debiased,
        bandwidth=bandwidth,
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        values = cross / np.sqrt(np.outer(own_x, own_y))
    # Rounding may put a perfect 1 a little above; nothing else is above.
    return np.clip(values, -1.0, 1.0)


def hsic_pairs(
    xs: Sequence[Matrix],
    ys: Sequence[Matrix] | None = None,
    *,
    precision: str = "float64",
    device: str = "cpu",
    progress: bool = False,
    kernel: Kernel = "linear",
    debiased: bool = True,
    bandwidth: float = 1.0,
) -> np.ndarray:
    """Return HSIC between every x and every y; see `hsic` and `Measure.all_pairs`."""
    cross, _, _ = hsic_terms(
        xs,
        ys,
        precision=precision,
        device=device,
        progress=progress,
        kernel=kernel,
        debiased=debiased,
        bandwidth=bandwidth,
    )
    return cross


def hsic_terms(
    xs: Sequence[Matrix],
    ys: Sequence[Matrix] | None,
    *,
    precision: str,
    device: str,
    progress: bool,
    kernel: Kernel,
    debiased: bool,
    bandwidth: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return HSIC of all pairs, and of each side with itself.

    Parameters
    ----------
    xs, ys : sequence of matrices, each (examples, units)
        The sides; `ys=None` is a self comparison.
    precision, device, progress
        See `Measure.all_pairs`.
    kernel, debiased, bandwidth
        See `hsic`.

    Returns
    -------
    cross : ndarray, shape (len(xs), len(ys))
        HSIC(x, y); NaN where a side is constant.
    own_x, own_y : ndarray
        HSIC(x, x) and HSIC(y, y); NaN where there is nothing to compare.
    """
    if kernel not in ("linear", "rbf"):
        raise ValueError(unknown("kernel", kernel, ["linear", "rbf"]))
    n = int(xs[0].shape[0])
    check_examples(n, 4 if debiased else 2)
    left = [products.centre(x, precision, device) for x in xs]
    right = None if ys is None else [products.centre(y, precision, device) for y in ys]
    every = [*left, *(right or [])]
    first = slice(0, len(left))
    second = first if right is None else slice(len(left), None)
    widths = [[int(side.x.shape[1]) for side in s] for s in (left, right or [])]
    chosen = space(n, widths[0], widths[1] or None, kernel)
    with tqdm(desc=f"HSIC, {chosen} space", disable=not progress) as bar:
        if chosen == "feature":
            sums = products.feature_sums(left, right, bar.update)
        elif kernel == "linear":
            sums = grams.linear_sums(left, right, bar.update)
        else:
            sums = grams.radial_sums(left, right, bandwidth, bar.update)
    cross, own = _estimate(sums, first, second, debiased)
    factors = np.array([side.scale for side in every]) ** -2
    if kernel == "linear":
        cross, own = cross * np.outer(factors[first], factors[second]), own * factors**2
    flat = np.array([side.constant for side in every])
    cross[flat[first]] = np.nan
    cross[:, flat[second]] = np.nan
    own[flat] = np.nan
    return cross, own[first], own[second]


def space(n: int, p: Sequence[int], q: Sequence[int] | None, kernel: str) -> str:
    """Return where HSIC of all pairs is cheaper: "feature" or "sample" space.

    Parameters
    ----------
    n : int
        Examples.
    p, q : sequence of int
        Units of the layers on each side; `q=None` is a self comparison.
    kernel : str
        Only the linear kernel has a feature space of finite width.

    Returns
    -------
    str
        "feature" or "sample".
    """
    if kernel == "linear" and not products.cheaper_in_samples(n, p, q):
        return "feature"
    return "sample"


def _estimate(
    sums: Sums, first: slice, second: slice, debiased: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return HSIC of all pairs, and of each layer with itself, from the sums."""
    n = sums.diagonals.shape[1]
    if debiased:
        # tr K̃L̃ and both sums over the rows of K̃.
        cross, own, rows = sums.cross, sums.own, sums.rows
        row_weight, total_weight, scale = (
            2 / (n - 2),
            1 / ((n - 1) * (n - 2)),
            n * (n - 3),
        )
    else:
        diagonals = sums.diagonals
        cross = sums.cross + diagonals[first] @ diagonals[second].T
        own = sums.own + (diagonals * diagonals).sum(axis=1)
        rows = sums.rows + diagonals
        row_weight, total_weight, scale = 2 / n, 1 / n**2, (n - 1) ** 2
    totals = rows.sum(axis=1)
    cross = cross - row_weight * rows[first] @ rows[second].T
    cross = cross + total_weight * np.outer(totals[first], totals[second])
    size = own
    own = own - row_weight * (rows * rows).sum(axis=1) + total_weight * totals**2
    # Rounding leaves a little where there should be nothing.
    own = np.where(own > 1e-13 * np.abs(size), own, np.nan)
    return cross / scale, own / scale


_SHARED: dict[str, Any] = {
    "larger_is_more_similar": True,
    "precisions": ("float64", "float32", "bfloat16"),
}
register(
    "hsic",
    hsic,
    pairs=hsic_pairs,
    invariances=("permutation", "orthogonal", "translation"),
    **_SHARED,
)
register(
    "cka",
    cka,
    pairs=cka_pairs,
    bounds=(-1.0, 1.0),
    invariances=("permutation", "orthogonal", "isotropic_scaling", "translation"),
    **_SHARED,
)
