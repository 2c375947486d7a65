"""HSIC and centred kernel alignment."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np

from repsim.core import cluster
from repsim.core.bars import progress_bar
from repsim.core.devices import multiplying
from repsim.core.messages import unknown
from repsim.core.threads import calm
from repsim.measures.catalogue import register
from repsim.measures.kernels import grams, hsic_sums, streamed, streamed_grams
from repsim.measures.kernels.centred import Centred
from repsim.measures.kernels.minibatch import batch_hsic, check_batch
from repsim.measures.matrices import (
    Matrix,
    Nan,
    check_examples,
    note_constant,
    pair,
    warn_constant,
)

ALONE = 10**10
"""Operations from which a second thread repays; a tenth of a second of one core."""

Kernel = Literal["linear", "rbf", "distance"]


def hsic(
    x: Matrix,
    y: Matrix,
    *,
    kernel: Kernel = "linear",
    debiased: bool = True,
    bandwidth: float = 1.0,
    nan: Nan = "raise",
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
    kernel : {"linear", "rbf", "distance"}
        x·x', exp(−d²/2σ²) with σ = bandwidth × the median distance, or −d in median
        distances.
    debiased : bool
        Which estimator.
    bandwidth : float
        Of the RBF kernel, in median off-diagonal distances.
    nan : {"raise", "omit"}
        Refuse NaN, or leave out the examples that hold it on either side.

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
    return _pair("hsic", x, y, kernel, debiased, bandwidth, nan)


def cka(
    x: Matrix,
    y: Matrix,
    *,
    kernel: Kernel = "linear",
    debiased: bool = True,
    bandwidth: float = 1.0,
    nan: Nan = "raise",
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
    kernel : {"linear", "rbf", "distance"}
        x·x', exp(−d²/2σ²) with σ = bandwidth × the median distance, or −d in median
        distances.
    debiased : bool
        Which estimator.
    bandwidth : float
        Of the RBF kernel, in median off-diagonal distances.
    nan : {"raise", "omit"}
        Refuse NaN, or leave out the examples that hold it on either side.

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
    return _pair("cka", x, y, kernel, debiased, bandwidth, nan)


def _pair(
    name: str,
    x: Matrix,
    y: Matrix,
    kernel: Kernel,
    debiased: bool,
    bandwidth: float,
    nan: Nan,
) -> float:
    """Compute one pair through the very code that computes all of them."""
    a, b = pair(x, y, 4 if debiased else 2, nan)
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
    batch: int | None = None,
) -> np.ndarray:
    """Return CKA between every x and every y; see `cka` and `Measure.all_pairs`.

    With `batch`, HSIC is the mean over batches of about so many neighbouring examples,
    each by its rows (Nguyen et al. 2021): cheaper, and another number.
    """
    values, own, _ = hsic_matrix(
        xs,
        ys,
        precision=precision,
        device=device,
        progress=progress,
        kernel=kernel,
        debiased=debiased,
        bandwidth=bandwidth,
        batch=batch,
    )
    return ratios(values, own, None if ys is None else len(xs))


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
    values, _, exponents = hsic_matrix(
        xs,
        ys,
        precision=precision,
        device=device,
        progress=progress,
        kernel=kernel,
        debiased=debiased,
        bandwidth=bandwidth,
    )
    # Beyond float64 there is only infinity, or 0.
    with np.errstate(over="ignore", under="ignore"):
        values = np.asarray(np.ldexp(values, -2 * np.add.outer(exponents, exponents)))
    return values if ys is None else values[: len(xs), len(xs) :]


def hsic_matrix(
    xs: Sequence[Matrix],
    ys: Sequence[Matrix] | None,
    *,
    precision: str,
    device: str,
    progress: bool,
    kernel: Kernel,
    debiased: bool,
    bandwidth: float,
    batch: int | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return HSIC of all pairs and of each layer with itself, of layers times 2ᵏ; k."""
    if kernel not in get_args(Kernel):
        raise ValueError(unknown("kernel", kernel, get_args(Kernel)))
    if not bandwidth > 0:
        msg = f"Expected `bandwidth` to be positive, but got {bandwidth!r}."
        raise ValueError(msg)
    every, split = [*xs, *(ys or [])], None if ys is None else len(xs)
    check_examples(int(xs[0].shape[0]), 4 if debiased else 2)
    if batch is not None:
        check_batch(batch, int(xs[0].shape[0]), kernel)
        with (
            progress_bar(desc="HSIC, batches", progress=progress) as bar,
            multiplying(precision, device),
        ):
            return batch_hsic(
                every, split, batch, precision, device, debiased, bar.update
            )
    chosen = plan(xs, ys, kernel=kernel)
    p, q = ([int(x.shape[1]) for x in side] for side in (xs, ys or []))
    work = hsic_sums.operations(int(xs[0].shape[0]), p, q or None, chosen.space)
    with (
        progress_bar(
            desc=f"HSIC, {chosen.space} space{chosen.told}", progress=progress
        ) as bar,
        calm(int(work), ALONE),
        multiplying(precision, device),
    ):
        if chosen.streamed and chosen.space == "sample":
            sums, exponents, constant = streamed_grams.streamed_grams(
                every, split, precision, device, streamed.budget(), bar.update
            )
        elif chosen.streamed:
            sums, exponents, constant = streamed.streamed_sums(
                every, split, precision, device, bar.update
            )
        else:
            x = Centred.of(every, split, precision, device, chosen.space)
            exponents, constant = x.exponents, x.constant
            if chosen.space == "feature":
                sums = hsic_sums.feature_sums(x, split, bar.update)
            elif kernel == "linear":
                sums = grams.linear_sums(x, split, bar.update)
            else:
                sums = grams.kernel_sums(x, split, kernel, bandwidth, bar.update)
    values, own = sums.hsic(debiased)
    for source, flat in zip(every, constant, strict=True):
        note_constant(source, flat)
    values[constant] = values[:, constant] = own[constant] = np.nan
    return values, own, exponents if kernel == "linear" else np.zeros_like(exponents)


