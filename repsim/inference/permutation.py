"""Are two representations related at all? A test that shuffles the examples."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr
from tqdm.auto import tqdm

from repsim.comparison.all_pairs import compare
from repsim.core.provenance import repsim_version
from repsim.datasets.recordings import matrix, matrix_layers
from repsim.inference.closed_forms import Kernel
from repsim.inference.common_steps import Layers, as_list, directed
from repsim.inference.designs import false_discovery
from repsim.measures.catalogue import Choice, Measure

Shuffled = Callable[[np.ndarray], np.ndarray]
"""An order of the second side's examples -> the statistic of all pairs of layers."""


def permutation_test(
    a: xr.Dataset,
    b: xr.Dataset,
    measure: Choice = "cka",
    *,
    permutations: int = 999,
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
        A name of `repsim.measures.names()`. CKA and HSIC shuffle kernels that are
        made once; others are computed again for each order.
    permutations : int
        How many orders; the smallest attainable p is 1 / (1 + permutations).
    layers, layers_b : str, iterable of str or None
        Layers of each side; None is all, for `layers_b` those of `layers`.
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
        If there are no permutations, or whatever `repsim.compare` refuses.

    References
    ----------
    Gretton et al. 2008, A kernel statistical test of independence, NIPS 20;
    Phipson & Smyth 2010, https://doi.org/10.2202/1544-6115.1585 (why 1 + P)

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
    orders = [rng.permutation(a.sizes["example"]) for _ in range(permutations)]
    sign = 1.0 if chosen.larger_is_more_similar else -1.0
    parts = []
    for moment in moments:
        xs = [matrix(a, name, moment).astype(np.float64) for name in names_a]
        ys = [matrix(b, name, moment).astype(np.float64) for name in names_b]
        shuffled = _shuffled(xs, ys, chosen, options)
        parts.append(_null(shuffled, orders, sign, progress))
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
        "smallest_p": 1 / (1 + permutations),
        "seed": seed,
        "options": json.dumps(options, default=str, sort_keys=True),
        "repsim_version": repsim_version(),
    }
    return result


def _null(
    shuffled: Shuffled, orders: list[np.ndarray], sign: float, progress: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return p-values and the mean under the null, of all pairs of layers."""
    observed = sign * shuffled(np.arange(len(orders[0])))
    slack = 1e-12 * np.maximum(1.0, np.abs(observed))
    reached, total = np.ones(observed.shape), np.zeros(observed.shape)
    for order in tqdm(orders, desc="orders", disable=not progress):
        value = sign * shuffled(order)
        reached += ~(value < observed - slack)
        total += value
    return reached / (1 + len(orders)), sign * total / len(orders)


def _shuffled(
    xs: Sequence[np.ndarray],
    ys: Sequence[np.ndarray],
    measure: Measure,
    options: dict[str, Any],
) -> Shuffled:
    """Return the statistic as a function of the second side's order."""
    kernel, debiased = options.get("kernel", "linear"), options.get("debiased", True)
    known = set(options) <= {"kernel", "debiased", "bandwidth"}
    if measure.name in ("cka", "hsic") and debiased and known:
        return _aligned(xs, ys, measure.name, kernel, options.get("bandwidth", 1.0))
    return lambda order: measure.all_pairs(xs, [y[order] for y in ys], **options)


def _aligned(
    xs: Sequence[np.ndarray],
    ys: Sequence[np.ndarray],
    name: str,
    kernel: str,
    bandwidth: float,
) -> Shuffled:
    """Return debiased CKA or HSIC, where only the cross term feels the order."""
    n = len(xs[0])
    left = np.stack([Kernel(x, kernel, bandwidth).rows(0, n).ravel() for x in xs])
    right = [Kernel(y, kernel, bandwidth).rows(0, n) for y in ys]
    if name == "hsic":
        scale = np.full((len(left), len(right)), float(n * (n - 3)))
    else:
        norms_a = [float(np.linalg.norm(k)) for k in left]
        norms_b = [float(np.linalg.norm(k)) for k in right]
        scale = np.outer(norms_a, norms_b)
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = np.where(scale > 0, 1 / scale, np.nan)

    def statistic(order: np.ndarray) -> np.ndarray:
        moved = [left @ k[order][:, order].ravel() for k in right]
        return np.stack(moved, 1) * factor

    return statistic
