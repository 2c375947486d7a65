"""The paper's Figure 4 and the second-level comparison, from small studies."""

from itertools import pairwise

import numpy as np
import pytest
import xarray as xr

import repsim
from repsim.analyses import NotApplicable, collect, figure4, second_level


def run(seed: int, gain: float, layers: int = 4, steps: int = 2) -> xr.Dataset:
    """A network whose classes grow apart along depth, faster with `gain`."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(3), 4)
    centres = np.random.default_rng(99).normal(size=(3, 6))
    names = [f"hidden_{k + 1}" for k in range(layers)] + ["output"]
    return xr.Dataset(
        {
            name: (
                ("step", "example", f"{name}_unit"),
                (gain * k * centres[labels] + rng.normal(size=(steps, 12, 6))).astype(
                    np.float32
                ),
            )
            for k, name in enumerate(names)
        },
        coords={
            "step": np.arange(steps) * 100,
            "example": np.arange(12),
            "label": ("example", labels),
        },
        attrs={"layers": names, "init_seed": seed},
    )


def study() -> xr.DataTree:
    found = {f"bp/{s}": run(s, 1.0) for s in range(3)}
    for s in range(3):
        found[f"sg/{s}"] = run(s + 5, -2.0).assign_attrs(splits=["hidden_2"])
    return xr.DataTree.from_dict(found)


def test_figure4_is_collected_computed_and_drawn() -> None:
    assert {"figure4", "second_level"} <= set(collect())
    result = figure4.compute(study())
    assert result["rdm"].dims == ("condition", "layer", "pair")
    assert result["layer"].values.tolist() == [f"hidden_{k}" for k in (1, 2, 3, 4)]
    assert result.attrs["reference"] == "hidden_4"
    first = repsim.rdms(run(0, 1.0).isel(step=-1), layers="hidden_3")
    np.testing.assert_array_equal(
        result["rdm"].sel(condition="bp", layer="hidden_3"), first[0]
    )
    lines = result["euclidean"]
    assert lines.sizes["seed"] == 3
    assert float(lines.sel(layer="hidden_4").max()) == 0
    figures = figure4.figures(result)
    assert list(figures) == ["rdm_grid", "rdm_distance"]
    assert len([a for a in figures["rdm_grid"].axes if a.images]) == 8
    left = figures["rdm_distance"].axes[0]
    assert left.get_ylabel() == "RDM distance to hidden_4 (L2)"
    assert any(list(line.get_xdata()) == [1.5, 1.5] for line in left.lines)
    assert "hidden_4" in figure4.details(result)
    changes = [np.corrcoef(a, b)[0, 1] for a, b in pairwise(result["rdm"][0].values)]
    found = result["change"].sel(condition="bp").isel(seed=0)
    np.testing.assert_allclose(found[1:], 1 - np.array(changes), atol=1e-5)
    assert np.isnan(found[0])
    assert figures["rdm_distance"].axes[2].get_ylabel() == (
        "RDM distance to the layer before (1 − r)"
    )


def test_the_break_is_measured_where_the_split_is() -> None:
    result = figure4.compute(study())
    numbers = figure4.summary(result)
    assert set(numbers) == {"bp", "sg"}
    # The split is after hidden_2; bp is measured at the same place.
    change = result["change"].sel(condition="bp").values
    ratio = change[:, 2] / change[:, [1, 3]].mean(1)
    assert numbers["bp"]["change_into_hidden_3_over_neighbours"] == pytest.approx(
        ratio.mean(), abs=0.006
    )
    least, most = numbers["sg"]["change_into_hidden_3_least_and_most"]
    assert least <= numbers["sg"]["change_into_hidden_3_over_neighbours"] <= most


def test_networks_of_one_rule_are_neighbours() -> None:
    result = second_level.compute(study())
    assert result.sizes["network"] == 6
    assert set(result["neighbour"].values.tolist()) <= {0.0, 1.0}
    assert result["model"].values.tolist() == ["condition"]
    figures = second_level.figures(result)
    assert list(figures) == ["second_level_networks"]
    numbers = second_level.summary(result)
    assert numbers["nearest_follows_same_rule"] == pytest.approx(
        float(result["neighbour"].mean()), abs=1e-4
    )
    assert "explained only by condition" in second_level.details(result)


@pytest.mark.filterwarnings("ignore:Some examples have no correlation")
@pytest.mark.filterwarnings("ignore:.* pairs are NaN")
@pytest.mark.filterwarnings("ignore:An RDM is constant")
def test_networks_without_examples_in_common_are_left_out() -> None:
    tree = study()
    names = ("hidden_1", "hidden_2", "hidden_3", "hidden_4")
    half = tree["bp/0"].sizes["example"] // 2
    for node, dead in (("bp/2", slice(half)), ("sg/2", slice(half, None))):
        for name in names:
            tree[node][name][..., dead, :] = 0.0
    result = second_level.compute(tree)
    assert int(result["networks"].isnull().sum()) == 1
    figures = second_level.figures(result)
    points = figures["second_level_networks"].axes[1].collections
    assert sum(len(p.get_offsets()) for p in points) == 5
    assert "Not drawn" in second_level.caption(result)
    assert "Not drawn" not in second_level.caption(second_level.compute(study()))
    # Nobody is its own nearest, nor that of one it cannot be compared with.
    assert result["neighbour"].notnull().all()
    few = {name: tree[name].to_dataset() for name in ("bp/0", "bp/2", "sg/2")}
    with pytest.raises(NotApplicable, match="three networks with examples in common"):
        second_level.compute(xr.DataTree.from_dict(few))


def test_shared_initialisations_are_a_model_of_their_own() -> None:
    tree = study()
    for s in range(3):
        tree[f"sg/{s}"].attrs["init_seed"] = s
    result = second_level.compute(tree)
    assert result["model"].values.tolist() == ["condition", "initialisation"]


def test_results_are_written_and_read(tmp_path: object) -> None:
    for analysis in (figure4, second_level):
        result = analysis.compute(study())
        path = f"{tmp_path}/{analysis.__name__}.nc"
        result.assign(
            {k: v.astype(int) for k, v in result.items() if v.dtype == bool}
        ).to_netcdf(path, engine="h5netcdf")
        again = xr.load_dataset(path, engine="h5netcdf")
        assert list(analysis.figures(again)) == list(analysis.figures(result))


def test_studies_that_are_too_small_are_not_applicable() -> None:
    small = xr.DataTree.from_dict({"bp/0": run(0, 1.0), "sg/0": run(1, 1.0)})
    with pytest.raises(NotApplicable, match="at least three networks"):
        second_level.compute(small)
    other = xr.DataTree.from_dict(
        {f"bp/{s}": run(s, 1.0, layers=3 + s % 2) for s in range(3)}
    )
    with pytest.raises(NotApplicable, match="same layers"):
        second_level.compute(other)
    few = xr.DataTree.from_dict({"bp/0": run(0, 1.0).isel(example=slice(2))})
    with pytest.raises(NotApplicable, match="three examples and two layers"):
        figure4.compute(few)
