"""Schema, reduction, and the ways out of xarray and back."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from torch import nn
from torch.nn import functional as F

import repsim
from repsim.datasets.exchange import (
    from_dataframe,
    from_netcdf,
    to_dataframe,
    to_netcdf,
)
from repsim.datasets.recordings import networks, same_examples
from repsim.datasets.validation import problems, validate


@pytest.fixture(scope="module")
def run() -> xr.Dataset:
    """Maps, tokens and units, two steps, labels, errors, attributes of all kinds."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.Flatten(2), nn.ReLU(), nn.Flatten(), nn.Linear(48, 5)
    )
    attrs = {"splits": [], "one": ["a"], "two": [1, 2], "rate": 0.5, "seed": 3}
    x, y = torch.randn(7, 1, 6, 6), torch.arange(7) % 5
    with repsim.Recorder(
        net, [(x, y)], every=2, errors=F.cross_entropy, attrs=attrs
    ) as recorder:
        recorder.step()
        net[0].weight.data += 1
        recorder.step()
    return recorder.dataset()


def _matrix(**attrs: Any) -> xr.Dataset:
    values = np.arange(6.0).reshape(3, 2)
    return xr.Dataset({"a": (("example", "a_unit"), values)}, attrs=attrs)


# the schema


def test_what_is_recorded_and_what_is_made_by_hand_is_valid(run: xr.Dataset) -> None:
    assert validate(run) is run
    assert problems(_matrix()) == []
    assert problems(run.isel(step=0)) == []


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        (_matrix(repsim_schema=99), "schema 99 .* install a newer repsim"),
        (_matrix(layers=["a", "b"]), "layer 'b' is listed, but not there"),
        (_matrix(layers="b"), "layer 'b' is listed, but not there"),
        (_matrix().transpose(), r"has dims \(a_unit, example\).*run.transpose"),
        (_matrix().astype(str), "holds .*, not numbers"),
        (_matrix().rename(a="b@error"), "has no layer 'b' beside it"),
        (_matrix().expand_dims(step=2), "its `step` has no values"),
        (_matrix().expand_dims(step=[3, 1]), "steps do not increase.*sortby"),
        (_matrix().expand_dims(step=[0.5]), "its step values are float64"),
        (_matrix().assign_coords(example=[0.5, 1, 2]), "example values are float64"),
        (_matrix().assign_coords(label=("a_unit", [1, 2])), "its label has dims"),
    ],
)
def test_what_is_wrong_is_said_with_the_repair(bad: xr.Dataset, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"Expected here to be .*{sentence}"):
        validate(bad, "here")


def test_layers_are_listed_in_network_order(run: xr.Dataset) -> None:
    assert repsim.layers(run) == ["0", "1", "2", "3", "4"]
    assert list(run)[:4] == ["0", "0@error", "1", "1@error"]
    with pytest.raises(TypeError, match="Expected a recording"):
        repsim.layers({})  # type: ignore[arg-type]


def test_other_examples_are_told_apart(run: xr.Dataset) -> None:
    same_examples(run, run)
    with pytest.raises(ValueError, match="got 7 and 3"):
        same_examples(run, _matrix())
    with pytest.raises(ValueError, match="their ids differ in 7 of 7 places"):
        same_examples(run, run.assign_coords(example=run["example"] + 1))
    with pytest.raises(ValueError, match="their inputs_sha256 differ"):
        same_examples(run, run.assign_attrs(inputs_sha256="0"))


def test_a_study_gives_its_networks(run: xr.Dataset) -> None:
    study = xr.DataTree.from_dict({"bp/0": run, "sg/1": run})
    assert list(networks(study)) == [("bp", "0"), ("sg", "1")]
    with pytest.raises(TypeError, match="Expected a study"):
        networks(run)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="found none"):
        networks(xr.DataTree())


# reduction


@pytest.mark.parametrize("how", ["mean", "flatten"])
def test_reduced_afterwards_as_while_recording(how: Any) -> None:
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(2), nn.Flatten())
    x = torch.randn(7, 1, 6, 6)
    before = repsim.record(net, x, reduce=how)
    after = repsim.reduce(repsim.record(net, x), how)
    before.attrs["created"] = after.attrs["created"]
    xr.testing.assert_allclose(before, after, rtol=1e-5, atol=1e-6)
    assert before.attrs == after.attrs


def test_steps_errors_and_units_are_kept(run: xr.Dataset) -> None:
    less = repsim.reduce(run, "mean")
    assert less["0"].dims == less["0@error"].dims == ("step", "example", "0_unit")
    np.testing.assert_allclose(less["0"], run["0"].mean(("0_y", "0_x")), rtol=1e-5)
    np.testing.assert_allclose(less["1"], run["1"].mean("1_x"), rtol=1e-5, atol=1e-7)
    xr.testing.assert_identical(less["4"].variable, run["4"].variable)
    assert list(less) == list(run)
    assert less.attrs["reduce"] == "mean"
    xr.testing.assert_identical(repsim.reduce(run, "flatten")["label"], run["label"])


def test_a_callable_gets_tensors_step_by_step(run: xr.Dataset) -> None:
    def widest(t: torch.Tensor) -> torch.Tensor:
        return t.flatten(1).amax(1, keepdim=True)

    less = repsim.reduce(run, widest)
    np.testing.assert_array_equal(
        less["0"][..., 0], run["0"].max(("0_channel", "0_y", "0_x"))
    )
    assert less.attrs["reduce"].endswith("widest")
    with pytest.raises(ValueError, match="Expected `reduce` to map layer '0'"):
        repsim.reduce(run, lambda t: t)
    with pytest.raises(IndexError) as caught:
        repsim.reduce(run[["4"]].assign_attrs(layers=["4"]), lambda t: t.mean((2, 3)))
    assert "layer '4', (7, 5)" in caught.value.__notes__[0]
    with pytest.raises(ValueError, match="Expected `how` to be 'flatten', 'mean'"):
        repsim.reduce(run, "max")  # type: ignore[arg-type]


