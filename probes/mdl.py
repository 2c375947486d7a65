"""Minimum description length: what it costs to send the labels, given a layer."""

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import ConvergenceWarning

from repsim.core.bars import progress_bar
from repsim.core.messages import seed_number
from repsim.probes.estimators import describe, few_examples_each, make
from repsim.probes.linear import LinearProbe
from repsim.probes.splits import group_codes
from repsim.probes.standardising import Standardise, expect_standardise, standardised
from repsim.probes.targets import Target, resolve
from repsim.probes.traversal import features, frame, moments, over_networks, provenance

SHARES = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.0625, 0.125, 0.25, 0.5, 1.0)
"""Ends of the blocks, as shares of the examples (Voita & Titov 2020)."""

GRID = tuple(10.0**power for power in range(-5, 3))
"""Inverse penalties that share the code with the uniform one (0)."""

SMALLEST = 10

MEANING = {
    "codelength": ("code length", "bits"),
    "uniform": ("uniform code", "bits"),
    "compression": ("compression", "1"),
    "block_codelength": ("code length of a block", "bits"),
    "C": ("inverse penalty of most weight", "1"),
}


def codelength_layers(
    run: xr.Dataset | xr.DataTree | Mapping[str, xr.Dataset] | Iterable[xr.Dataset],
    target: str | ArrayLike = "label",
    *,
    estimator: str | BaseEstimator | None = None,
    standardise: Standardise = "layer",
    groups: str | ArrayLike | None = None,
    seed: int = 0,
    progress: bool = False,
) -> xr.Dataset:
    r"""Return the online code length of a target given every layer at every step.

    The examples are sent in blocks, in a seeded order. Probes fitted to all earlier
    blocks code the next one; that of regularisation C costs

    .. math::
        L_C = t_1 \log_2 k - \sum_{j \ge 1} \sum_{i = t_j + 1}^{t_{j+1}}
        \log_2 p_{C, j}(y_i \mid x_i)

    bits, so a short code needs a probe that is accurate and learns from few examples.
    Regularisation is weighed by what it would have cost before, and by nothing that
    comes after: the code is the Bayesian mixture of those of the grid and the uniform
    one,

    .. math::
        L = -\log_2 \left( \tfrac12 2^{-n \log_2 k}
        + \tfrac{1}{2m} \sum_{C} 2^{-L_C} \right)

    with m = 8 values of C. It never costs more than 1 bit above the uniform code, nor
    more than 4 above the best C of the grid in hindsight.

    Parameters
    ----------
    run : Dataset, DataTree, mapping or iterable of Dataset
        A recording with layers of dims ([step,] example, unit). Several recordings
        add a dim: a study `condition` and `seed`, a mapping or a list `network`.
    target : str or array-like, shape (example,)
        A coordinate's name, or values: classes.
    estimator : str, estimator or None
        A classifier with probabilities; None is `LinearProbe()`. Its parameter `C`,
        where it has one, takes the values 10⁻⁵, 10⁻⁴ … 10².
    standardise : "layer", "units" or "none"
        As for `probe_layers`, by the examples before each block.
    groups : str or array-like, shape (example,), optional
        Which examples belong together, as for `probe_layers`: groups are sent whole,
        so that no probe has learnt from kin of the examples it codes.
    seed : int
        Seed of the examples' order.
    progress : bool
        Whether to show a bar over layers and steps.

    Returns
    -------
    Dataset, dims ([step,] layer)
        `codelength` and `uniform` (bits), `compression` (their quotient, uniform /
        codelength), and along `block` (its coordinate is the number of examples
        before it) `block_codelength` (bits) and `C`, the regularisation that had most
        weight before the block: 0 is the uniform code, NaN an estimator without `C`.

    Raises
    ------
    ValueError
        If the target is continuous, missing, incomplete, of the wrong length or has a
        class with fewer than two examples; a layer holds NaN or is no matrix; the
        estimator has no `predict_proba`.
    TypeError
        If `run` is not a recording, or `estimator` no estimator.

    Notes
    -----
    After t examples, u of the k classes still unseen, a probe's p becomes
    (t p + 1/k + [unseen]) / (t + 1 + u): no label ever costs infinitely much, and the
    safety costs about a bit a block.

    References
    ----------
    .. [1] E. Voita, I. Titov, "Information-theoretic probing with minimum description
       length", EMNLP 2020. https://doi.org/10.18653/v1/2020.emnlp-main.14

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> label = rng.permutation(np.arange(200) % 2)
    >>> values = rng.normal(size=(200, 3)) + 9 * label[:, None]
    >>> run = xr.Dataset(
    ...     {"late": (("example", "late_unit"), values)},
    ...     coords={"label": ("example", label)},
    ... )
    >>> bool(codelength_layers(run)["compression"] > 5)
    True
    """
    how = expect_standardise(standardise)
    seed = seed_number(seed)

    def one(network: xr.Dataset) -> xr.Dataset:
        return _codelengths(network, target, estimator, how, groups, seed, progress)

    return over_networks(run, one)


