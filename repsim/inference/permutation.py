"""Are two representations related at all? A test that shuffles the examples."""

import json
import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from repsim.comparison.all_pairs import compare
from repsim.core.bars import progress_bar
from repsim.core.messages import unknown
from repsim.core.provenance import repsim_version
from repsim.datasets.recordings import matrix, matrix_layers
from repsim.inference.common_steps import Layers, as_list, directed
from repsim.inference.designs import false_discovery
from repsim.inference.reordered import (
    Shuffled,
    by_features,
    by_order,
    inner_products,
    kernel_of,
)
from repsim.inference.shifts import SHIFTED, Shifts, reached
from repsim.inference.unusual_examples import exact_copies
from repsim.measures.catalogue import Choice, Measure
from repsim.measures.magnitudes import array_near_one

_CELLS = 2**27
"""Numbers of matrices over pairs of examples that are held at a time (1 GiB)."""


def permutation_test(
    a: xr.Dataset,
    b: xr.Dataset,
    measure: Choice = "cka",
    *,
    permutations: int = 999,
    groups: str | ArrayLike | None = None,
    layers: Layers = None,
    layers_b: Layers = None,
    progress: bool = False,
    seed: int = 0,
    **options: Any,
) -> xr.Dataset:
    r"""Test whether two recordings' layers are related at all.

    .. math:: p = \frac{1 + \#\{\pi : s(x, \pi y) \ge s(x, y)\}}{1 + P}

    over P random orders π of the second side's examples (≤ for distances). The null
    hypothesis is that the two sides are independent, so a small p says no more than
    that the same examples are somewhat alike on both sides; nearly any two trained
    layers are. It is exact for examples that could have come in any order.

    Parameters
    ----------
    a, b : Dataset
        Two recordings of the same examples.
    measure : str or Measure
        A name of `repsim.measures.names()`. CKA and HSIC shuffle features or kernels
        that are made once, whichever is cheaper, and RSA shuffles RDMs; others, and
        biased estimators of other kernels than linear, are computed again for each
        order.
    permutations : int
        How many orders; the smallest attainable p is 1 / (1 + permutations).
    groups : str or array_like, shape (example,), optional
        Examples that belong together (tokens of a sentence, repeats of a stimulus):
        a coordinate's name, or their labels. Whole groups of one size are exchanged,
        each in its own order, and the null hypothesis is about groups.
    layers, layers_b : str, iterable of str or None
        Layers of each side, by name or pattern; None is all, for `layers_b` those
        of `layers`.
    progress : bool
        Show a bar.
    seed : int
        Of the orders, which are the same for all layers and steps.
    **options
        The measure's own.

    Returns
    -------
    Dataset, dims ([step,] layer_a, layer_b)
        `estimate`, `null_mean` (its mean over the orders, which a biased measure does
        not have at zero), `p_value`, `q_value` (Benjamini–Hochberg over all cells).
        NaN where a layer is constant.

    Raises
    ------
    TypeError
        If `measure` is a function that nobody registered.
    ValueError
        If there are no permutations, no two groups have one size, or whatever
        `repsim.compare` refuses.

    Warns
    -----
    UserWarning
        If examples are exact copies of others and `groups` does not say so.

    References
    ----------
    Hemerik & Goeman 2018, https://doi.org/10.1007/s11749-017-0571-1 (random orders of
    a structure: kernels and RDMs of 256 examples and more are turned along circles on
    which they lie at random, which gives n orders for the price of a few);
    Gretton et al. 2008, A kernel statistical test of independence, NIPS 20;
    Phipson & Smyth 2010, https://doi.org/10.2202/1544-6115.1585 (why 1 + P);
    Winkler et al. 2015, https://doi.org/10.1016/j.neuroimage.2015.05.092 (groups)

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(50, 5))
    >>> a = xr.Dataset({"h": (("example", "h_unit"), x)})
    >>> b = xr.Dataset({"h": (("example", "h_unit"), x + rng.normal(size=(50, 5)))})
    >>> float(permutation_test(a, b, permutations=99)["p_value"].squeeze())
    0.01
    """
    if permutations < 1:
        msg = f"Expected `permutations` to be at least 1, but got {permutations}."
        raise ValueError(msg)
    chosen = directed(measure)
    listed = as_list(layers)
    template = compare(
        a, b, chosen, layers=listed, layers_b=layers_b, precision="float64", **options
    )
    names_a = matrix_layers(a, listed)
    names_b = matrix_layers(b, listed if layers_b is None else layers_b, "layers_b")
    stepped = "step" in template.dims
    moments = range(template.sizes["step"]) if stepped else [None]
    rng = np.random.default_rng(seed)
    orders, distinct = _orders(_groups(a, groups), permutations, rng)
    shifts = None
    if groups is None and a.sizes["example"] >= SHIFTED:
        shifts = Shifts.drawn(a.sizes["example"], permutations, rng)
    sign = 1.0 if chosen.larger_is_more_similar else -1.0
    parts = []
    for moment in moments:
        xs, ys = (
            [
                matrix(run, name, moment if "step" in run.dims else None).astype(
                    np.float64
                )
                for name in names
            ]
            for run, names in ((a, names_a), (b, names_b))
        )
        if groups is None and moment in (None, 0):
            _warn_of_copies(xs + ys)
        (xs, by_a), (ys, by_b) = (_near_one(side, chosen) for side in (xs, ys))
        p_value, mean = _in_blocks(
            xs, ys, chosen, options, orders, shifts, sign, progress
        )
        if chosen.name == "hsic" and kernel_of(chosen, options) == "linear":
            mean = np.ldexp(mean, -2 * np.add.outer(by_a, by_b))
        parts.append((p_value, mean))
    values = [
        np.stack(part) if stepped else part[0] for part in zip(*parts, strict=True)
    ]
    p = np.where(np.isnan(template.values), np.nan, values[0])
    result = xr.Dataset(
        {
            "estimate": template,
            "null_mean": template.copy(data=values[1]),
            "p_value": template.copy(data=p),
            "q_value": template.copy(data=false_discovery(p)),
        }
    ).drop_attrs()
    result.attrs = template.attrs | {
        "test": "permutation_test",
        "permutations": permutations,
        "smallest_p": max(1 / (1 + permutations), 1 / distinct),
        "groups": groups if isinstance(groups, str) else int(groups is not None),
        "seed": seed,
        "options": json.dumps(options, default=str, sort_keys=True),
        "repsim_version": repsim_version(),
    }
    return result