def test_half_precision_maps_are_averaged_in_single() -> None:
    maps = np.full((2, 1, 60, 60), 60.0, np.float16)
    dims = ("example", "a_channel", "a_y", "a_x")
    less = repsim.reduce(xr.Dataset({"a": (dims, maps)}), "mean")
    assert less["a"].dtype == np.float16
    np.testing.assert_array_equal(less["a"], 60.0)


def test_a_stored_recording_is_reduced_too(run: xr.Dataset, tmp_path: Path) -> None:
    repsim.save_recording(run, tmp_path / "s.zarr")
    lazy = repsim.reduce(repsim.open_recording(tmp_path / "s.zarr"), "mean")
    xr.testing.assert_identical(lazy.load(), repsim.reduce(run, "mean"))


def test_lossy_storage_is_asked_for_and_said(tmp_path: Path) -> None:
    exact = repsim.record(nn.Sequential(nn.Linear(6, 4)), torch.randn(50, 6))
    repsim.save_recording(exact, tmp_path / "s.zarr", keepbits=7, level=5)
    run = repsim.open_recording(tmp_path / "s.zarr")
    assert run.attrs["keepbits"] == 7
    difference = abs(run["0"] - exact["0"]) / abs(exact["0"])
    assert 0 < difference.max() <= 2**-8
    half = exact.astype(np.float16)  # ten bits: nothing to round
    repsim.save_recording(half, tmp_path / "h.zarr", keepbits=20)
    held = repsim.open_recording(tmp_path / "h.zarr")
    np.testing.assert_array_equal(held["0"], half["0"])
    with pytest.raises(ValueError, match="Expected `keepbits` to be None or an integ"):
        repsim.save_recording(exact, tmp_path / "t.zarr", keepbits=53)


# netCDF and tables


def test_netcdf_and_back(run: xr.Dataset, tmp_path: Path) -> None:
    path = tmp_path / "run.nc"
    repsim.save_recording(run, path)
    back = repsim.open_recording(path)
    xr.testing.assert_identical(back.load(), run)
    assert list(back) == list(run)
    back.close()
    with pytest.raises(FileExistsError, match="Expected a new file"):
        to_netcdf(run, path)
    xr.Dataset({"a": (("u", "example"), np.ones((2, 3)))}).to_netcdf(
        tmp_path / "other.nc", engine="h5netcdf"
    )
    with pytest.raises(ValueError, match=r"other.nc to be a recording.*transpose"):
        from_netcdf(tmp_path / "other.nc")


def test_a_table_and_back(run: xr.Dataset) -> None:
    frame = to_dataframe(run)
    assert frame.columns[:4].tolist() == ["variable", "step", "example", "label"]
    assert len(frame) == sum(v.size for v in run.data_vars.values())
    xr.testing.assert_identical(from_dataframe(frame), run)
    shuffled = from_dataframe(frame.sample(frac=1, random_state=0))
    ordered = shuffled.sel(step=run["step"], example=run["example"])
    xr.testing.assert_equal(ordered[list(run)], run)
    mean = frame[frame["variable"] == "4"].groupby("step")["value"].mean()
    np.testing.assert_allclose(mean, run["4"].mean(("example", "4_unit")), rtol=1e-5)


def test_a_table_keeps_types_attributes_and_scalars() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.short = nn.Linear(4, 3).half()
            self.brain = nn.Linear(4, 3).bfloat16()
            self.wide = nn.Linear(4, 2).double()
            self.late, self.deep = nn.Linear(4, 2), False

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.short(x.half()), self.brain(x.bfloat16()), self.wide(x.double())
            return self.late(x) if self.deep else x

    net = Net()
    with repsim.Recorder(net, torch.randn(5, 4), every=1) as recorder:
        net.deep = True
        recorder.step()
    run = recorder.dataset()
    assert {str(v.dtype) for v in run.values()} == {"float16", "float32", "float64"}
    assert run["late"].attrs == {"partial": 1}
    complex_too = run.assign(c=run["late"].rename(late_unit="c_unit") * 1j)
    for given in (run, run.isel(step=0), complex_too):
        back = from_dataframe(to_dataframe(given))
        xr.testing.assert_identical(back, given)
        assert [v.dtype for v in back.values()] == [v.dtype for v in given.values()]


def test_a_table_made_by_hand() -> None:
    frame = pd.DataFrame({"variable": "a", "example": [4, 4, 9, 9], "unit": [0, 1] * 2})
    run = from_dataframe(frame.assign(value=[0.0, 1, 2, 3]))
    np.testing.assert_array_equal(run["a"], [[0, 1], [2, 3]])
    assert run["example"].values.tolist() == [4, 9]
    with pytest.raises(ValueError, match="but value is missing"):
        from_dataframe(frame)
    with pytest.raises(ValueError, match=r"Expected 4 rows for 'a'.*but got 3"):
        from_dataframe(frame.assign(value=1.0)[:3])


@pytest.mark.parametrize("text", ['["b", "a"]', "b, a", "('b', 'a')", "b a"])
def test_layers_listed_as_text(text: str) -> None:
    values = {n: (("example", f"{n}_unit"), np.ones((3, 2))) for n in ("a", "b")}
    run = xr.Dataset(values, attrs={"layers": text})
    assert repsim.layers(run) == ["b", "a"]
    assert repsim.layers(run.assign_attrs(layers="a")) == ["a"]
    assert repsim.layers(run.assign_attrs(layers="something else")) == ["a", "b"]
