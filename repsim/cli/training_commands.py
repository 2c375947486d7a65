"""Commands that train: a study, its report, the paper's claims."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from repsim.cli.options import (
    Json,
    Place,
    Reduce,
    as_place,
    bad_usage,
    continues,
    say,
)
from repsim.cli.output import (
    listed,
    parsed_options,
    plain_numbers,
    whole_numbers,
)
from repsim.core.files import local_folder
from repsim.core.messages import unknown
from repsim.core.reductions import HOWS


def study(
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Name of the data set (default: digits), module:function, or a folder "
            "of images/arrays."
        ),
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(help="mlp (default), cnn, resnet, vit, or module:function."),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="atlas: all rules on mlp, cnn and vit, digits and MNIST (where at "
            "hand), a study each and one page; --rules, --network, --dataset (lists), "
            "--seeds and --steps make it smaller."
        ),
    ] = None,
    cost: Annotated[
        bool, typer.Option("--cost", help="Say what --preset would cost, and end.")
    ] = False,
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
            help="Measured RDMs over the test data's examples, in their order (.npy, "
            ".mat, .nc), one file a subject or all in one: every layer is held "
            "against them."
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
    examples: Annotated[
        int | None,
        typer.Option(help="Test examples to record; default: 400, tokens of 50."),
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(help="Learning rate; default: tuned for each condition."),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            help="cross_entropy, mse or module:function; default: by the labels, mse "
            "where they are floating-point numbers (regression)."
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help="accuracy, r2, rmse, mae or module:function, f(output, y) -> number; "
            "default: accuracy, or r2 for numbers."
        ),
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
    store: Annotated[
        str | None,
        typer.Option(
            help="Address for the recordings, s3://bucket/runs.zarr or gs://…, or "
            "another folder; all else stays in --out. Keys are the environment's."
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
    as_json: Json = False,
) -> None:
    """Train under several rules, record every layer, compare, and write a report.

    Run again with the same --out, it continues where it stopped.

    Example: repsim study --rules bp,sg,sg:at=every:lr=5e-5 --seeds 5 --out study
    """
    from repsim.studies.spec import DEFAULT_CONDITIONS

    if cost and preset is None:
        msg = "Expected --cost with --preset, but got it alone; add --preset atlas."
        raise typer.BadParameter(msg)
    if store is not None and (preset or recordings):
        other = "--preset" if preset else "--from"
        msg = f"Expected --store without {other}, but got both; leave one out."
        raise typer.BadParameter(msg)
    if preset is not None:
        given = {
            "rules": listed(rules), "networks": listed(network),
            "datasets": listed(dataset), "depth": whole_numbers(depth, "depth"),
            "seeds": seeds, "seed": seed, "root": root, "width": width, "steps": steps,
            "activation": activation, "batch_size": batch_size, "lr": lr,
            "device": device, "plugins": plugin or [],
            **({} if examples is None else {"examples": examples}),
        }  # fmt: skip
        _atlas(preset, out, given, cost=cost, jobs=jobs, quiet=quiet, as_json=as_json)
        return
    dataset, network = dataset or "digits", network or "mlp"
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
        "examples": examples,
        "lr": lr,
        "loss": loss,
        "metric": metric,
        "device": device,
        "plugins": plugin or [],
    }
    running: dict[str, Any] = {
        "jobs": jobs,
        "store": store,
        "progress": not quiet,
        "after_cell": first_plot,
    }
    with continues(), ExitStack() as there:
        with bad_usage(unless=done):
            if scheduler is not None:
                from repsim.studies.workers import on_scheduler

                there.enter_context(on_scheduler(scheduler))
                out = local_folder(out, "out").absolute()  # for workers elsewhere
            page: Path | None = None
            if rdm and not recordings:
                _check_rdms(rdm, depths, conditions, dataset, seeds, options)
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
                page = None
                if not rdm:
                    page = _made(conditions, dataset, seeds, out, store, options)
                if page is None:
                    from repsim.studies.run import run_study

                    run_study(conditions, dataset, seeds, out, **options, **running)
            if rdm:
                from repsim.studies.given_rdms import add_rdms

                add_rdms(rdm, out, store=store)
        if page is None and (recordings or len(depths) < 2):
            from repsim.studies.report import write_report

            page = write_report(out, jobs=jobs, progress=not quiet)
    if len(depths) > 1 and not recordings:
        (reached,) = results.data_vars.values()
        table = reached.mean("seed").to_pandas().round(3).to_string()
        pages = f"report: {out / 'report.html'}"
        say(plain_numbers(results), as_json, [table, pages])
        return
    content = json.loads((out / "study.json").read_text())
    reached = content["summary"].get("learning_curves", {})
    lines = [
        f"{name}: {value.get('score', 'test score')} {value['mean']:.3f}"
        + (f" ± {value['sd']:.3f}" if value["sd"] is not None else "")
        for name, value in reached.items()
    ]
    say(content, as_json, [*lines, f"report: {page}"])


def _atlas(
    preset: str,
    out: Path,
    given: dict[str, Any],
    *,
    cost: bool,
    jobs: int | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Say what an atlas costs, and make it."""
    from joblib import cpu_count

    from repsim.studies.atlas import plan_atlas, run_atlas

    if preset != "atlas":
        raise typer.BadParameter(unknown("--preset", preset, ["atlas"]))
    depths = given.pop("depth")
    if len(depths) > 1:
        msg = f"Expected one --depth with --preset, but got {depths}; name one."
        raise typer.BadParameter(msg)
    given["depth"] = depths[0] if depths else None
    with continues():
        with bad_usage(unless=[]):
            plan = plan_atlas(out, **given)
        for line in plan.lines(jobs or cpu_count()):
            typer.echo(line, err=not cost)
        if cost:
            return
        page = run_atlas(plan, jobs=jobs, progress=not quiet)
    say({"report": str(page)}, as_json, [f"report: {page}"])


