"""What comes as RDMs: squares, labels, pairs in any order."""

from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.spatial.distance import pdist, squareform
from scipy.stats import spearmanr
from sklearn.metrics.pairwise import euclidean_distances

import repsim
from repsim.measures.dissimilarity.comparators import METHODS
from repsim.measures.dissimilarity.given import as_pairs, as_rdms, in_order

N = 9
VECTORS = METHODS[:8]


def labelled(x: np.ndarray, ids: np.ndarray) -> xr.DataArray:
    """Return Euclidean RDMs with ids, pairs in scipy's order."""
    i, j = np.triu_indices(len(ids), 1)
    return xr.DataArray(
        pdist(x),
        dims="pair",
        coords={"example_a": ("pair", ids[i]), "example_b": ("pair", ids[j])},
    )


SQUARES: dict[str, Callable[[np.ndarray], object]] = {
    "correlation": lambda x: 1 - np.corrcoef(x),
    "float32": lambda x: 1 - np.corrcoef(x.astype(np.float32)).astype(np.float32),
    "scikit-learn": lambda x: euclidean_distances(x.astype(np.float32) + 30),
    "torch": lambda x: torch.cdist(*2 * [torch.as_tensor(x, dtype=torch.float32)]),
    "no diagonal": lambda x: squareform(pdist(x)) + np.diag(np.full(len(x), np.nan)),
    "frame": lambda x: squareform(pdist(x)).tolist(),
}


@pytest.mark.parametrize("kind", SQUARES)
@pytest.mark.parametrize("n", [3, 4, 6, 9])
def test_squares_are_condensed(rng: np.random.Generator, kind: str, n: int) -> None:
    x, y = rng.normal(size=(n, 5)), rng.normal(size=(n, 7))
    square = SQUARES[kind](x)
    metric = "correlation" if kind in ("correlation", "float32") else "euclidean"
    for method in VECTORS:
        found = repsim.compare_rdms(square, pdist(y), method=method)  # type: ignore[arg-type]
        expected = repsim.compare_rdms(pdist(x, metric), pdist(y), method=method)
        assert isinstance(found, float)
        assert found == pytest.approx(expected, abs=1e-3)


def test_stacks_of_squares_and_of_vectors(rng: np.random.Generator) -> None:
    vectors = np.stack([pdist(rng.normal(size=(4, 3))) for _ in range(6)])
    squares = np.stack([squareform(v) for v in vectors])
    expected = repsim.compare_rdms(vectors, vectors)
    np.testing.assert_array_equal(repsim.compare_rdms(squares, vectors), expected)
    # Six RDMs of six pairs are not a square: they are not symmetric.
    assert np.shape(expected) == (6, 6)
    found = as_rdms(squares)
    assert found.dims == ("rdm", "pair") and as_rdms(vectors[0]).dims == ("pair",)


def test_squares_that_are_no_rdms_are_refused(rng: np.random.Generator) -> None:
    x = rng.normal(size=(5, 8))
    with pytest.raises(ValueError, match=r"got 1, as a matrix of similarities.* 1 - a"):
        repsim.compare_rdms(np.corrcoef(x), np.ones(10))
    stack = xr.DataArray(pdist(x)[None], dims=("model", "pair"))
    with pytest.raises(ValueError, match=r"`rdms` to be zero .* as 1 - rdms"):
        repsim.rdm_regression(np.corrcoef(x), stack)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`rdms` to be zero on the diagonal"):
        repsim.noise_ceiling(np.stack([np.corrcoef(x)] * 2))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="whose halves differ"):
        repsim.compare_rdms(rng.random((7, 7)), np.ones(21))
    named = xr.DataArray(squareform(pdist(x)), dims=("subject", "pair"))
    with pytest.raises(ValueError, match=r"dims \(subject, pair\); call its two last"):
        repsim.noise_ceiling(named)


def test_masked_pairs_are_missing() -> None:
    a = np.ma.masked_array([1.0, 2, 3, 4, 9, 6], mask=[0, 0, 0, 0, 1, 0])
    with pytest.warns(UserWarning, match="1 of 6 pairs are NaN"):
        found = repsim.compare_rdms(a, [1.0, 2, 3, 4, 0, 6])
    assert found == 1


