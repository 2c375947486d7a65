"""Measured RDMs: every way they come, and the same numbers the long way."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from scipy.io import savemat
from scipy.spatial.distance import pdist, squareform
from scipy.stats import rankdata, spearmanr

from repsim.analyses import NotApplicable, measured_geometry
from repsim.datasets.recordings import networks
from repsim.studies.given_rdms import add_rdms, condensed, read

PAIRS = ((0, 1), (0, 2), (1, 2))


@pytest.fixture
def subjects() -> np.ndarray:
    rng = np.random.default_rng(0)
    base = rng.normal(size=(24, 5))
    noisy = base + 0.5 * rng.normal(size=(3, 24, 5))
    return np.stack([pdist(one) for one in noisy])


@pytest.fixture
def measured(study: xr.DataTree, subjects: np.ndarray) -> xr.DataTree:
    root = xr.Dataset(
        {
            "measured_rdm": (("subject", "measured_pair"), subjects),
            "input": (("example", "feature"), np.random.default_rng(1).random((24, 7))),
        },
        {"example": np.arange(24)},
    )
    nodes = {node.path: node.to_dataset() for node in study.subtree if node.has_data}
    return xr.DataTree.from_dict({**nodes, "/": root})


@pytest.mark.parametrize("kind", ["square.npy", "condensed.npy", "x.mat", "x.nc"])
def test_files_of_every_kind(tmp_path: Path, kind: str, subjects: np.ndarray) -> None:
    path, stack = tmp_path / kind, np.stack([squareform(one) for one in subjects])
    if kind == "x.mat":
        savemat(path, {"rdms": stack})
    elif kind == "x.nc":
        xr.DataArray(stack, dims=("s", "a", "b"), name="rdms").to_netcdf(path)
    else:
        np.save(path, stack if kind.startswith("square") else subjects)
    np.testing.assert_allclose(condensed(read(path), kind), subjects)


def test_what_is_no_rdm_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.mat or \.nc, but got brain"):
        read(Path("brain.txt"))
    with pytest.raises(FileNotFoundError, match="a file at .*gone.npy, but found none"):
        read(tmp_path / "gone.npy")
    with pytest.raises(ValueError, match="symmetric RDMs in it"):
        condensed(np.arange(9.0).reshape(3, 3), "it")
    with pytest.raises(ValueError, match=r"or condensed \(pair\), .* but got \(4,\)"):
        condensed(np.ones(4), "it")
    with pytest.raises(ValueError, match="dissimilarities in it, .* give 1 - them"):
        condensed(np.stack([np.eye(3), np.eye(3) + 0.1]), "it")
    assert condensed(1 - np.eye(3) * 0.9, "halves").shape == (1, 3)
    savemat(tmp_path / "two.mat", {"a": np.ones(3), "b": np.ones(3)})
    with pytest.raises(ValueError, match="one numeric variable, but got a, b"):
        read(tmp_path / "two.mat")


def test_rdms_lie_at_the_root_of_the_study(
    tmp_path: Path, study: xr.DataTree, subjects: np.ndarray
) -> None:
    store = tmp_path / "runs.zarr"
    runs = {"/".join(key): run for key, run in networks(study).items()}
    tree = xr.DataTree.from_dict(runs)
    tree.to_zarr(store, consolidated=False, zarr_format=3)
    for i, one in enumerate(subjects):
        np.save(tmp_path / f"{i}.npy", squareform(one))
    files = [tmp_path / f"{i}.npy" for i in range(3)]
    add_rdms(files, tmp_path)
    add_rdms(files, tmp_path)
    kept = xr.open_zarr(store, consolidated=False)["measured_rdm"]
    np.testing.assert_allclose(kept.values, subjects)
    np.save(tmp_path / "few.npy", np.ones(3))
    with pytest.raises(ValueError, match="24 recorded examples, but got some of 3;"):
        add_rdms([tmp_path / "few.npy"], tmp_path)


def test_every_layer_and_step_is_compared(
    measured: xr.DataTree, subjects: np.ndarray
) -> None:
    found = measured_geometry.compute(measured)
    run = networks(measured)["sg", "1"]
    where = {"condition": "sg", "seed": "1", "step": 5, "layer": "hidden_2"}
    ours = pdist(run["hidden_2"].sel(step=5).values, "correlation")
    expected = np.mean([spearmanr(ours, one).statistic for one in subjects])
    assert float(found["rsa"].sel(where)) == pytest.approx(expected, abs=1e-5)
    pixels = pdist(measured.to_dataset()["input"].values, "correlation")
    ranks = [rankdata(v) for v in (ours, subjects.mean(0), pixels)]
    ab, ap, bp = (np.corrcoef(ranks[i], ranks[j])[0, 1] for i, j in PAIRS)
    left = (ab - ap * bp) / np.sqrt((1 - ap**2) * (1 - bp**2))
    assert float(found["partial"].sel(where)) == pytest.approx(left, abs=1e-5)
    assert found["both_q_value"].sizes == {"rules": 1, "layer": 3}
    middle = found["rsa"].isel(step=-1).mean("seed")
    gap = middle.sel(condition="sg") - middle.sel(condition="bp")
    np.testing.assert_allclose(found["both_difference"][0], gap, atol=1e-5)
    assert found["rules"].values.tolist() == ["sg and bp"]
    assert float(found["lower"]) <= float(found["upper"]) <= 1
    assert bool(found["q_value"].isnull().all())  # three networks cannot reject
    text = measured_geometry.details(found)
    assert "mean over 3 subject(s)" in text and "too few networks to test" in text
    assert "Over networks and stimuli, no layer differs between sg and bp." in text
    sure = found.assign(both_q_value=found["both_q_value"] * 0)
    assert (
        "Over networks and stimuli, sg and bp differ in 3 of 3 layers (hidden_1, "
        in (measured_geometry.details(sure))
    )
    best = measured_geometry.summary(found)["bp"]["nearest"]
    mean = found["rsa"].isel(step=-1).mean("seed").sel(condition="bp")
    assert best == pytest.approx(float(mean.max()), abs=1e-4)
    assert measured_geometry.claim(found).startswith("Nearest to the measured geometry")
    figures = measured_geometry.figures(found)
    assert len(figures["measured_geometry"].axes) == 2


def test_without_measured_rdms_it_does_not_apply(study: xr.DataTree) -> None:
    with pytest.raises(NotApplicable, match="No measured RDMs were given"):
        measured_geometry.compute(study)
