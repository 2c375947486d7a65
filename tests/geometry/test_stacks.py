"""RDMs of recordings and studies, labelled and square."""

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr
from scipy.spatial.distance import pdist, squareform

import repsim


def test_rdms_are_labelled_and_equal_scipy(
    recording: Callable[..., xr.Dataset],
) -> None:
    run = recording()
    found = repsim.rdms(run, metric="cosine")
    assert found.dims == ("step", "layer", "pair")
    assert found["layer"].values.tolist() == run.attrs["layers"]
    assert found["example_a"].dtype == found["label_b"].dtype == np.int32
    assert found["example_a"].values[:2].tolist() == [100, 100]
    assert found["example_b"].values[:2].tolist() == [101, 102]
    assert found.attrs["metric"] == "cosine" and found.attrs["rule"] == "bp"
    assert found.attrs["repsim_version"]
    one = found.sel(step=10, layer="hidden_2")
    x = run["hidden_2"].sel(step=10).values
    np.testing.assert_allclose(one, pdist(x, "cosine"), atol=1e-12)


def test_rdms_of_one_moment_and_chosen_layers(
    recording: Callable[..., xr.Dataset],
) -> None:
    found = repsim.rdms(recording(steps=None), layers=["hidden_3", "hidden_1"])
    assert found.dims == ("layer", "pair")
    assert found["layer"].values.tolist() == ["hidden_3", "hidden_1"]


def test_precision_is_the_recordings_own_unless_asked(
    recording: Callable[..., xr.Dataset],
) -> None:
    run = recording()
    assert repsim.rdms(run).dtype == np.float64
    narrow = repsim.rdms(run.astype(np.float32))
    assert narrow.dtype == np.float32
    assert repsim.rdms(run.astype(np.float16)).dtype == np.float32
    asked = repsim.rdms(run.astype(np.float32), precision="float64")
    assert asked.dtype == np.float64
    assert float(abs(narrow - repsim.rdms(run)).max()) < 1e-5


def test_rdms_of_a_study_carry_condition_and_seed(
    study: Callable[..., xr.DataTree],
) -> None:
    found = repsim.rdms(study())
    assert found.dims == ("network", "layer", "pair")
    assert found["condition"].values.tolist() == ["bp"] * 3 + ["sg"] * 3
    assert found["seed"].values.tolist() == ["0", "1", "2"] * 2
    assert "rule" in found.attrs


def test_squareform_is_scipys_and_keeps_names(
    recording: Callable[..., xr.Dataset],
) -> None:
    found = repsim.rdms(recording())
    square = repsim.squareform(found)
    assert square.dims == ("step", "layer", "example_a", "example_b")
    np.testing.assert_array_equal(
        square.isel(step=1, layer=2), squareform(found.values[1, 2])
    )
    assert square["example_b"].values.tolist() == list(range(100, 112))
    assert square["label_a"].values.tolist() == recording()["label"].values.tolist()
    np.testing.assert_array_equal(repsim.squareform(np.array([1.0])), [[0, 1], [1, 0]])


def test_constant_rows_are_named_in_one_warning(
    recording: Callable[..., xr.Dataset],
) -> None:
    run = recording()
    run["hidden_2"][:, 3] = 1.0
    run["hidden_3"][0, 0] = 2.0
    with pytest.warns(UserWarning, match="in hidden_2, hidden_3") as caught:
        found = repsim.rdms(run)
    assert len(caught) == 1
    assert int(found.isel(step=1).sel(layer="hidden_2").isnull().sum()) == 11


