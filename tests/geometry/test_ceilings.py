"""Noise ceilings, against rsatoolbox."""

import sys
import warnings
from collections.abc import Callable

import pytest
import xarray as xr

import repsim


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("spearman", "spearman"),
        ("pearson", "corr"),
        ("cosine", "cosine"),
        ("rho-a", "rho-a"),
        ("tau-a", "tau-a"),
    ],
)
def test_noise_ceiling_is_rsatoolboxs(
    ours: str, theirs: str, study: Callable[..., xr.DataTree]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import rsatoolbox.inference
        from rsatoolbox.rdm import RDMs

        rdms = repsim.rdms(study())
        found = repsim.noise_ceiling(rdms, method=ours)  # type: ignore[arg-type]
        lower, upper = rsatoolbox.inference.boot_noise_ceiling(
            RDMs(rdms.values[3:, 1]), method=theirs
        )
    assert found["lower"].dims == ("condition", "layer")
    cell = found.sel(condition="sg").isel(layer=1)
    assert float(cell["lower"]) == pytest.approx(lower, abs=1e-10)
    assert float(cell["upper"]) == pytest.approx(upper, abs=1e-10)
    assert sys.modules["rsatoolbox"] is not None


def test_noise_ceiling_says_what_is_wrong(recording: Callable[..., xr.Dataset]) -> None:
    rdms = repsim.rdms(recording())
    with pytest.raises(ValueError, match="`dim` to be one of step, layer"):
        repsim.noise_ceiling(rdms)
    with pytest.raises(ValueError, match="at least two along `seed`, but got 1"):
        repsim.noise_ceiling(rdms.expand_dims("seed"))
    with pytest.raises(ValueError, match="`method`"):
        repsim.noise_ceiling(rdms, method="r")  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["pearson", "cosine", "spearman"])
def test_rdms_of_any_size(method: str, study: Callable[..., xr.DataTree]) -> None:
    rdms = repsim.rdms(study()).isel(step=-1, missing_dims="ignore")
    expected = repsim.noise_ceiling(rdms, method=method)  # type: ignore[arg-type]
    for power in (-700, 700):
        found = repsim.noise_ceiling(rdms * 2.0**power, method=method)  # type: ignore[arg-type]
        xr.testing.assert_allclose(found, expected)
