"""Which models explain RDMs: against nothing, each other, and the noise ceiling."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from scipy import stats

from repsim.core.messages import unknown
from repsim.core.provenance import repsim_version
from repsim.geometry.ceilings import noise_ceiling, on_scale
from repsim.inference.rsa_influence import LEAST, METHODS, Units
from repsim.measures.dissimilarity.comparators import METHODS as COMPARATORS
from repsim.measures.dissimilarity.comparators import Method, similarities
from repsim.measures.dissimilarity.given import aligned, as_rdms, in_order, n_examples

FACTORS = ("rdm", "example")
PARTS = 40
"""Parts of the examples left out in turn where a comparator has no closed form."""


def model_test(
    rdms: Any,
    models: Any,
    *,
    method: Method = "spearman",
    over: str | Sequence[str] = FACTORS,
    level: float = 0.95,
) -> xr.Dataset:
    r"""Test which model RDMs explain data RDMs.

    A model's `estimate` is the mean of its RSA over the data RDMs (subjects,
    networks). Its variance, with both RDMs and examples drawn anew, is

    .. math:: v = v_{rdms} + v_{examples} - v_{both}

    since each jackknife holds the variance of the interaction. All tests use
    Student's t and are corrected for many models (Holm, within each kind of test).

    Parameters
    ----------
    rdms : DataArray, dims (…, pair), or array_like
        Data RDMs: one dim besides `pair`, of three or more to generalise over them.
    models : DataArray, dims (model, pair), mapping of str to RDM, or array_like
        Model RDMs over the same examples, as from `repsim.model_rdms`.
    method : str
        As in `repsim.compare_rdms`.
    over : str or sequence of str
        What conclusions are about: other RDMs ("rdm"), other examples ("example"),
        or both.
    level : float
        Coverage of the intervals.

    Returns
    -------
    Dataset
        Over `model`: `estimate`, `low`, `high`, `standard_error`, `p_value` (that the
        model explains nothing; one-sided), `p_ceiling` (that it reaches the lower
        noise ceiling; one-sided, small where something is left to explain). Over
        (`model_a`, `model_b`): `difference` (a − b) and `p_difference`
        (two-sided). The attrs hold the noise ceiling, `ceiling_low` and
        `ceiling_high`: NaN of a single RDM.

    Raises
    ------
    ValueError
        If the method or a factor is unknown, `level` is not between 0 and 1, there
        are fewer than three RDMs to generalise over, or fewer than six examples.

    See Also
    --------
    repsim.plot.models : Its picture.

    References
    ----------
    Nili et al. 2014, https://doi.org/10.1371/journal.pcbi.1003553 (the ceiling);
    Schütt et al. 2023, https://doi.org/10.7554/eLife.82566 (two factors);
    Holm 1979, A simple sequentially rejective multiple test procedure.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> truth, other = rng.random((2, 190))
    >>> data = truth + 0.5 * rng.random((8, 190))
    >>> found = model_test(data, {"truth": truth, "other": other})
    >>> (found["p_value"] <= 0.05).values.tolist()
    [True, False]
    """
    if not 0 < level < 1:
        msg = f"Expected `level` between 0 and 1, but got {level}."
        raise ValueError(msg)
    if method not in COMPARATORS:
        raise ValueError(unknown("method", method, COMPARATORS))
    factors = (over,) if isinstance(over, str) else tuple(over)
    for factor in factors or ("nothing",):
        if factor not in FACTORS:
            raise ValueError(unknown("over", factor, FACTORS))
    data, candidates = _given(rdms, models)
    stack, columns = (
        part.values.reshape(-1, part.sizes["pair"]).astype(np.float64)
        for part in (data, candidates)
    )
    n = n_examples(stack.shape[1])
    if n is None or n < LEAST:
        msg = (
            f"Expected RDMs of all pairs of at least {LEAST} examples, but got "
            f"{stack.shape[1]} pairs."
        )
        raise ValueError(msg)
    if "rdm" in factors and len(stack) < 3:
        msg = (
            f"Expected at least three RDMs to generalise over, but got {len(stack)}; "
            'take over="example".'
        )
        raise ValueError(msg)
    for name, part in (("rdms", stack), ("models", columns)):
        if empty := int(np.isnan(part).all(1).sum()):
            msg = (
                f"Expected each of `{name}` to hold dissimilarities, but got "
                f"{empty} of {len(part)} with NaN alone; leave them out."
            )
            raise ValueError(msg)
    table = _Table.of(stack, columns, method, n)
    return _labelled(table, data, candidates, method, factors, level)


def _given(rdms: Any, models: Any) -> tuple[xr.DataArray, xr.DataArray]:
    """Return data (rdm, pair) and models (model, pair), over the same pairs."""
    data = _without_single(in_order(as_rdms(rdms, "rdms"), "rdms"))
    others = [str(d) for d in data.dims if d != "pair"]
    if len(others) > 1:
        raise ValueError(_too_many("rdms", "one dim besides `pair`", data))
    data = data if others else data.expand_dims("rdm")
    if isinstance(models, Mapping):
        parts = [_one(part, f"models[{str(name)!r}]") for name, part in models.items()]
        # Where a model was taken from (a layer, a step) is not the same in all.
        parts = [
            part.drop_vars([c for c in part.coords if "pair" not in part[c].dims])
            for part in parts
        ]
        models = xr.concat(parts, xr.Variable("model", list(models)))
    stack = _without_single(as_rdms(models, "models"))
    if stack.ndim > 2:
        raise ValueError(_too_many("models", "one dim besides `pair`", stack))
    stack = stack if stack.ndim == 2 else stack.expand_dims("model")
    stack = stack.rename({str(stack.dims[0]): "model"}).transpose("model", "pair")
    if "model" not in stack.coords:
        stack = stack.assign_coords(model=[str(k) for k in range(len(stack))])
    stack = aligned(data, stack, ("rdms", "models"))
    if stack.sizes["pair"] != data.sizes["pair"]:
        msg = (
            "Expected `rdms` and `models` to have the same pairs, but got "
            f"{data.sizes['pair']} and {stack.sizes['pair']}."
        )
        raise ValueError(msg)
    return data, stack


def _one(model: Any, name: str) -> xr.DataArray:
    """Return a single model's RDM, dims (pair)."""
    found = _without_single(as_rdms(model, name), 0)
    if found.ndim > 1:
        raise ValueError(_too_many(name, "`pair` alone", found))
    return found


