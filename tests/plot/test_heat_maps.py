"""Plots are read back: drawn values, labels, limits and colours."""

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from scipy.spatial.distance import pdist

import repsim
from repsim import plot
from repsim.plot.style import UNDER

LAYERS = ["hidden_1", "hidden_2", "hidden_3"]


def cells(values: np.ndarray, **attrs: object) -> xr.DataArray:
    return xr.DataArray(
        values,
        dims=("layer_a", "layer_b"),
        coords={"layer_a": LAYERS, "layer_b": LAYERS},
        attrs=attrs,
    )


def stack(conditions: int = 2, n: int = 6) -> xr.DataArray:
    rng = np.random.default_rng(0)
    i, j = np.triu_indices(n, 1)
    labels = np.arange(n) % 2
    return xr.DataArray(
        rng.random((conditions, 3, len(i))),
        dims=("condition", "layer", "pair"),
        coords={
            "condition": ["bp", "sg", "dfa"][:conditions],
            "layer": LAYERS,
            "label_a": ("pair", labels[i]),
            "label_b": ("pair", labels[j]),
        },
        attrs={"measure": "rdm", "metric": "correlation"},
    )


def curves(seeds: int = 3) -> xr.DataArray:
    return xr.DataArray(
        np.arange(2.0 * seeds * 3).reshape(2, seeds, 3),
        dims=("condition", "seed", "layer"),
        coords={"condition": ["bp", "sg"], "layer": LAYERS},
        name="class_margin",
    )


def test_heatmap_of_cka_is_fixed_and_marks_negative_cells() -> None:
    matrix = cells(np.array([[1, 0.5, -0.1], [0.5, 1, 0.2], [-0.1, 0.2, 1]]))
    axes = plot.heatmap(matrix.assign_attrs(measure="cka", options='{"debiased":true}'))
    mesh = axes.collections[0]
    assert mesh.get_clim() == (0, 1)
    np.testing.assert_allclose(mesh.get_array(), matrix.values)
    assert to_rgba(mesh.cmap(-0.1)) == to_rgba(UNDER)
    assert [t.get_text() for t in axes.get_xticklabels()] == LAYERS
    assert axes.get_title() == "CKA"
    assert axes.get_xlabel() == "layer_b" and axes.get_ylabel() == "layer_a"
    assert not axes.yaxis_inverted()


def test_heatmap_names_both_recordings() -> None:
    named = {"recording_a": "bp/0", "recording_b": "runs/" + "x" * 50}
    axes = plot.heatmap(cells(np.eye(3), **named))
    assert axes.get_ylabel() == "layer_a (bp/0)"
    assert axes.get_xlabel() == f"layer_b (…{'x' * 38})"


def test_heatmap_passes_options_on_and_draws_where_told() -> None:
    _, (left, right) = plt.subplots(1, 2)
    axes = plot.heatmap(cells(np.eye(3), measure="rsa"), ax=right, vmin=-1, cbar=False)
    assert axes is right and not left.collections
    assert axes.collections[0].get_clim()[0] == -1


@pytest.mark.parametrize(
    ("splits", "lines"),
    [(["hidden_2"], 2), ({"layer_a": ["hidden_1"]}, 1), (["hidden_3"], 0)],
)
def test_heatmap_marks_splits(splits: object, lines: int) -> None:
    axes = plot.heatmap(cells(np.eye(3)), splits=splits)  # type: ignore[arg-type]
    assert len(axes.lines) == lines


def test_heatmap_names_twenty_layers() -> None:
    names = [f"hidden_{k}" for k in range(1, 21)]
    matrix = xr.DataArray(
        np.eye(20), dims=("layer_a", "layer_b"), coords={"layer_b": names}
    )
    axes = plot.heatmap(matrix)
    assert [t.get_text() for t in axes.get_xticklabels()] == names


def test_heatmap_wants_a_labelled_matrix() -> None:
    with pytest.raises(TypeError, match="`matrix` to be an xarray.DataArray, but got"):
        plot.heatmap(np.eye(3))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"two dims, .*heatmaps\(cells, col='step'\)"):
        plot.heatmap(cells(np.eye(3)).expand_dims(step=2).transpose(..., "step"))


