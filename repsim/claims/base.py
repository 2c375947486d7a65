"""What a claim is: a statement, an experiment, thresholds, and a computed verdict."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import ttest_ind

if TYPE_CHECKING:
    from repsim.claims.lab import Lab
    from repsim.claims.settings import Settings

HOLDS = "holds"
FAILS = "does not hold"
REPORTED = "reported"

Relation = Literal["<", "<=", ">", ">=", "=="]
Statistic = Literal["every", "mean"]

_HOLDS: dict[str, Callable[[float, float], bool]] = {
    "<": lambda value, bound: value < bound,
    "<=": lambda value, bound: value <= bound,
    ">": lambda value, bound: value > bound,
    ">=": lambda value, bound: value >= bound,
    "==": lambda value, bound: value == bound,
}


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
    of : {"every", "mean"}
        Whether every value (every seed) must keep it, or their mean.
    seeds : int
        Networks a condition without which the quantity cannot be judged.
    """

    quantity: str
    relation: Relation
    bound: float
    origin: str
    of: Statistic = "every"
    seeds: int = 1

    def kept(self, values: Sequence[float]) -> bool:
        """Return whether the values keep the bound; none, or a NaN, does not."""
        tested = [float(np.mean(values))] if self.of == "mean" and values else values
        return bool(tested) and all(
            not math.isnan(v) and _HOLDS[self.relation](v, self.bound) for v in tested
        )

    def __str__(self) -> str:
        """Return the bound as a reader says it."""
        which = "mean of " if self.of == "mean" else ""
        return f"{which}{self.quantity} {self.relation} {self.bound:g}"


@dataclass
class Evidence:
    """What an experiment brings back.

    Parameters
    ----------
    measured : mapping of str to sequence of float
        Quantity -> its values, one a seed where the experiment is stochastic.
    figure : Figure or None
        The claim's picture; None draws the values against their bounds.
    tables : mapping
        JSON-able tables behind the numbers, by name.
    note : str
        What a reader must know to read the numbers.
    """

    measured: Mapping[str, Sequence[float]]
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

    def judge(
        self, measured: Mapping[str, Sequence[float]], seeds: int | None = None
    ) -> str:
        """Return the verdict on measured values.

        Parameters
        ----------
        measured : mapping of str to sequence of float
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
        open_ = self.unjudged(seeds)
        gates = [gate for gate in self.gates if gate not in open_]
        if not all(gate.kept(measured.get(gate.quantity, ())) for gate in gates):
            return FAILS
        return HOLDS if gates and not open_ else REPORTED

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
) -> "Callable[[Callable[[Lab], Evidence]], Callable[[Lab], Evidence]]":
    """Register the function beneath as the experiment of a claim."""

    def register(run: "Callable[[Lab], Evidence]") -> "Callable[[Lab], Evidence]":
        group = run.__module__.rpartition(".")[2]
        _CLAIMS[id] = Claim(
            id, order, group, statement, source, experiment, tuple(gates), run,
            tuple(uses), seconds if callable(seconds) else lambda settings: seconds,
        )  # fmt: skip
        return run

    return register


def registered() -> dict[str, Claim]:
    """Return the claims by id, in their order."""
    return dict(sorted(_CLAIMS.items(), key=lambda item: item[1].order))


def summarise(values: Sequence[float]) -> dict[str, Any]:
    """Return values with their mean and spread, ready for JSON."""
    array = np.asarray(values, dtype=np.float64)
    finite = array[np.isfinite(array)]
    complete = len(finite) == len(array) and len(array) > 0
    return {
        "mean": float(array.mean()) if complete else None,
        "sd": float(array.std(ddof=1)) if complete and len(array) > 1 else None,
        "low": float(array.min()) if complete else None,
        "high": float(array.max()) if complete else None,
        "n": len(array),
        "values": [float(v) if np.isfinite(v) else None for v in array],
    }


def lower_bound(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the lower end of Welch's one-sided 95 % interval of mean(a) − mean(b).

    Networks are the units, and two conditions have different ones, so values are not
    paired. NaN where a condition has a single network or a value is NaN.
    """
    if min(len(a), len(b)) < 2:
        return math.nan
    if np.ptp(a) == 0 and np.ptp(b) == 0:  # scipy finds no degrees of freedom
        return float(a[0] - b[0])
    test = ttest_ind(a, b, equal_var=False, alternative="greater")
    return float(test.confidence_interval(0.95).low)