def _without_single(rdms: xr.DataArray, least: int = 1) -> xr.DataArray:
    """Leave out dims of length one, as of the only layer, beyond `least` besides."""
    single = [d for d in rdms.dims if d != "pair" and rdms.sizes[d] == 1]
    others = rdms.ndim - 1 - len(single)
    return rdms.squeeze(single[max(0, least - others) :])


def _too_many(name: str, expected: str, rdms: xr.DataArray) -> str:
    """Return the sentence for RDMs of which it is open which are meant."""
    moments = "layer" in rdms.dims or "step" in rdms.dims
    do = (
        "select a layer and a step, as in rdms.sel(layer=...).isel(step=-1)"
        if moments
        else "select one, or stack the dims"
    )
    dims = ", ".join(str(d) for d in rdms.dims)
    return f"Expected `{name}` to have {expected}, but got ({dims}); {do}."


@dataclass(frozen=True)
class _Table:
    """RSA of every RDM with every model, and last with the other RDMs' mean."""

    values: np.ndarray
    """Shape (rdm, column)."""
    moved: np.ndarray
    """Change without each example or part, shape (part, rdm, column)."""
    pairs: np.ndarray | None
    """Mean influence of every pair of examples, (column, pair), or None."""
    units: Units

    @classmethod
    def of(
        cls, stack: np.ndarray, models: np.ndarray, method: Method, n: int
    ) -> "_Table":
        """Return it, in closed form where the comparator has one."""
        units = Units.of(n, None)
        scaled = np.stack([on_scale(row, method) for row in stack])
        rest = scaled.sum(0) - scaled
        if method not in METHODS:
            return cls._by_parts(stack, models, rest, method, n, units)
        prepare, influence = METHODS[method]
        count = len(models) + 1
        values = np.full((len(stack), count), np.nan)
        moved = np.zeros((n, len(stack), count))
        pairs = np.zeros((count, stack.shape[1]))
        for r, row in enumerate(stack):
            for c in range(count if len(stack) > 1 else count - 1):
                column = models[c] if c < len(models) else rest[r]
                keep = np.isfinite(row) & np.isfinite(column)
                values[r, c], each = influence(
                    prepare(row[keep]), prepare(column[keep])
                )
                without, _ = units.left_out(0.0, each, keep)
                moved[:, r, c] = without
                pairs[c, keep] += each * (len(keep) / keep.sum()) / len(stack)
        return cls(values, moved, pairs, units)

    @classmethod
    def _by_parts(
        cls,
        stack: np.ndarray,
        models: np.ndarray,
        rest: np.ndarray,
        method: Method,
        n: int,
        units: Units,
    ) -> "_Table":
        """Return it by computing again without each part of the examples."""

        def table(keep: np.ndarray) -> np.ndarray:
            scores, _ = similarities(stack[:, keep], models[:, keep], method)
            last = np.full(len(stack), np.nan)
            if len(stack) > 1:
                last = np.array(
                    [
                        similarities(one[None, keep], row[None, keep], method)[0][0, 0]
                        for one, row in zip(rest, stack, strict=True)
                    ]
                )
            return np.column_stack([scores, last])

        values = table(np.ones(stack.shape[1], dtype=bool))
        order = np.random.default_rng(0).permutation(n)
        moved = []
        for part in np.array_split(order, min(PARTS, n)):
            out = np.isin(np.arange(n), part)
            moved.append(table(~(out[units.first] | out[units.second])) - values)
        return cls(values, np.stack(moved), None, units)

    def contrast(
        self, weights: np.ndarray, factors: tuple[str, ...]
    ) -> tuple[float, float, float]:
        """Return a combination of columns, its standard error, degrees of freedom."""
        used = weights != 0
        each = self.values[:, used] @ weights[used]
        estimate = float(each.mean())
        count, parts = len(each), len(self.moved)
        by_rdm = float(each.var(ddof=1) / count) if "rdm" in factors else 0.0
        change = self.moved[:, :, used] @ weights[used]
        of_example = change.mean(1)
        spread = of_example - of_example.mean()
        by_example = 0.0
        if "example" in factors:
            by_example = (parts - 1) / parts * float(spread @ spread)
            if self.pairs is not None:
                # The jackknife counts the variance of pairs of examples twice.
                joint = weights[used] @ self.pairs[used]
                every = np.ones(len(joint), dtype=bool)
                _, twice = self.units.left_out(0.0, joint, every)
                by_example = max(by_example - twice, by_example / 2)
        both = 0.0
        if len(factors) == 2 and count > 1:
            inner = change - of_example[:, None]
            inner = inner - inner.mean(0)
            both = (parts - 1) / parts * float((inner**2).sum()) / (count * (count - 1))
        variance = max(by_rdm + by_example - both, by_rdm, by_example)
        squares = by_rdm**2 / max(count - 1, 1) + by_example**2 / (parts - 1)
        freedom = variance**2 / squares if squares > 0 else np.inf
        return estimate, float(np.sqrt(variance)), float(freedom)