def test_layer_curve_draws_means_bands_and_seeds() -> None:
    axes = plot.layer_curve(
        curves(),
        baselines={"chance": 0.1, "untrained": curves()[0, 0]},
        splits={"sg": ["hidden_1"]},
    )
    named = {line.get_label(): line for line in axes.lines}
    np.testing.assert_allclose(named["bp"].get_ydata(), curves()[0].mean("seed"))
    np.testing.assert_allclose(named["untrained"].get_ydata(), curves()[0, 0])
    assert np.unique(named["chance"].get_ydata()).tolist() == [0.1]
    faint = [line for line in axes.lines if line.get_alpha() == 0.25]
    assert len(faint) == 6 and len(axes.collections) == 2
    assert named["bp"].get_color() != named["sg"].get_color()
    marks = [line for line in axes.lines if list(line.get_xdata()) == [0.5, 0.5]]
    assert marks[0].get_color() == named["sg"].get_color()
    assert [t.get_text() for t in axes.get_xticklabels()] == LAYERS
    assert axes.get_ylabel() == "class margin"
    legend = axes.get_legend()
    assert legend is not None
    texts = [t.get_text() for t in legend.get_texts()]
    assert texts == ["bp", "sg", "chance", "untrained"]


def test_layer_curve_takes_networks_and_single_lines() -> None:
    flat = curves(2).stack(network=("condition", "seed")).reset_index("network")
    axes = plot.layer_curve(flat)
    assert {"bp", "sg"} <= {line.get_label() for line in axes.lines}
    single = plot.layer_curve(curves()[0, 0], ax=plt.figure().gca(), linestyle="--")
    assert len(single.lines) == 1 and single.lines[0].get_linestyle() == "--"
    assert single.get_legend() is None


def test_layer_curve_skips_seeds_that_do_not_exist() -> None:
    missing = curves().copy()
    missing[1, 2] = np.nan
    missing[1, 1, 0] = np.nan
    axes = plot.layer_curve(missing)
    drawn = {line.get_label(): line for line in axes.lines}["sg"].get_ydata()
    np.testing.assert_allclose(drawn, missing[1].mean("seed"))


def test_layer_curve_takes_baselines_of_a_whole_study() -> None:
    chance = xr.zeros_like(curves().isel(layer=0, drop=True)) + 0.2
    chance[1, 2] = np.nan  # a seed that does not exist
    axes = plot.layer_curve(
        curves(), baselines={"chance": chance, "start": curves()[0]}
    )
    named = {line.get_label(): line for line in axes.lines}
    np.testing.assert_allclose(named["chance"].get_ydata(), 0.2)
    np.testing.assert_allclose(named["start"].get_ydata(), curves()[0].mean("seed"))
    with pytest.raises(ValueError, match="'both' to be one line, .* along condition"):
        plot.layer_curve(curves(), baselines={"both": curves()})


def test_heatmap_of_differences_is_symmetric_and_marked() -> None:
    values = np.array([[0.1, -0.3, 0.0], [0.0, 0.2, 0.0], [0.0, 0.0, 0.0]])
    matrix = cells(values, measure="cka")
    axes = plot.heatmap(matrix, difference=True, marked=abs(matrix) > 0.15)
    assert axes.collections[0].get_clim() == (-0.3, 0.3)
    assert axes.lines[0].get_xydata().tolist() == [[1.5, 0.5], [1.5, 1.5]]


def test_heatmaps_share_one_scale_and_one_bar() -> None:
    moments = xr.concat([cells(np.eye(3)) * k for k in (1, 2)], "step")
    axes = plot.heatmaps(moments.assign_coords(step=[0, 50]), col="step")
    assert [a.get_title() for a in axes] == ["step 0", "step 50"]
    assert {a.collections[0].get_clim() for a in axes} == {(0.0, 2.0)}
    assert len(axes[0].figure.axes) == 3  # two maps and the bar
    np.testing.assert_allclose(axes[1].collections[0].get_array(), 2 * np.eye(3))
    cka = moments.assign_attrs(measure="cka")
    assert plot.heatmaps(cka, col="step")[0].collections[0].get_clim() == (0, 1)
    shift = plot.heatmaps(cka - 0.5, col="step", difference=True)
    assert shift[0].collections[0].get_clim() == (-1.5, 1.5)


