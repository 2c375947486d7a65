"""Rates: chosen over several networks, in common where that costs nothing."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from repsim import run_study
from repsim.datasets.recordings import networks
from repsim.studies.spec import Spec, make_spec
from repsim.studies.tuning import Scores, at_common_rate, choose_rates, trials

GRID = [1e-3, 1e-2, 1e-1]


def spec_of(*conditions: str, **options: Any) -> Spec:
    return make_spec(list(conditions), grid=GRID, **options)


def scores_of(path: Path, spec: Spec, losses: dict[str, list[list[float]]]) -> Scores:
    """Return scores: label -> rate -> loss of each network."""
    scores = Scores(path / "tuning.json")
    for condition in spec.parsed:
        for lr, of in zip(GRID, losses.get(condition.label, []), strict=False):
            for number, loss in enumerate(of):
                row = {"loss": loss, "accuracy": 1 - loss}
                scores.add(condition.key, lr, number, row)
    return scores


def test_every_rate_is_tried_with_several_networks(tmp_path: Path) -> None:
    spec = spec_of("bp", "sg", "sg:init=bp", "fa:lr=0.1", tune_seeds=4)
    todo = trials(spec, spec.parsed, Scores(tmp_path / "tuning.json"))
    assert len(todo) == 2 * 3 * 4
    assert {number for *_, number in todo} == {0, 1, 2, 3}


def test_the_smallest_rate_within_one_standard_error_is_taken(tmp_path: Path) -> None:
    spec = spec_of("bp")
    # Mean .30; standard errors .1 / sqrt(3) of the best: .30 + .0577 < .36.
    near = [[0.35] * 3, [0.2, 0.3, 0.4], [0.9] * 3]
    far = [[0.36] * 3, [0.2, 0.3, 0.4], [0.9] * 3]
    for folder, losses, rate in (("a", near, 1e-3), ("b", far, 1e-2)):
        (tmp_path / folder).mkdir()
        scores = scores_of(tmp_path / folder, spec, {"bp": losses})
        assert choose_rates(spec, spec.parsed, scores) == {"bp": rate}


def test_a_common_rate_is_preferred_and_kept(tmp_path: Path) -> None:
    spec = spec_of("bp", "sg", "fa")
    wide = [[0.375, 0.375], [0.25, 0.5], [0.5, 0.5]]
    losses = {
        "bp": wide,
        "sg": [[0.9, 0.9], [0.25, 0.5], [0.5, 0.5]],
        "fa": [[0.1, 0.1], [0.9, 0.9], [0.9, 0.9]],
    }
    scores = scores_of(tmp_path, spec, losses)
    chosen = {"bp": 1e-2, "sg": 1e-2, "fa": 1e-3}
    assert choose_rates(spec, spec.parsed, scores) == chosen
    assert at_common_rate(spec, chosen, scores) == ["fa:lr=0.01"]
    # What is chosen stays, whatever comes later.
    later = Scores(tmp_path / "tuning.json")
    later.scores.clear()
    assert choose_rates(spec, spec.parsed, later) == chosen
    alone = spec_of("bp", "fa", common_rate=False)
    assert at_common_rate(alone, chosen, scores) == []


def test_a_rate_that_diverges_once_is_out(tmp_path: Path) -> None:
    spec = spec_of("bp")
    nan = float("nan")
    scores = scores_of(tmp_path, spec, {"bp": [[0.1, nan], [0.5, 0.5], [nan, nan]]})
    assert choose_rates(spec, spec.parsed, scores) == {"bp": 1e-2}
    (tmp_path / "b").mkdir()
    lost = scores_of(tmp_path / "b", spec, {"bp": [[nan, nan]] * 3})
    with pytest.raises(ValueError, match="to train condition 'bp', but all diverged"):
        choose_rates(spec, spec.parsed, lost)


def test_the_table_is_recorded_and_follows_the_seed(tmp_path: Path) -> None:
    small: dict[str, Any] = {
        "depth": 1, "width": 4, "steps": 3, "examples": 20, "grid": [1e-4, 1e-1],
        "seeds": 1, "jobs": 1, "progress": False, "tune_seeds": 2,
    }  # fmt: skip
    tables = []
    for seed in (0, 1):
        out = tmp_path / str(seed)
        study = run_study(["bp", "sg"], out=out, seed=seed, **small)
        content = json.loads((out / "study.json").read_text())
        tables.append(content["tuning"])
        table = tables[-1]["bp"]
        assert set(table) == {"0.0001", "0.1"}
        assert set(table["0.1"]) == {"loss", "standard_error", "accuracy"}
        kept = json.loads((out / "tuning.json").read_text())["scores"]['["bp"]']["0.1"]
        losses = [kept[number]["loss"] for number in ("0", "1")]
        assert table["0.1"]["loss"] == pytest.approx(np.mean(losses))
        rates = {
            json.loads(run.attrs["rule_options"])["lr"]
            for (label, _), run in networks(study).items()
            if label == "bp"
        }
        assert rates == {content["learning_rates"]["bp"]}
    assert tables[0] != tables[1]
