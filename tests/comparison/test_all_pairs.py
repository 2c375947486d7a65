"""`compare`: recordings and studies, steps, labels, warnings and refusals."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import repsim
from repsim import measures
from repsim.measures import kernels
from repsim.measures.kernels import streamed


def recording(
    seed: int = 0,
    n: int = 40,
    steps: int | None = 3,
    widths: tuple[int, ...] = (4, 6, 3),
    dtype: str = "float32",
    **attrs: Any,
) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    shared = np.random.default_rng(99).normal(size=(n, max(widths)))
    shape = () if steps is None else (steps,)
    dims = () if steps is None else ("step",)
    made = {
        f"h{i}": (
            (*dims, "example", f"h{i}_unit"),
            (rng.normal(size=(*shape, n, p)) + shared[:, :p]).astype(dtype),
        )
        for i, p in enumerate(widths)
    }
    coords: dict[str, Any] = {"example": np.arange(n)}
    if steps is not None:
        coords["step"] = np.arange(steps) * 100
    return xr.Dataset(made, coords, attrs)


def test_two_recordings_with_steps() -> None:
    a, b = recording(0), recording(1)
    got = repsim.compare(a, b)
    assert got.dims == ("step", "layer_a", "layer_b")
    assert got.step.values.tolist() == [0, 100, 200]
    assert got.layer_a.values.tolist() == ["h0", "h1", "h2"]
    for step, i, j in ((0, "h0", "h1"), (200, "h2", "h2")):
        x, y = a[i].sel(step=step), b[j].sel(step=step)
        assert got.sel(step=step, layer_a=i, layer_b=j).item() == pytest.approx(
            repsim.cka(x, y), abs=1e-6
        )


def _named(source: str = "", **attrs: Any) -> xr.Dataset:
    run = recording(0, n=8, steps=None).assign_attrs(attrs)
    if source:
        run.encoding["source"] = source
    return run


@pytest.mark.parametrize(
    ("a", "b", "names"),
    [
        (_named("s/runs.zarr/bp/0"), _named("s/runs.zarr/sg/0"), ("bp/0", "sg/0")),
        (_named("s/r.zarr/bp/0"), _named("t/r.zarr/bp/0"), ("s/r/bp/0", "t/r/bp/0")),
        (_named("one.zarr"), _named("x/two.nc"), ("one", "two")),
        (_named(rule="bp", seed=0), _named(rule="sg", seed=0), ("bp", "sg")),
        (_named(seed=0, init_seed=0), _named(seed=1, init_seed=1),
         ("seed 0", "seed 1")),
        (_named("s.zarr").assign_coords(step=0), _named("s.zarr").assign_coords(step=9),
         ("step 0", "step 9")),
        (_named("s.zarr"), _named("s.zarr"), (None, None)),
        (_named(rule="bp"), _named(), (None, None)),
    ],
)  # fmt: skip
def test_recordings_are_named_by_what_tells_them_apart(
    a: xr.Dataset, b: xr.Dataset, names: tuple[str | None, str | None]
) -> None:
    cells = repsim.compare(a, b)
    assert (cells.attrs.get("recording_a"), cells.attrs.get("recording_b")) == names
    if names[0]:
        assert f"layers ({names[0]} – {names[1]})" in repsim.summary(cells)
    assert "recording_a" not in repsim.compare(a).attrs


def test_layers_are_chosen_by_pattern_on_each_side() -> None:
    got = repsim.compare(recording(0), recording(1), layers="!h0", layers_b="h[!1]")
    assert got["layer_a"].values.tolist() == ["h1", "h2"]
    assert got["layer_b"].values.tolist() == ["h0", "h2"]
    with pytest.raises(ValueError, match=r"`layers_b` to be one of h0.*got 'g\*'"):
        repsim.compare(recording(0), recording(1), layers_b="g*")


def test_the_result_says_how_it_was_made() -> None:
    got = repsim.compare(recording(0), recording(1), debiased=False)
    assert got.name == "cka"
    assert got.attrs["measure"] == "cka"
    options = json.loads(got.attrs["options"])
    assert options == {
        "kernel": "linear",
        "debiased": False,
        "bandwidth": 1.0,
        "batch": None,
    }
    assert got.attrs["precision"] == "float32"
    assert got.attrs["space"] in ("feature", "sample")
    assert got.attrs["reads"] == 1
    assert got.attrs["bounds"] == [-1.0, 1.0]
    assert got.attrs["larger_is_more_similar"] == 1
    assert got.attrs["repsim_version"] == repsim.__version__
    assert set(map(type, got.attrs.values())) <= {str, int, float, list}


@pytest.mark.parametrize(
    ("dtype", "precision"),
    [("float16", "float32"), ("float32", "float32"), ("float64", "float64")],
)
def test_the_precision_is_the_recordings_own(dtype: str, precision: str) -> None:
    run = recording(dtype=dtype)
    got = repsim.compare(run)
    assert got.attrs["precision"] == precision
    exact = repsim.compare(run, precision="float64")
    assert float(abs(got - exact).max()) < 2e-6
    assert repsim.compare(run, measure="svcca").attrs["precision"] == "float64"


def test_a_network_with_itself() -> None:
    run = recording()
    got = repsim.compare(run)
    np.testing.assert_array_equal(got, got.transpose("step", "layer_b", "layer_a"))
    for step in range(3):
        np.testing.assert_allclose(np.diagonal(got.isel(step=step)), 1, atol=1e-6)
    np.testing.assert_allclose(got, repsim.compare(run, run), atol=1e-6)


def test_layers_of_either_side() -> None:
    a, b = recording(0), recording(1)
    assert repsim.compare(a, b, layers="h1").shape == (3, 1, 1)
    got = repsim.compare(a, b, layers=iter(["h2", "h0"]))
    assert got.layer_a.values.tolist() == got.layer_b.values.tolist() == ["h2", "h0"]
    got = repsim.compare(a, layers=["h0"], layers_b=["h1", "h2"])
    assert got.shape == (3, 1, 2)
    full = repsim.compare(a)
    np.testing.assert_allclose(got[:, 0], full[:, 0, 1:], atol=1e-6)
    np.testing.assert_allclose(
        repsim.compare(a, b, layers="h0", layers_b="h2")[:, 0, 0],
        repsim.compare(a, b)[:, 0, 2],
        atol=1e-6,
    )


def test_a_single_moment_goes_with_every_step() -> None:
    a, b = recording(0), recording(1)
    got = repsim.compare(a, b.isel(step=-1))
    assert got.dims == ("step", "layer_a", "layer_b")
    np.testing.assert_allclose(got[2], repsim.compare(a, b)[2], atol=1e-6)
    back = repsim.compare(b.isel(step=-1), a)
    np.testing.assert_allclose(back.transpose("step", "layer_b", "layer_a"), got)
    one = repsim.compare(a.isel(step=0), b.isel(step=-1))
    assert one.dims == ("layer_a", "layer_b")
    np.testing.assert_allclose(one, got[0], atol=1e-6)


def study() -> xr.DataTree:
    runs = {
        "bp/0": recording(0),
        "bp/1": recording(1),
        "sg/0": recording(2).assign_attrs(rule="sg"),
    }
    training = xr.Dataset({"loss": ("step", [3.0, 2.0, 1.0])}, {"step": [0, 100, 200]})
    return xr.DataTree.from_dict({**runs, "bp/0/training": training})


def test_a_study_with_itself() -> None:
    tree = study()
    got = repsim.compare(tree)
    assert got.dims == ("network_a", "network_b", "step", "layer_a", "layer_b")
    assert got.network_a.values.tolist() == ["bp/0", "bp/1", "sg/0"]
    assert got.condition_b.values.tolist() == ["bp", "bp", "sg"]
    assert got.seed_a.values.tolist() == [0, 1, 0]
    pair = repsim.compare(tree["bp/1"].to_dataset(), tree["sg/0"].to_dataset())
    one = got.sel(network_a="bp/1", network_b="sg/0")
    np.testing.assert_allclose(one, pair, atol=1e-6)
    between = got.where((got.condition_a == "bp") & (got.condition_b == "sg"))
    assert int(between.notnull().sum()) == 2 * 27


def test_a_study_and_one_network() -> None:
    tree, run = study(), recording(7)
    got = repsim.compare(run, tree)
    assert got.dims == ("network_b", "step", "layer_a", "layer_b")
    expected = repsim.compare(run, tree["sg/0"].to_dataset())
    np.testing.assert_allclose(got.sel(network_b="sg/0"), expected, atol=1e-6)
    both = repsim.compare(tree, tree)
    np.testing.assert_allclose(both, repsim.compare(tree), atol=1e-6)


def test_seeds_that_are_words() -> None:
    tree = xr.DataTree.from_dict({"bp/first": recording(0), "bp/2": recording(1)})
    assert repsim.compare(tree).seed_a.values.tolist() == ["first", "2"]


def test_every_measure_goes_through_the_same_door() -> None:
    a, b = recording(0, steps=None, dtype="float64"), recording(1, steps=None)
    for name in measures.names():
        got = repsim.compare(a, b, name)
        expected = measures.get(name)(a.h0, b.h1)
        assert got.sel(layer_a="h0", layer_b="h1").item() == pytest.approx(
            expected, abs=1e-9
        ), name
        assert got.name == name


def test_a_plain_function() -> None:
    def first_units(x: np.ndarray, y: np.ndarray, *, shift: float = 0.0) -> float:
        assert isinstance(x, np.ndarray)
        return float(x[0, 0] - y[0, 0]) + shift

    run = recording(steps=None)
    got = repsim.compare(run, measure=first_units, shift=1.0)
    assert got.name == "first_units"
    # Nothing says that it is symmetric, so both halves are computed.
    expected = float(run.h1[0, 0] - run.h0[0, 0]) + 1
    assert got.sel(layer_a="h1", layer_b="h0").item() == pytest.approx(expected)
    # A measure's own function is that measure, with its fast form.
    assert repsim.compare(run, measure=repsim.cka).attrs["measure"] == "cka"
    assert repsim.compare(run, measure=measures.get("cka")).attrs["reads"] == 1


def test_constant_layers_are_nan_with_one_warning() -> None:
    a, b = recording(0), recording(1)
    a["h1"][1:] = 0.1
    a["h2"][2] = 0
    with pytest.warns(UserWarning, match="constant over the examples") as caught:
        got = repsim.compare(a, b)
    assert len(caught) == 1
    text = str(caught[0].message)
    for part in ("'h1' of `a` at step 100", "'h1' of `a` at step 200", "'h2' of `a`"):
        assert part in text
    assert "h0" not in text and "`b`" not in text
    assert caught[0].filename == __file__
    assert np.isnan(got.sel(step=100)).any("layer_b").values.tolist() == [
        False,
        True,
        False,
    ]
    for name in measures.names():
        with pytest.warns(UserWarning, match="constant over") as caught:
            one = repsim.compare(a.isel(step=1), measure=name)
        assert len(caught) == 1, name
        assert np.isnan(one.values).tolist() == [
            [False, True, False],
            [True, True, True],
            [False, True, False],
        ], name


def test_equidistant_examples_are_named_apart() -> None:
    run = xr.Dataset(
        {
            "eye": (("example", "eye_unit"), np.eye(6)),
            "dead": (("example", "dead_unit"), np.zeros((6, 2))),
            "live": (("example", "live_unit"), np.arange(12.0).reshape(6, 2)),
        }
    )
    with pytest.warns(UserWarning, match="without spread to compare: .*'eye'") as w:
        repsim.compare(run)
    assert len(w) == 1
    assert "constant over the examples: layer 'dead'" in str(w[0].message)
    assert "live" not in str(w[0].message)


def test_other_warnings_come_once_too() -> None:
    run = recording(n=10, widths=(6, 5, 6))
    with pytest.warns(UserWarning, match="by counting") as caught:
        repsim.compare(run, measure="cca")
    assert len(caught) == 1


@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        (lambda r: r.isel(example=slice(9)), {}, ValueError, "same examples, .* 40 "),
        (
            lambda r: r.assign_coords(example=r.example + 1),
            {},
            ValueError,
            "`a` and `b` to have the same examples, but 2 ids .* one side only",
        ),
        (lambda r: r.isel(step=[0, 1]), {}, ValueError, "both recordings to have the "),
        (lambda r: r, {"layers": "h9"}, ValueError, "`layers` to be one of h0"),
        (lambda r: r, {"layers_b": ["h9"]}, ValueError, "`layers_b` to be one of"),
        (lambda r: r, {"measure": "kca"}, ValueError, "Did you mean 'cka'"),
        (lambda r: r, {"measure": 3}, TypeError, "`measure` to be a name or a"),
        (
            lambda r: r,
            {"measure": lambda x, y: "near"},
            TypeError,
            "'<lambda>' to return one number, but got str",
        ),
        (lambda r: r, {"precision": "float46"}, ValueError, "Did you mean 'float"),
        (
            lambda r: r,
            {"measure": "cca", "precision": "bfloat16"},
            ValueError,
            "`precision` to be one of float64, float32",
        ),
        (lambda r: r, {"debaised": True}, TypeError, "Did you mean 'debiased'"),
        (lambda r: r * np.nan, {}, ValueError, "'h0' of `b` at step 0 to be finite"),
        (lambda r: r.h0, {}, TypeError, "Expected a recording"),
        (lambda r: r.isel(step=slice(0)), {}, ValueError, "same steps"),
        (lambda r: r * 1j, {}, TypeError, "'h0' to hold real numbers"),
        (
            lambda r: r.rename(h0_unit="c").expand_dims(y=2),
            {},
            ValueError,
            "repsim.reduce",
        ),
    ],
)
def test_what_is_refused(
    change: Any, options: Any, error: type[Exception], message: str
) -> None:
    a = recording(0)
    with pytest.raises(error, match=message):
        repsim.compare(a, change(recording(1)), **options)


def test_inputs_that_differ_are_refused() -> None:
    a, b = recording(0, inputs_sha256="a" * 64), recording(1, inputs_sha256="b" * 64)
    with pytest.raises(ValueError, match="inputs_sha256 differ"):
        repsim.compare(a, b)


def test_too_few_examples() -> None:
    with pytest.raises(ValueError, match="at least 4 examples, but got 3"):
        repsim.compare(recording(n=3))
    with pytest.raises(ValueError, match="at least one step"):
        repsim.compare(recording(steps=0))


def test_networks_of_a_study_must_match() -> None:
    tree = {"bp/0": recording(0), "bp/1": recording(1).drop_vars("h2")}
    with pytest.raises(ValueError, match=r"bp/0 and bp/1 differ in h2; .*'h0', 'h1'"):
        repsim.compare(xr.DataTree.from_dict(tree))
    for first, other in (("bp/0", "bp/1"), ("bp/1", "bp/0")):
        turned = {first: tree[first], other: tree[other]}
        # A pattern chooses in each network, and must choose the same.
        with pytest.raises(ValueError, match=f"{first} and {other} differ in h2"):
            repsim.compare(xr.DataTree.from_dict(turned), layers="h*")
    got = repsim.compare(xr.DataTree.from_dict(tree), layers=["h0", "h1"])
    chosen = repsim.compare(xr.DataTree.from_dict(tree), layers="h[01]")
    xr.testing.assert_identical(chosen, got)
    assert got.shape == (2, 2, 3, 2, 2)
    tree["bp/1"] = recording(1, steps=2)
    with pytest.raises(ValueError, match="bp/0 and bp/1 to have the same steps"):
        repsim.compare(xr.DataTree.from_dict(tree))


class Counted(xr.backends.BackendArray):
    """An array on no disk that counts how often each row is read."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.shape, self.dtype = values, values.shape, values.dtype
        self.reads = np.zeros(len(values), dtype=int)
        self.most = 0

    def __getitem__(self, key: Any) -> np.ndarray:
        return np.asarray(
            xr.core.indexing.explicit_indexing_adapter(
                key, self.shape, xr.core.indexing.IndexingSupport.BASIC, self._get
            )
        )

    def _get(self, key: tuple[Any, ...]) -> np.ndarray:
        rows = np.arange(len(self.values))[key[0]]
        self.reads[rows] += 1
        self.most = max(self.most, np.size(rows))
        return np.asarray(self.values[key])


