"""Distances and correlations that are functions of CKA."""

from collections.abc import Sequence

import numpy as np

from repsim.measures.catalogue import register
from repsim.measures.kernels import Kernel, cka, cka_pairs, describe
from repsim.measures.matrices import Matrix, Nan


def arccos_cka_distance(
    x: Matrix,
    y: Matrix,
    *,
    kernel: Kernel = "linear",
    bandwidth: float = 1.0,
    nan: Nan = "raise",
) -> float:
    r"""Angle between two centred kernels: the arc cosine of biased CKA.

    .. math:: d(x, y) = \arccos CKA(x, y)

    Parameters
    ----------
    x, y : array, tensor or DataArray, shape (examples, units)
        Two representations of the same examples.
    kernel : {"linear", "rbf", "distance"}
        As in `cka`.
    bandwidth : float
        As in `cka`.
    nan : {"raise", "omit"}
        Refuse NaN, or leave out the examples that hold it on either side.

    Returns
    -------
    float
        Radians in [0, π/2], a metric; NaN with a warning where a side is constant.

    Raises
    ------
    ValueError
        As for `cka`.

    Notes
    -----
    Invariances and costs as for `cka`. Of the debiased estimator, which may be below
    0, it would not be a metric. Near 0 the angle has half of CKA's digits.

    References
    ----------
    Williams, Kunz, Kornblith & Linderman (2021), arXiv:2110.14739 (netrep's LinearCKA).

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 1.0]])
    >>> round(arccos_cka_distance(x, 2 * x[:, ::-1] + 1), 6)
    0.0
    """
    value = cka(x, y, kernel=kernel, debiased=False, bandwidth=bandwidth, nan=nan)
    return float(np.arccos(value))


def angular_cka_distance(
    x: Matrix,
    y: Matrix,
    *,
    kernel: Kernel = "linear",
    bandwidth: float = 1.0,
    nan: Nan = "raise",
) -> float:
    r"""Angle between two centred kernels as a share of the right angle.

    .. math:: d(x, y) = \frac{2}{\pi} \arccos CKA(x, y)

    Parameters
    ----------
    x, y : array, tensor or DataArray, shape (examples, units)
        Two representations of the same examples.
    kernel : {"linear", "rbf", "distance"}
        As in `cka`.
    bandwidth : float
        As in `cka`.
    nan : {"raise", "omit"}
        Refuse NaN, or leave out the examples that hold it on either side.

    Returns
    -------
    float
        In [0, 1], a metric; NaN with a warning where a side is constant.

    Raises
    ------
    ValueError
        As for `cka`.

    See Also
    --------
    arccos_cka_distance : The same in radians.

    References
    ----------
    Williams, Kunz, Kornblith & Linderman (2021), arXiv:2110.14739.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 1.0]])
    >>> round(angular_cka_distance(x, 2 * x[:, ::-1] + 1), 6)
    0.0
    """
    angle = arccos_cka_distance(x, y, kernel=kernel, bandwidth=bandwidth, nan=nan)
    return angle / (np.pi / 2)


def distance_correlation(
    x: Matrix, y: Matrix, *, debiased: bool = False, nan: Nan = "raise"
) -> float:
    r"""Correlation of the doubly centred distances between examples.

    With A and B the matrices of Euclidean distances less row and column means,

    .. math:: dCor(x, y) = \sqrt{\frac{\sum_{ij} A_{ij} B_{ij}}
        {\sqrt{\sum_{ij} A_{ij}^2 \sum_{ij} B_{ij}^2}}}

    and debiased, without the root, the bias-corrected estimator of its square
    (U-centred distances), which is 0 on average for independent sides.

    Parameters
    ----------
    x, y : array, tensor or DataArray, shape (examples, units)
        Two representations of the same examples.
    debiased : bool
        Estimate the square without bias.
    nan : {"raise", "omit"}
        Refuse NaN, or leave out the examples that hold it on either side.

    Returns
    -------
    float
        In [0, 1], debiased in (−1, 1]; NaN with a warning where a side is constant.

    Raises
    ------
    ValueError
        If the shapes do not match, a value is not finite, or there are fewer than
        4 examples (2 for the biased form).

    Notes
    -----
    Invariant to rotation, reordering, uniform scaling and shifts of either side. It is
    CKA of the kernel −‖x − x'‖, and 0 for independent sides only, of any dependence.
    Costs 2n²(p + q) operations a pair.

    References
    ----------
    Székely, Rizzo & Bakirov (2007), doi:10.1214/009053607000000505; Székely & Rizzo
    (2013), doi:10.1016/j.jmva.2013.02.012.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(50, 5))
    >>> round(distance_correlation(x, 2 * x[:, ::-1] + 1), 6)
    1.0
    """
    value = cka(x, y, kernel="distance", debiased=debiased, nan=nan)
    return value if debiased else float(np.sqrt(max(value, 0)))


def _arccos_pairs(
    xs: Sequence[Matrix],
    ys: Sequence[Matrix] | None = None,
    *,
    precision: str = "float64",
    device: str = "cpu",
    progress: bool = False,
    kernel: Kernel = "linear",
    bandwidth: float = 1.0,
) -> np.ndarray:
    """Return the angle of every pair."""
    values = cka_pairs(
        xs,
        ys,
        precision=precision,
        device=device,
        progress=progress,
        kernel=kernel,
        bandwidth=bandwidth,
        debiased=False,
    )
    return np.asarray(np.arccos(values))


def _angular_pairs(
    xs: Sequence[Matrix],
    ys: Sequence[Matrix] | None = None,
    *,
    precision: str = "float64",
    device: str = "cpu",
    progress: bool = False,
    kernel: Kernel = "linear",
    bandwidth: float = 1.0,
) -> np.ndarray:
    """Return the angle of every pair as a share of the right angle."""
    angles = _arccos_pairs(
        xs,
        ys,
        precision=precision,
        device=device,
        progress=progress,
        kernel=kernel,
        bandwidth=bandwidth,
    )
    return angles / (np.pi / 2)


def _distance_correlation_pairs(
    xs: Sequence[Matrix],
    ys: Sequence[Matrix] | None = None,
    *,
    precision: str = "float64",
    device: str = "cpu",
    progress: bool = False,
    debiased: bool = False,
) -> np.ndarray:
    """Return the distance correlation of every pair."""
    values = cka_pairs(
        xs,
        ys,
        precision=precision,
        device=device,
        progress=progress,
        kernel="distance",
        debiased=debiased,
    )
    return values if debiased else np.sqrt(np.maximum(values, 0))


_CKA_IGNORES = ("permutation", "orthogonal", "isotropic_scaling", "translation")

for _name, _function, _pairs, _most in (
    ("arccos_cka_distance", arccos_cka_distance, _arccos_pairs, float(np.pi / 2)),
    ("angular_cka_distance", angular_cka_distance, _angular_pairs, 1.0),
):
    register(
        _name,
        _function,
        larger_is_more_similar=False,
        bounds=(0.0, _most),
        invariances=_CKA_IGNORES,
        default_precision="float64",
        pairs=_pairs,
        describe=describe,
    )
register(
    "distance_correlation",
    distance_correlation,
    larger_is_more_similar=True,
    bounds=(-1.0, 1.0),
    invariances=_CKA_IGNORES,
    default_precision="float64",
    pairs=_distance_correlation_pairs,
)
