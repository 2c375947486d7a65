"""A measure between all layers as a function of the second side's order."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.spatial.distance import squareform

from repsim.inference.closed_forms import Kernel
from repsim.inference.rsa_influence import METHODS, Ranked
from repsim.inference.shifts import Inner, reciprocal
from repsim.measures.catalogue import Measure
from repsim.measures.dissimilarity import rdm

Shuffled = Callable[[np.ndarray], np.ndarray]
"""An order of the second side's examples -> the statistic of all pairs of layers."""


def kernel_of(measure: Measure, options: dict[str, Any]) -> str:
    """Return the kernel of CKA or HSIC, or nothing where options say otherwise."""
    known = set(options) <= {"kernel", "debiased", "bandwidth"}
    if measure.name not in ("cka", "hsic") or not known:
        return ""
    return str(options.get("kernel", "linear"))


def by_features(
    xs: Sequence[np.ndarray],
    ys: Sequence[np.ndarray],
    measure: Measure,
    options: dict[str, Any],
) -> Shuffled:
    r"""Return linear CKA or HSIC from products of features.

    With centred features the debiased sum is :math:`\|X^T Y\|^2 - (1 + 2/(n-2))
    \sum_i a_i b_i + \sum a \sum b / ((n-1)(n-2))`, a and b the rows' squares; only
    the first two feel the order.
    """
    n = len(xs[0])
    left, right = ([x - x.mean(0) for x in side] for side in (xs, ys))
    debiased = bool(options.get("debiased", True))

    def joined(
        side: list[np.ndarray],
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        starts = np.cumsum([0] + [x.shape[1] for x in side[:-1]])
        squares = np.stack([(x**2).sum(1) for x in side], 1)
        return np.concatenate(side, 1), starts, squares

    x, starts_x, a = joined(left)
    y, starts_y, b = joined(right)
    ends = np.outer(a.sum(0), b.sum(0)) / ((n - 1) * (n - 2))

    def sums(order: np.ndarray) -> np.ndarray:
        cross = x.T @ y[order]
        cross *= cross
        total = np.add.reduceat(np.add.reduceat(cross, starts_x, 0), starts_y, 1)
        if debiased:
            total = total - (1 + 2 / (n - 2)) * (a.T @ b[order]) + ends
        return np.asarray(total)

    norms = []
    for side in (left, right):
        own = []
        for one in side:
            square = float((np.square(one.T @ one)).sum())
            if debiased:
                rows = (one**2).sum(1)
                square -= (1 + 2 / (n - 2)) * float(rows @ rows)
                square += float(rows.sum()) ** 2 / ((n - 1) * (n - 2))
            own.append(square)
        norms.append(np.array(own))
    if measure.name == "hsic":
        scale = np.full(ends.shape, n * (n - 3.0) if debiased else (n - 1.0) ** 2)
    else:
        scale = np.sqrt(np.maximum(np.outer(*norms), 0.0))
    factor = reciprocal(scale)
    return lambda order: sums(order) * factor


def inner_products(
    xs: Sequence[np.ndarray],
    ys: Sequence[np.ndarray],
    measure: Measure,
    options: dict[str, Any],
) -> Inner | None:
    """Return the statistic as products of symmetric matrices, where it is that."""
    kernel, debiased = kernel_of(measure, options), options.get("debiased", True)
    if kernel == "linear" or (kernel and debiased):
        return _aligned(xs, ys, measure.name, options)
    if measure.name == "rsa" and set(options) <= {"metric", "method"}:
        return _ranked(xs, ys, options)
    return None


def by_order(
    xs: Sequence[np.ndarray],
    ys: Sequence[np.ndarray],
    measure: Measure,
    options: dict[str, Any],
    inner: Inner | None,
) -> Shuffled:
    """Return the statistic as a function of the second side's order."""
    if inner is not None:
        return _moved(*inner)
    return lambda order: measure.all_pairs(xs, [y[order] for y in ys], **options)


def _aligned(
    xs: Sequence[np.ndarray],
    ys: Sequence[np.ndarray],
    name: str,
    options: dict[str, Any],
) -> Inner:
    """Return CKA or HSIC, of which only the cross term feels the order."""
    n = len(xs[0])
    kernel, bandwidth = options.get("kernel", "linear"), options.get("bandwidth", 1.0)
    debiased = options.get("debiased", True)

    def centred(x: np.ndarray) -> np.ndarray:
        if debiased:
            return Kernel(x, kernel, bandwidth).rows(0, n)
        x = x - x.mean(0)
        return np.asarray(x @ x.T)

    left, right = ([centred(x) for x in side] for side in (xs, ys))
    if name == "hsic":
        size = n * (n - 3) if debiased else (n - 1) ** 2
        scale = np.full((len(left), len(right)), float(size))
    else:
        norms = [np.array([np.linalg.norm(k) for k in side]) for side in (left, right)]
        scale = np.outer(norms[0], norms[1])
    return left, right, scale


def _ranked(
    xs: Sequence[np.ndarray], ys: Sequence[np.ndarray], options: dict[str, Any]
) -> Inner | None:
    """Return RSA, whose ranks an order of the examples only moves; None with gaps."""
    method = options.get("method", "spearman")
    metric = options.get("metric", "correlation")
    if method not in METHODS:
        return None
    prepare, _ = METHODS[method]
    sides, spreads = [], []
    for side in (xs, ys):
        matrices, sizes = [], []
        for x in side:
            entries = rdm(x, metric=metric)
            if not np.isfinite(entries).all():
                return None
            made = prepare(entries)
            values = made.values if isinstance(made, Ranked) else made
            matrices.append(squareform(values, checks=False))
            sizes.append(made.spread if isinstance(made, Ranked) else 1.0)
        sides.append(matrices)
        spreads.append(sizes)
    pairs = len(entries)
    if method == "rho-a":
        scale = np.full((len(xs), len(ys)), (pairs**2 - 1) / (12 * pairs**2))
    else:
        scale = np.outer(np.array(spreads[0]), np.array(spreads[1]))
    return sides[0], sides[1], scale * 2 * pairs


def _moved(
    left: Sequence[np.ndarray], right: Sequence[np.ndarray], scale: np.ndarray
) -> Shuffled:
    """Return inner products of symmetric matrices, the right ones' rows moved."""
    factor = reciprocal(scale)
    stack = np.stack([k.ravel() for k in left])

    def statistic(order: np.ndarray) -> np.ndarray:
        moved = [stack @ k[order][:, order].ravel() for k in right]
        return np.asarray(np.stack(moved, 1) * factor)

    return statistic