def test_heatmaps_fill_their_rows_and_names_do_not_run_together() -> None:
    names = ["hidden_1", "hidden_2", "hidden_3", "output"]
    five = xr.DataArray(
        np.ones((5, 4, 4)),
        {"step": range(5), "layer_a": names, "layer_b": names},
        name="cka",
    )
    axes = plot.heatmaps(five, col="step")
    assert axes[0].get_subplotspec().get_gridspec().ncols == 3
    figure = axes[-1].figure
    figure.canvas.draw()
    boxes = [t.get_window_extent() for t in axes[-1].get_xticklabels()]
    assert len(boxes) == 4
    assert all(a.x1 < b.x0 for a, b in zip(boxes, boxes[1:], strict=False))


def test_one_heat_map_fills_its_figure() -> None:
    cells = xr.DataArray(
        np.ones((1, 5, 5)), dims=("step", "layer_a", "layer_b"), name="cka",
        coords={"step": [3], "layer_a": list("abcde"), "layer_b": list("abcde")},
    )  # fmt: skip
    (ax,) = plot.heatmaps(cells, col="step")
    ax.figure.canvas.draw()
    assert ax.get_position().height > 0.7


def test_heatmaps_say_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="`col` to be one of layer_a, layer_b"):
        plot.heatmaps(cells(np.eye(3)), col="step")
    with pytest.raises(ValueError, match=r"and two more dims, .*isel\(seed=-1\)"):
        plot.heatmaps(cells(np.eye(3)).expand_dims(step=2, seed=2), col="step")
    assert not plt.get_fignums()


def test_layer_curve_orders_steps_and_names_a_few() -> None:
    history = xr.concat([curves()[0] + k for k in range(20)], "step")
    history = history.assign_coords(step=np.arange(20) * 5)
    axes = plot.layer_curve(history.mean("seed"), hue="step")
    shades = [sum(line.get_color()[:3]) for line in axes.lines]
    assert len(shades) == 20 and shades[0] > shades[-1]
    bar = axes.figure.axes[1]
    texts = [t.get_text() for t in bar.get_yticklabels()]
    assert len(texts) == 8 and texts[0] == "0" and texts[-1] == "95"
    assert bar.get_ylabel() == "step" and axes.get_legend() is None


def test_later_is_darker_in_every_plot_of_training() -> None:
    history = xr.concat([curves()[0, 0] + k for k in range(4)], "step")
    history = history.assign_coords(step=np.arange(4), layer=LAYERS)
    curve = plot.layer_curve(history, hue="step")
    plt.figure()
    moved = plot.dynamics(history.assign_attrs(along="layer"))
    shades = [line.get_color()[:3] for line in curve.lines]
    assert shades == [tuple(line.get_color()[:3]) for line in moved.lines]


@pytest.mark.parametrize("draw", [plot.layer_curve, plot.dynamics])
def test_lines_take_short_names_of_options(draw: Callable[..., Axes]) -> None:
    axes = draw(curves()[0, 0].assign_attrs(along="layer"), lw=3)
    assert axes.lines[-1].get_linewidth() == 3


def test_plots_that_refuse_leave_no_figure() -> None:
    rng = np.random.default_rng(0)
    both = xr.DataArray(rng.random((2, 2, 3)), dims=("seed", "step", "layer"))
    for draw in (
        lambda: plot.layer_curve(curves(), baselines={"both": curves()}),
        lambda: plot.dynamics(both, along="step"),
        lambda: plot.heatmap(cells(np.eye(3)).expand_dims(step=2)),
    ):
        with pytest.raises(ValueError, match="Expected"):
            draw()
    with pytest.raises(TypeError, match="no `ax`, since rdm_grid makes a figure"):
        plot.rdm_grid(stack(), ax=None)
    assert not plt.get_fignums()


def test_layer_curve_says_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="Expected `curve` to have a dim `layer`"):
        plot.layer_curve(xr.DataArray([1.0], dims="step"))
    with pytest.raises(ValueError, match="matrices are drawn by repsim.plot.heatmap"):
        plot.layer_curve(cells(np.eye(3)))
    with pytest.raises(
        ValueError, match=r"but got also step; draw one condition over training"
    ):
        plot.layer_curve(curves().expand_dims("step"))
    with pytest.raises(ValueError, match="`hue` to be one of"):
        plot.layer_curve(curves(), hue="rule")
    with pytest.raises(TypeError, match="`curve` to be an xarray.DataArray"):
        plot.layer_curve([1.0, 2.0])  # type: ignore[arg-type]