def lazy(run: xr.Dataset, chunk: int) -> tuple[xr.Dataset, dict[str, Counted]]:
    arrays = {str(name): Counted(run[name].values) for name in run.data_vars}
    variables = {
        name: xr.Variable(
            run[name].dims,
            xr.core.indexing.LazilyIndexedArray(array),
            encoding={"preferred_chunks": {"example": chunk}},
        )
        for name, array in arrays.items()
    }
    return xr.Dataset(variables, run.coords), arrays


@pytest.mark.parametrize("chunk", [1, 70, 1000])
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_stored_layers_are_read_once_in_blocks(
    monkeypatch: pytest.MonkeyPatch, chunk: int, precision: str
) -> None:
    monkeypatch.setattr(streamed, "BLOCK", 2**14)
    a, b = (recording(s, n=1000, steps=None, widths=(5, 9)) for s in (0, 1))
    stored_a, arrays_a = lazy(a, chunk)
    stored_b, arrays_b = lazy(b, chunk)
    got = repsim.compare(stored_a, stored_b, precision=precision)
    assert got.attrs["space"] == "feature"
    assert got.attrs["reads"] == 1
    for array in (*arrays_a.values(), *arrays_b.values()):
        assert array.reads.tolist() == [1] * 1000
        # Whole chunks, and no more rows at once than a block and a chunk.
        assert array.most <= max(chunk, 256 + 2 * chunk)
    exact = repsim.compare(a, b, precision="float64")
    assert float(abs(got - exact).max()) < (1e-12 if precision == "float64" else 2e-6)


