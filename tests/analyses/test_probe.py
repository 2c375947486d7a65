"""The study's probe analysis against probe_layers, network by network."""

import numpy as np
import pytest
import xarray as xr

from repsim.analyses import NotApplicable, probe
from repsim.probes import probe_layers


def test_accuracies_are_those_of_each_network(study: xr.DataTree) -> None:
    study["input"] = xr.DataArray(
        np.random.default_rng(0).normal(size=(24, 5)), dims=("example", "feature")
    )
    result = probe.compute(study)
    assert result["condition"].values.tolist() == ["bp", "sg", "untrained"]
    run = study["sg/1"].to_dataset().isel(step=-1)
    alone = probe_layers(run, test_size=0.5)
    cell = result.sel(condition="sg", seed=1)
    np.testing.assert_array_equal(cell["accuracy"], alone["accuracy"])
    begin = study["bp/2"].to_dataset().isel(step=0)
    untrained = result.sel(condition="untrained", seed=2)
    np.testing.assert_array_equal(
        untrained["accuracy"], probe_layers(begin, test_size=0.5)["accuracy"]
    )
    assert {"chance", "input_accuracy", "input_log_loss"} <= set(result.data_vars)
    figure = probe.figures(result)["probe_accuracy"]
    accuracy, loss = figure.axes
    assert loss.get_yscale() == "log"
    level = {line.get_label(): line.get_ydata() for line in loss.lines}
    # 12 examples a side, of classes in proportion: the frequencies' log loss.
    shares = np.unique(study["bp/0"]["label"], return_counts=True)[1] / 24
    np.testing.assert_allclose(
        level["best constant"], -(shares * np.log(shares)).sum(), rtol=0.02
    )
    np.testing.assert_allclose(level["input"], result["input_log_loss"])
    assert "of the same probe on the input" in probe.details(result)
    assert {"bp", "sg", "untrained", "input", "chance"} == set(probe.summary(result))


def test_without_labels_it_does_not_apply(study: xr.DataTree) -> None:
    bare = {
        f"bp/{seed}": study[f"bp/{seed}"].to_dataset().drop_vars("label")
        for seed in range(2)
    }
    with pytest.raises(NotApplicable, match="recordings with a `label` coordinate"):
        probe.compute(xr.DataTree.from_dict(bare))
