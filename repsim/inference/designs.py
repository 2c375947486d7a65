"""Condition labels over whole networks: which may be exchanged, and all the ways.

Pairs of networks share networks, so they are not independent and must not be
permuted. Whole networks may be, if nothing but their condition could tell them apart:
all of those with an initialisation of their own among each other, and those that share
one only within their group.
"""

import itertools
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy import stats

from repsim.core.messages import unknown
from repsim.datasets.recordings import networks

LIMIT = 200_000
"""Assignments up to which all are enumerated (ten seeds a rule are 184,756)."""


@dataclass(frozen=True)
class Design:
    """Networks of two conditions, and what may be exchanged between them."""

    names: list[tuple[str, str]]
    is_b: np.ndarray
    inits: list[str]

    @classmethod
    def equal(cls, count: int) -> "Design":
        """Return so many networks of each condition, none of which begin alike."""
        names = [(rule, str(i)) for rule in "ab" for i in range(count)]
        return design(names, [None] * len(names), "b")

    @property
    def sizes(self) -> tuple[int, int]:
        """Return the number of networks of each condition."""
        return int((~self.is_b).sum()), int(self.is_b.sum())

    @property
    def apart(self) -> np.ndarray:
        """Return which pairs count: two networks with different initialisations."""
        inits = np.array(self.inits)
        return np.asarray(inits[:, None] != inits[None, :])

    @property
    def blocks(self) -> list[np.ndarray]:
        """Return groups of networks within which labels may be exchanged."""
        shared: dict[str, list[int]] = {}
        for index, init in enumerate(self.inits):
            shared.setdefault(init, []).append(index)
        alone = [group[0] for group in shared.values() if len(group) == 1]
        groups = [alone, *(g for g in shared.values() if len(g) > 1)]
        return [np.array(group) for group in groups if group]

    def count(self) -> int:
        """Return the number of different assignments of labels to networks."""
        return math.prod(
            math.comb(len(block), int(self.is_b[block].sum())) for block in self.blocks
        )

    def smallest_p(self, drawn: int) -> float:
        """Return the least p that this many assignments can give.

        A statistic that does not know which condition is which has the same value
        when all labels are exchanged, so where that is one of the assignments the
        least p is two of them.
        """
        if drawn < self.count():
            return 1 / drawn
        swappable = all(2 * self.is_b[b].sum() == len(b) for b in self.blocks)
        return min(1.0, (2 if swappable else 1) / self.count())

    def assignments(self, limit: int = LIMIT, seed: int = 0) -> np.ndarray:
        """Return assignments of labels, the observed one first."""
        if self.count() <= limit:
            rest = np.array(list(self._all()))
            same = (rest == self.is_b).all(1)
            return np.concatenate([rest[same], rest[~same]])
        rng = np.random.default_rng(seed)
        drawn = np.tile(self.is_b, (limit, 1))
        for block in self.blocks:
            drawn[1:, block] = rng.permuted(drawn[1:, block], axis=1)
        return drawn

    def _all(self) -> Iterator[np.ndarray]:
        choices = [
            itertools.combinations(block, int(self.is_b[block].sum()))
            for block in self.blocks
        ]
        for chosen in itertools.product(*choices):
            labels = np.zeros(len(self.is_b), dtype=bool)
            labels[list(itertools.chain.from_iterable(chosen))] = True
            yield labels


def design(names: list[tuple[str, str]], inits: list[object], rule_b: str) -> Design:
    """Return the design of some networks."""
    known = [
        f"seed {init}" if init is not None else f"own {condition}/{seed}"
        for init, (condition, seed) in zip(inits, names, strict=True)
    ]
    return Design(names, np.array([c == rule_b for c, _ in names]), known)


def two_rules(
    study: xr.DataTree, rule_a: str, rule_b: str
) -> dict[tuple[str, str], xr.Dataset]:
    """Return the recordings of two conditions of a study."""
    runs = networks(study)
    known = list(dict.fromkeys(condition for condition, _ in runs))
    for what, rule in (("rule_a", rule_a), ("rule_b", rule_b)):
        if rule not in known:
            raise ValueError(unknown(what, rule, known))
    if rule_a == rule_b:
        msg = f"Expected two different conditions, but got {rule_a!r} twice."
        raise ValueError(msg)
    return {
        key: run
        for rule in (rule_a, rule_b)
        for key, run in runs.items()
        if key[0] == rule
    }


def check_enough(names: list[tuple[str, str]], rule_a: str, rule_b: str) -> None:
    """Raise unless at least one of two conditions has two networks."""
    sizes = [sum(c == rule for c, _ in names) for rule in (rule_a, rule_b)]
    if max(sizes) < 2:
        msg = (
            f"Expected several seeds of {rule_a!r} or {rule_b!r}, but got one network "
            "of each: without two seeds of one rule nothing says how much seeds "
            "differ; run more seeds."
        )
        raise ValueError(msg)


def false_discovery(p: np.ndarray) -> np.ndarray:
    r"""Return Benjamini–Hochberg q-values over all finite entries.

    .. math:: q_{(i)} = \min_{j \ge i} \frac{m}{j} p_{(j)}

    Parameters
    ----------
    p : ndarray, any shape
        p-values; NaN where there is no test.

    Returns
    -------
    ndarray
        The smallest rate of false discoveries at which each test is rejected, in
        the shape of `p`, NaN where `p` is.

    References
    ----------
    Benjamini & Hochberg 1995, https://doi.org/10.1111/j.2517-6161.1995.tb02031.x

    Examples
    --------
    >>> false_discovery(np.array([0.01, 0.02, np.nan, 0.6])).round(3).tolist()
    [0.03, 0.03, nan, 0.6]
    """
    q = np.full(p.shape, np.nan)
    finite = np.isfinite(p)
    if finite.any():
        q[finite] = stats.false_discovery_control(p[finite])
    return q


def too_few(
    smallest: float, level: float, size_a: int, size_b: int, what: str = "networks"
) -> str:
    """Return the sentence for a test that cannot reject, or nothing; warn with it."""
    if smallest <= level:
        return ""
    sentence = (
        f"Too few networks to reject at the {level:g} level: with {size_a} and "
        f"{size_b} {what} the smallest attainable p is {smallest:.3g}, whatever the "
        "difference; run more seeds."
    )
    warnings.warn(sentence, UserWarning, stacklevel=3)
    return sentence
