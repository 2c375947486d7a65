"""Run a study: conditions × seeds → recordings, resumable."""

import json
import math
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from threading import Event, Thread
from typing import Any
from zlib import crc32

import joblib
import xarray as xr
import zarr
from tqdm.auto import tqdm

from repsim import datasets
from repsim.cells import (
    build,
    flat,
    import_plugins,
    is_complete,
    load,
    recorded,
    train_cell,
    tune_cell,
)
from repsim.conditions import Condition
from repsim.datasets.messages import unknown
from repsim.datasets.store import open_study
from repsim.spec import DEFAULT_CONDITIONS, Spec, make_spec, spec_from_json
from repsim.workers import Run, occupied, workers

RUNS = "runs.zarr"
SUMMARY = "study.json"
TUNING = "tuning.json"


def run_study(
    conditions: Iterable[str] = DEFAULT_CONDITIONS,
    dataset: str = "digits",
    seeds: int | Sequence[int] = 5,
    out: str | Path = "study",
    *,
    jobs: int | None = None,
    progress: bool = True,
    after_cell: Callable[[Path, str, int], None] | None = None,
    **options: Any,
) -> xr.DataTree:
    """Train every condition with every seed, record it all, and return the study.

    Each network has its own initialisation, derived from condition and seed. Where no
    learning rate is given, each condition's is chosen first from one grid by
    cross-entropy on held-out training examples. Run again on the same folder, it
    continues where it stopped and repeats nothing; more conditions or seeds are added
    to what is there. The numbers don't depend on `jobs`.

    Parameters
    ----------
    conditions : iterable of str
        Rules with options, such as ``["bp", "sg", "sg:at=every:lr=5e-5"]``;
        ``init=LABEL`` shares the initial weights of another condition.
    dataset : str
        A name of `repsim.datasets.names()`.
    seeds : int or sequence of int
        How many networks a condition, or which seeds.
    out : path
        Folder of the study: `runs.zarr`, `tuning.json`, `study.json`.
    jobs : int or None
        Processes; None takes the processor's cores, or what an enclosing
        `joblib.parallel_config` says (so dask's backend runs it on a cluster).
    progress : bool
        Whether to show a bar on standard error.
    after_cell : callable or None
        Called in this process as f(out, condition, seed) after each network.
    **options
        Further keywords of `repsim.spec.make_spec`: seed, root, depth, width,
        activation, steps, batch_size, lr, grid, record, examples, share_init, device,
        plugins.

    Returns
    -------
    DataTree
        /<condition>/<seed>, opened lazily; `training` beside each recording, and the
        recorded inputs themselves as `input` at the root.

    Raises
    ------
    ValueError
        If an option does not fit, or the folder holds a study with other settings.
    FileExistsError
        If `out` is a file.
    BlockingIOError
        If another process works in the folder.

    Examples
    --------
    >>> study = run_study(["bp"], seeds=1, out="s", depth=1, width=4, steps=2,
    ...                   lr=1e-3, jobs=1, progress=False)
    >>> list(study.children)
    ['bp']
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        msg = f"Expected `out` to be a folder or a new name, but {out} is a file."
        raise FileExistsError(msg)
    spec = make_spec(conditions, dataset, seeds, **options)
    check(spec, jobs)
    _merge(out, spec)
    began = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    store = out / RUNS
    with occupied(out):
        spec = _merge(out, spec)
        _write_summary(out, spec, {"finished": False})
        _write_root(store, spec)
        rates = _train_all(out, spec, jobs, progress, after_cell)
    walls = _walls(store, spec)
    _write_summary(
        out,
        spec,
        {
            "finished": True,
            "learning_rates": rates,
            "wall_s": {
                "this_call": round(time.perf_counter() - began, 2),
                "networks": walls,
                "networks_total": round(sum(walls.values()), 2),
            },
        },
    )
    return open_study(store)


def check(spec: Spec, jobs: int | None = None) -> None:
    """Raise for what cannot run, before anything is written.

    Parameters
    ----------
    spec : Spec
        The study.
    jobs : int or None
        Processes.

    Raises
    ------
    ValueError
        If a rule, an option, the data set or a number does not exist or does not fit.
    """
    if jobs is not None and jobs < 1:
        msg = f"Expected `jobs` to be at least 1, but got {jobs}."
        raise ValueError(msg)
    import_plugins(spec)
    if spec.dataset not in datasets.names():
        raise ValueError(unknown("dataset", spec.dataset, datasets.names()))
    for condition in spec.parsed():
        build(spec, condition, 0, 0, spec.lr or spec.grid[0], 4, 2)
    load(spec)


def _merge(out: Path, spec: Spec) -> Spec:
    """Return the specification with what the folder already holds."""
    path = out / SUMMARY
    if not path.exists():
        if (out / RUNS).exists():
            msg = (
                f"Expected {out} to be a new folder or a study, but it holds "
                f"{RUNS} without {SUMMARY}; choose another `out`."
            )
            raise ValueError(msg)
        return spec
    there = spec_from_json(path.read_text())
    mine, theirs = spec.as_dict(), there.as_dict()
    for name in mine:
        if name in ("conditions", "seeds", "device", "root"):
            continue
        if mine[name] != theirs[name]:
            msg = (
                f"Expected the settings of the study in {out} ({name} = "
                f"{theirs[name]!r}), but got {name} = {mine[name]!r}; choose another "
                "`out`, or repeat the settings to continue."
            )
            raise ValueError(msg)
    grown = {
        name: [*theirs[name], *(v for v in mine[name] if v not in theirs[name])]
        for name in ("conditions", "seeds")
    }
    return Spec(**{**mine, **grown})


def _write_root(store: Path, spec: Spec) -> None:
    """Write the recorded inputs at the root, and every condition's group."""
    conditions = [condition.label for condition in spec.parsed()]
    try:
        group = zarr.open_group(store, mode="r+")
        if "input" in group and "repsim_study" in group.attrs:
            group.attrs["conditions"] = conditions
            return
    except FileNotFoundError:
        pass
    kept = recorded(load(spec)[1], spec.examples)
    inputs, labels = flat(kept)
    root = xr.Dataset(
        {"input": (("example", "feature"), inputs.numpy())},
        coords={
            "example": kept["example"].values,
            "label": ("example", labels.numpy()),
        },
        attrs={"dataset": spec.dataset, "conditions": conditions},
    )
    root.to_zarr(store, mode="a", consolidated=False, zarr_format=3)
    # Written last: without it the root was cut short and is written again.
    zarr.open_group(store, mode="r+").attrs["repsim_study"] = 1