def test_products_beyond_the_budget_take_more_readings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = recording(0, n=600, steps=None, widths=(5, 9, 7))
    exact = repsim.compare(run, precision="float64")
    stored, arrays = lazy(run, 100)
    monkeypatch.setattr(streamed, "BUDGET", 8 * 100)
    got = repsim.compare(stored, precision="float64")
    assert got.attrs["reads"] == max(a.reads.max() for a in arrays.values()) == 3
    np.testing.assert_allclose(got, exact, atol=1e-12)
    other = repsim.compare(stored, run, precision="float64")
    np.testing.assert_allclose(other, repsim.compare(run, run), atol=1e-6)


def test_stored_layers_with_a_constant_one_and_another_order() -> None:
    run = recording(0, n=600, steps=None)
    run["h1"][:] = 0.1
    turned = run.transpose("h0_unit", "h1_unit", "h2_unit", "example")
    stored, arrays = lazy(turned, 100)
    with pytest.warns(UserWarning, match="constant over the examples: layer 'h1'"):
        got = repsim.compare(stored)
    assert got.attrs["space"] == "feature"
    # Nobody reads a constant layer again to find out that it is constant.
    assert max(array.reads.max() for array in arrays.values()) == 1
    with pytest.warns(UserWarning, match="'h1'"):
        np.testing.assert_allclose(got, repsim.compare(run), atol=1e-6)


