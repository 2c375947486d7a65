"""probe_layers: what is planted is found, what is not is not, and errors say so."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from repsim import plot
from repsim.probes import (
    LinearProbe,
    codelength_layers,
    names,
    probe_input,
    probe_layers,
)

Maker = Callable[..., xr.Dataset]
Scaler = Callable[[np.ndarray, np.ndarray], np.ndarray]


def test_a_planted_label_is_found_at_its_layer(planted: Maker) -> None:
    result = probe_layers(planted())
    assert result["accuracy"].dims == ("layer",)
    accuracy = result["accuracy"].to_series()
    assert accuracy["late"] > 0.95
    assert abs(accuracy["early"] - 0.25) < 0.2
    assert result["v_information"].sel(layer="late") > 1.0
    assert result["v_information"].sel(layer="early") < 0.05
    assert float(result["chance"]) == pytest.approx(0.25)


def test_a_planted_continuous_factor_is_found_at_its_layer(planted: Maker) -> None:
    result = probe_layers(planted(), "angle")
    assert set(result.data_vars) == {"r2", "train_r2", "rmse", "chance"}
    r2 = result["r2"].to_series()
    assert r2["middle"] > 0.98
    assert r2["early"] < 0.1
    assert result["rmse"].sel(layer="middle") < 0.2


def test_the_numbers_are_those_of_the_split_done_by_hand(
    planted: Maker, one_scale: Scaler
) -> None:
    run = planted()
    y, x = run["label"].values, run["late"].values
    places = np.arange(len(y))
    train, test = train_test_split(places, test_size=0.25, random_state=3, stratify=y)
    for how, z in {"layer": one_scale(x, train), "none": x}.items():
        fitted = LogisticRegression(tol=1e-8, max_iter=1000).fit(z[train], y[train])
        rows = probe_layers(run, seed=3, standardise=how)  # type: ignore[arg-type]
        row = rows.sel(layer="late")
        assert float(row["accuracy"]) == fitted.score(z[test], y[test])
        assert float(row["train_accuracy"]) == fitted.score(z[train], y[train])
        by_hand = log_loss(y[test], fitted.predict_proba(z[test]))
        assert float(row["log_loss"]) == pytest.approx(by_hand, rel=1e-2)
        given = probe_layers(
            run,
            estimator=LogisticRegression(),
            seed=3,
            standardise=how,  # type: ignore[arg-type]
        )
        found = float(given.sel(layer="late")["log_loss"])
        assert found == pytest.approx(by_hand, rel=1e-2)
        prior = np.bincount(y[train]) / len(train)
        constant = -np.log(prior[y[test]]).mean()
        assert float(rows["chance_log_loss"]) == pytest.approx(constant)
        assert float(row["v_information"] + row["log_loss"]) == pytest.approx(constant)


def test_seeds_decide_the_split(planted: Maker) -> None:
    run = planted()
    xr.testing.assert_identical(probe_layers(run), probe_layers(run))
    assert not probe_layers(run).equals(probe_layers(run, seed=1))


def test_steps_are_kept_and_each_is_its_own_probe(planted: Maker) -> None:
    run = planted(steps=3)
    result = probe_layers(run)
    assert result["accuracy"].dims == ("step", "layer")
    np.testing.assert_array_equal(result["step"], [0, 10, 20])
    alone = probe_layers(run.isel(step=1))
    # Each begins at the logits of the one before, which moves it within its tolerance.
    np.testing.assert_allclose(result["accuracy"][1], alone["accuracy"], atol=0.017)
    np.testing.assert_allclose(result["log_loss"][1], alone["log_loss"], rtol=0.005)


def test_several_recordings_at_once(planted: Maker) -> None:
    runs = {"a": planted(0), "b": planted(1)}
    named = probe_layers(runs)
    assert named["accuracy"].dims == ("network", "layer")
    assert named["network"].values.tolist() == ["a", "b"]
    xr.testing.assert_allclose(
        named.sel(network="b", drop=True), probe_layers(runs["b"])
    )
    assert probe_layers(list(runs.values()))["network"].values.tolist() == [0, 1]


def test_a_study_keeps_conditions_seeds_and_layers_in_order(planted: Maker) -> None:
    runs = {"sg/0": planted(0), "sg/10": planted(1), "bp/2": planted(2)}
    runs["bp/2"] = runs["bp/2"].drop_vars("early")
    result = probe_layers(xr.DataTree.from_dict(runs))
    assert result["condition"].values.tolist() == ["sg", "bp"]
    assert result["seed"].values.tolist() == [0, 2, 10]
    assert result["layer"].values.tolist() == ["early", "middle", "late"]
    there = result["accuracy"].notnull()
    assert int(there.sum()) == 3 + 3 + 2
    assert result.attrs["target"] == "label"
    axes = plot.layer_curve(
        result["accuracy"].sel(condition=["sg"]).dropna("seed"),
        baselines={"chance": 0.25},
    )
    assert axes.get_ylabel() == "held-out accuracy"


def test_shuffled_control_is_what_the_probe_memorises(planted: Maker) -> None:
    result = probe_layers(planted(n=800), control=True)
    assert result.attrs["control"] == "shuffled"
    expected = result["accuracy"] - result["control_train_accuracy"]
    xr.testing.assert_allclose(result["selectivity"], expected.rename("selectivity"))
    assert result["selectivity"].sel(layer="late") > 0.5
    assert abs(result["selectivity"].sel(layer="early")) < 0.15
    assert (abs(result["control_accuracy"] - 0.25) < 0.12).all()


def test_random_labels_have_no_selectivity(planted: Maker) -> None:
    run = planted(n=2000)
    label = np.random.default_rng(5).permutation(run["label"].values)
    result = probe_layers(run, label, control=True)
    assert (abs(result["accuracy"] - 0.25) < 0.06).all()
    assert (abs(result["selectivity"]) < 0.1).all()


def test_grouped_control_is_held_out_on_both_sides(planted: Maker) -> None:
    run = planted(n=600)
    # A layer that knows the group, and nothing of the label, learns the control.
    group = run["group"].values
    run["early"] = ("example", "early_unit"), np.eye(12)[group].astype("f4") * 5
    by_name = probe_layers(run, control="group")
    assert by_name["control_accuracy"].sel(layer="early") == 1.0
    assert by_name["selectivity"].sel(layer="early") < -0.5
    expected = by_name["accuracy"] - by_name["control_accuracy"]
    xr.testing.assert_allclose(by_name["selectivity"], expected.rename("selectivity"))
    by_array = probe_layers(run, control=group)
    np.testing.assert_array_equal(by_array["selectivity"], by_name["selectivity"])


def test_controls_of_a_continuous_target(planted: Maker) -> None:
    result = probe_layers(planted(), "angle", control=True)
    assert result["selectivity"].sel(layer="middle") > 0.8
    assert "control_train_r2" in result


def test_preprocessing_is_stated_and_fitted_on_training_examples(
    planted: Maker,
) -> None:
    seen: list[int] = []

    class Spy(StandardScaler):  # type: ignore[misc]
        def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
            seen.append(len(X))
            return super().fit(X, y, sample_weight)

    result = probe_layers(planted(), estimator=make_pipeline(Spy(), LinearProbe()))
    assert seen == [180] * 3
    assert result.attrs["preprocessing"] == "Spy() (fitted on training examples)"
    assert result.attrs["estimator"] == "LinearProbe()"
    assert probe_layers(planted()).attrs["preprocessing"] == "none"


@pytest.mark.parametrize("name", names())
def test_named_estimators(planted: Maker, name: str) -> None:
    result = probe_layers(planted(), estimator=name)
    assert result["accuracy"].sel(layer="late") > 0.9
    assert ("log_loss" in result) == (name != "ridge")
    assert probe_layers(planted(), "angle", estimator=name)["r2"][1] > 0.3


def test_attrs_say_how(planted: Maker) -> None:
    attrs = probe_layers(planted(), seed=4).attrs
    assert attrs["seed"] == 4
    assert attrs["n_train"] == 180
    assert attrs["classes"] == ["0", "1", "2", "3"]
    assert {"repsim_version", "scikit_learn_version", "torch_version"} <= set(attrs)


def test_strings_truth_values_and_half_precision(planted: Maker) -> None:
    run = planted()
    plain = probe_layers(run)
    text = np.array(["ape", "bee", "cat", "dog"], dtype=object)[run["label"].values]
    np.testing.assert_array_equal(
        probe_layers(run, text)["accuracy"], plain["accuracy"]
    )
    assert probe_layers(run, run["label"].values > 1)["accuracy"][2] > 0.9
    half = run.assign({n: run[n].astype("f2") for n in ("early", "middle", "late")})
    np.testing.assert_allclose(
        probe_layers(half)["accuracy"], plain["accuracy"], atol=0.04
    )


def test_whole_numbers_are_continuous_to_a_regressor(planted: Maker) -> None:
    result = probe_layers(planted(), estimator=LinearRegression())
    assert result["r2"].sel(layer="late") > 0.5


def test_the_input_as_baseline(planted: Maker) -> None:
    run = planted()
    pixels = run["late"].values.reshape(240, 3, 4)
    found = probe_input(run, inputs=pixels)
    assert found["accuracy"] == probe_layers(run)["accuracy"].sel(layer="late")
    study = xr.DataTree.from_dict({"bp/0": run})
    study["input"] = xr.DataArray(run["late"].values, dims=("example", "feature"))
    xr.testing.assert_allclose(probe_input(study), found)
    with pytest.raises(ValueError, match="Expected `inputs`, the recorded inputs"):
        probe_input(run)
    with pytest.raises(ValueError, match="one input for each of the 240 examples"):
        probe_input(run, inputs=pixels[:5])


def _without(run: xr.Dataset) -> xr.Dataset:
    return run.drop_vars("label")


def _lost(run: xr.Dataset) -> xr.Dataset:
    label = run["label"].astype(float)
    label[:3] = np.nan
    return run.assign_coords(label=label)


def _rare(run: xr.Dataset) -> xr.Dataset:
    label = run["label"].copy()
    label[0] = 9
    return run.assign_coords(label=label)


def _spoilt(run: xr.Dataset) -> xr.Dataset:
    return run.assign(middle=run["middle"] * np.nan)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without, "Expected `target` to be one of angle, group, but got 'label'"),
        (_lost, "`target` 'label' to be known for every example, but 3 of 240"),
        (
            lambda r: r.assign_coords(label=r["label"] * 0),
            "have at least 2 classes, but",
        ),
        (_rare, r"class of `target` 'label' to have at least 2 examples.*\[9\] have 1"),
        (_spoilt, "Expected layer 'middle' to be finite, but 2880 of 2880 values are"),
    ],
)
def test_one_sentence_names_what_is_wrong(
    planted: Maker, change: Callable[[xr.Dataset], xr.Dataset], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        probe_layers(change(planted()))


def test_of_several_recordings_the_spoilt_one_is_named(planted: Maker) -> None:
    runs = {"bp/0": planted(), "bp/1": _spoilt(planted(1))}
    with pytest.raises(ValueError, match="In bp/1: Expected layer 'middle' to be fin"):
        probe_layers(xr.DataTree.from_dict(runs))
    with pytest.raises(ValueError, match="In network 1: Expected layer 'middle'"):
        probe_layers(list(runs.values()))


def test_numbers_kept_as_objects_are_numbers(planted: Maker) -> None:
    run = planted()
    angle = run["angle"].values.astype(object)
    np.testing.assert_array_equal(
        probe_layers(run, angle)["r2"], probe_layers(run, "angle")["r2"]
    )
    assert (
        "label" in codelength_layers(run, run["label"].astype(object)).attrs["target"]
    )


def test_values_for_other_examples_are_refused(planted: Maker) -> None:
    run = planted().assign_coords(example=np.arange(240) + 7)
    order = np.random.default_rng(0).permutation(240)
    label, pixels = run["label"][order], run["late"][order]
    for options in ({"target": label}, {"control": label}):
        with pytest.raises(
            ValueError, match=r"examples in their order.*\.sel\(example"
        ):
            probe_layers(run, **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Expected `inputs` to have the recording's"):
        probe_input(run, inputs=pixels)
    back = label.sel(example=run["example"])
    xr.testing.assert_equal(
        probe_layers(run, back)["accuracy"], probe_layers(run)["accuracy"]
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.isel(step=[]), "recording of at least one step, but got none"),
        (lambda r: r.isel(late_unit=[]), r"'late' to have units.* \(2, 240, 0\)"),
        (lambda r: r.assign(late=r["late"] * 1j), "real numbers.*type complex64"),
        (lambda r: r.assign(late=r["late"].astype(str)), "real numbers.*type <U"),
        (lambda r: r[[]], "a recording with layers"),
    ],
)
def test_layers_that_cannot_be_probed(
    planted: Maker, change: Callable[[xr.Dataset], xr.Dataset], message: str
) -> None:
    run = change(planted(steps=2))
    for function in (probe_layers, codelength_layers):
        with pytest.raises(ValueError, match=message):
            function(run)


@pytest.mark.parametrize("seed", [-1, None, 0.5, "0", 2**32])
def test_a_seed_is_a_whole_number(planted: Maker, seed: Any) -> None:
    for function in (probe_layers, codelength_layers):
        with pytest.raises(
            (TypeError, ValueError), match="Expected `seed` (to|between)"
        ):
            function(planted(), seed=seed)


def test_groups_the_probe_never_saw_are_said(planted: Maker) -> None:
    run = planted()
    group = run["group"].values.copy()
    group[held_out(run)[:4]] = [90, 91, 92, 93]
    with pytest.warns(UserWarning, match="4 of 60 held-out examples belong to groups"):
        probe_layers(run, control=group)


def held_out(run: xr.Dataset) -> np.ndarray:
    """Return the positions of the held-out examples of seed 0."""
    places, y = np.arange(run.sizes["example"]), run["label"].values
    return np.sort(
        train_test_split(places, test_size=60, random_state=0, stratify=y)[1]
    )


def test_many_rare_classes_are_counted_not_listed(planted: Maker) -> None:
    with pytest.raises(
        ValueError, match=r"\[0, 1, 2, 3, 4\] and 235 more have 1; leave"
    ):
        probe_layers(planted(), np.arange(240))


def test_numbers_of_other_types_say_the_same(planted: Maker) -> None:
    run = planted()
    plain = probe_layers(run, control=True)
    other = probe_layers(
        run, test_size=np.float32(0.25), control=np.True_, seed=np.int64(0)
    )
    xr.testing.assert_equal(plain, other)
    xr.testing.assert_equal(probe_layers(run, control=np.False_), probe_layers(run))


def test_every_variable_has_a_name_and_a_unit(planted: Maker) -> None:
    for target in ("label", "angle"):
        found = probe_layers(planted(), target, control=True)
        assert all("units" in v.attrs for v in found.data_vars.values())
    loss = probe_layers({"a": planted(), "b": planted()})["log_loss"]
    assert plot.layer_curve(loss).get_ylabel() == "held-out log loss (nats)"


def test_a_bad_step_is_named(planted: Maker) -> None:
    run = planted(steps=2)
    run["late"][1, 0, 0] = np.inf
    with pytest.raises(ValueError, match="layer 'late'.*1 of 2880 values at step 10"):
        probe_layers(run)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"target": np.arange(5) % 2},
            r"each of the 240 examples, but got shape \(5,\)",
        ),
        ({"target": np.full(240, 0.5)}, "'array' to vary, but every example has 0.5"),
        ({"test_size": 2.0}, "Expected `test_size` to be between 0 and 1, but got 2.0"),
        ({"test_size": 0.005}, "at least 4 examples on either side.* 238 and 2"),
        ({"control": np.arange(240)}, "none of 240 groups is shared"),
        ({"control": np.zeros(240)}, "at least 2 groups among the training examples"),
        ({"control": "grop"}, "Did you mean 'group'"),
        ({"estimator": "linea"}, "Did you mean 'linear'"),
        ({"estimator": StandardScaler()}, "be a classifier for classes, but got Stan"),
        ({"estimator": LinearProbe(device="gpu")}, "Expected `device` to work here"),
        ({"target": "angle", "estimator": StandardScaler()}, "be a regressor for"),
        (
            {"target": "angle", "estimator": KNeighborsClassifier()},
            "be a regressor for",
        ),
        (
            {"target": np.array(["a", "b"] * 120), "estimator": LinearRegression()},
            "to be numbers for a regression, but got values of type",
        ),
    ],
)
def test_options_that_cannot_be(
    planted: Maker, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        probe_layers(planted(), **options)


def test_a_class_left_without_training_examples_is_named(planted: Maker) -> None:
    run = planted()
    label = run["label"].values.copy()
    label[:2] = 7
    with pytest.raises(ValueError, match=r"training example of every class.*\[7\]"):
        probe_layers(run, label, test_size=0.8)


def test_what_is_no_recording_or_estimator(planted: Maker) -> None:
    with pytest.raises(TypeError, match="Expected `run` to be a recording"):
        probe_layers([planted(), 3])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="Expected `run` to be a recording"):
        probe_layers(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="list of recordings, but got none"):
        probe_layers([])
    with pytest.raises(TypeError, match="estimator or one of knn, linear, ridge"):
        probe_layers(planted(), estimator=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="got the class LinearProbe itself; call it"):
        probe_layers(planted(), estimator=LinearProbe)  # type: ignore[arg-type]


def test_several_splits_give_means_and_corrected_errors(planted: Maker) -> None:
    run = planted()
    found = probe_layers(run, repeats=4, seed=5).sel(layer="early")
    first = probe_layers(run, seed=5).sel(layer="early")
    # The same four splits, one after another, and the same probe on each.
    rng = np.random.RandomState(5)
    y, x = run["label"].values, run["early"].values
    scores = []
    for _ in range(4):
        train, test = train_test_split(
            np.arange(240), test_size=0.25, random_state=rng, stratify=y
        )
        label = xr.DataArray(x, dims=("example", "early_unit"))
        z = (label - label[train].mean("example")).values
        z = z / np.sqrt(x[train].var(axis=0).mean())
        scores.append(LinearProbe().fit(z[train], y[train]).score(z[test], y[test]))
    assert scores[0] == float(first["accuracy"])
    assert float(found["accuracy"]) == pytest.approx(np.mean(scores))
    # Nadeau & Bengio: 60 held out, 180 learnt from.
    error = np.sqrt((1 / 4 + 60 / 180) * np.var(scores, ddof=1))
    assert float(found["accuracy_se"]) == pytest.approx(error)
    assert found.attrs["repeats"] == 4
    assert found["accuracy_se"].attrs["long_name"].endswith("corrected standard error")


def test_draws_of_the_control_are_averaged(planted: Maker) -> None:
    run = planted()
    found = probe_layers(run, control=True, control_draws=5, repeats=2)
    assert (found["control_sd"] > 0).all()
    expected = found["accuracy"] - found["control_train_accuracy"]
    np.testing.assert_allclose(found["selectivity"], expected)
    alone = probe_layers(run, control=True)["control_accuracy"]
    assert not np.array_equal(alone, found["control_accuracy"])


def test_rare_classes_have_scores_of_their_own(planted: Maker) -> None:
    run = planted(n=600)
    rare = (run["label"].values == 0) & (np.arange(600) % 3 == 0)
    found = probe_layers(run, rare, confusion=True)
    plain = found.sel(layer="early")
    assert plain["accuracy"] > 0.85  # although nothing is there to be read
    assert abs(plain["balanced_accuracy"] - 0.5) < 0.1
    assert abs(plain["auroc"] - 0.5) < 0.2
    counts = found["confusion"].sel(layer="late")
    assert counts.dims == ("class", "predicted")
    assert float(counts.sum()) == found.attrs["n_test"]
    recall = np.diag(counts) / counts.sum("predicted")
    weighted = LinearProbe(class_weight="balanced")
    balanced = probe_layers(run, rare, estimator=weighted).sel(layer="late")
    assert float(recall.mean()) == pytest.approx(
        float(found["balanced_accuracy"].sel(layer="late"))
    )
    assert balanced["balanced_accuracy"] > recall.mean()


def test_whole_numbers_are_regressed_on_when_asked(planted: Maker) -> None:
    run = planted()
    age = np.round(50 + 8 * run["angle"].values)
    for options in ({"task": "regression"}, {"estimator": "ridge"}):
        found = probe_layers(run, age, **options)  # type: ignore[arg-type]
        assert found["r2"].sel(layer="middle") > 0.9
    assert "accuracy" in probe_layers(run, estimator="ridge")
    assert "accuracy" in probe_layers(run, run["group"], estimator="ridge")
    forced = probe_layers(
        run, run["group"] + 7, estimator="ridge", task="classification"
    )
    assert "accuracy" in forced


def test_several_outputs_are_each_as_if_alone(planted: Maker) -> None:
    run = planted()
    two = xr.DataArray(
        np.column_stack([run["angle"], run["late"][:, 0]]),
        dims=("example", "factor"),
        coords={"factor": ["angle", "late_0"]},
    )
    found = probe_layers(run, two, control=True, repeats=2)
    assert found["r2"].dims == ("layer", "output")
    alone = probe_layers(run, "angle", repeats=2)
    both = found.sel(output="angle")
    for name in ("r2", "train_r2", "rmse", "r2_se", "chance"):
        np.testing.assert_allclose(both[name], alone[name], atol=1e-6)
    assert found["r2"].sel(layer="late", output="late_0") > 0.9


def test_several_labels_are_each_a_task_of_two_classes(planted: Maker) -> None:
    run = planted(n=400)
    labels = np.column_stack([run["label"] > 1, run["label"] % 2, run["angle"] > 0])
    found = probe_layers(run.assign_coords(tags=(("example", "tag"), labels)), "tags")
    assert found["accuracy"].dims == ("layer", "output")
    late = found.sel(layer="late")
    assert (late["auroc"][:2] > 0.95).all() and abs(late["auroc"][2] - 0.5) < 0.2
    assert found["auroc"].sel(layer="middle")[2] > 0.95
    np.testing.assert_array_equal(found["chance"].dims, ("output",))


def test_progress_is_a_bar(planted: Maker, capsys: pytest.CaptureFixture[str]) -> None:
    probe_layers(planted(), progress=True)
    codelength_layers(planted(n=60), progress=True)
    said = capsys.readouterr().err
    assert "probes: 100%" in said and "code lengths: 100%" in said
    probe_layers(planted())
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"standardise": "unit"}, "Expected `standardise` to be one of layer, units"),
        ({"task": "regress"}, "Did you mean 'regression'"),
        ({"target": "angle", "task": "classification"}, "be classes, but got numbers"),
        ({"repeats": 0}, "Expected `repeats` to be"),
        ({"control_draws": 0}, "Expected `control_draws` to be"),
        ({"target": np.arange(480).reshape(240, 2)}, "several outputs to hold labels"),
        ({"target": np.eye(240)[:, :2]}, "for at least 2 examples, but .0, 1. are not"),
        ({"target": np.ones((240, 2, 2))}, r"one value for each .* \(240, 2, 2\)"),
    ],
)
def test_new_options_that_cannot_be(
    planted: Maker, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        probe_layers(planted(), **options)