def test_rdm_grid_sorts_by_label_on_one_scale() -> None:
    rdms = stack()
    grid = plot.rdm_grid(rdms, splits={"sg": ["hidden_2"]}, vmax=0.8)
    assert grid.axes.shape == (2, 3)
    axes = grid.axes[1, 2]
    order = [0, 2, 4, 1, 3, 5]
    square = repsim.squareform(rdms[1, 2]).values[np.ix_(order, order)]
    np.testing.assert_allclose(axes.images[0].get_array(), square)
    assert {a.images[0].get_clim() for a in grid.axes.flat} == {(0, 0.8)}
    assert axes.get_title() == "" and grid.axes[0, 2].get_title() == "hidden_3"
    assert [a.get_ylabel() for a in grid.axes[:, 0]] == ["bp", "sg"]
    names = [t.get_text() for t in grid.axes[0, 0].get_yticklabels()]
    assert names == ["0", "1"]
    edge = grid.axes[1, 1].spines["right"]
    assert to_rgba(edge.get_edgecolor()) == to_rgba(UNDER)


def test_rdm_grid_wraps_many_layers_and_takes_networks() -> None:
    grid = plot.rdm_grid(stack(), wrap=2)
    assert grid.axes.shape == (4, 2)
    assert not grid.axes[1, 1].images
    networks = stack().rename(condition="network")
    named = networks.drop_vars("network").assign_coords(
        condition=("network", ["bp", "bp"]), seed=("network", ["0", "1"])
    )
    grid = plot.rdm_grid(named)
    assert [a.get_ylabel() for a in grid.axes[:, 0]] == ["bp/0", "bp/1"]


def test_rdm_grid_of_subjects_goes_across() -> None:
    subjects = stack()[:, 0].drop_vars("layer").rename(condition="subject")
    grid = plot.rdm_grid(subjects)
    assert [a.get_title() for a in grid.axes.flat] == ["bp", "sg"]


def test_rdm_grid_takes_measured_ones_as_they_are(rng: np.random.Generator) -> None:
    pairs = rng.random((2, 6))
    square = repsim.squareform(pairs)
    named = xr.DataArray(square, dims=("subject", "example_a", "example_b"))
    for given in (pairs, square, named):
        shown = list(plot.rdm_grid(given).axes.flat)
        assert [a.get_title() for a in shown] == ["0", "1"]
        drawn = [a.images[0].get_array() for a in shown]
        np.testing.assert_allclose(drawn, square)
    with pytest.raises(ValueError, match="a dim `pair`, or example_a and example_b"):
        plot.rdm_grid(named.rename(example_a="x", example_b="y"))


def test_rdm_grid_says_what_is_wrong() -> None:
    steps = stack(2).rename(condition="step").assign_coords(step=[0, 40])
    grid = plot.rdm_grid(steps, splits={"40": ["hidden_1"]})
    assert [a.get_ylabel() for a in grid.axes[:, 0]] == ["step 0", "step 40"]
    assert grid.axes[1, 0].spines["right"].get_edgecolor() == to_rgba(UNDER)
    with pytest.raises(TypeError, match="from repsim.rdms, but got list; name the"):
        plot.rdm_grid([1.0, 2.0, 3.0])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="select one moment and seed first"):
        plot.rdm_grid(stack().expand_dims(step=2))


def network_rdm() -> xr.DataArray:
    rng = np.random.default_rng(1)
    rdms = xr.DataArray(
        rng.random((4, 3, 15)),
        dims=("network", "layer", "pair"),
        coords={
            "layer": LAYERS,
            "condition": ("network", ["bp", "bp", "sg", "sg"]),
            "seed": ("network", ["0", "1", "0", "1"]),
        },
    )
    return repsim.network_rdm(rdms)


@pytest.mark.parametrize("method", ["classical", "metric"])
def test_mds_draws_paths_of_layers(method: str) -> None:
    rdm = network_rdm()
    axes = plot.mds(rdm, method=method)  # type: ignore[arg-type]
    points = repsim.embed(rdm, method=method)  # type: ignore[arg-type]
    assert len(axes.lines) == 4
    np.testing.assert_allclose(axes.lines[2].get_xydata(), points.values[6:9])
    legend = axes.get_legend()
    assert legend is not None
    assert [t.get_text() for t in legend.get_texts()] == ["bp", "sg"]
    assert axes.get_title().startswith(f"{method} MDS · stress")
    assert axes.get_title().endswith(": neighbourhoods only")
    assert axes.get_aspect() == 1


