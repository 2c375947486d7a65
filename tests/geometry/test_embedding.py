"""Configurations of points, against scikit-learn."""

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr
from scipy.spatial.distance import pdist
from sklearn import manifold

import repsim
from repsim.geometry.embedding import embed


@pytest.mark.parametrize("method", ["classical", "metric"])
def test_embedding_finds_points_in_the_plane(method: str) -> None:
    points = np.random.default_rng(0).normal(size=(9, 2))
    rdm = xr.DataArray(pdist(points), dims="pair")
    found = embed(rdm, method=method)  # type: ignore[arg-type]
    np.testing.assert_allclose(pdist(found.values), rdm, atol=1e-6)
    assert found.attrs["stress"] < 1e-6
    assert found.attrs["explained"] == pytest.approx(1)


def test_metric_scaling_lowers_the_stress(study: Callable[..., xr.DataTree]) -> None:
    rdm = repsim.network_rdm(repsim.rdms(study()))
    classical, metric = (embed(rdm, method=m) for m in ("classical", "metric"))  # type: ignore[arg-type]
    assert metric.attrs["stress"] < classical.attrs["stress"]
    assert metric["condition"].values[:9].tolist() == ["bp"] * 9


@pytest.mark.skipif(
    not hasattr(manifold, "ClassicalMDS"), reason="scikit-learn has none before 1.8"
)
def test_embeddings_are_scikit_learns(study: Callable[..., xr.DataTree]) -> None:
    rdm = repsim.network_rdm(repsim.rdms(study()))
    square = repsim.squareform(rdm.values)
    expected = manifold.ClassicalMDS(metric="precomputed").fit_transform(square)
    found = embed(rdm)
    signs = np.sign((found.values * expected).sum(0))
    np.testing.assert_allclose(found, expected * signs, atol=1e-10)
    peer = manifold.MDS(
        metric="precomputed",
        init="classical_mds",
        n_init=1,
        eps=1e-12,
        max_iter=3000,
        normalized_stress=True,
    )
    peer.fit(square)
    ours = embed(rdm, method="metric")
    assert ours.attrs["stress"] == pytest.approx(peer.stress_, abs=1e-6)


def test_embedding_says_what_is_wrong() -> None:
    rdm = xr.DataArray([1.0, 2.0, 3.0], dims="pair")
    with pytest.raises(ValueError, match="`method` to be one of classical, metric"):
        embed(rdm, method="tsne")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="with 1 NaN"):
        embed(rdm.where(rdm < 3))
    with pytest.raises(ValueError, match="< 3 things, but got 3"):
        embed(rdm, dims=3)