def _near_one(
    side: list[np.ndarray], measure: Measure
) -> tuple[list[np.ndarray], np.ndarray]:
    """Return layers near one by powers of two, which no order sees, and these."""
    if measure.name not in ("cka", "hsic", "rsa"):
        return side, np.zeros(len(side), dtype=int)
    parts = [array_near_one(x) for x in side]
    return [x for x, _ in parts], np.array([by for _, by in parts])


def _null(
    shuffled: Shuffled, orders: list[np.ndarray], sign: float, progress: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return p-values and the mean under the null, of all pairs of layers."""
    observed = sign * shuffled(np.arange(len(orders[0])))
    count, total = np.ones(observed.shape), np.zeros(observed.shape)
    for order in progress_bar(orders, desc="orders", progress=progress):
        value = sign * shuffled(order)
        count += reached(value, observed)
        total += value
    return count / (1 + len(orders)), sign * total / len(orders)


def _groups(a: xr.Dataset, groups: str | ArrayLike | None) -> np.ndarray:
    """Return which group every example belongs to."""
    n = a.sizes["example"]
    if groups is None:
        return np.arange(n)
    if isinstance(groups, str):
        known = [str(k) for k, c in a.coords.items() if c.dims == ("example",)]
        if groups not in known:
            raise ValueError(unknown("groups", groups, known))
        groups = a[groups].values
    labels = np.asarray(groups)
    if labels.shape != (n,):
        msg = (
            f"Expected `groups` to label {n} examples, but got shape {labels.shape}; "
            "give a coordinate's name or one label an example."
        )
        raise ValueError(msg)
    return np.asarray(np.unique(labels, return_inverse=True)[1])


def _orders(
    which: np.ndarray, permutations: int, rng: np.random.Generator
) -> tuple[list[np.ndarray], float]:
    """Return orders that exchange whole groups of one size, and how many there are."""
    n = len(which)
    sizes = np.bincount(which)
    if (sizes == 1).all():
        drawn = [rng.permutation(n) for _ in range(permutations)]
        return drawn, math.exp(min(math.lgamma(n + 1), 700.0))
    members = np.split(np.argsort(which, kind="stable"), np.cumsum(sizes)[:-1])
    strata = [np.flatnonzero(sizes == size) for size in np.unique(sizes)]
    logs = sum(math.lgamma(len(some) + 1) for some in strata)
    if logs < math.log(2):
        msg = (
            "Expected `groups` to hold groups of one size, which may be exchanged, "
            f"but got sizes {', '.join(str(s) for s in sorted(sizes))}; cut groups to "
            "one size."
        )
        raise ValueError(msg)
    orders = []
    for _ in range(permutations):
        order = np.empty(n, dtype=np.intp)
        for some in strata:
            for own, other in zip(some, rng.permutation(some), strict=True):
                order[members[own]] = members[other]
        orders.append(order)
    return orders, math.exp(min(logs, 700.0))


def _warn_of_copies(layers: list[np.ndarray]) -> None:
    """Warn where examples that are counted as exchangeable are each other's copies."""
    copies = exact_copies(layers)
    if copies:
        warnings.warn(
            f"{copies} of {len(layers[0])} examples are exact copies of others, "
            "and not exchangeable by themselves: p is too small; leave copies out, or "
            "keep them together with groups=.",
            UserWarning,
            stacklevel=3,
        )


def _in_blocks(
    xs: Sequence[np.ndarray],
    ys: Sequence[np.ndarray],
    measure: Measure,
    options: dict[str, Any],
    orders: list[np.ndarray],
    shifts: Shifts | None,
    sign: float,
    progress: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Return p-values and means of all pairs, as many layers at a time as fit."""
    if _in_features(xs, ys, measure, options, len(orders), shifts):
        return _null(by_features(xs, ys, measure, options), orders, sign, progress)
    width = max(1, _CELLS // (2 * len(xs[0]) ** 2))
    rows = []
    for i in range(0, len(xs), width):
        row = []
        for j in range(0, len(ys), width):
            left, right = xs[i : i + width], ys[j : j + width]
            inner = inner_products(left, right, measure, options)
            if inner is not None and shifts is not None:
                row.append(shifts.null(*inner, sign, progress))
                continue
            shuffled = by_order(left, right, measure, options, inner)
            row.append(_null(shuffled, orders, sign, progress))
        rows.append([np.concatenate(part, 1) for part in zip(*row, strict=True)])
    p, mean = (np.concatenate(part, 0) for part in zip(*rows, strict=True))
    return p, mean


def _in_features(
    xs: Sequence[np.ndarray],
    ys: Sequence[np.ndarray],
    measure: Measure,
    options: dict[str, Any],
    permutations: int,
    shifts: Shifts | None,
) -> bool:
    """Return whether products of features cost less than those of kernels.

    A kernel's rows and columns must be moved for every order, which costs more than
    the products themselves: four of them, by trial; for shifts once in n orders, with
    the transform about as much as forty.
    """
    if kernel_of(measure, options) != "linear":
        return False
    n, layers = len(xs[0]), len(xs) + len(ys)
    features = n * sum(x.shape[1] for x in xs) * sum(y.shape[1] for y in ys)
    kernels = 4.0 * n * n * (len(xs) * len(ys) + len(ys))
    if shifts is not None:
        each = 40.0 * n * n * layers + n * n * len(xs) * len(ys)
        kernels = each * len(shifts.starts) / permutations
    return features < kernels or 2 * n * n > _CELLS