@pytest.mark.parametrize("method", METHODS)
def test_pairs_are_matched_by_their_ids(rng: np.random.Generator, method: str) -> None:
    ids = rng.permutation(N) + 100
    x, y = rng.normal(size=(N, 14)), rng.normal(size=(N, 15))
    a, b = labelled(x, ids), labelled(y, ids)
    expected = repsim.compare_rdms(a.values, b.values, method=method)  # type: ignore[arg-type]
    # Riemannian distances are relative to the first example, up to their search.
    tolerance = 1e-5 if method == "riemannian" else 1e-12
    order = rng.permutation(N)
    # The conditions in another order, the pairs in another order, and both ends turned.
    moved = labelled(y[order], ids[order])
    mixed = b.isel(pair=rng.permutation(b.sizes["pair"]))
    turned = mixed.assign_coords(
        example_a=("pair", mixed["example_b"].values),
        example_b=("pair", mixed["example_a"].values),
    )
    for other in (b, moved, mixed, turned):
        # It is not symmetric.
        swapped = [] if method == "riemannian" else [(other, a)]
        for one, two in [(a, other), *swapped]:
            found = repsim.compare_rdms(one, two, method=method)  # type: ignore[arg-type]
            assert found == pytest.approx(expected, abs=tolerance)
    square = repsim.squareform(moved)
    found = repsim.compare_rdms(a, square, method=method)  # type: ignore[arg-type]
    assert found == pytest.approx(expected, abs=tolerance)
    again = square.isel(example_b=rng.permutation(N))
    found = repsim.compare_rdms(a, again, method=method)  # type: ignore[arg-type]
    assert found == pytest.approx(expected, abs=tolerance)


def test_other_ids_are_refused(rng: np.random.Generator) -> None:
    a = labelled(rng.normal(size=(N, 3)), np.arange(N))
    b = labelled(rng.normal(size=(N, 3)), np.arange(1, N + 1))
    for call in (
        lambda: repsim.compare_rdms(a, b),
        lambda: repsim.partial_rsa(a, b, a),
        lambda: repsim.rdm_regression(a, b),
    ):
        with pytest.raises(ValueError, match=r"same pairs of examples, .*\.reindex"):
            call()
    shuffled = a.isel(pair=np.arange(a.sizes["pair"])[::-1])
    with pytest.raises(ValueError, match="no ids on the other"):
        repsim.compare_rdms(shuffled, b.values, method="whitened_cosine")


def test_regression_and_partial_rsa_match_ids(rng: np.random.Generator) -> None:
    x, y, z = (rng.normal(size=(N, 4)) for _ in range(3))
    ids, order = np.arange(N), rng.permutation(N)
    a, b, c = (labelled(v, ids) for v in (x, y, z))
    moved = [labelled(v[order], ids[order]) for v in (y, z)]
    xr.testing.assert_allclose(
        repsim.partial_rsa(a, *moved), repsim.partial_rsa(a, b, c)
    )
    xr.testing.assert_allclose(
        repsim.rdm_regression(a, moved[0]), repsim.rdm_regression(a, b)
    )
    inputs = xr.DataArray(z, dims=("example", "f"), coords={"example": ids})
    xr.testing.assert_allclose(
        repsim.model_rdms(a, inputs=inputs[order]), repsim.model_rdms(a, inputs=inputs)
    )


def test_ceilings_match_ids_that_differ_between_subjects(
    rng: np.random.Generator,
) -> None:
    ids = np.arange(N)
    base = rng.normal(size=(N, 6))
    parts = [labelled(base + rng.normal(size=base.shape), ids) for _ in range(3)]
    order = rng.permutation(N)
    square = repsim.squareform(parts[1]).isel(example_a=order, example_b=order)
    i, j = np.triu_indices(N, 1)
    other = xr.DataArray(
        square.values[i, j],
        dims="pair",
        coords={
            "example_a": ("pair", ids[order][i]),
            "example_b": ("pair", ids[order][j]),
        },
    )
    expected = repsim.noise_ceiling(xr.concat(parts, "subject"))
    found = repsim.noise_ceiling(xr.concat([parts[0], other, parts[2]], "subject"))
    xr.testing.assert_allclose(found, expected)
    np.testing.assert_allclose(
        repsim.noise_ceiling(np.stack([p.values for p in parts]))["lower"],  # type: ignore[arg-type]
        expected["lower"],
    )


def test_one_warning_whatever_the_number_of_layers(rng: np.random.Generator) -> None:
    stack = xr.DataArray(rng.random((3, 4, 10)), dims=("seed", "layer", "pair"))
    stack[:, 0, 2] = np.nan
    with pytest.warns(UserWarning, match="Up to 1 of 10 pairs") as caught:
        repsim.noise_ceiling(stack)
    assert len(caught) == 1
    stack[:, 1] = 1.0
    with pytest.warns(UserWarning) as caught:
        found = repsim.noise_ceiling(stack)
    assert [str(w.message).split()[0] for w in caught] == ["Up", "1"]
    assert int(found["lower"].isnull().sum()) == 1


