"""What a claim is: a statement, an experiment, thresholds, and a computed verdict."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import ttest_1samp, ttest_ind

if TYPE_CHECKING:
    from repsim.claims.lab import Lab
    from repsim.claims.settings import Settings

HOLDS = "holds"
FAILS = "does not hold"
REPORTED = "reported"

Relation = Literal["<", "<=", ">", ">=", "=="]
Statistic = Literal["every", "mean", "low", "high"]

_HOLDS: dict[str, Callable[[float, float], bool]] = {
    "<": lambda value, bound: value < bound,
    "<=": lambda value, bound: value <= bound,
    ">": lambda value, bound: value > bound,
    ">=": lambda value, bound: value >= bound,
    "==": lambda value, bound: value == bound,
}


@dataclass(frozen=True)
class Effect:
    """A difference with its interval over networks.

    Parameters
    ----------
    estimate : float
        The difference.
    low, high : float
        Its two-sided 90 % interval, so that either end is a one-sided 95 % bound.

    Examples
    --------
    >>> Gate("gap", ">", 0, "the paper", of="low").kept(Effect(0.3, -0.1, 0.7))
    False
    """

    estimate: float
    low: float
    high: float


Values = Sequence[float] | Effect


@dataclass(frozen=True)
class Gate:
    """A bound that a measured quantity must keep for the claim to hold.

    Parameters
    ----------
    quantity : str
        The name under which the experiment reports the quantity.
    relation : {"<", "<=", ">", ">=", "=="}
        How the values must stand to the bound.
    bound : float
        The bound.
    origin : str
        Where the bound comes from.
    of : {"every", "mean", "low", "high"}
        Whether every value (every seed) must keep it, their mean, or an end of the
        interval of an `Effect`.
    seeds : int
        Networks a condition without which the quantity cannot be judged.

    Examples
    --------
    >>> gate = Gate("gap", "<", 1, "the paper")
    >>> gate.kept([0.5, 0.9]), gate.kept([0.5, 2.0])
    (True, False)
    """

    quantity: str
    relation: Relation
    bound: float
    origin: str
    of: Statistic = "every"
    seeds: int = 1

    def kept(self, values: Values) -> bool:
        """Return whether the values keep the bound; none, or a NaN, does not."""
        if isinstance(values, Effect):
            tested: Sequence[float] = [getattr(values, _END.get(self.of, self.of))]
        else:
            mean = self.of == "mean" and values
            tested = [float(np.mean(values))] if mean else values
        return bool(tested) and all(
            not math.isnan(v) and _HOLDS[self.relation](v, self.bound) for v in tested
        )

    def __str__(self) -> str:
        """Return the bound as a reader says it."""
        return f"{_WHICH[self.of]}{self.quantity} {self.relation} {self.bound:g}"


_END = {"every": "estimate", "mean": "estimate"}
_WHICH = {
    "every": "",
    "mean": "mean of ",
    "low": "lower 95 % bound of ",
    "high": "upper 95 % bound of ",
}


@dataclass
class Evidence:
    """What an experiment brings back.

    Parameters
    ----------
    measured : mapping of str to sequence of float or Effect
        Quantity -> its values, one a seed where the experiment is stochastic, or a
        difference with its interval. The first is the claim's effect.
    figure : Figure or None
        The claim's picture; None draws the values against their bounds.
    tables : mapping
        JSON-able tables behind the numbers, by name.
    note : str
        What a reader must know to read the numbers.

    Examples
    --------
    >>> Evidence({"gap": [0.5, 0.9]}).note
    ''
    """

    measured: Mapping[str, Values]
    figure: Figure | None = None
    tables: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Claim:
    """One claim of the paper as an experiment that can fail.

    Parameters
    ----------
    id : str
        Short name, as in `--claims C1,C4`.
    order : int
        Its place among the claims.
    group : str
        The group (module) it belongs to.
    statement : str
        The claim in our words.
    source : str
        Who says it, and where.
    experiment : str
        What is done to check it.
    gates : tuple of Gate
        What must be kept for "holds"; none means the numbers are reported.
    run : callable
        Lab -> Evidence.
    uses : tuple of str
        Conditions of the shared networks that the experiment trains.
    seconds : callable
        Settings -> seconds of one core that it takes besides those.
    holds_for : mapping of str to str
        Ways of being broken (of `tests/benchmarks/broken_rules.py`) under which the
        claim holds all the same -> why it must.

    Examples
    --------
    >>> import repsim
    >>> [str(gate) for gate in repsim.claims.registered()["T5"].gates][0]
    'unlabelled step / true, bottleneck < 1e-08'
    """

    id: str
    order: int
    group: str
    statement: str
    source: str
    experiment: str
    gates: tuple[Gate, ...]
    run: "Callable[[Lab], Evidence]"
    uses: tuple[str, ...] = ()
    seconds: "Callable[[Settings], float]" = field(default=lambda settings: 1.0)
    holds_for: Mapping[str, str] = field(default_factory=dict)

    def judge(self, measured: Mapping[str, Values], seeds: int | None = None) -> str:
        """Return the verdict on measured values.

        Parameters
        ----------
        measured : mapping of str to sequence of float or Effect
            Quantity -> values.
        seeds : int or None
            Networks a condition; None is as many as the gates need.

        Returns
        -------
        str
            "holds", "does not hold", or "reported" where there is no gate, or one
            that takes more seeds while the others are kept.

        Examples
        --------
        >>> gates = (Gate("gap", "<", 1, "t"),)
        >>> claim = Claim("X", 1, "group", "s", "o", "e", gates, print)
        >>> claim.judge({"gap": [0.5]}), claim.judge({"gap": [0.5, 2.0]})
        ('holds', 'does not hold')
        """
        if self.broken(measured, seeds):
            return FAILS
        return HOLDS if self.gates and not self.unjudged(seeds) else REPORTED

    def broken(
        self, measured: Mapping[str, Values], seeds: int | None = None
    ) -> list[Gate]:
        """Return the gates that the values do not keep."""
        open_ = self.unjudged(seeds)
        gates = [gate for gate in self.gates if gate not in open_]
        return [g for g in gates if not g.kept(measured.get(g.quantity, ()))]

    def unjudged(self, seeds: int | None) -> list[Gate]:
        """Return the gates that so many seeds cannot judge."""
        return [g for g in self.gates if seeds is not None and seeds < g.seeds]

    @property
    def threshold(self) -> str:
        """What is demanded and where that comes from, as one sentence."""
        if not self.gates:
            return "none: the paper gives no number, so the values are reported"
        return "; ".join(f"{gate} ({gate.origin})" for gate in self.gates)


_CLAIMS: dict[str, Claim] = {}


def claim(
    id: str,
    *,
    order: int,
    statement: str,
    source: str,
    experiment: str,
    gates: Sequence[Gate] = (),
    uses: Sequence[str] = (),
    seconds: "Callable[[Settings], float] | float" = 1.0,
    holds_for: Mapping[str, str] | None = None,
) -> "Callable[[Callable[[Lab], Evidence]], Callable[[Lab], Evidence]]":
    """Register the function beneath as the experiment of a claim."""

    def register(run: "Callable[[Lab], Evidence]") -> "Callable[[Lab], Evidence]":
        group = run.__module__.rpartition(".")[2]
        _CLAIMS[id] = Claim(
            id, order, group, statement, source, experiment, tuple(gates), run,
            tuple(uses), seconds if callable(seconds) else lambda settings: seconds,
            holds_for or {},
        )  # fmt: skip
        return run

    return register


def registered() -> dict[str, Claim]:
    """Return the claims by id, in their order.

    Returns
    -------
    dict
        Id -> `Claim`.

    Examples
    --------
    >>> import repsim
    >>> repsim.claims.registered()["C1"].source
    'Czarnecki et al. 2017, Proposition 1'
    """
    return dict(sorted(_CLAIMS.items(), key=lambda item: item[1].order))


def summarise(values: Values) -> dict[str, Any]:
    """Return values with their mean, spread and 90 % interval, ready for JSON."""
    if isinstance(values, Effect):
        ends = {"mean": values.estimate, "low": values.low, "high": values.high}
        kept = {k: v if math.isfinite(v) else None for k, v in ends.items()}
        return {**kept, "sd": None, "n": 1, "values": [], "interval": True}
    array = np.asarray(values, dtype=np.float64)
    finite = array[np.isfinite(array)]
    complete = len(finite) == len(array) and len(array) > 0
    return {
        "mean": float(array.mean()) if complete else None,
        "low": float(array.min()) if complete else None,
        "high": float(array.max()) if complete else None,
        "sd": float(array.std(ddof=1)) if complete and len(array) > 1 else None,
        "n": len(array),
        "values": [float(v) if np.isfinite(v) else None for v in array],
        "interval": False,
    }


def difference(a: Sequence[float], b: Sequence[float] | None = None) -> Effect:
    """Return mean(a) − mean(b) (mean(a) without b) with Welch's 90 % interval.

    Networks are the units, and two conditions have different ones, so values are not
    paired. The ends are NaN where a condition has a single network or a value is NaN.
    """
    estimate = float(np.mean(a)) - (0.0 if b is None else float(np.mean(b)))
    groups = [a] if b is None else [a, b]
    if min(len(group) for group in groups) < 2:
        return Effect(estimate, math.nan, math.nan)
    if all(np.ptp(group) == 0 for group in groups):  # scipy: no degrees of freedom
        return Effect(estimate, estimate, estimate)
    test = ttest_1samp(a, 0.0) if b is None else ttest_ind(a, b, equal_var=False)
    interval = test.confidence_interval(0.9)
    return Effect(estimate, float(interval.low), float(interval.high))