def ratios(values: np.ndarray, own: np.ndarray, split: int | None) -> np.ndarray:
    """Return CKA from HSIC."""
    second = slice(None) if split is None else slice(split, None)
    size = np.sqrt(own)
    # Rounding may put a perfect 1 a little above; nothing else is above.
    return np.clip(
        values[:split, second] / np.outer(size[:split], size[second]), -1.0, 1.0
    )


@dataclass(frozen=True)
class Plan:
    """How all pairs are computed."""

    space: str
    streamed: bool
    reads: int
    passes: int = 1

    @property
    def told(self) -> str:
        """Return what a bar says of a long one."""
        return f", each layer read {self.reads} times" if self.reads > 1 else ""


def plan(
    xs: Sequence[Matrix], ys: Sequence[Matrix] | None, *, kernel: str = "linear"
) -> Plan:
    """Choose the cheaper space; in feature space, stored layers are read by blocks."""
    if kernel != "linear":
        return Plan("sample", False, 1)
    p, q = (tuple(int(x.shape[1]) for x in side) for side in (xs, ys or []))
    every = [*xs, *(ys or [])]
    stored = any(getattr(source, "stored", False) for source in every)
    # What does not fit beside its products on the device goes there by blocks, too.
    stored = stored or not streamed.fits_device(every)
    n, right = int(xs[0].shape[0]), None if ys is None else q
    if max(*p, *q, 0) <= n and streamed.can_spread(every) and cluster.active():
        # Sums over units are small beside the examples, which stay where they are.
        return _by_passes(p, right, streamed.budget())
    return _plan(n, p, right, stored, streamed.budget())


@lru_cache(64)
def _plan(
    n: int, p: tuple[int, ...], q: tuple[int, ...] | None, stored: bool, budget: int
) -> Plan:
    """Return the plan for sides of these sizes, the same at every step."""
    every = [*p, *(q or ())]
    sample = hsic_sums.operations(n, p, q, "sample")
    feature = hsic_sums.operations(n, p, q, "feature")
    fits = n * sum(every) * 8 <= budget
    if sample < feature and (fits or not stored):
        return Plan("sample", False, 1)
    if not stored:
        return Plan("feature", False, 1)
    if sample < feature and max(every) ** 2 * 8 > budget:
        # Not even the products of one layer's own units fit: those of examples do.
        tiles = -(-n // streamed_grams.tile_rows(n, every, budget))
        return Plan("sample", True, tiles + 2, tiles)
    return _by_passes(p, q, budget)


def _by_passes(p: tuple[int, ...], q: tuple[int, ...] | None, budget: int) -> Plan:
    """Return the plan of reading layers together whose products fit."""
    every = [*p, *(q or ())]
    passes = streamed.passes(every, None if q is None else len(p), budget)
    return Plan("feature", True, streamed.reads(passes), len(passes))


def describe(
    xs: Sequence[Matrix], ys: Sequence[Matrix] | None, **options: Any
) -> dict[str, Any]:
    """Say how all pairs are computed, for the attributes of a result."""
    if options.get("batch") is not None:
        return {"space": "sample, by batches", "reads": 1}
    chosen = plan(xs, ys, kernel=options["kernel"])
    how: dict[str, Any] = {"space": chosen.space, "reads": chosen.reads}
    if chosen.streamed:
        every = [*xs, *(ys or [])]
        held = sum(math.prod(x.shape) * x.dtype.itemsize for x in every)
        how |= {"streamed": 1, "passes": chosen.passes, "bytes": held * chosen.reads}
        how["memory"] = streamed.budget()
    if (limit := streamed.device_limit()) is not None:
        how["device_memory"] = limit
    return how


_SHARED: dict[str, Any] = {
    "larger_is_more_similar": True,
    "precisions": ("float64", "float32", "tf32", "bfloat16"),
    "describe": describe,
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
