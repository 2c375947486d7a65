"""Equal accuracy: which moment of each network is taken."""

import numpy as np
import pytest
import xarray as xr

from repsim.inference import at_accuracy


def trained(accuracies: dict[str, list[float]]) -> xr.DataTree:
    rng, nodes = np.random.default_rng(0), {}
    for key, scores in accuracies.items():
        step = {"step": np.arange(len(scores)) * 10}
        x = rng.normal(size=(len(scores), 8, 2))
        nodes[key] = xr.Dataset({"h": (("step", "example", "h_unit"), x)}, step)
        nodes[f"{key}/training"] = xr.Dataset({"test_accuracy": ("step", scores)}, step)
    return xr.DataTree.from_dict(nodes)


def test_equal_accuracy_takes_the_nearest_record() -> None:
    study = trained({"a/0": [0.1, 0.6, 0.95], "b/0": [0.1, 0.85, 0.8]})
    found = at_accuracy(study)
    a, b = found["a/0"], found["b/0"]
    assert (a.attrs["matched_step"], b.attrs["matched_step"]) == (20, 10)
    assert a.attrs["target_accuracy"] == 0.85
    np.testing.assert_array_equal(a["h"], study["a/0"]["h"].sel(step=20))
    assert "step" not in a.to_dataset().dims
    asked = at_accuracy(study, 0.5)
    assert asked["a/0"].attrs["matched_accuracy"] == 0.6


def test_equal_accuracy_refusals() -> None:
    study = trained({"a/0": [0.1, 0.6]})
    with pytest.raises(ValueError, match="Expected `accuracy` between 0 and 1"):
        at_accuracy(study, 90)
    bare = xr.DataTree.from_dict({"a/0": study["a/0"].to_dataset()})
    with pytest.raises(ValueError, match="training record with `test_accuracy`"):
        at_accuracy(bare)
    single = xr.DataTree.from_dict({"a/0": study["a/0"].to_dataset().isel(step=0)})
    with pytest.raises(ValueError, match="a/0 is a single moment"):
        at_accuracy(single)
    empty = trained({"a/0": [np.nan, np.nan]})
    with pytest.raises(ValueError, match="none at the same steps|got none"):
        at_accuracy(empty)
