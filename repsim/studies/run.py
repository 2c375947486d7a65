"""Run a study: conditions × seeds → recordings, resumable."""

import json
import platform
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
import xarray as xr
import zarr

from repsim import datasets
from repsim.core.files import SUMMARY, local_folder, write_whole
from repsim.core.messages import whole
from repsim.core.provenance import versions
from repsim.datasets.store.elsewhere import for_zarr, reaching, remove_tree
from repsim.datasets.store.places import is_taken, refused
from repsim.datasets.store.zarr_format import ensure_group
from repsim.datasets.studies import open_study
from repsim.learning.rule_info import Diverged
from repsim.studies.cell import (
    build,
    positions,
    train_cell,
)
from repsim.studies.completeness import (
    TEST_POSITIONS,
    TEST_SIZE,
    TRAINING,
    address_at,
    finished,
    is_complete,
    merge,
    runs_at,
)
from repsim.studies.conditions import Condition
from repsim.studies.facts import attributes
from repsim.studies.materials import (
    carried,
    check_data,
    classes_of,
    load,
    marked,
    metric_of,
    tensors,
)
from repsim.studies.own_code import own_code
from repsim.studies.plugins import import_modules
from repsim.studies.progress import ProgressFiles, study_bar
from repsim.studies.spec import DEFAULT_CONDITIONS, Spec, make_spec
from repsim.studies.tuning import (
    TUNING,
    Scores,
    Untrainable,
    at_common_rate,
    choose_rates,
    trials,
    tune,
)
from repsim.studies.workers import (
    CLAIMS,
    Run,
    claimed,
    jobs_at,
    occupied,
    on_scheduler,
    workers,
)


def run_study(
    conditions: Iterable[str] = DEFAULT_CONDITIONS,
    dataset: Any = "digits",
    seeds: int | Sequence[int] = 5,
    out: str | Path = "study",
    *,
    jobs: int | None = None,
    scheduler: str | None = None,
    store: Any = None,
    storage_options: Mapping[str, Any] | None = None,
    progress: bool = True,
    after_cell: Callable[[Path, str, int], None] | None = None,
    **options: Any,
) -> xr.DataTree:
    """Train every condition with every seed, record it all, and return the study.

    Each network has its own initialisation, derived from condition and seed. Where no
    learning rate is given, each condition's is chosen first from one grid by
    the loss on held-out training examples, a mean over several networks
    (`repsim.studies.tuning.RULE`); conditions whose rate differs from the first one's
    are trained at that one too, as ``<condition>:lr=<rate>``. Run again on the same
    folder, it continues where it stopped and repeats nothing; more conditions or seeds
    are added to what is there. The numbers don't depend on `jobs`.

    Parameters
    ----------
    conditions : iterable of str
        Rules with options, such as ``["bp", "sg", "sg:at=every:lr=5e-5"]``;
        ``init=LABEL`` shares the initial weights of another condition.
    dataset : str, callable or pair of Dataset
        Labels that are floating-point numbers are to be predicted (regression). A
        name of `repsim.datasets.names()`, a folder of images or arrays,
        ``module:function``, a function f(split, root) -> Dataset, or (train, test).
    seeds : int or sequence of int
        How many networks a condition, or which seeds.
    out : path
        Folder of the study: `runs.zarr`, `tuning.json`, `study.json`.
    jobs : int or None
        Processes; None takes the processor's cores, or what an enclosing
        `joblib.parallel_config` says (so dask's backend runs it on a cluster).
    scheduler : str or None
        Address of a dask scheduler, ``"tcp://host:8786"``, whose workers train the
        networks; they must see `out` under the same path.
    store : str, Path, zarr store or None
        Where the recordings go instead of `out`'s `runs.zarr`: "s3://…", "gs://…", or
        another folder. It must be new, and given again to continue; locks and all
        else stay in `out`, so that two studies in two folders must not share one.
        "memory://…" is seen by this process alone (jobs=1).
    storage_options : mapping or None
        What fsspec needs for it: keys, an endpoint. They are sent to workers, and
        written nowhere; without them those of the environment are taken.
    progress : bool
        Whether to show a bar on standard error.
    after_cell : callable or None
        Called in this process as f(out, condition, seed) after each network.
    **options
        Further keywords of `repsim.studies.spec.make_spec`: seed, root, network (a
        name of `repsim.networks.names()`, ``module:function`` or a function
        ``f(shape, classes, *, depth, width, activation, seed)`` -> Module of named
        blocks), reduce (of maps and tokens, as in `repsim.reduce`; "tokens" records
        50 inputs unless `examples` says), depth, width, activation, steps,
        batch_size, lr, grid, tune_seeds, common_rate, record, examples, device,
        plugins, loss ("cross_entropy", or "mse" for numbers; a name, function or
        ``module:function``), metric (as in `repsim.train`; by default the data's
        attribute `metric`, else accuracy, or R² for numbers).

    Returns
    -------
    DataTree
        /<condition>/<seed>, opened lazily; `training` beside each recording, and the
        recorded inputs themselves as `input` at the root.

    Raises
    ------
    ValueError
        If an option does not fit, the folder holds a study with other settings, or
        something else lies in `store`.
    FileExistsError
        If `out` is a file.
    OSError
        If the folder cannot be made, or the store not be reached.
    BlockingIOError
        If another process works in the folder.

    Examples
    --------
    >>> study = run_study(["bp"], seeds=1, out="s", depth=1, width=4, steps=2,
    ...                   lr=1e-3, jobs=1, progress=False)
    >>> list(study.children)
    ['bp']
    """
    out = local_folder(out, "out").absolute()  # workers may run in another folder
    _refuse_file(out)
    if options.get("root") is not None:
        options["root"] = Path(options["root"]).absolute()
    spec = marked(make_spec(conditions, dataset, seeds, **options))
    runs = runs_at(out, store, storage_options)
    if finished(out, spec, runs):
        return open_study(runs)
    check(spec, jobs)
    jobs = jobs_at(runs, jobs, scheduler)
    spec = carried(spec)
    merge(out, spec, runs)
    began = time.perf_counter()
    _make(out)
    places = out, runs
    beginning: dict[str, Any] = {"finished": False}
    if (address := address_at(out, runs)) is not None:
        beginning["store"] = address
    with occupied(out), on_scheduler(scheduler):
        spec = merge(out, spec, runs)
        spec = replace(spec, code={**spec.code, **own_code(spec)})
        fresh = not (out / SUMMARY).exists()
        _write_summary(out, spec, beginning)
        try:
            _write_root(runs, spec)
        except OSError:
            with suppress(OSError):
                if fresh and not is_taken(runs):  # another store may be tried
                    (out / SUMMARY).unlink()
            raise
        scores = Scores(out / TUNING)
        rates = _train_all(places, spec, scores, jobs, progress, after_cell)
        if repeated := at_common_rate(spec, rates, scores):
            spec = replace(spec, conditions=[*spec.conditions, *repeated])
            _write_summary(out, spec, beginning)
            _write_root(runs, spec)
            rates = _train_all(places, spec, scores, jobs, progress, after_cell)
        shutil.rmtree(out / CLAIMS, ignore_errors=True)
    walls = _walls(runs, spec)
    _write_summary(
        out,
        spec,
        {
            "finished": True,
            "learning_rates": rates,
            "tuning": scores.tables(spec.parsed),
            "wall_s": {
                "this_call": round(time.perf_counter() - began, 2),
                "networks": walls,
                "networks_total": round(sum(walls.values()), 2),
            },
        },
    )
    return open_study(runs)