def test_stored_numbers_that_are_not_finite() -> None:
    run = recording(0, n=600, steps=None)
    run["h1"][599, 0] = np.nan
    with pytest.raises(ValueError, match="layer 'h1' to be finite, but got 1 NaN"):
        repsim.compare(lazy(run, 100)[0])


def test_wide_stored_layers_are_compared_in_sample_space() -> None:
    run = recording(0, n=50, steps=None, widths=(300, 400))
    got = repsim.compare(lazy(run, 10)[0])
    assert got.attrs["space"] == "sample"
    np.testing.assert_allclose(got, repsim.compare(run), atol=1e-6)


def test_from_a_zarr_store(tmp_path: Path) -> None:
    run = recording(0, n=900, dtype="float32", layers=["h0", "h1", "h2"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run.to_zarr(
            tmp_path / "run.zarr",
            zarr_format=3,
            consolidated=False,
            encoding={n: {"chunks": (1, 128, run[n].shape[2])} for n in run.data_vars},
        )
    stored = xr.open_zarr(tmp_path / "run.zarr", chunks=None, consolidated=False)
    got = repsim.compare(stored, precision="float64")
    np.testing.assert_allclose(got, repsim.compare(run, precision="float64"))
    tasks = xr.open_zarr(tmp_path / "run.zarr", chunks={}, consolidated=False)
    np.testing.assert_allclose(repsim.compare(tasks, precision="float64"), got)


def test_the_plan_follows_the_cost() -> None:
    def layers(n: int, d: int, count: int) -> list[np.ndarray]:
        return [np.broadcast_to(np.float32(0), (n, d))] * count

    # The example of the design: Gram matrices below n = 2 d La Lb / (La + Lb).
    for n, d, space in ((2000, 50, "feature"), (5000, 512, "sample")):
        assert kernels.plan(layers(n, d, 20), layers(n, d, 20)).space == space
    assert kernels.plan(layers(2000, 4096, 20), None).space == "sample"
    assert kernels.plan(layers(50_000, 512, 20), None).space == "feature"
    assert kernels.plan(layers(9000, 4, 2), None, kernel="rbf").space == "sample"


def test_progress_is_shown_only_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    repsim.compare(recording(steps=1))
    assert capsys.readouterr().err == ""
    repsim.compare(recording(), progress=True)
    assert "3/3" in capsys.readouterr().err
    repsim.compare(recording(steps=None), progress=True)
    assert "HSIC" in capsys.readouterr().err