def _labelled(
    table: _Table,
    data: xr.DataArray,
    models: xr.DataArray,
    method: Method,
    factors: tuple[str, ...],
    level: float,
) -> xr.Dataset:
    """Return all tests with their names."""
    count = models.sizes["model"]
    eye = np.eye(count + 1)
    single = np.array([table.contrast(eye[m], factors) for m in range(count)])
    estimate, error, freedom = single.T
    reach = stats.t.ppf((1 + level) / 2, freedom) * error
    below = np.array(
        [table.contrast(eye[m] - eye[count], factors) for m in range(count)]
    )
    i, j = np.triu_indices(count, 1)
    pairs = np.array(
        [table.contrast(eye[a] - eye[b], factors) for a, b in zip(i, j, strict=True)]
    ).reshape(-1, 3)
    difference, p_difference = np.zeros((count, count)), np.full((count, count), np.nan)
    difference[i, j], difference[j, i] = pairs[:, 0], -pairs[:, 0]
    p_difference[i, j] = p_difference[j, i] = holm(2 * _tail(pairs, absolute=True))
    names = models["model"].values
    result = xr.Dataset(
        {
            "estimate": ("model", estimate),
            "low": ("model", np.maximum(estimate - reach, -1.0)),
            "high": ("model", np.minimum(estimate + reach, 1.0)),
            "standard_error": ("model", error),
            "p_value": ("model", holm(_tail(single))),
            "p_ceiling": ("model", holm(_tail(below * [-1, 1, 1]))),
            "difference": (("model_a", "model_b"), difference),
            "p_difference": (("model_a", "model_b"), p_difference),
        },
        coords={"model": names, "model_a": names, "model_b": names},
    )
    low = high = np.nan
    if len(data) > 1:
        ceiling = noise_ceiling(data, dim=str(data.dims[0]), method=method)
        low, high = float(ceiling["lower"]), float(ceiling["upper"])
    result.attrs = {
        "test": "model_test",
        "method": method,
        "over": list(factors),
        "level": level,
        "rdms": len(data),
        "ceiling_low": low,
        "ceiling_high": high,
        "correction": "holm",
        "repsim_version": repsim_version(),
    }
    return result


def _tail(found: np.ndarray, *, absolute: bool = False) -> np.ndarray:
    """Return the upper tail of t, of contrasts in rows."""
    value = np.abs(found[:, 0]) if absolute else found[:, 0]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(stats.t.sf(value / found[:, 1], found[:, 2]))


def holm(p: np.ndarray) -> np.ndarray:
    """Return p-values corrected for all of them together; NaN are no tests."""
    out = np.full(p.shape, np.nan)
    at = np.flatnonzero(np.isfinite(p))
    order = at[np.argsort(p[at])]
    steps = p[order] * np.arange(len(order), 0, -1)
    out[order] = np.minimum(np.maximum.accumulate(steps), 1.0) if len(order) else []
    return out
