r"""Which rule's networks come nearer to measured RDMs, with other networks and stimuli.

A network's nearness is the mean over subjects of its RDM's rank correlation with
theirs. The variance of the difference of two rules, with networks and stimuli drawn
anew, is

.. math:: v = v_{networks} + v_{stimuli} - v_{both}

since each part holds the interaction (Schütt et al. 2023), as in `model_test`.
"""

from dataclasses import dataclass, field

import numpy as np
from scipy import stats

from repsim.inference.rsa_influence import LEAST, METHODS, Units
from repsim.measures.dissimilarity.given import n_examples

METHOD = "spearman"


@dataclass
class Nearness:
    """How near one rule's networks come to measured RDMs, layer by layer."""

    values: list[np.ndarray] = field(default_factory=list)
    """A network: (layer)."""
    moved: list[np.ndarray] = field(default_factory=list)
    """A network: its change without each stimulus, (stimulus, layer)."""
    pairs: np.ndarray | None = None
    """Influence of each pair of stimuli, (layer, pair), summed over networks."""

    def add(self, own: np.ndarray, measured: np.ndarray) -> None:
        """Add a network's RDMs (layer, pair), against those of subjects."""
        n = n_examples(own.shape[1])
        assert n is not None
        units = Units.of(n, None)
        prepare, influence = METHODS[METHOD]
        value, moved = np.zeros(len(own)), np.zeros((n, len(own)))
        if self.pairs is None:
            self.pairs = np.zeros(own.shape, np.float32)
        for i, layer in enumerate(own):
            for one in measured:
                keep = np.isfinite(layer) & np.isfinite(one)
                if not keep.any():
                    value[i] = np.nan
                    continue
                near, each = influence(prepare(layer[keep]), prepare(one[keep]))
                without, _ = units.left_out(0.0, each, keep)
                value[i] += near / len(measured)
                moved[:, i] += without / len(measured)
                share = len(keep) / max(int(keep.sum()), 1) / len(measured)
                self.pairs[i, keep] += each * share
        self.values.append(value)
        self.moved.append(moved)

    @property
    def enough(self) -> bool:
        """Whether both factors have a spread to tell."""
        return len(self.values) > 1 and len(self.moved[0]) >= LEAST


def difference(a: Nearness, b: Nearness, level: float = 0.95) -> dict[str, np.ndarray]:
    """Return b − a by layer, with its interval over both factors and a p-value."""
    sides = [(np.array(one.values), np.array(one.moved)) for one in (a, b)]
    counts = [len(values) for values, _ in sides]
    middle = sides[1][0].mean(0) - sides[0][0].mean(0)
    change = sides[1][1].mean(0) - sides[0][1].mean(0)
    parts = len(change)
    each = [v.var(0, ddof=1) / k for (v, _), k in zip(sides, counts, strict=True)]
    by_network = each[0] + each[1]
    by_stimulus = (parts - 1) / parts * ((change - change.mean(0)) ** 2).sum(0)
    by_stimulus = np.maximum(by_stimulus - _pairs(a, b), by_stimulus / 2)
    both = np.zeros_like(middle)
    for (_, moved), count in zip(sides, counts, strict=True):
        inner = moved - moved.mean(0)
        inner = inner - inner.mean(1, keepdims=True)
        both += (parts - 1) / parts * (inner**2).sum((0, 1)) / (count * (count - 1))
    variance = np.maximum(
        by_network + by_stimulus - both, np.maximum(by_network, by_stimulus)
    )
    squares = by_stimulus**2 / (parts - 1) + sum(
        v**2 / (k - 1) for v, k in zip(each, counts, strict=True)
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        freedom = variance**2 / squares
        error = np.sqrt(variance)
        reach = stats.t.ppf((1 + level) / 2, freedom) * error
        p = 2 * stats.t.sf(np.abs(middle) / error, freedom)
    return {
        "difference": middle,
        "low": middle - reach,
        "high": middle + reach,
        "p_value": p,
    }


def _pairs(a: Nearness, b: Nearness) -> np.ndarray:
    """Return the variance of pairs of stimuli, which the jackknife counts twice."""
    assert a.pairs is not None and b.pairs is not None
    units = Units.of(len(a.moved[0]), None)
    joint = b.pairs / np.float32(len(b.values)) - a.pairs / np.float32(len(a.values))
    every = np.ones(joint.shape[1], dtype=bool)
    return np.array([units.left_out(0.0, row, every)[1] for row in joint])