def _codelengths(
    run: xr.Dataset,
    target: str | ArrayLike,
    estimator: str | BaseEstimator | None,
    how: Standardise,
    groups: str | ArrayLike | None,
    seed: int,
    progress: bool,
) -> xr.Dataset:
    places = moments(run)
    goal = resolve(run, target)
    probe = make(estimator, continuous=False)
    classes = _classes_to_code(goal, probe)
    kin = group_codes(run, groups)
    coder = _Coder(goal, probe, how, None if kin is None else kin[1], seed)
    cells: dict[tuple[int, ...], dict[str, Any]] = {}
    for place, moment in progress_bar(places, desc="code lengths", progress=progress):
        length, leader = coder.code(features(run, moment))
        total = float(length.sum())
        cells[place] = {
            "codelength": total,
            "uniform": coder.uniform,
            "compression": coder.uniform / total,
            "block_codelength": length,
            "C": leader,
        }
    along = dict.fromkeys(("block_codelength", "C"), ("block",))
    result: xr.Dataset = frame(run, cells, along)
    for name, (long_name, units) in MEANING.items():
        result[name].attrs |= {"long_name": long_name, "units": units}
    options = coder.options() | ({} if kin is None else {"groups": kin[0]})
    return result.assign_coords(block=coder.starts).assign_attrs(
        provenance(
            target=goal.name,
            **describe(make(estimator, continuous=False)),
            standardise=how,
            seed=seed,
            classes=[str(c) for c in classes.tolist()],
            unit="bits",
            **options,
        )
    )


def _classes_to_code(goal: Target, probe: Any) -> np.ndarray:
    """Return the classes, or raise where there is nothing to code or to code by."""
    if goal.classes is None:
        msg = (
            f"Expected `target` {goal.name!r} to be classes for a code length, but got "
            "continuous values; probe_layers gives r2 and rmse."
        )
        raise ValueError(msg)
    if goal.outputs is not None:
        msg = (
            f"Expected `target` {goal.name!r} to be one class of each example for a "
            f"code length, but got {len(goal.outputs)} labels; give one at a time."
        )
        raise ValueError(msg)
    if not hasattr(probe, "predict_proba"):
        msg = (
            "Expected `estimator` to have predict_proba, but "
            f"{type(probe).__name__} gives no probabilities."
        )
        raise ValueError(msg)
    return goal.classes


class _Coder:
    """Codes one target, block by block."""

    def __init__(
        self,
        target: Target,
        probe: Any,
        how: Standardise,
        kin: np.ndarray | None,
        seed: int,
    ) -> None:
        assert target.classes is not None
        self.k, self.how = len(target.classes), how
        n = len(target.values)
        ends = np.unique(np.ceil(np.array(SHARES) * n).astype(int))
        rng = np.random.default_rng([seed, 3])
        self.order = rng.permutation(n)
        if kin is not None:
            # Groups in random order, each whole: blocks end where a group does.
            turn = rng.permutation(kin.max() + 1)[kin[self.order]]
            self.order = self.order[np.argsort(turn, kind="stable")]
            lasts = np.cumsum(np.bincount(turn))
            ends = np.unique(lasts[np.searchsorted(lasts, ends)])
        self.codes = target.values[self.order]
        self.ends = ends[ends >= min(max(self.k, SMALLEST), n)]
        self.starts = np.array([0, *self.ends[:-1]])
        self.uniform = float(n * np.log2(self.k))
        names = [p for p in probe.get_params() if p == "C" or p.endswith("__C")]
        self._knob = names[-1] if names else None
        self._probe = probe
        self.grid = GRID if names else (np.nan,)

    def options(self) -> dict[str, Any]:
        """Return what to write in a result's `attrs` about the regularisation."""
        return {} if self._knob is None else {"C_grid": list(self.grid)}

    def code(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return bits, and the regularisation of most weight, for each block."""
        x = x[self.order]
        bits = np.diff([0, *self.ends]) * np.log2(self.k)
        leaders = np.zeros(len(bits))
        options = np.array([0.0, *self.grid])
        # Logarithms of the codes' weights, the uniform one first.
        weights = np.full(len(options), -1 - np.log2(len(self.grid)))
        weights[0] = -1
        for block in range(1, len(bits)):
            leaders[block] = options[weights.argmax()]
            before = np.logaddexp2.reduce(weights)
            weights = weights - np.array([bits[block], *self._costs(x, block)])
            bits[block] = before - np.logaddexp2.reduce(weights)
        return bits, leaders

    def _costs(self, x: np.ndarray, block: int) -> list[float]:
        """Return a block's bits after fitting to all before it, for each C."""
        start, end = self.starts[block], self.ends[block]
        seen = np.unique(self.codes[:start])
        if len(seen) < 2:
            return [float((end - start) * np.log2(self.k))] * len(self.grid)
        x = standardised(x[:end], np.arange(start), self.how)
        probe = clone(self._probe)
        if isinstance(probe, LinearProbe):
            probe.set_params(warm_start=True)
        costs = []
        for strength in self.grid:
            if self._knob is not None:
                probe.set_params(**{self._knob: strength})
            with few_examples_each(), warnings.catch_warnings():
                # A probe cut short is a worse code, not a wrong one.
                warnings.simplefilter("ignore", ConvergenceWarning)
                probe.fit(x[:start], self.codes[:start])
            probabilities = np.zeros((end - start, self.k))
            probabilities[:, seen] = probe.predict_proba(x[start:end])
            costs.append(_bits(probabilities, self.codes[start:end], seen, start))
        return costs


def _bits(
    probabilities: np.ndarray, codes: np.ndarray, seen: np.ndarray, t: int
) -> float:
    """Return the cost of labels after t examples, every class kept possible."""
    k = probabilities.shape[1]
    unseen = np.ones(k)
    unseen[seen] = 0
    safe = (t * probabilities + 1 / k + unseen) / (t + 1 + unseen.sum())
    return float(-np.log2(safe[np.arange(len(codes)), codes]).sum())