Scores = dict[str, dict[str, dict[str, float | None]]]


def _train_all(
    out: Path,
    spec: Spec,
    jobs: int | None,
    progress: bool,
    after_cell: Callable[[Path, str, int], None] | None,
) -> dict[str, float]:
    """Tune and train what is missing, under one bar; return the learning rates.

    The first network of the first two conditions comes before everything else, so
    that there is soon something to look at.
    """
    path = out / TUNING
    scores: Scores = json.loads(path.read_text()) if path.exists() else {}
    conditions, store = spec.parsed(), out / RUNS
    for condition in conditions:
        zarr.open_group(store, mode="a", path=condition.label, zarr_format=3)
    cells = [
        (condition, seed)
        for seed in spec.seeds
        for condition in conditions
        if not is_complete(store, condition.label, seed)
    ]
    early = [cell for cell in cells[:2] if cell[0] in conditions[:2]]
    trials = _trials(spec, conditions, scores)
    total = len(trials) + len(cells)
    with workers(jobs, out) as run, _bar(total, spec.steps, out, progress) as tell:
        for part in (early, [cell for cell in cells if cell not in early]):
            of = [c for c in conditions if c in [cell[0] for cell in part]]
            _tune(out, spec, _trials(spec, of, scores), scores, run, tell)
            rates = {c.label: _rate(spec, c, scores) for c in of}
            _train(store, spec, part, rates, run, tell, after_cell)
    # Of a finished study nothing is trained, but its tuning may have been lost.
    return {c.label: _rate(spec, c, scores) for c in conditions}


def _trials(
    spec: Spec, conditions: list[Condition], scores: Scores
) -> list[tuple[Condition, float]]:
    """Return the learning rates still to be tried, by condition."""
    # Conditions that differ only in whose initialisation they share are tuned once.
    tuned: dict[str, Condition] = {}
    for condition in conditions:
        if _fixed_rate(spec, condition) is None:
            tuned.setdefault(_tuning_key(condition), condition)
    return [
        (condition, lr)
        for key, condition in tuned.items()
        for lr in spec.grid
        if str(lr) not in scores.get(key, {})
    ]


def _tune(
    out: Path,
    spec: Spec,
    trials: list[tuple[Condition, float]],
    scores: Scores,
    run: Run,
    tell: "_Tell",
) -> None:
    """Score learning rates, and keep every score as soon as it is there."""
    tell.bar.set_description("tuning")
    calls = [
        joblib.delayed(_tune_one)(
            i, spec, condition, lr, tell(f"{_tuning_key(condition)}-{lr}")
        )
        for i, (condition, lr) in enumerate(trials)
    ]
    for i, found in run(calls) if calls else ():
        condition, lr = trials[i]
        tell.finished(f"{_tuning_key(condition)}-{lr}")
        scores.setdefault(_tuning_key(condition), {})[str(lr)] = {
            name: None if math.isnan(value) else value for name, value in found.items()
        }
        _write(out / TUNING, json.dumps(scores, indent=1))