def check(spec: Spec, jobs: int | None = None) -> None:
    """Raise for what cannot run, before anything is written."""
    if jobs is not None:
        whole(jobs, "jobs", 1)
    import_modules(spec.plugins)
    data = load(spec)
    check_data(data)
    x, y = tensors(spec, data[0].isel(example=slice(2)))
    metric_of(spec, data[0])
    for condition in spec.parsed:
        rate = spec.lr or spec.grid[0]
        rule = build(spec, condition, 0, 0, rate, x.shape[1:], classes_of(data[0]))
        device = next(rule.network.parameters()).device
        rule.check(x.to(device), y.to(device))


def _refuse_file(out: Path) -> None:
    if out.exists() and not out.is_dir():
        msg = f"Expected `out` to be a folder or a new name, but {out} is a file."
        raise FileExistsError(msg)


def _make(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = (
            f"Expected `out` to be a folder that can be made, but {out} cannot: "
            f"{error.strerror}; choose another `out`."
        )
        raise type(error)(msg) from error


def _write_root(runs: Path, spec: Spec) -> None:
    """Write the recorded inputs at the root, or say that it cannot be."""
    try:
        with reaching(runs):
            _put_root(runs, spec)
            for condition in spec.parsed:
                ensure_group(runs / condition.label)
    except FileNotFoundError as error:  # no such bucket
        raise refused(error, runs, "nothing was trained") from error


def _put_root(runs: Path, spec: Spec) -> None:
    conditions = [condition.label for condition in spec.parsed]
    store = for_zarr(runs)
    try:
        group = zarr.open_group(store, mode="r+")
        if "repsim_study" in group.attrs:
            group.attrs["conditions"] = conditions
            return
    except FileNotFoundError:
        pass
    test = load(spec)[1]
    at = positions(test, spec.examples)
    kept = test.isel(example=at)
    inputs, _ = datasets.to_tensors(kept, "flat")
    root = xr.Dataset(
        {"input": (("example", "feature"), inputs.numpy())},
        coords={"example": kept["example"].values},
    )
    label = kept["label"].values
    if label.ndim == 1:
        root = root.assign_coords(label=("example", label))
    else:  # several numbers to predict: no coordinate of one value each
        root["target"] = (("example", "output"), label)
    if spec.reduce == "tokens":  # the recordings' examples are no inputs
        root = xr.Dataset()
    else:
        root.attrs = {TEST_SIZE: test.sizes["example"], TEST_POSITIONS: at.tolist()}
    root.attrs |= {"dataset": spec.dataset, "conditions": conditions}
    for name in root.variables:
        # Of an array that a killed writer left xarray would not write the attributes.
        remove_tree(runs / str(name), missing_ok=True)
    root.to_zarr(store, mode="a", consolidated=False, zarr_format=3)
    # Written last: without it the root was cut short and is written again.
    zarr.open_group(store, mode="r+").attrs["repsim_study"] = 1


def _train_all(
    places: tuple[Path, Path],
    spec: Spec,
    scores: Scores,
    jobs: int | None,
    progress: bool,
    after_cell: Callable[[Path, str, int], None] | None,
) -> dict[str, float]:
    """Tune and train what is missing, under one bar; return the learning rates.

    `places` are the study's folder and the store of its recordings. The first network
    of the first two conditions comes before everything else, so that there is soon
    something to look at.
    """
    conditions, (out, runs) = spec.parsed, places
    cells = [
        (condition, seed)
        for seed in spec.seeds
        for condition in conditions
        if not is_complete(runs, condition.label, seed)
    ]
    early = [cell for cell in cells[:2] if cell[0] in conditions[:2]]
    todo = trials(spec, conditions, scores)
    total = len(todo) + len(cells)
    with (
        workers(jobs, out) as run,
        study_bar(total, spec.steps, out, progress) as files,
    ):
        soon = [c for c in conditions if c in [cell[0] for cell in early]]
        rest = [cell for cell in cells if cell not in early]
        for of, part in ((soon, early), (conditions, rest)):
            tune(spec, trials(spec, of, scores), scores, run, files)
            rates = choose_rates(spec, of, scores)
            _train(places, spec, part, rates, run, files, after_cell)
    return choose_rates(spec, conditions, scores)


def _train(
    places: tuple[Path, Path],
    spec: Spec,
    cells: list[tuple[Condition, int]],
    rates: dict[str, float],
    run: Run,
    files: ProgressFiles,
    after_cell: Callable[[Path, str, int], None] | None,
) -> None:
    """Train and record cells, and say of each that it is done."""
    files.bar.set_description("training")
    calls = [
        joblib.delayed(_train_once)(
            spec,
            condition,
            seed,
            rates[condition.label],
            places,
            files(f"{condition.label}-{seed}"),
        )
        for condition, seed in cells
    ]
    for label, seed in run(calls) if calls else ():
        files.finished(f"{label}-{seed}")
        if after_cell is not None:
            after_cell(places[0], label, seed)


def _train_once(
    spec: Spec,
    condition: Condition,
    seed: int,
    lr: float,
    places: tuple[Path, Path],
    tell: Path | None,
) -> tuple[str, int]:
    """Train a cell, unless another worker that was given it has done so meanwhile."""
    out, runs = places
    with claimed(out, f"{condition.label}/{seed}"):
        if is_complete(runs, condition.label, seed):
            return condition.label, seed
        try:
            return train_cell(spec, condition, seed, lr, runs, tell)
        except Diverged as error:
            raise Untrainable(condition.label, str(error)) from error


def _walls(runs: Path, spec: Spec) -> dict[str, float]:
    """Return the seconds each network took, as its training record says."""
    names = [f"{c.label}/{seed}" for c in spec.parsed for seed in spec.seeds]
    return {name: float(attributes(runs / name / TRAINING)["wall_s"]) for name in names}


def _write_summary(out: Path, spec: Spec, extra: dict[str, Any]) -> None:
    """Write study.json, keeping what later stages added to a finished study."""
    path = out / SUMMARY
    there = json.loads(path.read_text()) if path.exists() else {}
    content = {
        **there,
        "spec": spec.as_dict(),
        "versions": {
            "python": platform.python_version(),
            **versions(),
        },
        "seeds": {
            condition.label: {
                str(seed): {
                    "init_seed": condition.init_seed(seed),
                    "run_seed": condition.run_seed(seed),
                }
                for seed in spec.seeds
            }
            for condition in spec.parsed
        },
        **extra,
    }
    write_whole(path, json.dumps(content, indent=1).encode())
