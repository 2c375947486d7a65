"""`run.repsim` is the functions it stands for, and costs no start."""

import base64
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import repsim
from repsim import plot


@pytest.fixture(scope="module")
def run() -> xr.Dataset:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(32, 3))
    x = torch.randn(20, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    recorder = repsim.Recorder(net, x, labels=torch.arange(20) % 2, every=1)
    with recorder:
        recorder.step()
        with torch.no_grad():
            net[0].weight.add_(1.0)
        recorder.step()
    return recorder.dataset()


def test_a_recording_in_a_notebook(run: xr.Dataset) -> None:
    assert run.repsim.layers == ["0", "1", "2"]
    assert run.repsim.steps == [0, 1, 2]
    assert run.isel(step=0).repsim.steps == []
    xr.testing.assert_identical(run.repsim.matrix("2"), run["2"].isel(step=-1))
    xr.testing.assert_identical(run.repsim.matrix("2", 1), run["2"].sel(step=1))
    flat = run.repsim.reduce("mean")
    xr.testing.assert_identical(flat, repsim.reduce(run, "mean"))
    other = flat.isel(step=0)
    xr.testing.assert_identical(
        flat.repsim.compare(other, "procrustes_distance"),
        repsim.compare(flat, other, "procrustes_distance"),
    )
    xr.testing.assert_identical(flat.repsim.rdms(), repsim.rdms(flat))
    xr.testing.assert_identical(
        flat.repsim.probe(seed=3), repsim.probes.probe_layers(flat, seed=3)
    )
    assert flat.repsim.probe().repsim.table()["layer"].tolist() == ["0", "1", "2"] * 3


def test_what_does_not_exist_is_told(run: xr.Dataset) -> None:
    with pytest.raises(ValueError, match=r"one of \[0, 1, 2\], but got 7"):
        run.repsim.matrix("2", 7)
    with pytest.raises(ValueError, match="`layers` to be one of 0, 1, 2"):
        run.repsim.matrix("3")


def test_its_plots_draw_what_the_functions_do(run: xr.Dataset) -> None:
    flat = run.repsim.reduce("flatten")
    cells = repsim.compare(flat.isel(step=-1), flat.sel(step=1))
    axes = flat.repsim.plot.heatmap(flat.sel(step=1))
    drawn = axes.collections[0].get_array()
    np.testing.assert_allclose(np.asarray(drawn).ravel(), cells.values.ravel())
    assert axes.get_title() == "CKA"  # of two moments
    assert flat.repsim.plot.heatmap(ax=axes).get_title() == "CKA · step 2"
    grid = flat.repsim.plot.rdm_grid(step=0)
    assert [a.get_title() for a in grid.axes.flat] == ["0", "1", "2"]
    assert len(flat.repsim.plot.probe().lines) == 3
    over = flat.repsim.compare(flat)
    assert len(over.repsim.plot.heatmaps()) == 3
    assert over.isel(step=0).repsim.plot.heatmap().get_title() == "CKA · step 0"
    assert flat.repsim.rdms().isel(step=0).repsim.plot.rdm_grid().axes.shape == (1, 3)
    margin = repsim.class_margin(flat.repsim.rdms()).isel(step=0)
    assert margin.repsim.plot.layer_curve().get_ylabel() == "class margin"


@pytest.mark.filterwarnings("ignore:Too few networks")
def test_a_study_in_a_notebook(run: xr.Dataset) -> None:
    flat = repsim.reduce(run, "mean")
    moved = flat.map(lambda v: v**2 if v.ndim == 3 else v, keep_attrs=True)
    names = {"bp/0": flat, "bp/1": moved, "sg/0": moved, "sg/1": flat}
    study = xr.DataTree.from_dict(names)
    assert study.repsim.conditions == {"bp": ["0", "1"], "sg": ["0", "1"]}
    assert study.repsim.compare().sizes["network_a"] == 4
    assert study.repsim.probe()["accuracy"].sizes["condition"] == 2
    test = study.repsim.seed_test("bp", "sg")
    xr.testing.assert_identical(test, repsim.inference.seed_test(study, "bp", "sg"))


def test_it_is_there_whichever_is_imported_first() -> None:
    # What all of them need is loaded once; each then starts from there.
    before = "import os, sys, dask, matplotlib, pandas, torch, zarr\n"
    for code in (
        "import xarray as xr, repsim",
        "import repsim, xarray as xr",
        "from repsim.datasets.recordings import xr",
        # As torch's optimisers do, to tell what there is.
        "import repsim, importlib.util as u; u.find_spec('xarray'); "
        "import xarray as xr",
    ):
        before += (
            "if not (child := os.fork()):\n"
            f"    {code}; assert xr.Dataset().repsim.layers == []; os._exit(7)\n"
            "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7\n"
        )
    before += "assert not {'repsim', 'xarray'} & set(sys.modules); print('there')"
    done = subprocess.run(
        [sys.executable, "-P", "-c", before],
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.stdout == "there\n", done.stderr


def test_the_slider_draws_each_step(run: xr.Dataset) -> None:
    pytest.importorskip("ipywidgets")
    flat = repsim.reduce(run, "mean")
    cells = flat.repsim.compare()
    choice, picture = cells.repsim.plot.slider().children
    assert [name for name, _ in choice.options] == ["0", "1", "2"]
    before = picture.value
    assert before[1:4] == b"PNG"
    choice.value = 2
    assert picture.value != before


def test_a_slider_leaves_a_picture_where_widgets_do_not_run(run: xr.Dataset) -> None:
    pytest.importorskip("ipywidgets")
    slider = repsim.reduce(run, "mean").repsim.compare().repsim.plot.slider()
    bundle = slider._repr_mimebundle_()
    # A notebook is JSON, and holds pictures as text.
    assert base64.b64decode(bundle["image/png"]) == slider.children[1].value
    json.dumps(bundle)
    assert "application/vnd.jupyter.widget-view+json" in bundle


def test_the_accessor_says_what_it_is_of_and_offers(run: xr.Dataset) -> None:
    sentence, offers = repr(run.repsim).splitlines()
    assert sentence == run.repsim.summary()
    assert offers.startswith(".repsim has: compare, layers, matrix, plot, probe")
    anything = xr.Dataset({"a": ("x", [1.0])})
    assert ".repsim has:" in repr(anything.repsim)


def test_films_want_one_dim_more_than_a_heat_map(run: xr.Dataset) -> None:
    cells = repsim.reduce(run, "mean").repsim.compare()
    with pytest.raises(ValueError, match="`along` to be one of step, layer_a"):
        plot.animate(cells, along="seed")
    with pytest.raises(ValueError, match="'step' and two more dims"):
        plot.slider(cells.expand_dims(seed=2))