def _fixed_rate(spec: Spec, condition: Condition) -> float | None:
    rate = dict(condition.options).get("lr", spec.lr)
    return None if rate is None else float(rate)


def _tuning_key(condition: Condition) -> str:
    return json.dumps([condition.rule, *condition.options])


def _rate(spec: Spec, condition: Condition, scores: Scores) -> float:
    """Return the learning rate with the smallest held-out loss."""
    fixed = _fixed_rate(spec, condition)
    if fixed is not None:
        return fixed
    losses = {
        lr: loss
        for lr in spec.grid
        if (loss := scores[_tuning_key(condition)][str(lr)]["loss"]) is not None
    }
    if not losses:
        msg = (
            f"Expected one of the learning rates {spec.grid} to train condition "
            f"{condition.label!r}, but all diverged; give --lr or another grid."
        )
        raise ValueError(msg)
    return min(losses, key=lambda lr: losses[lr])


def _tune_one(
    number: int, spec: Spec, condition: Condition, lr: float, tell: Path
) -> tuple[int, dict[str, float]]:
    return number, tune_cell(spec, condition, lr, tell)


def _train(
    store: Path,
    spec: Spec,
    cells: list[tuple[Condition, int]],
    rates: dict[str, float],
    run: Run,
    tell: "_Tell",
    after_cell: Callable[[Path, str, int], None] | None,
) -> None:
    """Train and record cells, and say of each that it is done."""
    tell.bar.set_description("training")
    calls = [
        joblib.delayed(train_cell)(
            spec,
            condition,
            seed,
            rates[condition.label],
            store,
            tell(f"{condition.label}-{seed}"),
        )
        for condition, seed in cells
    ]
    for label, seed in run(calls) if calls else ():
        tell.finished(f"{label}-{seed}")
        if after_cell is not None:
            after_cell(store.parent, label, seed)


def _walls(store: Path, spec: Spec) -> dict[str, float]:
    """Return the seconds each network took, as its training record says."""
    return {
        f"{condition.label}/{seed}": float(
            str(
                zarr.open_group(
                    store, mode="r", path=f"{condition.label}/{seed}/training"
                ).attrs["wall_s"]
            )
        )
        for condition in spec.parsed()
        for seed in spec.seeds
    }


def _write_summary(out: Path, spec: Spec, extra: dict[str, Any]) -> None:
    """Write study.json, keeping what later stages added to a finished study."""
    path = out / SUMMARY
    there = json.loads(path.read_text()) if path.exists() else {}
    names = ("repsim", "torch", "numpy", "scipy", "scikit-learn", "xarray", "zarr")
    content = {
        **there,
        "spec": spec.as_dict(),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in names},
        },
        "seeds": {
            condition.label: {
                str(seed): {
                    "init_seed": condition.init_seed(seed),
                    "run_seed": condition.run_seed(seed),
                }
                for seed in spec.seeds
            }
            for condition in spec.parsed()
        },
        **extra,
    }
    _write(path, json.dumps(content, indent=1))


def _write(path: Path, text: str) -> None:
    """Replace a file in one move, so that a kill leaves the old or the new one."""
    beside = path.with_name(path.name + ".new")
    beside.write_text(text)
    os.replace(beside, path)


class _Tell:
    """Files in which workers say how far they are, summed into one bar."""

    def __init__(self, folder: Path, size: int, bar: Any) -> None:
        self.folder, self.size, self.bar = folder, size, bar
        self.done: set[str] = set()

    def __call__(self, name: str) -> Path:
        """Return the file of one network; its name may hold any sign."""
        return self.folder / f"{crc32(name.encode()):08x}"

    def finished(self, name: str) -> None:
        self.done.add(self(name).name)

    def refresh(self) -> None:
        made = 0
        for path in self.folder.iterdir():
            if path.name not in self.done:
                made += int(path.read_text() or 0)
        self.bar.n = min(made + self.size * len(self.done), self.bar.total)
        self.bar.refresh()


@contextmanager
def _bar(cells: int, size: int, out: Path, progress: bool) -> Iterator[_Tell]:
    """Show one bar over all updates of all cells, whichever process makes them."""
    folder = out / ".progress"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    stop = Event()
    with tqdm(
        total=cells * size, unit="update", disable=not progress or not cells
    ) as bar:
        tell = _Tell(folder, size, bar)

        def watch() -> None:
            while not stop.wait(0.5):
                tell.refresh()

        watcher = Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield tell
        finally:
            stop.set()
            watcher.join()
            tell.refresh()
            shutil.rmtree(folder, ignore_errors=True)
