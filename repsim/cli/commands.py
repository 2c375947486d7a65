"""The commands: thin, each a few calls into the library."""

import json
import sys
import warnings
from collections.abc import Iterator, Sized
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from tqdm.auto import tqdm

import repsim
from repsim.cli.output import (
    listed,
    open_run,
    parsed_options,
    plain_numbers,
    whole_numbers,
    write_result,
)
from repsim.core.messages import Unknown
from repsim.core.provenance import versions

app = typer.Typer(
    name="repsim",
    help="Where, and when in training, two ways of learning differ inside a network.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _place(text: str) -> Path:
    """Return a path, or the place that an address such as s3://… names."""
    if "://" not in text:
        return Path(text)
    from repsim.datasets.store.places import place_of  # slow; not for --help

    return place_of(text)


Out = Annotated[Path | None, typer.Option(help="File or folder to write.")]
Json = Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")]
Layers = Annotated[
    str | None, typer.Option(help="Layers, separated by commas; default all.")
]
Step = Annotated[str, typer.Option(help="A recorded step, `last`, or `all`.")]
Reduce = Annotated[
    str | None,
    typer.Option(
        "--reduce",
        help="Maps and tokens as units: flatten, mean, last, first or tokens.",
    ),
]


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"repsim {versions()['repsim']}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the version.",
            callback=_print_version,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Where, and when in training, two ways of learning differ inside a network."""


def main() -> None:
    """Run the command line; a user's mistake is one sentence and no traceback.

    Exit status: 0 on success, 2 on bad usage, 1 on failure.
    """
    warnings.showwarning = _warn
    if getattr(repsim, "__version__", None) != versions()["repsim"]:
        msg = (
            "Error: expected repsim-toolkit, but Python finds another project's "
            f"`repsim` at {repsim.__file__}; `pip uninstall repsim repsim-toolkit`, "
            "then install repsim-toolkit again."
        )
        typer.echo(msg, err=True)
        sys.exit(1)
    try:
        app()
    except (ValueError, TypeError, OSError, ImportError, MemoryError) as error:
        sentence = " ".join(str(error).split()) or type(error).__name__
        typer.echo(f"Error: {sentence}", err=True)
        # A name that does not exist is bad usage, whatever command it was given to.
        sys.exit(2 if error.args and isinstance(error.args[0], Unknown) else 1)


@contextmanager
def _continues() -> Iterator[None]:
    """Say on Ctrl-C that nothing is lost."""
    try:
        yield
    except KeyboardInterrupt:
        msg = "Interrupted; the same command continues where it stopped."
        raise InterruptedError(msg) from None


@contextmanager
def _bad_usage(unless: Sized) -> Iterator[None]:
    """Exit with 2 for what the library refuses before it has done anything."""
    try:
        yield
    except (ValueError, ImportError) as error:
        if unless:
            raise
        raise typer.BadParameter(" ".join(str(error).split())) from error


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    tqdm.write(f"Warning: {message}", file=sys.stderr)


def _say(result: dict[str, Any], as_json: bool, lines: list[str]) -> None:
    typer.echo(json.dumps(result, indent=1) if as_json else "\n".join(lines))


@app.command()
def version(as_json: Json = False) -> None:
    """Print the version of repsim and of what it computes with.

    Example: repsim version --json
    """
    numbers = versions()
    _say(numbers, as_json, [f"{name} {number}" for name, number in numbers.items()])


@app.command()
def study(
    dataset: Annotated[
        str,
        typer.Option(
            help="Name of the data set, module:function, or a folder of images/arrays."
        ),
    ] = "digits",
    network: Annotated[
        str, typer.Option(help="mlp, cnn, resnet, vit, or module:function.")
    ] = "mlp",
    reduce: Annotated[
        str | None,
        typer.Option(
            help="Maps and tokens as units: mean (default), flatten, last, first or "
            "tokens (each an example, probes keep those of one input together)."
        ),
    ] = None,
    recordings: Annotated[
        list[Path] | None,
        typer.Option(
            "--from",
            help="Store of recordings made elsewhere, joined instead of trained.",
        ),
    ] = None,
    rdm: Annotated[
        list[Path] | None,
        typer.Option(
            help="Measured RDMs over the recorded examples (.npy, .mat, .nc), one file "
            "a subject or all in one: every layer is held against them."
        ),
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Folder of the data set's files.")
    ] = None,
    rules: Annotated[
        str | None,
        typer.Option(
            help="Conditions, separated by commas: RULE[:OPTION=VALUE]…, where "
            "init=LABEL shares another condition's initial weights. Default: "
            "bp,sg,sg:at=every."
        ),
    ] = None,
    plugin: Annotated[
        list[str] | None,
        typer.Option(help="Module to import first, with your rules and measures."),
    ] = None,
    depth: Annotated[
        str | None,
        typer.Option(help="Hidden layers; 3,8,20 makes a study of each and one page."),
    ] = None,
    width: Annotated[
        int | None, typer.Option(help="Units in each hidden layer.")
    ] = None,
    activation: Annotated[str, typer.Option(help="relu, sigmoid or tanh.")] = "relu",
    seeds: Annotated[int, typer.Option(help="Networks a condition.")] = 5,
    seed: Annotated[int, typer.Option(help="The first seed.")] = 0,
    steps: Annotated[int | None, typer.Option(help="Updates.")] = None,
    batch_size: Annotated[int, typer.Option(help="Examples an update.")] = 128,
    lr: Annotated[
        float | None,
        typer.Option(help="Learning rate; default: tuned for each condition."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, …")] = "auto",
    jobs: Annotated[
        int | None, typer.Option(help="Processes; default: all cores.")
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(help="Address of a dask scheduler whose workers do the work."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the study.")] = Path("study"),
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
    as_json: Json = False,
) -> None:
    """Train under several rules, record every layer, compare, and write a report.

    Run again with the same --out, it continues where it stopped.

    Example: repsim study --rules bp,sg,sg:at=every:lr=5e-5 --seeds 5 --out study
    """
    from repsim.studies.spec import DEFAULT_CONDITIONS

    conditions = DEFAULT_CONDITIONS if rules is None else tuple(rules.split(","))
    depths = whole_numbers(depth, "depth")
    done: list[Path] = []

    def first_plot(folder: Path, condition: str, number: int) -> None:
        # One picture as soon as two networks can be compared; the report redraws it.
        from repsim.studies.report import preview

        done.append(folder)
        if done.count(folder) == 2:
            for path in preview(folder):
                if path.suffix == ".png" and not quiet:
                    typer.echo(f"first picture: {path}", err=True)

    options: dict[str, Any] = {
        "seed": seed,
        "network": network,
        "reduce": reduce,
        "root": root,
        "width": width,
        "activation": activation,
        "steps": steps,
        "batch_size": batch_size,
        "lr": lr,
        "device": device,
        "plugins": plugin or [],
    }
    running: dict[str, Any] = {
        "jobs": jobs,
        "progress": not quiet,
        "after_cell": first_plot,
    }
    with _continues(), ExitStack() as there:
        with _bad_usage(unless=done):
            if scheduler is not None:
                from repsim.studies.workers import on_scheduler

                there.enter_context(on_scheduler(scheduler))
                out = out.absolute()  # workers may run in another folder
            page: Path | None = None
            if recordings:
                from repsim.studies.joining import join_recordings

                join_recordings(recordings, out, reduce=cast(Any, reduce))
            elif len(depths) > 1:
                from repsim.studies.depths import run_depths

                results = run_depths(
                    depths, conditions, dataset, seeds, out, **options, **running
                )
            else:
                options["depth"] = depths[0] if depths else None
                page = None if rdm else _made(conditions, dataset, seeds, out, options)
                if page is None:
                    from repsim.studies.run import run_study

                    run_study(conditions, dataset, seeds, out, **options, **running)
            if rdm:
                from repsim.studies.given_rdms import add_rdms

                add_rdms(rdm, out)
        if page is None and (recordings or len(depths) < 2):
            from repsim.studies.report import write_report

            page = write_report(out, jobs=jobs, progress=not quiet)
    if len(depths) > 1 and not recordings:
        table = results["test_accuracy"].mean("seed").to_pandas().round(3).to_string()
        pages = f"report: {out / 'report.html'}"
        _say(plain_numbers(results), as_json, [table, pages])
        return
    content = json.loads((out / "study.json").read_text())
    accuracy = content["summary"].get("learning_curves", {})
    lines = [
        f"{name}: test accuracy {value['mean']:.3f}"
        + (f" ± {value['sd']:.3f}" if value["sd"] is not None else "")
        for name, value in accuracy.items()
    ]
    _say(content, as_json, [*lines, f"report: {page}"])


def _made(
    conditions: tuple[str, ...],
    dataset: str,
    seeds: int,
    out: Path,
    options: dict[str, Any],
) -> Path | None:
    """Return the page of a study that is whole, told without importing torch."""
    from repsim.studies.continuation import finished
    from repsim.studies.fingerprints import current_page
    from repsim.studies.spec import make_spec

    if finished(out, make_spec(conditions, dataset, seeds, **options)):
        return current_page(out)
    return None


@app.command()
def report(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="A study, or any tree of recordings.")
    ],
    jobs: Annotated[
        int | None, typer.Option(help="Processes; default: all cores.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write; default: beside the store.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
    as_json: Json = False,
) -> None:
    """Compare all recordings at PATH/<condition>/<seed> and write a report.

    Example: repsim report runs.zarr --out report
    """
    from repsim.studies.report import write_report

    with _continues():
        page = write_report(path, out, jobs=jobs, progress=not quiet)
    _say({"report": str(page)}, as_json, [f"report: {page}"])


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="A recording.", parser=_place)],
    b: Annotated[
        Path | None,
        typer.Argument(
            metavar="[B]", help="Another; default: A itself.", parser=_place
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
    _say(plain_numbers(cells), as_json, lines)


@app.command()
def rdm(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A recording.", parser=_place)
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
    _say(plain_numbers(means), as_json, lines)


@app.command()
def probe(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A recording.", parser=_place)
    ],
    target: Annotated[str, typer.Option(help="Coordinate to read out.")] = "label",
    control: Annotated[
        str | None,
        typer.Option(help="`shuffled` labels, or a coordinate that groups examples."),
    ] = None,
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

    recording = open_run(run, step, reduce)
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
    _say(plain_numbers(scores), as_json, [table, *(f"wrote {path}" for path in wrote)])


@app.command()
def reproduce(
    claims: Annotated[
        str | None, typer.Option(help="Claims, separated by commas; default all.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Smaller; says what it cuts.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit 1 if a claim does not hold.")
    ] = False,
    dataset: Annotated[
        str | None,
        typer.Option(help="digits or mnist; default: mnist where it is at hand."),
    ] = None,
    root: Annotated[Path | None, typer.Option(help="Folder of its files.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Networks a condition.")] = None,
    seed: Annotated[int, typer.Option(help="The first seed.")] = 0,
    rule: Annotated[
        str, typer.Option(help="Rule under test; takes the options of sg.")
    ] = "sg",
    plugin: Annotated[
        list[str] | None, typer.Option(help="Module to import first, with your rule.")
    ] = None,
    size: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE, such as width=256 or steps=3000; repeatable."),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(help="Processes; default: all cores, 1 for a plugin.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("reproduce"),
    as_json: Json = False,
) -> None:
    """Run the paper's claims as experiments that can fail.

    Example: repsim reproduce --quick --claims C1,C4 --out reproduce
    """
    from repsim.claims import reproduce as run_claims
    from repsim.claims.settings import chosen_claims, make_settings
    from repsim.studies.plugins import import_modules

    wanted = listed(claims)
    import_modules(plugin or [])
    sizes = parsed_options(size)
    try:
        chosen_claims(wanted)
        make_settings(quick, dataset, root, seeds, seed, rule, sizes)
    except (TypeError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error
    with _continues():
        outcome = run_claims(
            wanted,
            quick=quick,
            dataset=dataset,
            root=root,
            seeds=seeds,
            seed=seed,
            out=out,
            rule=rule,
            size=sizes,
            jobs=jobs,
        )
    lines = [*outcome.notes, outcome.table(), f"page: {outcome.page}"]
    typer.echo(json.dumps(outcome.results, indent=1) if as_json else "\n".join(lines))
    if strict and not outcome.holds:
        msg = "a claim does not hold (--strict)"
        raise ValueError(msg)


@app.command("import")
def import_(
    path: Annotated[Path, typer.Argument(help=".npy .npz .mat .pt, or a folder.")],
    out: Annotated[Path, typer.Option(help="The new recording, or `s.zarr/bp/0`.")],
    axes: Annotated[
        str | None, typer.Option(help="What axes mean, such as 'example y x channel'.")
    ] = None,
    attribute: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE to keep; may be repeated.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a recording of activations that another tool wrote.

    Example: repsim import activations.npz --attribute rule=bp --out run.zarr
    """
    from repsim.datasets.store import save_recording
    from repsim.datasets.transfer import read_activations

    run = read_activations(path, axes=axes, **parsed_options(attribute))
    save_recording(run, out)
    shapes = {name: list(run[name].shape) for name in run.attrs["layers"]}
    lines = [f"{name} {tuple(shape)}" for name, shape in shapes.items()]
    _say({"recording": str(out), "layers": shapes}, as_json, [*lines, f"to {out}"])


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A recording.", parser=_place)],
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
    _say({"file": str(out)}, as_json, [f"to {out}"])


@app.command()
def show(
    run: Annotated[Path, typer.Argument(help="A recording.", parser=_place)],
    as_json: Json = False,
) -> None:
    """Tell what is in a recording: layers, shapes, steps, attributes, size.

    Example: repsim show study/runs.zarr/bp/0
    """
    from repsim.datasets.recordings import layers

    record = open_run(run)
    shapes = {name: dict(record[name].sizes) for name in layers(record)}
    steps = record["step"].values.tolist() if "step" in record.dims else []
    size = sum(f.stat().st_size for f in run.rglob("*") if f.is_file())
    lines = [
        *(f"{name} {' x '.join(f'{d} {n}' for d, n in s.items())}"
          for name, s in shapes.items()),
        f"steps {steps}",
        *(f"{key} {value}" for key, value in record.attrs.items() if key != "layers"),
        f"on disk {size / 2**20:.1f} MiB",
    ]  # fmt: skip
    attrs = {str(key): value for key, value in record.attrs.items()}
    content = {"layers": shapes, "steps": steps, "attrs": attrs, "bytes": size}
    _say(content, as_json, lines)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Tell what a computation would find here: versions, device, threads, data.

    Example: repsim doctor
    """
    import os
    import tempfile

    import torch

    from repsim.core.devices import device_named
    from repsim.datasets import names

    facts: dict[str, Any] = {
        **versions(),
        "device": str(device_named("auto")),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "data sets": names(),
        "REPSIM_DATA": os.environ.get("REPSIM_DATA", "not set"),
        "this folder writable": os.access(Path.cwd(), os.W_OK),
        "temporary folder writable": os.access(tempfile.gettempdir(), os.W_OK),
    }
    _say(facts, as_json, [f"{name}: {value}" for name, value in facts.items()])
