"""Studies of networks that predict numbers: the loss, the score, and every word."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score, root_mean_squared_error
from torch import Tensor

import repsim
from repsim import run_study
from repsim.analyses import (
    NotApplicable,
    depth_profiles,
    learning_curves,
    margin,
    probe,
    seeds,
    sources,
)
from repsim.cli.commands import main
from repsim.datasets.recordings import networks
from repsim.studies import fingerprints
from repsim.studies.materials import metric_of, tensors
from repsim.studies.spec import make_spec
from repsim.studies.tuning import Scores

SMALL: dict[str, Any] = {
    "depth": 2, "width": 16, "steps": 40, "examples": 40, "record": [0, 20, 40],
    "lr": 1e-2, "jobs": 1, "progress": False,
}  # fmt: skip
pytestmark = pytest.mark.filterwarnings("ignore:.*constant")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> xr.DataTree:
    out = tmp_path_factory.mktemp("study")
    return run_study(["bp", "sg"], "diabetes", 4, out, metric="rmse", **SMALL)


def two_numbers(split: str, root: object) -> xr.Dataset:
    """Return made-up inputs with two numbers to predict, of very different units."""
    rng = np.random.default_rng(split == "train")
    x = rng.normal(size=(120, 5))
    y = np.stack([x[:, 0] + x[:, 1], 1000 * x[:, 2] + 5000], 1)
    return xr.Dataset(
        {"features": (("example", "feature"), x.astype("float32")),
         "label": (("example", "output"), y)},
        {"example": np.arange(120)},
        {"metric": "mae"},
    )  # fmt: skip


def test_numbers_are_kept_as_they_are_and_learnt(study: xr.DataTree) -> None:
    test = repsim.datasets.load("diabetes", "test")
    run, log = networks(study)["bp", "0"], study["bp/0/training"].to_dataset()
    assert run.attrs["task"] == "regression"
    kept = test["label"].sel(example=run["example"].values)
    np.testing.assert_array_equal(run["label"], kept)
    assert (np.diff(run["label"].values) >= 0).all()  # in the order of the target
    assert {"rmse", "test_rmse", "loss"} <= set(log) and "accuracy" not in log
    assert float(log.test_rmse[-1]) < float(log.test_rmse[0])
    # RMSE in the target's own unit: of the recorded outputs, by scikit-learn.
    data = repsim.datasets.load("diabetes")["label"].values
    predicted = run["output"].values[-1, :, 0] * data.std() + data.mean()
    spec = make_spec(["bp"], "diabetes", 1, metric="rmse")
    x, y = tensors(spec, test.sel(example=run["example"].values))
    outputs = torch.from_numpy(run["output"].values[-1])
    expected = root_mean_squared_error(run["label"], predicted)
    assert metric_of(spec, test)(outputs, y) == pytest.approx(expected, rel=1e-4)
    assert len(x) == 40


def test_learning_curves_say_the_word_and_the_direction(study: xr.DataTree) -> None:
    found = learning_curves.compute(study)
    assert learning_curves.claim(found).startswith("Final test RMSE (lower is better):")
    assert "Loss and RMSE (lower is better)" in learning_curves.details(found)
    assert learning_curves.summary(found)["bp"]["score"] == "test RMSE"
    titles = [ax.get_title() for ax in
              learning_curves.figures(found)["learning_curves"].axes]  # fmt: skip
    assert titles == ["training loss", "training RMSE", "test RMSE"]
    said = learning_curves.cautions(
        found.assign(
            test_rmse=found.test_rmse * xr.DataArray([1, 1.5], dims="condition")
        )
    )
    assert "values of RMSE are up to" in said[0] and "at equal RMSE" in said[0]


def test_equal_score_is_the_lowest_that_all_reach(study: xr.DataTree) -> None:
    found = seeds.compute(study)
    assert found["moment"].values.tolist() == ["equal steps", "equal RMSE"]
    assert "Equal steps (test RMSE bp " in found.attrs["sentences"][0]
    assert "nearest to the lowest that all networks" in seeds.details(found)
    text = " ".join([*seeds.verdicts(found), seeds.details(found)])
    assert "accuracy" not in text


def test_probes_are_ridges(study: xr.DataTree) -> None:
    found = probe.compute(study)
    assert {"r2", "rmse", "input_r2"} <= set(found) and "accuracy" not in found
    one = study["bp/0"].to_dataset()
    alone = repsim.probes.probe_layers(
        one.isel(step=-1), task="regression", test_size=0.5
    )
    cell = found["r2"].sel(condition="bp", layer="hidden_2").isel(seed=0)
    assert float(cell) == pytest.approx(float(alone["r2"].sel(layer="hidden_2")))
    assert probe.claim(found).startswith("A linear probe reads the target best (R²)")
    assert "ridge regression" in probe.details(found)
    assert "class" not in probe.details(found) + probe.caption(found)
    axes = probe.figures(found)["probe_accuracy"].axes
    assert "R²" in axes[0].get_ylabel() and "RMSE" in axes[1].get_ylabel()


def test_profiles_have_r2_and_no_margin(study: xr.DataTree) -> None:
    names = set(depth_profiles.profiles(study).data_vars)
    assert names == {"rdm_to_last", "displacement", "probe_r2"}
    with pytest.raises(NotApplicable, match="are numbers: there are no classes"):
        margin.compute(study)


def test_several_numbers_and_the_data_s_own_metric(tmp_path: Path) -> None:
    study = run_study(["bp"], two_numbers, 2, tmp_path, **SMALL)
    log = study["bp/0/training"].to_dataset()
    assert log.attrs["metric"] == "mae" and float(log.test_mae[-1]) < float(log.mae[0])
    assert study["target"].shape == (40, 2) and "label" not in study["bp/0"].coords
    found = probe.compute(study)
    y, run = study["target"].values, study["bp/0"].to_dataset().isel(step=-1)
    alone = repsim.probes.probe_layers(run, y, task="regression", test_size=0.5)
    assert alone["r2"].dims == ("layer", "output")
    cell = found["r2"].sel(condition="bp").isel(seed=0)
    np.testing.assert_allclose(cell, alone["r2"].mean("output"), rtol=1e-6)
    assert "probe_r2" in depth_profiles.profiles(study)
    x = study["input"].values
    read = RidgeCV(np.logspace(-3, 3, 7)).fit(x[::2], y[::2]).predict(x[1::2])
    assert float(found["input_r2"]) == pytest.approx(r2_score(y[1::2], read), abs=0.05)


def test_rates_are_chosen_by_the_loss(tmp_path: Path) -> None:
    options = SMALL | {"lr": None, "grid": [1e-4, 1e-2], "tune_seeds": 2}
    run_study(["bp"], "diabetes", 1, tmp_path, **options)
    table = Scores(tmp_path / "tuning.json").tables(make_spec(["bp"]).parsed)["bp"]
    assert set(table["0.01"]) == {"loss", "standard_error", "r2"}
    assert table["0.01"]["loss"] < table["0.0001"]["loss"]
    assert table["0.01"]["r2"] > table["0.0001"]["r2"]
    said = json.loads((tmp_path / "study.json").read_text())
    assert said["learning_rates"] == {"bp": 0.01} and said["spec"]["metric"] is None


def hits(output: Tensor, y: Tensor) -> Tensor:
    """Return the share predicted to within 60 units."""
    return ((output - y).abs() < 60).double().mean()


def test_the_command_prints_the_user_s_metric(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = {name: sources()[name] for name in ("learning_curves", "seeds")}
    monkeypatch.setattr(fingerprints, "sources", lambda: few)
    (tmp_path / "own_metric.py").write_text(Path(__file__).read_text())
    monkeypatch.chdir(tmp_path)
    words = [
        "repsim",
        "study",
        "--dataset",
        "diabetes",
        "--rules",
        "bp",
        "--seeds",
        "1",
    ]
    words += ["--depth", "1", "--width", "8", "--steps", "20", "--lr", "0.01"]
    words += ["--jobs", "1", "--quiet", "--metric", "own_metric:hits", "--out", "s"]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("bp: test hits 0.")
    assert "test hits, mean ± sd over networks" in Path("s/report.html").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "rsme"}, "Did you mean 'rmse'"),
        ({"metric": "no_such:f"}, "`metric` as module:function, but got 'no_such:f'"),
        ({"loss": "mes"}, "`loss` to be one of cross_entropy, mse"),
        ({"dataset": "unknown_numbers"}, "numbers to predict of the train data to be"),
    ],
)
def test_what_cannot_be_learnt_is_refused(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    def unknown(split: str, root: object) -> xr.Dataset:
        data = two_numbers(split, root)
        return data.assign(label=data["label"].where(data["label"] > 0))

    data = {"dataset": unknown} if "dataset" in options else {"dataset": "diabetes"}
    with pytest.raises(ValueError, match=message):
        run_study(["bp"], seeds=1, out=tmp_path / "s", **(SMALL | options | data))
    assert not (tmp_path / "s").exists()
