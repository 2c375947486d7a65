"""How far a measure would move with other examples, other classes or other seeds."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from repsim.comparison.all_pairs import compare
from repsim.core.messages import unknown
from repsim.core.provenance import repsim_version
from repsim.datasets.recordings import matrix, matrix_layers
from repsim.inference import closed_forms as alignment
from repsim.inference import rsa_influence as geometry
from repsim.inference.common_steps import Layers, as_list
from repsim.inference.jackknife import Estimates, interval, scale
from repsim.measures.catalogue import Choice, Measure, named


def confidence(
    a: xr.Dataset | xr.DataTree,
    b: xr.Dataset | xr.DataTree | None = None,
    measure: Choice = "cka",
    *,
    level: float = 0.95,
    over: str = "example",
    groups: int = 40,
    layers: Layers = None,
    layers_b: Layers = None,
    seed: int = 0,
    **options: Any,
) -> xr.Dataset:
    r"""Return a measure between all layers, with an interval for each cell.

    The interval is for the measure's value in the population that the examples (or
    classes, or networks) were drawn from. Debiased CKA and RSA have their jackknife
    in closed form, corrected for what pairs of examples add; every other measure is
    computed again without each of `groups` random groups of examples. The plain
    bootstrap is not offered: it repeats examples, and a repeated example is at
    distance zero from itself.

    Parameters
    ----------
    a, b : Dataset or DataTree
        Two recordings of the same examples, `b=None` being `a` again. With
        `over="seed"`, the networks of two conditions: `study["bp"], study["sg"]`.
    measure : str, Measure or callable
        A name of `repsim.measures.names()`, or any function f(x, y) -> float.
    level : float
        Coverage of the intervals, between 0 and 1.
    over : str
        What was drawn from a population: "example"; the name of a coordinate on
        `example`, such as "label", for classes (each with all of its examples); or
        "seed" for networks.
    groups : int
        Groups of examples left out in turn, where there is no closed form.
    layers, layers_b : str, iterable of str or None
        Layers of each side; None is all, for `layers_b` those of `layers`.
    seed : int
        Of the random groups.
    **options
        The measure's own.

    Returns
    -------
    Dataset, dims ([step,] layer_a, layer_b)
        `estimate`, `low`, `high`, `standard_error` and `bias` (jackknife estimate of
        the estimate's bias, not taken off), in the measure's units. NaN where a layer
        is constant. The attrs say how the interval was made.

    Raises
    ------
    TypeError
        If a side is not what `over` needs.
    ValueError
        If `level` is not between 0 and 1, there are too few examples, classes or
        networks, or whatever `repsim.compare` refuses.

    Warns
    -----
    UserWarning
        If the estimated bias exceeds the standard error somewhere: the measure is
        then a plug-in estimate at too few examples, and its interval is about the
        wrong value.

    References
    ----------
    Efron & Stein 1981, https://doi.org/10.1214/aos/1176345462;
    Schütt et al. 2023, https://doi.org/10.7554/eLife.82566 (over which factor)

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(100, 5))
    >>> a = xr.Dataset({"h": (("example", "h_unit"), x)})
    >>> b = xr.Dataset({"h": (("example", "h_unit"), x + rng.normal(size=(100, 5)))})
    >>> found = confidence(a, b).squeeze()
    >>> [round(float(found[name]), 2) for name in ("low", "estimate", "high")]
    [0.48, 0.54, 0.6]
    """
    if not 0 < level < 1:
        msg = f"Expected `level` between 0 and 1, but got {level}."
        raise ValueError(msg)
    chosen = named(measure)
    if over == "seed":
        found, how = over_networks(a, b, chosen, layers, layers_b, options)
    else:
        pair = _Pair.of(a, a if b is None else b, over, layers, layers_b)
        found, how = pair.estimates(chosen, over, groups, seed, options)
    estimates, template = found
    ends = interval(estimates, scale(chosen.bounds), level)
    result = xr.Dataset(
        {
            "estimate": template.copy(data=estimates.value),
            "low": template.copy(data=ends.low),
            "high": template.copy(data=ends.high),
            "standard_error": template.copy(data=ends.standard_error),
            "bias": template.copy(data=ends.bias),
        }
    ).drop_attrs()
    result.attrs = template.attrs | {
        "interval": how,
        "level": level,
        "over": over,
        "seed": seed,
        "repsim_version": repsim_version(),
    }
    _warn_of_bias(result, chosen.name)
    return result


@dataclass(frozen=True)
class _Pair:
    """Two recordings of the same examples, in memory, and their layers."""

    a: xr.Dataset
    b: xr.Dataset
    layers_a: list[str]
    layers_b: list[str]

    @classmethod
    def of(
        cls, a: object, b: object, over: str, layers: Layers, layers_b: Layers
    ) -> "_Pair":
        for side in (a, b):
            if not isinstance(side, xr.Dataset):
                msg = (
                    f"Expected recordings (xarray.Dataset) with over={over!r}, but got "
                    f'{type(side).__name__}; over="seed" takes networks of a study.'
                )
                raise TypeError(msg)
        assert isinstance(a, xr.Dataset) and isinstance(b, xr.Dataset)
        listed = as_list(layers)
        names_a = matrix_layers(a, listed)
        names_b = matrix_layers(b, listed if layers_b is None else layers_b, "layers_b")
        return cls(a[names_a].load(), b[names_b].load(), names_a, names_b)

    def estimates(
        self,
        measure: Measure,
        over: str,
        groups: int,
        seed: int,
        options: dict[str, Any],
    ) -> tuple[tuple[Estimates, xr.DataArray], str]:
        """Return values whole and without examples, their labels, and how."""

        def cells(keep: slice | np.ndarray) -> xr.DataArray:
            return compare(
                self.a.isel(example=keep),
                self.b.isel(example=keep),
                measure,
                layers=self.layers_a,
                layers_b=self.layers_b,
                precision="float64",
                **options,
            )

        template = cells(slice(None))
        exact = closed_form(measure, options)
        if over == "example" and exact is not None:
            return (self._exact(template, exact), template), "closed-form jackknife"
        n = self.a.sizes["example"]
        if over == "example":
            parts = random_groups(n, groups, seed)
        else:
            parts = label_groups(_labels(self.a, over), over)
        found = leave_groups_out(lambda k: cells(k).values, template.values, n, parts)
        return (found, template), f"jackknife over {len(parts)} groups of examples"

    def _exact(
        self, template: xr.DataArray, form: Callable[..., Estimates]
    ) -> Estimates:
        """Return the closed form at every step."""
        stepped = "step" in template.dims
        found = [
            form(
                [matrix(self.a, k, step).astype(np.float64) for k in self.layers_a],
                [matrix(self.b, k, step).astype(np.float64) for k in self.layers_b],
            )
            for step in (range(template.sizes["step"]) if stepped else [None])
        ]
        if not stepped:
            return found[0]
        return Estimates(
            np.stack([one.value for one in found]),
            np.stack([one.without for one in found], 1),
            np.stack([one.pairs for one in found if one.pairs is not None]),
        )


def closed_form(
    measure: Measure, options: dict[str, Any]
) -> Callable[..., Estimates] | None:
    """Return the jackknife form of a measure with these options, if there is one."""
    if measure.name == "cka" and set(options) <= {"debiased", "kernel", "bandwidth"}:
        kept = {k: v for k, v in options.items() if k != "debiased"}
        if options.get("debiased", True):
            return lambda xs, ys: alignment.leave_one_out(xs, ys, **kept)
    if measure.name == "rsa" and set(options) <= {"metric", "method"}:
        metric = options.get("metric", "correlation")
        method = options.get("method", "spearman")
        if metric in geometry.METRICS and method in geometry.METHODS:
            return lambda xs, ys: geometry.leave_one_out(
                xs, ys, metric=metric, method=method
            )
    return None


def _labels(run: xr.Dataset, over: str) -> np.ndarray:
    known = [str(n) for n, c in run.coords.items() if c.dims == ("example",)]
    if over not in known:
        raise ValueError(
            unknown("over", over, list(dict.fromkeys(["example", "seed", *known])))
        )
    return np.asarray(run[over].values)


def _warn_of_bias(result: xr.Dataset, name: str) -> None:
    """Warn where the value is farther off than it is uncertain."""
    worse = np.abs(result["bias"]) > result["standard_error"]
    # Round-off is neither.
    worse &= np.abs(result["bias"]) > 1e-9
    if bool(worse.any()):
        warnings.warn(
            f"The estimated bias of {name!r} exceeds its standard error in "
            f"{int(worse.sum())} of {worse.size} cells, so those intervals are about "
            "a biased value; take more examples, or a debiased measure (cka).",
            UserWarning,
            stacklevel=3,
        )


LEAST = 3
"""Networks of a rule below which nothing can be said of others."""


def over_networks(
    a: object,
    b: object,
    measure: Measure,
    layers: Layers,
    layers_b: Layers,
    options: dict[str, Any],
) -> tuple[tuple[Estimates, xr.DataArray], str]:
    """Return the mean over pairs of networks, whole and without each network."""
    left = _networks(a, "a")
    right = left if b is None else _networks(b, "b")
    listed = as_list(layers)
    cells = compare(
        xr.DataTree.from_dict({f"a/{k}": run for k, run in left.items()}),
        xr.DataTree.from_dict({f"b/{k}": run for k, run in right.items()}),
        measure,
        layers=listed,
        layers_b=listed if layers_b is None else layers_b,
        precision="float64",
        **options,
    )
    values = cells.transpose("network_a", "network_b", ...)
    apart = _apart(left, right, same=b is None)
    template = values.isel(network_a=0, network_b=0).reset_coords(drop=True)
    found = _without_each(values.values, apart, same=b is None)
    count = f"{len(left)}" if b is None else f"{len(left)} + {len(right)}"
    return (found, template), f"jackknife over {count} networks"


def _networks(tree: object, name: str) -> dict[str, xr.Dataset]:
    """Return the networks of one condition by seed."""
    if not isinstance(tree, xr.DataTree):
        msg = (
            f'Expected `{name}` to be the networks of a condition with over="seed", as '
            f'study["bp"], but got {type(tree).__name__}.'
        )
        raise TypeError(msg)
    found = {str(k): node.to_dataset() for k, node in tree.children.items()}
    found = {k: run for k, run in found.items() if run.data_vars}
    if not found and len(tree.children) == 1:
        return _networks(next(iter(tree.children.values())), name)
    if len(found) < LEAST:
        inside = ", ".join(str(k) for k in tree.children) or "nothing"
        msg = (
            f"Expected `{name}` to hold at least {LEAST} networks of one condition, as "
            f'study["bp"], but got {len(found)} (the tree holds {inside}); run more '
            "seeds, or name the condition."
        )
        raise ValueError(msg)
    return found


def _apart(
    left: dict[str, xr.Dataset], right: dict[str, xr.Dataset], *, same: bool
) -> np.ndarray:
    """Return which pairs count: not a network with itself, nor a shared beginning."""
    inits_a, inits_b = (
        [run.attrs.get("init_seed") for run in side.values()] for side in (left, right)
    )
    mask = np.array([[x is None or x != y for y in inits_b] for x in inits_a])
    if same:
        np.fill_diagonal(mask, False)
    return mask


def _without_each(values: np.ndarray, apart: np.ndarray, *, same: bool) -> Estimates:
    """Return the mean over the pairs that count, and without each network."""

    def mean(keep_a: np.ndarray, keep_b: np.ndarray) -> np.ndarray:
        chosen = apart & np.outer(keep_a, keep_b)
        return np.asarray(values[chosen].mean(0))

    all_a, all_b = (np.ones(size, dtype=bool) for size in apart.shape)
    without = []
    for i in range(len(all_a)):
        others = np.arange(len(all_a)) != i
        without.append(mean(others, others if same else all_b))
    if not same:
        for j in range(len(all_b)):
            without.append(mean(all_a, np.arange(len(all_b)) != j))
    samples = () if same else apart.shape
    return Estimates(mean(all_a, all_b), np.stack(without), None, samples)


def random_groups(n: int, count: int, seed: int) -> list[np.ndarray]:
    """Return examples dealt at random into groups of nearly one size."""
    order = np.random.default_rng(seed).permutation(n)
    return [np.sort(part) for part in np.array_split(order, min(count, n))]


def label_groups(labels: np.ndarray, name: str) -> list[np.ndarray]:
    """Return examples grouped by what they are labelled with."""
    kinds, which = np.unique(labels, return_inverse=True)
    if len(kinds) < 3:
        msg = (
            f"Expected at least three values of {name!r} to generalise over, but got "
            f"{len(kinds)}; take over='example'."
        )
        raise ValueError(msg)
    return [np.flatnonzero(which == kind) for kind in range(len(kinds))]


def leave_groups_out(
    measure: Callable[[np.ndarray], np.ndarray],
    value: np.ndarray,
    n: int,
    groups: list[np.ndarray],
) -> Estimates:
    """Return a measure of all but each group of examples."""
    everything = np.arange(n)
    without = []
    with warnings.catch_warnings():
        # What the measure warns of on all examples it would say again of each part.
        warnings.simplefilter("ignore", UserWarning)
        for group in groups:
            without.append(measure(np.delete(everything, group)))
    return Estimates(value, np.stack(without))
