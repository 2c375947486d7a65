"""Ids of examples: another order is mended, other examples are refused."""

import numpy as np
import pytest
import xarray as xr

import repsim
from repsim import measures
from repsim.measures.alignment import aligned


def sides(ids_y: np.ndarray | None, n: int = 30) -> tuple[xr.DataArray, xr.DataArray]:
    """Two related layers with ids 100 …, the second in the order of `ids_y`."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 4))
    y = x[:, :3] + 0.5 * rng.normal(size=(n, 3))
    a = xr.DataArray(
        x, dims=("example", "unit"), coords={"example": 100 + np.arange(n)}
    )
    b = xr.DataArray(
        y, dims=("example", "unit"), coords={"example": 100 + np.arange(n)}
    )
    return a, b if ids_y is None else b.sel(example=ids_y)


def test_another_order_is_mended_on_either_side() -> None:
    a, b = sides(None)
    order = np.random.default_rng(1).permutation(b.example.values)
    turned = b.sel(example=order)
    assert measures.cka(a, turned) == pytest.approx(measures.cka(a, b))
    assert measures.cka(a.sel(example=order), b) == pytest.approx(measures.cka(a, b))
    # Without ids on both sides rows are taken as they stand.
    as_they_stand = measures.cka(a.values, turned.values)
    assert measures.cka(a, turned.values) == pytest.approx(as_they_stand)
    assert as_they_stand < measures.cka(a, b) - 0.1


def test_ids_may_be_text() -> None:
    a, b = (side.assign_coords(example=list("abcdef")) for side in
            (s.isel(example=slice(6)) for s in sides(None)))  # fmt: skip
    got = aligned(a, b.sel(example=list("fedcba")))
    xr.testing.assert_equal(got, b)
    assert aligned(a, b) is b


def test_other_examples_are_refused_and_reindex_is_named() -> None:
    a, b = sides(None)
    shifted = b.assign_coords(example=b.example + 1)
    with pytest.raises(ValueError, match=r"same examples, but 2 ids .*\.reindex"):
        measures.cka(a, shifted)
    with pytest.raises(ValueError, match=r"1 ids are on one side only \(of 30 and 29"):
        measures.cca(a, b[1:])
    repeated = b.example.values.copy()
    repeated[1] = repeated[0]
    with pytest.raises(ValueError, match="ids that repeat"):
        measures.cka(a, b.assign_coords(example=repeated))
    same = a.assign_coords(example=repeated), b.assign_coords(example=repeated)
    assert measures.cka(*same) == pytest.approx(measures.cka(a, b))


def test_pairs_are_the_same_whichever_end_comes_first() -> None:
    first, second = np.triu_indices(5, 1)
    ids = np.array([7, 3, 9, 1, 4])
    values = np.arange(10.0)
    a = xr.DataArray(
        values,
        dims="pair",
        coords={"example_a": ("pair", ids[first]), "example_b": ("pair", ids[second])},
    )
    order = np.random.default_rng(0).permutation(10)
    turned = a.isel(pair=order)
    swapped = turned.assign_coords(
        example_a=turned.example_b.drop_vars("example_b", errors="ignore").variable,
        example_b=turned.example_a.drop_vars("example_a", errors="ignore").variable,
    )
    for other in (turned, swapped):
        np.testing.assert_array_equal(aligned(a, other, dim="pair"), values)
    with pytest.raises(ValueError, match="same pairs of examples"):
        aligned(a, turned.assign_coords(example_a=turned.example_a + 50), dim="pair")


def recordings() -> tuple[xr.Dataset, xr.Dataset, xr.Dataset]:
    """Two recordings, and the second in another order, each with a hash of its own."""
    a, b = sides(None)
    runs = [xr.Dataset({"h": side.rename(unit="h_unit")}) for side in (a, b)]
    order = np.random.default_rng(2).permutation(30)
    turned = runs[1].isel(example=order).assign_attrs(inputs_sha256="another")
    return (*(run.assign_attrs(inputs_sha256="one") for run in runs), turned)


@pytest.mark.parametrize("measure", ["cka", "cca", "mutual_knn"])
def test_compare_brings_recordings_to_one_order(measure: str) -> None:
    a, b, turned = recordings()
    right = repsim.compare(a, b, measure)
    xr.testing.assert_allclose(repsim.compare(a, turned, measure), right)
    tree = xr.DataTree.from_dict({"bp/0": a, "bp/1": turned})
    got = repsim.compare(tree, measure=measure)
    np.testing.assert_allclose(got.values[0, 1], right.values)
    # In the same order other inputs are other inputs.
    with pytest.raises(ValueError, match="inputs_sha256 differ"):
        repsim.compare(a, b.assign_attrs(inputs_sha256="another"), measure)


def test_streaming_brings_batches_to_one_order() -> None:
    a, b, turned = recordings()
    streaming = repsim.StreamingCKA()
    for part in (slice(0, 11), slice(11, 30)):
        batch = a.isel(example=part)
        other = turned.sel(example=batch.example.values[::-1])
        streaming.update(batch, other)
    np.testing.assert_allclose(streaming.compute(), repsim.compare(a, b), atol=1e-6)
    with pytest.raises(ValueError, match="reindex"):
        streaming.update(a, b.assign_coords(example=b.example + 3))