def test_labelled_stacks_give_labelled_tables(rng: np.random.Generator) -> None:
    brains = xr.DataArray(
        rng.random((2, 3, 10)),
        dims=("subject", "area", "pair"),
        coords={"subject": ["s1", "s2"], "age": ("subject", [30, 40])},
    )
    layers = xr.DataArray(
        rng.random((4, 10)), dims=("layer", "pair"), coords={"layer": list("abcd")}
    )
    found = repsim.compare_rdms(brains, layers)
    assert isinstance(found, xr.DataArray)
    assert found.dims == ("subject", "area", "layer")
    assert found["age"].values.tolist() == [30, 40]
    assert found.attrs["method"] == "spearman" and found.attrs["repsim_version"]
    cell = found.sel(subject="s2", layer="c")[1]
    assert float(cell) == pytest.approx(spearmanr(brains[1, 1], layers[2]).statistic)
    own = repsim.compare_rdms(layers, layers)
    assert isinstance(own, xr.DataArray)
    assert own.dims == ("layer_a", "layer_b")
    assert own["layer_b"].values.tolist() == list("abcd")
    one = repsim.compare_rdms(brains, rng.random(10))
    assert isinstance(one, xr.DataArray) and one.dims == ("subject", "area")
    assert isinstance(repsim.compare_rdms(layers[0], layers[1]), float)
    ceiling = repsim.noise_ceiling(brains, dim="subject")
    assert ceiling["lower"].dims == ("area",)
    assert repsim.rdm_distance(brains[:, 0], along="subject").dims == ("subject",)


@pytest.mark.parametrize("method", VECTORS)
def test_equal_rdms_are_exactly_alike(method: str) -> None:
    for n in (5, 40, 90):
        for k in range(4):
            a = np.random.default_rng(k).random(n * (n - 1) // 2)
            if method in ("spearman", "kendall"):
                a = np.round(a, 2)
            assert repsim.compare_rdms(a, a.copy(), method=method) == 1  # type: ignore[arg-type]
            # Equal ranks are enough where ranks are compared.
            if method in ("spearman", "kendall", "tau-a", "rho-a"):
                assert repsim.compare_rdms(a, a**3, method=method) == 1  # type: ignore[arg-type]
            both = np.stack([a, a])
            assert (
                np.asarray(repsim.compare_rdms(both, both, method=method)) == 1
            ).all()  # type: ignore[arg-type]


@pytest.mark.parametrize("method", VECTORS)
@pytest.mark.parametrize("power", [-900, -80, 66, 900])
def test_comparisons_ignore_scale(
    rng: np.random.Generator, method: str, power: int
) -> None:
    a, b = rng.random((2, 45)), rng.random((2, 45))
    expected = repsim.compare_rdms(a, b, method=method)  # type: ignore[arg-type]
    found = repsim.compare_rdms(np.ldexp(a, power), b, method=method)  # type: ignore[arg-type]
    np.testing.assert_array_equal(found, expected)
    if abs(power) < 100:
        narrow = np.ldexp(a.astype(np.float32), power)
        plain = repsim.compare_rdms(a.astype(np.float32), b, method=method)  # type: ignore[arg-type]
        found = repsim.compare_rdms(narrow, b, method=method)  # type: ignore[arg-type]
        np.testing.assert_allclose(found, plain, atol=1e-12)


def test_order_of_pairs_is_scipys_or_refused() -> None:
    pairs = list(combinations("dbca", 2))
    a, b = (np.array([p[k] for p in pairs]) for k in (0, 1))
    rdm = xr.DataArray(
        np.arange(6.0),
        dims="pair",
        coords={"example_a": ("pair", a), "example_b": ("pair", b)},
    )
    assert in_order(rdm) is rdm
    assert isinstance(as_pairs(rdm, "rdms"), xr.DataArray)
    with pytest.raises(ValueError, match="keep missing pairs as NaN"):
        in_order(rdm.isel(pair=[0, 0, 1]))


def test_a_files_name_or_a_recording_is_no_rdm() -> None:
    said = r"Expected `a` to be RDMs, but got the path 'brain.npy'; read it first"
    for given in ("brain.npy", Path("brain.npy")):
        with pytest.raises(TypeError, match=said):
            repsim.compare_rdms(given, np.ones(3))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"models\['v'\]` to be RDMs, but got the path"):
        repsim.inference.model_test(np.ones((5, 3)), {"v": "v.npy"})
    with pytest.raises(TypeError, match=r"got a Dataset; take repsim\.rdms"):
        repsim.noise_ceiling(xr.Dataset({"a": ("x", [1.0])}))  # type: ignore[arg-type]
