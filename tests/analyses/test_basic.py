"""The analyses every study has, against the same numbers computed the long way."""

import numpy as np
import pytest
import xarray as xr

import repsim
from repsim.analyses import (
    NotApplicable,
    collect,
    convergence,
    displacement,
    layer_similarity,
    learning_curves,
    margin,
)
from repsim.datasets.recordings import layers, networks


def test_each_analysis_is_complete() -> None:
    found = collect()
    assert {"layer_similarity", "learning_curves", "margin"} <= set(found)
    orders = [analysis.ORDER for analysis in found.values()]
    assert orders == sorted(orders)
    for analysis in found.values():
        for part in ("compute", "figures", "claim", "caption", "details", "summary"):
            assert callable(getattr(analysis, part))
        assert analysis.TITLE


def _slow(study: xr.DataTree, a: str, b: str, shared: bool) -> np.ndarray:
    runs = networks(study)
    cells = []
    for (ca, sa), run_a in runs.items():
        for (cb, sb), run_b in runs.items():
            alike = run_a.attrs["init_seed"] == run_b.attrs["init_seed"]
            if (ca, cb) != (a, b) or alike != shared or (a == b and sa >= sb):
                continue
            cell = [
                [
                    repsim.cka(run_a[i][-1].values, run_b[j][-1].values)
                    for j in layers(run_b)
                ]
                for i in layers(run_a)
            ]
            cells.append(np.array(cell))
    mean = np.mean(cells, axis=0)
    # Within a condition either network of a pair may come first.
    return (mean + mean.T) / 2 if a == b else mean


@pytest.mark.parametrize(
    ("a", "b", "variable", "pairs"),
    [
        ("bp", "bp", "cka", 3),
        ("bp", "sg", "cka", 8),
        ("bp", "sg", "shared", 1),
    ],
)
def test_similarity_is_the_mean_over_the_right_pairs(
    study: xr.DataTree, a: str, b: str, variable: str, pairs: int
) -> None:
    result = layer_similarity.compute(study)
    cell = result[variable].sel(condition_a=a, condition_b=b)
    expected = _slow(study, a, b, shared=variable == "shared")
    np.testing.assert_allclose(cell.values, expected, atol=2e-6)
    count = "pairs" if variable == "cka" else "shared_pairs"
    assert int(result[count].sel(condition_a=a, condition_b=b)) == pairs


def test_the_untrained_network_is_a_row(study: xr.DataTree) -> None:
    result = layer_similarity.compute(study)
    cell = result["cka"].sel(condition_a="bp", condition_b="untrained")
    runs = [run for (c, _), run in networks(study).items() if c == "bp"]
    expected = np.mean(
        [
            repsim.cka(a["hidden_2"][-1].values, b["hidden_1"][0].values)
            for i, a in enumerate(runs)
            for j, b in enumerate(runs)
            if i != j
        ]
    )
    value = cell.sel(layer_a="hidden_2", layer_b="hidden_1")
    assert float(value) == pytest.approx(expected, abs=2e-6)


def test_convergence_ends_at_one(study: xr.DataTree) -> None:
    result = convergence.compute(study)
    assert result["cka"].dims == ("condition", "seed", "step", "layer")
    np.testing.assert_allclose(result["cka"].isel(step=-1).values, 1, atol=1e-6)
    run = networks(study)["sg", "1"]
    expected = repsim.cka(run["output"][1].values, run["output"][-1].values)
    where = {"condition": "sg", "seed": "1", "step": 5, "layer": "output"}
    assert float(result["cka"].sel(where)) == pytest.approx(expected, abs=2e-6)
    settled = convergence.summary(result)["settled_from_step"]
    assert settled["bp"]["hidden_1"] in (0, 5, 10)


def test_margin_grows_where_classes_part(study: xr.DataTree) -> None:
    result = margin.compute(study)
    mean = result["margin"].mean(["seed", "layer"])
    assert list(mean["condition"].values) == ["bp", "sg", "untrained"]
    assert float(mean.sel(condition="bp")) > float(mean.sel(condition="untrained"))


def test_displacement_and_curves_are_the_records(study: xr.DataTree) -> None:
    moved = displacement.compute(study)["displacement"]
    there = study["sg/2/training"]["displacement"]
    np.testing.assert_array_equal(
        moved.sel(condition="sg", seed="2").values, there.values
    )
    curves = learning_curves.summary(learning_curves.compute(study))
    assert curves["bp"]["mean"] == pytest.approx(0.81)
    assert curves["bp"]["sd"] == pytest.approx(0.01)


@pytest.mark.parametrize(
    "module", [convergence, displacement, layer_similarity, learning_curves, margin]
)
def test_figures_and_captions(study: xr.DataTree, module: object) -> None:
    analysis: repsim.analyses.Analysis = module  # type: ignore[assignment]
    result = analysis.compute(study)
    figures = analysis.figures(result)
    assert figures
    for figure in figures.values():
        figure.canvas.draw()
        assert any(ax.has_data() for ax in figure.axes)
    assert 20 < len(analysis.claim(result)) < 400
    assert len(analysis.caption(result)) < 300 and len(analysis.details(result)) > 80
    assert analysis.summary(result)


def test_a_study_without_training_records_says_so(study: xr.DataTree) -> None:
    bare = xr.DataTree.from_dict(
        {f"{c}/{s}": run for (c, s), run in networks(study).items()}
    )
    for module in (learning_curves, displacement):
        with pytest.raises(NotApplicable, match="Expected training records"):
            module.compute(bare)


def test_one_moment_has_no_convergence(study: xr.DataTree) -> None:
    moment = xr.DataTree.from_dict(
        {f"{c}/{s}": run.isel(step=-1) for (c, s), run in networks(study).items()}
    )
    with pytest.raises(NotApplicable, match="at least two steps"):
        convergence.compute(moment)


def test_no_labels_no_margin(study: xr.DataTree) -> None:
    bare = xr.DataTree.from_dict(
        {f"{c}/{s}": r.drop_vars("label") for (c, s), r in networks(study).items()}
    )
    with pytest.raises(NotApplicable, match="`label` coordinate"):
        margin.compute(bare)
