"""Measured RDMs are over the test data, in its order, whatever of it is recorded."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from scipy.spatial.distance import pdist

import repsim
from repsim.studies.given_rdms import add_rdms, check_rdms
from repsim.studies.spec import make_spec

STIMULI = 12


def stimuli(split: str, root: str | None = None) -> xr.Dataset:
    """Return data whose labels are in no order, as stimuli of an experiment are."""
    rng = np.random.default_rng(len(split))
    return xr.Dataset(
        {
            "features": (("example", "feature"), rng.normal(size=(STIMULI, 3))),
            "label": ("example", np.arange(STIMULI) * 5 % 3),
        }
    )


@pytest.mark.parametrize("examples", [STIMULI, 7])
def test_the_order_is_that_of_the_test_data(examples: int, tmp_path: Path) -> None:
    repsim.run_study(
        ["bp"], dataset=stimuli, seeds=1, out=tmp_path / "s", depth=1, width=4, steps=1,
        lr=0.01, examples=examples, batch_size=12, record=[0, 1], jobs=1,
        progress=False,
    )  # fmt: skip
    measured = pdist(stimuli("test")["features"].values)
    np.save(tmp_path / "brain.npy", np.stack([measured, 2 * measured]))
    found = add_rdms([tmp_path / "brain.npy"], tmp_path / "s")
    study = repsim.open_study(tmp_path / "s" / "runs.zarr").to_dataset()
    here = pdist(study["input"].values.astype(np.float64))
    np.testing.assert_allclose(found.values, np.stack([here, 2 * here]), rtol=1e-5)
    assert not np.allclose(here, measured[: len(here)])
    if examples < STIMULI:  # of the recorded ones alone: as they were recorded
        np.save(tmp_path / "few.npy", here)
        assert np.array_equal(add_rdms([tmp_path / "few.npy"], tmp_path / "s")[0], here)


def test_other_numbers_are_refused_before_training(tmp_path: Path) -> None:
    for n in (7, 9, STIMULI):
        np.save(tmp_path / f"{n}.npy", np.ones(n * (n - 1) // 2))
    spec = make_spec(["bp"], stimuli, 1, examples=7)
    for n in (7, STIMULI):
        check_rdms([tmp_path / f"{n}.npy"], spec)
    message = "the 12 test examples, or of the 7 recorded examples, but got some of 9"
    with pytest.raises(ValueError, match=message):
        check_rdms([tmp_path / "9.npy"], spec)
