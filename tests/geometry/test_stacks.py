"""RDMs of recordings and studies, and what is concluded from them."""

import sys
import warnings

import numpy as np
import pytest
import xarray as xr
from scipy.spatial.distance import pdist, squareform
from scipy.stats import pearsonr, rankdata
from sklearn.manifold import MDS, ClassicalMDS

import repsim
from repsim.geometry.between_networks import items_of
from repsim.geometry.embedding import embed


def recording(seed: int = 0, n: int = 12, steps: int | None = 2) -> xr.Dataset:
    """A small recording of three layers with labels 0, 0, …, 2."""
    rng = np.random.default_rng(seed)
    dims = ("step", "example") if steps else ("example",)
    shape = (steps, n) if steps else (n,)
    labels = np.repeat([0, 1, 2], -(-n // 3))[:n]
    centres = rng.normal(size=(3, 6))
    run = xr.Dataset(
        {
            f"hidden_{k}": (
                (*dims, f"hidden_{k}_unit"),
                k * centres[labels] + rng.normal(size=(*shape, 6)),
            )
            for k in (1, 2, 3)
        },
        coords={"example": 100 + np.arange(n), "label": ("example", labels)},
        attrs={"layers": ["hidden_1", "hidden_2", "hidden_3"], "rule": "bp"},
    )
    return run.assign_coords(step=10 * np.arange(steps)) if steps else run


def study(**options: int) -> xr.DataTree:
    """Two conditions of three seeds."""
    return xr.DataTree.from_dict(
        {
            f"{condition}/{seed}": recording(10 * k + seed, steps=None, **options)
            for k, condition in enumerate(("bp", "sg"))
            for seed in range(3)
        }
    )


def test_rdms_are_labelled_and_equal_scipy() -> None:
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


def test_rdms_of_one_moment_and_chosen_layers() -> None:
    found = repsim.rdms(recording(steps=None), layers=["hidden_3", "hidden_1"])
    assert found.dims == ("layer", "pair")
    assert found["layer"].values.tolist() == ["hidden_3", "hidden_1"]


def test_precision_is_the_recordings_own_unless_asked() -> None:
    run = recording()
    assert repsim.rdms(run).dtype == np.float64
    narrow = repsim.rdms(run.astype(np.float32))
    assert narrow.dtype == np.float32
    assert repsim.rdms(run.astype(np.float16)).dtype == np.float32
    asked = repsim.rdms(run.astype(np.float32), precision="float64")
    assert asked.dtype == np.float64
    assert float(abs(narrow - repsim.rdms(run)).max()) < 1e-5


def test_rdms_of_a_study_carry_condition_and_seed() -> None:
    found = repsim.rdms(study())
    assert found.dims == ("network", "layer", "pair")
    assert found["condition"].values.tolist() == ["bp"] * 3 + ["sg"] * 3
    assert found["seed"].values.tolist() == ["0", "1", "2"] * 2
    assert "rule" in found.attrs


def test_squareform_is_scipys_and_keeps_names() -> None:
    found = repsim.rdms(recording())
    square = repsim.squareform(found)
    assert square.dims == ("step", "layer", "example_a", "example_b")
    np.testing.assert_array_equal(
        square.isel(step=1, layer=2), squareform(found.values[1, 2])
    )
    assert square["example_b"].values.tolist() == list(range(100, 112))
    assert square["label_a"].values.tolist() == recording()["label"].values.tolist()
    np.testing.assert_array_equal(repsim.squareform(np.array([1.0])), [[0, 1], [1, 0]])


def test_constant_rows_are_named_in_one_warning() -> None:
    run = recording()
    run["hidden_2"][:, 3] = 1.0
    run["hidden_3"][0, 0] = 2.0
    with pytest.warns(UserWarning, match="in hidden_2, hidden_3") as caught:
        found = repsim.rdms(run)
    assert len(caught) == 1
    assert int(found.isel(step=1).sel(layer="hidden_2").isnull().sum()) == 11


def test_rdms_say_what_is_wrong() -> None:
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


def test_networks_of_a_study_must_agree() -> None:
    one, other = recording(steps=None), recording(1, steps=None)
    renamed = other.rename(hidden_3="top").assign_attrs(
        layers=["hidden_1", "hidden_2", "top"]
    )
    with pytest.raises(ValueError, match="share their layers, but sg/0 differs"):
        repsim.rdms(xr.DataTree.from_dict({"bp/0": one, "sg/0": renamed}))
    moved = other.assign_coords(example=np.arange(12))
    with pytest.raises(ValueError, match="hold the same examples, but sg/0"):
        repsim.rdms(xr.DataTree.from_dict({"bp/0": one, "sg/0": moved}))


def test_squareform_wants_pairs() -> None:
    with pytest.raises(
        ValueError, match="n .n - 1. / 2 pairs of n examples, but got 4"
    ):
        repsim.squareform(np.ones(4))
    with pytest.raises(ValueError, match="Expected `rdms` to have a dim `pair`"):
        repsim.squareform(xr.DataArray(np.ones(3), dims="layer"))


def test_class_margin_is_between_minus_within() -> None:
    run = recording()
    rdms = repsim.rdms(run)
    found = repsim.class_margin(rdms)
    assert found.dims == ("step", "layer")
    labels = run["label"].values
    i, j = np.triu_indices(12, 1)
    same = labels[i] == labels[j]
    values = rdms.values[1, 2]
    expected = values[~same].mean() - values[same].mean()
    assert float(found[1, 2]) == pytest.approx(expected)
    assert float(found[1, 2]) > float(found[1, 0]) > 0


def test_class_margin_says_what_is_missing() -> None:
    run = recording()
    with pytest.raises(ValueError, match="carry labels"):
        repsim.class_margin(repsim.rdms(run.drop_vars("label")))
    with pytest.raises(ValueError, match="at least two classes, but all .* label 0"):
        repsim.class_margin(repsim.rdms(run.isel(example=slice(4))))
    with pytest.raises(ValueError, match="single one of 2"):
        repsim.class_margin(repsim.rdms(run.isel(example=slice(9))))
    with pytest.raises(TypeError, match="DataArray from repsim.rdms, but got ndarray"):
        repsim.class_margin(np.ones(3))  # type: ignore[arg-type]


@pytest.mark.parametrize("metric", ["euclidean", "correlation"])
def test_rdm_distance_along_depth_and_training(metric: str) -> None:
    rdms = repsim.rdms(recording())
    depth = repsim.rdm_distance(rdms, metric=metric)  # type: ignore[arg-type]
    steps = repsim.rdm_distance(rdms, along="step", metric=metric)  # type: ignore[arg-type]
    assert depth.dims == steps.dims == ("step", "layer")
    assert depth.attrs["reference"] == "hidden_3" and steps.attrs["reference"] == "10"
    np.testing.assert_allclose(depth.isel(layer=-1), 0, atol=1e-12)
    np.testing.assert_allclose(steps.isel(step=-1), 0, atol=1e-12)
    a, b = rdms.values[0, 0], rdms.values[0, 2]
    expected = np.linalg.norm(a - b) if metric == "euclidean" else 1 - pearsonr(a, b)[0]
    assert float(depth[0, 0]) == pytest.approx(expected)
    before = repsim.rdm_distance(rdms, metric=metric, reference="previous")  # type: ignore[arg-type]
    assert np.isnan(before.values[:, 0]).all()
    assert float(before[0, 2]) == pytest.approx(float(depth[0, 1]))
    early = repsim.rdm_distance(rdms, reference="hidden_1")
    assert float(early.sel(layer="hidden_1").max()) == 0


def test_rdm_distance_leaves_out_missing_pairs() -> None:
    rdms = repsim.rdms(recording(steps=None))
    rdms[0, 5] = np.nan
    found = repsim.rdm_distance(rdms)
    keep = np.delete(np.arange(66), 5)
    expected = np.linalg.norm(rdms.values[0, keep] - rdms.values[2, keep])
    assert float(found[0]) == pytest.approx(expected)


def test_rdm_distance_names_what_exists() -> None:
    rdms = repsim.rdms(recording())
    with pytest.raises(ValueError, match="`along` to be one of step, layer"):
        repsim.rdm_distance(rdms, along="depth")
    with pytest.raises(ValueError, match="`metric` to be one of euclidean"):
        repsim.rdm_distance(rdms, metric="cosine")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Did you mean 'hidden_3'"):
        repsim.rdm_distance(rdms, reference="hidden_33")


def test_model_rdms_of_labels_inputs_and_depth() -> None:
    rdms = repsim.rdms(recording(steps=None))
    pixels = np.random.default_rng(0).random((12, 2, 4))
    models = repsim.model_rdms(rdms, inputs=pixels)
    assert models["model"].values.tolist() == ["label", "inputs"]
    labels = recording()["label"].values
    i, j = np.triu_indices(12, 1)
    np.testing.assert_array_equal(models[0], labels[i] != labels[j])
    np.testing.assert_allclose(models[1], pdist(pixels.reshape(12, 8), "correlation"))
    network = repsim.network_rdm(rdms)
    depth = repsim.model_rdms(network, apart=["depth"], same=())
    np.testing.assert_array_equal(depth.values, [[1, 2, 1]])


def test_model_rdms_say_what_is_wrong() -> None:
    rdms = repsim.rdms(recording(steps=None))
    with pytest.raises(ValueError, match="Did you mean 'label'"):
        repsim.model_rdms(rdms, same=["lable"])
    with pytest.raises(ValueError, match="behind 66 pairs, but got 5 rows"):
        repsim.model_rdms(rdms, inputs=np.ones((5, 2)))
    with pytest.raises(ValueError, match="got none that vary"):
        repsim.model_rdms(rdms.drop_vars(["label_a", "label_b"]))


def residual(y: np.ndarray, z: np.ndarray) -> np.ndarray:
    design = np.column_stack([np.ones(len(y)), z])
    return np.asarray(y - design @ np.linalg.lstsq(design, y)[0])


@pytest.mark.parametrize("method", ["pearson", "spearman"])
def test_partial_rsa_correlates_residuals(method: str) -> None:
    rdms = repsim.rdms(recording(steps=None))
    pixels = xr.DataArray(np.random.default_rng(1).random(66), dims="pair")
    models = repsim.model_rdms(rdms)
    found = repsim.partial_rsa(rdms, models, pixels, method=method)  # type: ignore[arg-type]
    assert found.dims == ("layer", "model")
    scale = rankdata if method == "spearman" else np.asarray
    parts = [scale(v) for v in (rdms.values[1], models.values[0], pixels.values)]
    expected = pearsonr(residual(parts[0], parts[2]), residual(parts[1], parts[2]))[0]
    assert float(found[1, 0]) == pytest.approx(expected, abs=1e-10)


def test_partial_rsa_of_two_networks() -> None:
    a, b = (repsim.rdms(recording(k, steps=None)) for k in (0, 1))
    found = repsim.partial_rsa(a, b, repsim.model_rdms(a))
    assert found.dims == ("layer_a", "layer_b")
    itself = repsim.partial_rsa(a, a.isel(layer=0), a.isel(layer=[0]))
    assert np.isnan(float(itself[0]))


def test_partial_rsa_leaves_out_missing_pairs_and_checks() -> None:
    rdms = repsim.rdms(recording(steps=None))
    models = repsim.model_rdms(rdms)
    pixels = xr.DataArray(np.random.default_rng(1).random(66), dims="pair")
    gone = rdms.copy(deep=True)
    gone[:, 4] = np.nan
    keep = np.delete(np.arange(66), 4)
    with pytest.warns(UserWarning, match="1 of 66 pairs are NaN"):
        found = repsim.partial_rsa(gone, models, pixels)
    expected = repsim.partial_rsa(
        rdms.isel(pair=keep), models.isel(pair=keep), pixels.isel(pair=keep)
    )
    np.testing.assert_allclose(found, expected)
    with pytest.raises(ValueError, match="same pairs of examples, but got 65 and 66"):
        repsim.partial_rsa(rdms, models, pixels[:65])
    with pytest.raises(ValueError, match="`method` to be one of spearman, pearson"):
        repsim.partial_rsa(rdms, models, pixels, method="kendall")  # type: ignore[arg-type]


def test_regression_is_least_squares() -> None:
    rdms = repsim.rdms(recording())
    pixels = np.random.default_rng(2).random((12, 5))
    models = repsim.model_rdms(rdms, inputs=pixels)
    found = repsim.rdm_regression(rdms, models)
    assert found["coefficient"].dims == ("step", "layer", "model")
    y = rdms.values[1, 2]
    design = np.column_stack([np.ones(66), *models.values])
    expected, rest = np.linalg.lstsq(design, y)[:2]
    total = ((y - y.mean()) ** 2).sum()
    np.testing.assert_allclose(found["coefficient"][1, 2], expected[1:], atol=1e-10)
    assert float(found["r2"][1, 2]) == pytest.approx(1 - rest[0] / total)
    without = np.linalg.lstsq(design[:, [0, 2]], y)[1][0]
    unique = float(found["unique"].isel(step=1, layer=2).sel(model="label"))
    assert unique == pytest.approx((without - rest[0]) / total)
    alone = repsim.rdm_regression(rdms, models.isel(model=0), method="spearman")
    ranks = [rankdata(v) for v in (y, models.values[0])]
    beta = float(alone["beta"].isel(step=1, layer=2, model=0))
    assert beta == pytest.approx(pearsonr(*ranks)[0])


def test_regression_refuses_dependent_models() -> None:
    rdms = repsim.rdms(recording(steps=None))
    model = repsim.model_rdms(rdms)
    twice = xr.concat([model, 2 * model], "model").assign_coords(model=["a", "b"])
    with pytest.raises(ValueError, match="dependent ones among a, b"):
        repsim.rdm_regression(rdms, twice)
    with pytest.raises(ValueError, match="`method` to be one of pearson"):
        repsim.rdm_regression(rdms, model, method="kendall")  # type: ignore[arg-type]


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
def test_noise_ceiling_is_rsatoolboxs(ours: str, theirs: str) -> None:
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


def test_noise_ceiling_says_what_is_wrong() -> None:
    rdms = repsim.rdms(recording())
    with pytest.raises(ValueError, match="`dim` to be one of step, layer"):
        repsim.noise_ceiling(rdms)
    with pytest.raises(ValueError, match="at least two along `seed`, but got 1"):
        repsim.noise_ceiling(rdms.expand_dims("seed"))
    with pytest.raises(ValueError, match="`method`"):
        repsim.noise_ceiling(rdms, method="r")  # type: ignore[arg-type]


def test_network_rdm_of_layers_and_networks() -> None:
    rdms = repsim.rdms(study())
    layers = repsim.network_rdm(rdms)
    assert layers.sizes["pair"] == 18 * 17 // 2
    items = items_of(layers)
    assert items["layer"][:4].tolist() == ["hidden_1", "hidden_2", "hidden_3"] + [
        "hidden_1"
    ]
    assert items["condition"][8:10].tolist() == ["bp", "sg"]
    stack = rdms.values.reshape(18, -1)
    expected = 1 - repsim.compare_rdms(stack[2], stack[7])
    square = repsim.squareform(layers.values)
    assert square[2, 7] == pytest.approx(expected, abs=1e-12)
    networks = repsim.squareform(repsim.network_rdm(rdms, items="networks").values)
    pairs = [square[3 * 1 + k, 3 * 4 + k] for k in range(3)]
    assert networks[1, 4] == pytest.approx(np.mean(pairs), abs=1e-12)


def test_network_rdm_says_what_is_wrong() -> None:
    rdms = repsim.rdms(recording())
    with pytest.raises(ValueError, match="select one moment first"):
        repsim.network_rdm(rdms)
    one = rdms.isel(step=0)
    with pytest.raises(
        ValueError, match="at least three networks to compare, but got 1"
    ):
        repsim.network_rdm(one, items="networks")
    with pytest.raises(ValueError, match="`items` to be one of layers"):
        repsim.network_rdm(one, items="units")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`method`"):
        repsim.network_rdm(one, method="r")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="pairs of n things, but got 4"):
        items_of(xr.DataArray(np.ones(4), dims="pair"))


@pytest.mark.parametrize("method", ["classical", "metric"])
def test_embedding_finds_points_in_the_plane(method: str) -> None:
    points = np.random.default_rng(0).normal(size=(9, 2))
    rdm = xr.DataArray(pdist(points), dims="pair")
    found = embed(rdm, method=method)  # type: ignore[arg-type]
    np.testing.assert_allclose(pdist(found.values), rdm, atol=1e-6)
    assert found.attrs["stress"] < 1e-6
    assert found.attrs["explained"] == pytest.approx(1)


def test_metric_scaling_lowers_the_stress() -> None:
    rdm = repsim.network_rdm(repsim.rdms(study()))
    classical, metric = (embed(rdm, method=m) for m in ("classical", "metric"))  # type: ignore[arg-type]
    assert metric.attrs["stress"] < classical.attrs["stress"]
    assert metric["condition"].values[:9].tolist() == ["bp"] * 9


def test_embeddings_are_scikit_learns() -> None:
    rdm = repsim.network_rdm(repsim.rdms(study()))
    square = repsim.squareform(rdm.values)
    expected = ClassicalMDS(metric="precomputed").fit_transform(square)
    found = embed(rdm)
    signs = np.sign((found.values * expected).sum(0))
    np.testing.assert_allclose(found, expected * signs, atol=1e-10)
    peer = MDS(
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