def _check_rdms(
    files: list[Path],
    depths: list[int],
    conditions: tuple[str, ...],
    dataset: str,
    seeds: int,
    options: dict[str, Any],
) -> None:
    """Refuse measured RDMs that do not fit before anything is trained."""
    from repsim.studies.given_rdms import check_rdms
    from repsim.studies.spec import make_spec

    if len(depths) > 1:
        msg = f"Expected one --depth with --rdm, but got {depths}; name one."
        raise ValueError(msg)
    depth = depths[0] if depths else None
    spec = make_spec(conditions, dataset, seeds, **options, depth=depth)
    check_rdms(files, spec)


def _made(
    conditions: tuple[str, ...],
    dataset: str,
    seeds: int,
    out: Path,
    store: str | None,
    options: dict[str, Any],
) -> Path | None:
    """Return the page of a study that is whole, told without importing torch.

    None also where code or data do not ship: whether they are still the same is not
    told without.
    """
    from repsim.studies.completeness import finished, of_own, runs_at
    from repsim.studies.fingerprints import current_page
    from repsim.studies.spec import make_spec

    spec = make_spec(conditions, dataset, seeds, **options)
    if of_own(out):
        return None
    if finished(out, spec, runs_at(out, store)):
        return current_page(out)
    return None


def report(
    path: Annotated[
        Place,
        typer.Argument(
            metavar="PATH",
            help="A study, or any tree of recordings.",
            parser=as_place,
        ),
    ],
    jobs: Annotated[
        int | None, typer.Option(help="Processes; default: all cores.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write; default: beside the store.")
    ] = None,
    reduce: Reduce = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
    as_json: Json = False,
) -> None:
    """Compare all recordings at PATH/<condition>/<seed> and write a report.

    Example: repsim report runs.zarr --out report
    """
    from repsim.studies.report import write_report

    if reduce not in (None, *HOWS):
        raise typer.BadParameter(unknown("--reduce", reduce, HOWS))
    with continues():
        page = write_report(path, out, reduce=reduce, jobs=jobs, progress=not quiet)
    say({"report": str(page)}, as_json, [f"report: {page}"])


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
        typer.Option(
            help="digits, an image set, or a name of --plugin; default: mnist where it "
            "is at hand."
        ),
    ] = None,
    root: Annotated[Path | None, typer.Option(help="Folder of its files.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Networks a condition.")] = None,
    seed: Annotated[int, typer.Option(help="The first seed.")] = 0,
    rule: Annotated[
        str, typer.Option(help="Rule under test; takes the options of sg.")
    ] = "sg",
    plugin: Annotated[
        list[str] | None,
        typer.Option(help="Module to import first, with your rule or data."),
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
    sizes = parsed_options(size, "size")
    try:
        chosen_claims(wanted)
        make_settings(quick, dataset, root, seeds, seed, rule, sizes)
    except (TypeError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error
    with continues():
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
