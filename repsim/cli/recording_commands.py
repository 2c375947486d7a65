"""Commands on recordings that exist: compare, probe, look at, take along."""

import sys
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from repsim.cli.options import (
    Json,
    Layers,
    Out,
    Place,
    Reduce,
    Step,
    as_place,
    left_out,
    say,
)
from repsim.cli.output import (
    expect_place,
    listed,
    open_run,
    parsed_options,
    plain_numbers,
    write_result,
)
from repsim.core.messages import unknown


def compare(
    a: Annotated[
        Place, typer.Argument(metavar="A", help="A recording.", parser=as_place)
    ],
    b: Annotated[
        Place | None,
        typer.Argument(
            metavar=left_out("B"), help="Another; default: A itself.", parser=as_place
        ),
    ] = None,
    measure: Annotated[str, typer.Option(help="Name of the measure.")] = "cka",
    option: Annotated[
        list[str] | None, typer.Option(help="Option of the measure, NAME=VALUE.")
    ] = None,
    layers: Layers = None,
    layers_b: Layers = None,
    step: Step = "last",
    reduce: Reduce = None,
    precision: Annotated[
        str | None, typer.Option(help="float64, float32 or bfloat16.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, …")] = "auto",
    plugin: Annotated[
        list[str] | None, typer.Option(help="Module to import first.")
    ] = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Compare all layers of two recordings; a recording may lie inside a study.

    Example: repsim compare study/runs.zarr/bp/0 study/runs.zarr/sg/0 --out heat.png
    """
    from repsim.comparison.all_pairs import compare as compare_recordings
    from repsim.studies.plugins import import_modules

    expect_place(out)
    import_modules(plugin or [])
    cells = compare_recordings(
        open_run(a, step, reduce),
        None if b is None else open_run(b, step, reduce),
        measure,
        layers=listed(layers),
        layers_b=listed(layers_b),
        precision=precision,
        device=device,
        **parsed_options(option),
    )

    def draw(result: Any) -> Any:
        from repsim import plot

        if "step" in result.dims:
            return plot.heatmaps(result, col="step")[0].figure
        return plot.heatmap(result).figure

    wrote = write_result(cells, out, draw)
    table = cells.to_pandas() if cells.ndim == 2 else cells.to_dataframe("value")
    lines = [table.round(4).to_string(), *(f"wrote {path}" for path in wrote)]
    say(plain_numbers(cells), as_json, lines)


def rdm(
    run: Annotated[
        Place, typer.Argument(metavar="RUN", help="A recording.", parser=as_place)
    ],
    metric: Annotated[str, typer.Option(help="Dissimilarity.")] = "correlation",
    layers: Layers = None,
    step: Step = "last",
    reduce: Reduce = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Compute each layer's representational dissimilarity matrix.

    Prints means over pairs of examples; --out writes all pairs (.csv, .json) or draws.

    Example: repsim rdm study/runs.zarr/sg/0 --metric correlation --out rdms.png
    """
    import xarray as xr

    from repsim.geometry.stacks import rdms

    expect_place(out)
    wanted = cast(Any, metric)  # checked there, with the nearest match
    matrices = rdms(open_run(run, step, reduce), metric=wanted, layers=listed(layers))

    def draw(result: Any) -> Any:
        from repsim import plot

        return plot.rdm_grid(result).figure

    wrote = write_result(matrices, out, draw)
    # A mean over all pairs is near 1 for any layer; classes are what differs.
    parts = {"all pairs": matrices.mean("pair")}
    if "label_a" in matrices.coords:
        same = (matrices["label_a"] == matrices["label_b"]).values
        parts["within classes"] = matrices.isel(pair=same).mean("pair")
        parts["between classes"] = matrices.isel(pair=~same).mean("pair")
    means = xr.Dataset(parts)
    table = means.to_dataframe().round(4)[list(parts)].to_string()
    head = f"mean {metric} dissimilarity of"
    lines = [head, table, *(f"wrote {path}" for path in wrote)]
    say(plain_numbers(means), as_json, lines)


def probe(
    run: Annotated[
        Place, typer.Argument(metavar="RUN", help="A recording.", parser=as_place)
    ],
    target: Annotated[str, typer.Option(help="Coordinate to read out.")] = "label",
    control: Annotated[
        str | None,
        typer.Option(help="`shuffled` labels, or a coordinate that groups examples."),
    ] = None,
    control_draws: Annotated[
        int, typer.Option(help="Draws of the control on each split.")
    ] = 1,
    groups: Annotated[
        str | None,
        typer.Option(
            help="Coordinate of examples that belong together, never on both sides."
        ),
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="classification or regression.")
    ] = None,
    inverse_penalty: Annotated[
        float, typer.Option("--C", help="Inverse penalty of the probe for classes.")
    ] = 1.0,
    class_weight: Annotated[
        str | None, typer.Option(help="`balanced`: rare classes count as much.")
    ] = None,
    standardise: Annotated[
        str,
        typer.Option(help="One scale a `layer`, one for each of its `units`, none."),
    ] = "layer",
    test_size: Annotated[float, typer.Option(help="Share held out.")] = 0.25,
    repeats: Annotated[int, typer.Option(help="Splits, of which the mean is.")] = 1,
    layers: Layers = None,
    step: Step = "last",
    reduce: Reduce = None,
    seed: Annotated[int, typer.Option(help="Of the splits.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Fit a linear probe to every layer and report what it reads held out.

    Example: repsim probe study/runs.zarr/bp/0 --control shuffled --out probe.png
    """
    from repsim.datasets.recordings import select_layers
    from repsim.probes import LinearProbe, probe_layers

    expect_place(out)
    recording = open_run(run, step, reduce)
    of_examples = [n for n, c in recording.coords.items() if c.dims == ("example",)]
    if control not in (None, "shuffled", *of_examples):
        known = ["shuffled", *map(str, of_examples)]
        raise typer.BadParameter(unknown("--control", control, known))
    if layers is not None:
        wanted = select_layers(recording, listed(layers))
        recording = recording[wanted].assign_attrs(layers=wanted)
    plain = inverse_penalty == 1 and class_weight is None
    probe_of_classes = LinearProbe(C=inverse_penalty, class_weight=class_weight)
    chosen = None if plain else probe_of_classes
    scores = probe_layers(
        recording,
        target,
        estimator=chosen,
        task=cast(Any, task),
        standardise=cast(Any, standardise),
        test_size=test_size,
        repeats=repeats,
        groups=groups,
        seed=seed,
        progress=not quiet and sys.stderr.isatty(),
        control=True if control == "shuffled" else control,
        control_draws=control_draws,
    )

    def draw(result: Any) -> Any:
        from repsim import plot

        shown = "accuracy" if "accuracy" in result else "r2"
        baselines = {"best constant": result["chance"]}
        if control is not None:
            rival = "control_train_" if control == "shuffled" else "control_"
            baselines[result[rival + shown].attrs["long_name"]] = result[rival + shown]
        over_steps = "step" in result.dims
        axes = plot.layer_curve(
            result[shown],
            hue="step" if over_steps else None,
            baselines={} if over_steps else baselines,
        )
        held = result.attrs["n_test"]
        axes.set_title(f"linear probes for {target}, {held} held-out examples")
        return axes.figure

    wrote = write_result(scores, out, draw)
    table = scores.to_dataframe().round(4).to_string()
    say(plain_numbers(scores), as_json, [table, *(f"wrote {path}" for path in wrote)])


def import_(
    path: Annotated[
        Path, typer.Argument(help=".npy .npz .mat .pt .nc .csv, or a folder.")
    ],
    out: Annotated[Path, typer.Option(help="The new recording, or `s.zarr/bp/0`.")],
    axes: Annotated[
        str | None,
        typer.Option(
            help="What axes mean: 'example token unit', 'example y x channel', or of "
            "responses 'subject condition channel', one recording a subject."
        ),
    ] = None,
    attribute: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE to keep; may be repeated.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a recording of activations that another tool wrote.

    Example: repsim import activations.npz --attribute rule=bp --out run.zarr
    """
    import xarray as xr

    from repsim.datasets.recordings import layers, networks
    from repsim.datasets.store import save_recording
    from repsim.datasets.transfer import read_activations

    given = read_activations(path, axes=axes, **parsed_options(attribute, "attribute"))
    if isinstance(given, xr.DataTree):
        runs = {out.joinpath(*key): run for key, run in networks(given).items()}
    else:
        runs = {out: given}
    told: dict[str, Any] = {}
    lines = []
    for place, run in runs.items():
        save_recording(run, place)
        told[str(place)] = {n: list(run[n].shape) for n in layers(run)}
        lines += [f"{n} ({_axes_of(run[n])})" for n in layers(run)] + [f"to {place}"]
    first = next(iter(told))
    content = {"recording": first, "layers": told[first]}
    say(content if len(told) == 1 else {"recordings": told}, as_json, lines)


def _axes_of(layer: Any) -> str:
    """Return a layer's axes and their sizes in words."""
    lead = f"{layer.name}_"
    sizes = layer.sizes.items()
    return ", ".join(f"{str(d).removeprefix(lead)} {n}" for d, n in sizes)


def export(
    run: Annotated[Place, typer.Argument(help="A recording.", parser=as_place)],
    out: Annotated[Path, typer.Option(help="A new .npz, .mat, .csv, .nc or .zarr.")],
    step: Step = "all",
    reduce: Reduce = None,
    as_json: Json = False,
) -> None:
    """Write a recording as files of other tools.

    Example: repsim export study/runs.zarr/bp/0 --step last --out bp.npz
    """
    from repsim.datasets.transfer import write_activations

    write_activations(open_run(run, step, reduce), out)
    say({"file": str(out)}, as_json, [f"to {out}"])


def show(
    run: Annotated[
        Place,
        typer.Argument(help="A recording, or a store of several.", parser=as_place),
    ],
    as_json: Json = False,
) -> None:
    """Tell what is in a recording: layers, shapes, steps, attributes, size.

    Of a store of several: each recording in a line.

    Example: repsim show study/runs.zarr/bp/0
    """
    from repsim.core.files import NOT_FINITE
    from repsim.datasets.recordings import layers
    from repsim.datasets.store import recordings_in
    from repsim.datasets.store.places import study_at

    if several := recordings_in(study_at(run)):
        _show_several(several, as_json)
        return
    record = open_run(run)
    shapes = {name: dict(record[name].sizes) for name in layers(record)}
    steps = record["step"].values.tolist() if "step" in record.dims else []
    files = [run] if run.is_file() else run.rglob("*")
    size = sum(f.stat().st_size for f in files if f.is_file())
    odd = {
        n: record[n].attrs[NOT_FINITE] for n in shapes if NOT_FINITE in record[n].attrs
    }
    since = {n: f" since step {at}" if steps else "" for n, at in odd.items()}
    lines = [
        *(f"{name} {' x '.join(f'{d} {n}' for d, n in s.items())}"
          for name, s in shapes.items()),
        *(f"NaN or infinite values in {name}{when}" for name, when in since.items()),
        f"steps {steps}",
        *(f"{key} {value}" for key, value in record.attrs.items() if key != "layers"),
        f"on disk {size / 2**20:.1f} MiB",
    ]  # fmt: skip
    attrs = {str(key): value for key, value in record.attrs.items()}
    content = {"layers": shapes, "steps": steps, "attrs": attrs, "bytes": size}
    content |= {NOT_FINITE: odd} if odd else {}
    say(content, as_json, lines)


def _show_several(places: list[str], as_json: bool) -> None:
    """Tell what each recording of a store is."""
    from repsim.inference.summaries import summary

    said = {place: summary(open_run(as_place(place))) for place in places}
    say(said, as_json, [f"{place}: {sentence}" for place, sentence in said.items()])
