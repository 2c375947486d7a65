"""Equal accuracy: which moment of each network is taken."""

import numpy as np
import pytest
import xarray as xr

from repsim.core.scoring import Score
from repsim.inference import at_accuracy


@pytest.fixture
def lower() -> dict[str, object]:
    """Return what a record says whose score is better the lower it is."""
    return Score("rmse", "RMSE", larger_is_better=False).attrs


def trained(
    accuracies: dict[str, list[float]], attrs: dict[str, object] | None = None
) -> xr.DataTree:
    rng, nodes = np.random.default_rng(0), {}
    for key, scores in accuracies.items():
        step = {"step": np.arange(len(scores)) * 10}
        x = rng.normal(size=(len(scores), 8, 2))
        nodes[key] = xr.Dataset({"h": (("step", "example", "h_unit"), x)}, step)
        name = f"test_{(attrs or {}).get('metric', 'accuracy')}"
        nodes[f"{key}/training"] = xr.Dataset({name: ("step", scores)}, step, attrs)
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


def test_a_score_that_is_better_when_lower(lower: dict[str, object]) -> None:
    study = trained({"a/0": [9.0, 4.0, 3.0], "b/0": [8.0, 3.9, 6.0]}, lower)
    found = at_accuracy(study)
    a, b = found["a/0"].attrs, found["b/0"].attrs
    # The lowest that both reach is 3.9, which b does at its second moment.
    assert (a["target_rmse"], a["matched_rmse"], a["matched_step"]) == (3.9, 4.0, 10)
    assert (b["matched_rmse"], b["matched_step"]) == (3.9, 10)
    assert at_accuracy(study, 90)["a/0"].attrs["matched_step"] == 0


def test_networks_of_different_metrics_have_no_equal_score(
    lower: dict[str, object],
) -> None:
    nodes = (
        trained({"a/0": [0.1, 0.6]}).to_dict()
        | trained({"b/0": [0.1, 0.6]}, lower).to_dict()
    )
    with pytest.raises(ValueError, match="Expected networks scored by one metric, but"):
        at_accuracy(xr.DataTree.from_dict(nodes))


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