def test_dendrogram_colours_names_by_condition() -> None:
    rdm = network_rdm()
    axes = plot.dendrogram(rdm)
    names = [t.get_text() for t in axes.get_yticklabels()]
    assert sorted(names)[:2] == ["bp/0/hidden_1", "bp/0/hidden_2"]
    colours = {t.get_text()[:2]: to_rgba(t.get_color()) for t in axes.get_yticklabels()}
    assert colours["bp"] != colours["sg"]
    with pytest.raises(ValueError, match="`method` to be one of average"):
        plot.dendrogram(rdm, method="ward")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="without NaN"):
        plot.dendrogram(rdm.where(rdm < 0.9))


def test_mds_tells_rules_by_shape_as_well() -> None:
    axes = plot.mds(network_rdm())
    shapes = [len(c.get_paths()[0].vertices) for c in axes.collections]
    assert shapes[0] != shapes[-1]


def test_mds_writes_no_name_over_a_point() -> None:
    places = np.random.default_rng(0).normal(size=(12, 2))
    rdm = network_rdm().copy(data=pdist(places))
    axes = plot.mds(rdm, figsize=(5, 4))
    axes.figure.draw_without_rendering()  # type: ignore[union-attr]
    dots = axes.transData.transform(repsim.embed(rdm).values)
    assert [text.get_text() for text in axes.texts] == [
        "hidden_1", "hidden_3", "hidden_3"
    ]  # fmt: skip
    assert not axes.get_title().endswith("only")  # no distance is bent
    for text in axes.texts:
        box = text.get_window_extent()
        assert not any(box.contains(*dot) for dot in dots)


def test_dynamics_along_depth() -> None:
    rdms = stack()
    axes = plot.dynamics(rdms, splits=["hidden_1"])
    expected = repsim.rdm_distance(rdms)
    drawn = {line.get_label(): line.get_ydata() for line in axes.lines}
    np.testing.assert_allclose(drawn["sg"], expected.sel(condition="sg"))
    assert axes.get_ylabel() == "RDM distance to hidden_3 (L2)"


@pytest.mark.parametrize(("along", "lines"), [("layer", 4), ("step", 3)])
def test_dynamics_of_training(along: str, lines: int) -> None:
    rng = np.random.default_rng(0)
    rdms = xr.DataArray(
        rng.random((4, 3, 15)),
        dims=("step", "layer", "pair"),
        coords={"step": [0, 10, 100, 1000], "layer": LAYERS},
    )
    axes = plot.dynamics(rdms, along=along, metric="correlation")
    assert len(axes.lines) == lines
    expected = repsim.rdm_distance(rdms, along=along, metric="correlation")
    other = {"layer": "step", "step": "layer"}[along]
    np.testing.assert_allclose(axes.lines[1].get_ydata(), expected.isel({other: 1}))
    target = "hidden_3" if along == "layer" else "the final step"
    assert axes.get_ylabel() == f"RDM distance to {target} (1 − r)"


def test_dynamics_says_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="`along` to be one of layer, step"):
        plot.dynamics(stack(), along="depth")
    with pytest.raises(ValueError, match=r"dims \(step, layer\), but got"):
        plot.dynamics(stack().expand_dims(step=2), along="step")


def test_plots_leave_global_style_alone() -> None:
    before = dict(plt.rcParams)
    plot.layer_curve(curves())
    plot.rdm_grid(stack())
    plot.heatmap(cells(np.eye(3)), ax=plt.figure().gca())
    assert dict(plt.rcParams) == before


@pytest.mark.parametrize("how", ["as drawn", "tight_layout"])
def test_two_heatmaps_side_by_side_do_not_touch(how: str) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(8, 4))
    for ax in axes:
        plot.heatmap(cells(np.eye(3), measure="cka"), ax=ax)
    if how == "tight_layout":
        figure.tight_layout()
    figure.draw_without_rendering()
    left = figure.axes[2].get_tightbbox()
    right = axes[1].get_tightbbox()
    assert left is not None and right is not None and left.x1 < right.x0


def test_a_layout_of_ones_own_is_kept() -> None:
    figure, axes = plt.subplots(1, 2)
    figure.subplots_adjust(wspace=0.9)
    for ax in axes:
        plot.heatmap(cells(np.eye(3), measure="cka"), ax=ax)
    assert figure.subplotpars.wspace == 0.9 and figure.get_layout_engine() is None
    plt.figure()
    plot.heatmap(cells(np.eye(3), measure="cka"))
    plt.tight_layout()  # a figure of our own can still be laid out otherwise
