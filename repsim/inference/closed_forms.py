r"""Debiased CKA without each example, for all pairs of layers at once.

Song et al.'s estimator does not change when numbers :math:`a_i + a_j` are added to the
kernel off its diagonal, so the kernels can be U-centred once (rows that add up to
zero). All sums of the estimator but one vanish then, and so do their changes when an
example leaves: with :math:`T = \sum_{ij} K_{ij} L_{ij}`, :math:`t_i` its row sums and
:math:`m = n - 1`,

.. math:: HSIC_1(-i) = \frac{T - 2 t_i (m-1)/(m-2)}{m(m-3)}

exactly. One pass over tiles of the kernels gives everything for all pairs of layers.
"""

from collections.abc import Sequence

import numpy as np
from scipy.spatial.distance import pdist

from repsim.inference.jackknife import Estimates, pair_variance
from repsim.measures.magnitudes import array_near_one

LEAST = 6
"""Fewer examples than this leave nothing to estimate a variance from."""

_CELLS = 2**20  # of all layers at once: what a cache holds


class Kernel:
    """A kernel matrix, U-centred, made a band of rows at a time."""

    def __init__(self, x: np.ndarray, kernel: str, bandwidth: float) -> None:
        # Ratios of kernels do not see the scale, fourth powers overflow.
        x, _ = array_near_one(x)
        self.x = x - x.mean(0)
        self.norms = (self.x**2).sum(1)
        self.radial = kernel == "rbf"
        self.medians = _medians(self.x) if self.radial else np.ones(len(x) + 1)
        self.sigma = bandwidth * self.medians[0]
        self.sums = self._row_sums(derivative=False)
        self.slopes = self._row_sums(derivative=True) if self.radial else self.sums

    def _raw(self, start: int, stop: int, *, derivative: bool) -> np.ndarray:
        products: np.ndarray = self.x[start:stop] @ self.x.T
        if self.radial:
            squared = self.norms[start:stop, None] + self.norms - 2 * products
            scaled = np.maximum(squared, 0.0) / self.sigma**2
            products = np.exp(-scaled / 2)
            if derivative:
                products *= scaled
        rows = np.arange(start, stop)
        products[rows - start, rows] = 0.0
        return products

    def _row_sums(self, *, derivative: bool) -> np.ndarray:
        if not self.radial:
            return np.asarray(self.x @ self.x.sum(0) - self.norms)
        n = len(self.x)
        band = max(1, _CELLS // n)
        return np.concatenate(
            [
                self._raw(i, min(i + band, n), derivative=derivative).sum(1)
                for i in range(0, n, band)
            ]
        )

    def rows(self, start: int, stop: int, *, derivative: bool = False) -> np.ndarray:
        """Return rows of the U-centred matrix, or of its derivative by log σ."""
        n = len(self.x)
        sums = self.slopes if derivative else self.sums
        out = self._raw(start, stop, derivative=derivative)
        out -= (sums[start:stop, None] + sums[None]) / (n - 2)
        out += sums.sum() / ((n - 1) * (n - 2))
        rows = np.arange(start, stop)
        out[rows - start, rows] = 0.0
        return out

    def shifts(self) -> np.ndarray:
        """Return the change of log σ when each example leaves."""
        return np.asarray(np.log(self.medians[1:] / self.medians[0]))


def _medians(x: np.ndarray) -> np.ndarray:
    """Return the median distance, of all and without each example."""
    n = len(x)
    distances = pdist(x)
    middle = np.median(distances)
    below = np.zeros(n)
    i, j = np.triu_indices(n, 1)
    near = distances <= middle
    below += np.bincount(i[near], minlength=n) + np.bincount(j[near], minlength=n)
    # Without example i the median is the value with half of the others below it.
    left = (n - 1) * (n - 2) / 2
    share = (left / 2 + below) / len(distances)
    # Tied to the full median, which this quantile has where half of a row is near.
    neutral = (left / 2 + (n - 1) / 2) / len(distances)
    without = np.quantile(distances, np.clip(share, 0, 1))
    without += middle - np.quantile(distances, neutral)
    return np.concatenate([[middle], without])


def leave_one_out(
    xs: Sequence[np.ndarray],
    ys: Sequence[np.ndarray],
    *,
    kernel: str = "linear",
    bandwidth: float = 1.0,
) -> Estimates:
    """Return debiased CKA of every x with every y, whole and without each example.

    The RBF bandwidth moves too when an example leaves, by the change of the median
    distance, to first order.
    """
    n = len(xs[0])
    if n < LEAST:
        msg = f"Expected at least {LEAST} examples for an interval, but got {n}."
        raise ValueError(msg)
    left = [Kernel(x, kernel, bandwidth) for x in xs]
    right = [Kernel(y, kernel, bandwidth) for y in ys]
    sums = _Sums(left, right)
    with np.errstate(invalid="ignore", divide="ignore"):
        return sums.estimates(left, right)


class _Sums:
    """The sums over both kernels that the estimates are made of."""

    def __init__(self, left: Sequence[Kernel], right: Sequence[Kernel]) -> None:
        n = len(left[0].x)
        shape = (len(left), len(right))
        self.ab = np.empty((n, *shape))
        self.aa, self.bb = np.empty((n, shape[0])), np.empty((n, shape[1]))
        self.a2b2, self.a3b, self.ab3 = (np.zeros(shape) for _ in range(3))
        self.a4, self.b4 = np.zeros(shape[0]), np.zeros(shape[1])
        self.da_b, self.a_db = np.zeros(shape), np.zeros(shape)
        self.da_a, self.db_b = np.zeros(shape[0]), np.zeros(shape[1])
        band = max(1, _CELLS // (n * sum(shape)))
        for start in range(0, n, band):
            self._add(left, right, start, min(start + band, n))

    def _add(
        self, left: Sequence[Kernel], right: Sequence[Kernel], start: int, stop: int
    ) -> None:
        a = np.stack([k.rows(start, stop) for k in left])
        b = np.stack([k.rows(start, stop) for k in right])
        rows = slice(start, stop)
        self.ab[rows] = np.matmul(a.transpose(1, 0, 2), b.transpose(1, 2, 0))
        self.aa[rows] = np.einsum("lij,lij->il", a, a)
        self.bb[rows] = np.einsum("lij,lij->il", b, b)
        a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
        if left[0].radial:
            da, db = (
                np.stack([k.rows(start, stop, derivative=True).ravel() for k in side])
                for side in (left, right)
            )
            self.da_b += da @ b.T
            self.a_db += a @ db.T
            self.da_a += (da * a).sum(1)
            self.db_b += (db * b).sum(1)
        a2, b2 = a**2, b**2
        self.a2b2 += a2 @ b2.T
        self.a4 += (a2**2).sum(1)
        self.b4 += (b2**2).sum(1)
        self.a3b += (a2 * a) @ b.T
        self.ab3 += a @ (b2 * b).T

    def estimates(self, left: Sequence[Kernel], right: Sequence[Kernel]) -> Estimates:
        """Return CKA, CKA without each example, and the variance due to pairs."""
        aa, bb = self.aa.sum(0)[:, None], self.bb.sum(0)[None]
        flat = (aa <= 0) | (bb <= 0)
        root = np.where(flat, np.nan, np.sqrt(aa * bb))
        value = self.ab.sum(0) / root
        without = self._without(value)
        if left[0].radial:
            by_a = self.da_b / root - value * (self.da_a[:, None] / aa)
            by_b = self.a_db / root - value * (self.db_b[None] / bb)
            shift_a = np.stack([k.shifts() for k in left], 1)
            shift_b = np.stack([k.shifts() for k in right], 1)
            without = without + by_a * shift_a[:, :, None] + by_b * shift_b[:, None, :]
        return Estimates(value, np.clip(without, -1, 1), self._pairs(value, aa, bb))

    def _without(self, value: np.ndarray) -> np.ndarray:
        """Return CKA without each example; the estimator's own factors cancel."""
        m = len(self.ab) - 1
        share = 2 * (m - 1) / (m - 2)
        ab, aa, bb = (s.sum(0) - share * s for s in (self.ab, self.aa, self.bb))
        cka = ab / np.sqrt(aa[:, :, None] * bb[:, None, :])
        return np.where(np.isfinite(cka), cka, value)

    def _pairs(self, value: np.ndarray, aa: np.ndarray, bb: np.ndarray) -> np.ndarray:
        """Return the variance due to pairs of the linearised ratio."""
        n = len(self.ab)
        root = np.sqrt(aa * bb)
        rows = self.ab / root - value / 2 * (
            self.aa[:, :, None] / aa + self.bb[:, None, :] / bb
        )
        squares = (
            self.a2b2 / root**2
            + value**2
            / 4
            * (self.a4[:, None] / aa**2 + self.b4 / bb**2 + 2 * self.a2b2 / root**2)
            - value * (self.a3b / aa + self.ab3 / bb) / root
        )
        size = float(n * (n - 1)) ** 2
        return pair_variance((rows**2).sum(0) * size, squares * size, n)


class _Grouped:
    """Kernels of one side, examples in the order of their groups, pairs within none.

    Keeps what the estimator needs of a kernel besides its products with others:
    sums over each group, `sums` (example, group), and over blocks, (group, group).
    """

    def __init__(self, kernel: Kernel, starts: np.ndarray, which: np.ndarray) -> None:
        n = len(which)
        self.kernel = kernel
        self.sums = np.empty((n, len(starts)))
        for start, stop in _bands(starts, n, 1):
            rows = masked(kernel.rows(start, stop), which, start)
            self.sums[start:stop] = np.add.reduceat(rows, starts, axis=1)
        self.rows = self.sums.sum(1)
        self.blocks = np.add.reduceat(self.sums, starts, axis=0)


def masked(rows: np.ndarray, which: np.ndarray, start: int) -> np.ndarray:
    """Return rows of a kernel with zeros between examples of one group."""
    same = which[start : start + len(rows), None] == which
    return np.where(same, 0.0, rows)


def _bands(starts: np.ndarray, n: int, layers: int) -> list[tuple[int, int]]:
    """Return rows of whole groups, as many at a time as memory allows."""
    ends = np.append(starts[1:], n)
    most = max(1, _CELLS // (n * layers))
    bands, first = [], 0
    for end, after in zip(ends, [*ends[1:], n + most + 1], strict=True):
        if after - first > most:
            bands.append((first, int(end)))
            first = int(end)
    return [band for band in bands if band[0] < band[1]]


def leave_group_out(
    xs: Sequence[np.ndarray],
    ys: Sequence[np.ndarray],
    which: np.ndarray,
    *,
    kernel: str = "linear",
    bandwidth: float = 1.0,
) -> Estimates:
    r"""Return CKA from pairs of examples of different groups, without each group.

    Examples of one group are alike for belonging to it (copies, tokens of a
    sentence), so pairs of them say nothing of two new examples. With i, j, k, l of
    four different groups, HSIC is the mean of :math:`K_{ij} L_{ij} - 2 K_{ij} L_{ik}
    + K_{ij} L_{kl}`, unbiased where groups are drawn independently.
    """
    order = np.argsort(which, kind="stable")
    which = np.unique(which[order], return_inverse=True)[1]
    starts = np.flatnonzero(np.append(True, np.diff(which) > 0))
    n, count = len(which), len(starts)
    if count < LEAST - 1:
        # Four groups make a term, and one is left out.
        msg = (
            f"Expected at least {LEAST - 1} groups for an interval, but got {count}; "
            "take over='example', and read it as one of these groups only."
        )
        raise ValueError(msg)
    sides = [
        [_Grouped(Kernel(x[order], kernel, bandwidth), starts, which) for x in side]
        for side in (xs, ys)
    ]
    left, right = sides
    cells: dict[tuple[int, int], np.ndarray] = {}
    own: list[list[np.ndarray]] = [
        [np.empty((count, count)) for _ in side] for side in sides
    ]
    for i in range(len(left)):
        for j in range(len(right)):
            cells[i, j] = np.empty((count, count))
    for start, stop in _bands(starts, n, len(left) + len(right)):
        at = starts[(starts >= start) & (starts < stop)] - start
        some = which[start], which[stop - 1] + 1
        made = [
            [masked(one.kernel.rows(start, stop), which, start) for one in side]
            for side in sides
        ]

        def blocks(product: np.ndarray, at: np.ndarray = at) -> np.ndarray:
            return np.asarray(
                np.add.reduceat(np.add.reduceat(product, at, axis=0), starts, axis=1)
            )

        for side, kept in zip(made, own, strict=True):
            for rows, block in zip(side, kept, strict=True):
                block[slice(*some)] = blocks(rows**2)
        for i, a in enumerate(made[0]):
            for j, b in enumerate(made[1]):
                cells[i, j][slice(*some)] = blocks(a * b)
    ones = _Ones(which, starts)
    norms = [
        [_hsic(block, one, one, ones) for block, one in zip(kept, side, strict=True)]
        for kept, side in zip(own, sides, strict=True)
    ]
    shape = (len(left), len(right))
    value, pairs = np.full(shape, np.nan), np.full(shape, np.nan)
    without = np.full((count, *shape), np.nan)
    for (i, j), block in cells.items():
        both, out = _hsic(block, left[i], right[j], ones)
        (aa, out_a), (bb, out_b) = norms[0][i], norms[1][j]
        if not (aa > 0 and bb > 0):
            continue
        value[i, j] = both / np.sqrt(aa * bb)
        safe = np.where((out_a > 0) & (out_b > 0), out_a * out_b, np.nan)
        ratio = out / np.sqrt(safe)
        without[:, i, j] = np.clip(
            np.where(np.isfinite(ratio), ratio, value[i, j]), -1, 1
        )
        totals = own[0][i].sum(), own[1][j].sum()
        each = block / np.sqrt(totals[0] * totals[1]) - value[i, j] / 2 * (
            own[0][i] / totals[0] + own[1][j] / totals[1]
        )
        size = float(count * (count - 1))
        pairs[i, j] = pair_variance(
            np.asarray((each.sum(1) ** 2).sum() * size**2),
            np.asarray((each**2).sum() * size**2),
            count,
        )
    shares = np.bincount(which) / n
    return Estimates(value, without, pairs, shares=shares)


class _Ones:
    """The same sums of a kernel of ones: how many pairs, triples, quadruples."""

    def __init__(self, which: np.ndarray, starts: np.ndarray) -> None:
        sizes = np.bincount(which).astype(np.float64)
        self.sums = np.where(
            which[:, None] == np.arange(len(sizes)), 0.0, sizes[None, :]
        )
        self.rows = self.sums.sum(1)
        self.blocks = np.add.reduceat(self.sums, starts, axis=0)
        self.starts = starts
        self.counts = _sums(self.blocks, self, self, starts)


Blocks = _Grouped | _Ones


def _hsic(
    products: np.ndarray, a: Blocks, b: Blocks, ones: _Ones
) -> tuple[float, np.ndarray]:
    """Return the estimator, whole and without each group."""
    sums = _sums(products, a, b, ones.starts)
    factors = (1.0, -2.0, 1.0)
    whole, without = 0.0, np.zeros(len(ones.starts))
    for factor, (total, rest), (many, left) in zip(
        factors, sums, ones.counts, strict=True
    ):
        whole += factor * total / many
        with np.errstate(invalid="ignore", divide="ignore"):
            without += factor * rest / left
    return whole, without


def _sums(
    products: np.ndarray, a: Blocks, b: Blocks, starts: np.ndarray
) -> list[tuple[float, np.ndarray]]:
    """Return the sums over pairs, triples and quadruples, and without each group."""
    two = float(products.sum())
    without_two = two - 2 * products.sum(1)
    each = a.rows * b.rows - (a.sums * b.sums).sum(1)
    three = float(each.sum())
    through = b.sums.T @ a.rows + a.sums.T @ b.rows - 2 * (a.sums * b.sums).sum(0)
    without_three = three - np.add.reduceat(each, starts) - through
    rows_a, rows_b = a.blocks.sum(1), b.blocks.sum(1)
    both = (a.blocks * b.blocks).sum(1)
    four = rows_a.sum() * rows_b.sum() - 4 * rows_a @ rows_b + 2 * both.sum()
    # Without group g every other group's row is shorter by what it shared with g.
    shorter = rows_a @ rows_b - rows_a * rows_b
    shorter = shorter - b.blocks @ rows_a - a.blocks @ rows_b + both
    without_four = (
        (rows_a.sum() - 2 * rows_a) * (rows_b.sum() - 2 * rows_b)
        - 4 * shorter
        + 2 * (both.sum() - 2 * both)
    )
    return [(two, without_two), (three, without_three), (float(four), without_four)]