def test_rdms_say_what_is_wrong(recording: Callable[..., xr.Dataset]) -> None:
    run = recording()
    with pytest.raises(ValueError, match="Did you mean 'hidden_1'"):
        repsim.rdms(run, layers="hiden_1")
    with pytest.raises(ValueError, match="Did you mean 'euclidean'"):
        repsim.rdms(run, metric="euclid")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`precision` to be one of float32"):
        repsim.rdms(run, precision="float16")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Expected `device` .* but got 'gpu'"):
        repsim.rdms(run, device="gpu")
    with pytest.raises(ValueError, match="at least 3 examples, but got 2"):
        repsim.rdms(run.isel(example=slice(2)))
    broken = run.copy(deep=True)
    broken["hidden_2"][1, 0, 0] = np.nan
    with pytest.raises(
        ValueError, match="layer 'hidden_2' at step 10 to be finite, but"
    ):
        repsim.rdms(broken)
    with pytest.raises(ValueError, match="layer 'hidden_2' at step 10 to be finite"):
        repsim.rdms(broken.isel(step=1))
    with pytest.raises(TypeError, match="Expected a recording"):
        repsim.rdms(np.eye(3))  # type: ignore[arg-type]


def test_networks_of_a_study_must_agree(recording: Callable[..., xr.Dataset]) -> None:
    one, other = recording(steps=None), recording(1, steps=None)
    renamed = other.rename(hidden_3="top").assign_attrs(
        layers=["hidden_1", "hidden_2", "top"]
    )
    with pytest.raises(ValueError, match="share their layers, but sg/0 differs"):
        repsim.rdms(xr.DataTree.from_dict({"bp/0": one, "sg/0": renamed}))
    moved = other.assign_coords(example=np.arange(12))
    with pytest.raises(ValueError, match="bp/0 and sg/0 to have the same pairs of exa"):
        repsim.rdms(xr.DataTree.from_dict({"bp/0": one, "sg/0": moved}))


def test_networks_with_examples_in_another_order_are_matched(
    recording: Callable[..., xr.Dataset],
) -> None:
    one, other = recording(steps=None), recording(1, steps=None)
    order = np.random.default_rng(0).permutation(12)
    apart = xr.DataTree.from_dict({"bp/0": one, "sg/0": other.isel(example=order)})
    both = xr.DataTree.from_dict({"bp/0": one, "sg/0": other})
    xr.testing.assert_allclose(repsim.rdms(apart), repsim.rdms(both))


def test_squares_of_pairs_in_any_order_are_the_same(
    recording: Callable[..., xr.Dataset],
) -> None:
    found = repsim.rdms(recording(steps=None))
    expected = repsim.squareform(found)
    order = np.random.default_rng(0).permutation(66)
    moved = found.isel(pair=order)
    turned = moved.assign_coords(
        {
            f"{name}_{end}": ("pair", moved[f"{name}_{other}"].values)
            for name in ("example", "label")
            for end, other in ("ab", "ba")
        }
    )
    for stack in (moved, turned):
        square = repsim.squareform(stack)
        where = {f"example_{end}": expected[f"example_{end}"] for end in "ab"}
        xr.testing.assert_equal(square.sel(where), expected)
    with pytest.raises(ValueError, match="every pair of 12 examples once"):
        repsim.squareform(found.isel(pair=[0] + list(range(65))))


def test_squareform_wants_pairs() -> None:
    with pytest.raises(
        ValueError, match="n .n - 1. / 2 pairs of n examples, but got 4"
    ):
        repsim.squareform(np.ones(4))
    with pytest.raises(ValueError, match="Expected `rdms` to have a dim `pair`"):
        repsim.squareform(xr.DataArray(np.ones(3), dims="layer"))


def test_a_bar_is_shown_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    values = np.random.default_rng(0).normal(size=(3, 6, 4))
    run = xr.Dataset({"a": (("step", "example", "a_unit"), values)})
    quiet = repsim.rdms(run)
    assert capsys.readouterr().err == ""
    xr.testing.assert_identical(repsim.rdms(run, progress=True), quiet)
    assert "3/3" in capsys.readouterr().err
    study = xr.DataTree.from_dict({"bp/0": run, "bp/1": run})
    repsim.rdms(study, progress=True)
    assert "2/2" in capsys.readouterr().err
