"""Verdicts are computed: bounds, missing numbers, spread."""

import json
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import t as student

from repsim.claims.base import (
    Claim,
    Effect,
    Evidence,
    Gate,
    difference,
    summarise,
)


def a_claim(*gates: Gate) -> Claim:
    return Claim("X", 1, "group", "s", "o", "e", gates, lambda lab: Evidence({}))


@pytest.mark.parametrize(
    ("relation", "bound", "values", "verdict"),
    [
        ("<", 1.0, [0.1, 0.9], "holds"),
        ("<", 1.0, [0.1, 1.0], "does not hold"),
        ("<=", 1.0, [1.0], "holds"),
        (">", 0.0, [1.0, -1.0], "does not hold"),
        (">=", 0.8, [0.8], "holds"),
        ("==", 6.0, [6.0], "holds"),
        ("==", 6.0, [6.1], "does not hold"),
        ("<", 1.0, [float("nan")], "does not hold"),
        ("<", 1.0, [float("inf")], "does not hold"),
        ("<", 1.0, [], "does not hold"),
    ],
)
def test_every_value_must_keep_the_bound(
    relation: str, bound: float, values: Sequence[float], verdict: str
) -> None:
    gate = Gate("q", relation, bound, "t")  # type: ignore[arg-type]
    assert a_claim(gate).judge({"q": values}) == verdict


def test_the_mean_may_be_asked_for() -> None:
    gate = Gate("q", ">", 0.0, "t", "mean")
    assert a_claim(gate).judge({"q": [3.0, -1.0]}) == "holds"
    assert a_claim(gate).judge({"q": [3.0, float("nan")]}) == "does not hold"
    assert str(gate) == "mean of q > 0"


def test_what_was_not_measured_does_not_hold() -> None:
    assert a_claim(Gate("q", ">", 0.0, "t")).judge({"other": [1.0]}) == "does not hold"


def test_what_takes_more_seeds_is_reported() -> None:
    claim = a_claim(Gate("a", ">", 0.0, "t"), Gate("b", ">", 0.0, "t", seeds=2))
    assert claim.judge({"a": [1.0]}, seeds=1) == "reported"
    assert claim.judge({"a": [-1.0]}, seeds=1) == "does not hold"
    assert claim.judge({"a": [1.0]}, seeds=2) == "does not hold"
    assert claim.judge({"a": [1.0], "b": [1.0]}, seeds=2) == "holds"


def test_without_a_gate_the_numbers_are_reported() -> None:
    assert a_claim().judge({"q": [1.0]}) == "reported"
    assert "no number" in a_claim().threshold


def test_thresholds_say_where_they_come_from() -> None:
    claim = a_claim(Gate("gap", "<", 1e-3, "trials"), Gate("rank", ">", 2.0, "theory"))
    assert claim.threshold == "gap < 0.001 (trials); rank > 2 (theory)"


def test_summaries_survive_json() -> None:
    found = summarise([1.0, 2.0, 6.0])
    assert found["mean"] == 3 and found["low"] == 1 and found["high"] == 6
    assert found["sd"] == pytest.approx(np.std([1, 2, 6], ddof=1))
    broken = summarise([1.0, float("nan"), float("inf")])
    assert broken["mean"] is None and broken["values"] == [1.0, None, None]
    assert json.loads(json.dumps(broken, allow_nan=False))["n"] == 3
    assert summarise([2.0])["sd"] is None


def test_differences_have_welchs_interval() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 1, 6), rng.normal(0, 3, 4)
    parts = [v.var(ddof=1) / len(v) for v in (a, b)]
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / 5 + parts[1] ** 2 / 3)
    half = student.ppf(0.95, freedom) * sum(parts) ** 0.5
    found = difference(list(a), list(b))
    assert found.estimate == pytest.approx(a.mean() - b.mean())
    assert found.low == pytest.approx(found.estimate - half)
    assert found.high == pytest.approx(found.estimate + half)
    alone = difference(list(a))
    half = student.ppf(0.95, 5) * parts[0] ** 0.5
    assert alone.low == pytest.approx(a.mean() - half)


def test_differences_without_spread_or_seeds() -> None:
    assert difference([1.0, 1.0], [0.0, 0.0]) == Effect(1.0, 1.0, 1.0)
    assert np.isnan(difference([1.0], [0.0, 0.0]).low)
    assert np.isnan(difference([1.0, float("nan")], [0.0, 0.0]).low)


def test_an_end_of_the_interval_may_be_asked_for() -> None:
    effect = Effect(0.5, -0.1, 1.1)
    for of, relation, verdict in (
        ("low", ">", "does not hold"),
        ("high", ">", "holds"),
        ("every", ">", "holds"),
        ("high", "<", "does not hold"),
    ):
        gate = Gate("q", relation, 0.0, "t", of)  # type: ignore[arg-type]
        assert a_claim(gate).judge({"q": effect}) == verdict
    unknown = Effect(0.5, float("nan"), float("nan"))
    gate = Gate("q", ">", 0.0, "t", "low")
    assert a_claim(gate).judge({"q": unknown}) == "does not hold"
    assert str(gate) == "lower 95 % bound of q > 0"
    assert summarise(unknown)["low"] is None and summarise(effect)["interval"]


def test_broken_gates_are_named() -> None:
    gates = Gate("a", ">", 0.0, "t"), Gate("b", ">", 0.0, "t")
    assert a_claim(*gates).broken({"a": [1.0], "b": [-1.0]}) == [gates[1]]
