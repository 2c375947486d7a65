"""The atlas: every rule on several networks and data sets, a study each, one page.

Each network and data set is a study of its own in ``out/<network>_<dataset>``, with its
report; what is finished is kept. Its cost is measured and said before it begins.
"""

import json
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from repsim import learning
from repsim.core.files import RUNS, SUMMARY, local_folder, write_whole
from repsim.core.messages import Unknown
from repsim.core.threads import one_thread
from repsim.datasets.inputs.fetching import at_hand
from repsim.studies.cell import build
from repsim.studies.completeness import is_complete, runs_of
from repsim.studies.conditions import Condition
from repsim.studies.materials import classes_of, load, tensors
from repsim.studies.plugins import import_modules
from repsim.studies.report import write_report
from repsim.studies.run import run_study
from repsim.studies.spec import Spec, make_spec
from repsim.studies.tuning import TUNING, Scores, Untrainable, trials

SIZES = {"mlp": (5, 64), "cnn": (4, 16), "vit": (3, 32)}
"""Hidden layers, and units, channels or units of a token, where none are asked for."""

STEPS = {"digits": 600}
LONG = 1500
"""Updates: of digits, and of larger data."""

GRID = (3e-4, 1e-3, 3e-3, 1e-2)
TUNE_SEEDS, EXAMPLES = 2, 200
TRIED = 3
"""Updates that are timed, of every rule on every network."""

PLAN = "atlas.json"


@dataclass
class Place:
    """One network on one data set: the study's settings, and what is left to do."""

    name: str
    spec: Spec
    options: dict[str, Any]
    left_out: dict[str, str] = field(default_factory=dict)
    to_tune: int = 0
    to_train: int = 0
    seconds: float = 0.0
    bytes: int = 0


@dataclass
class Plan:
    """All places of an atlas, and what they will cost."""

    out: Path
    places: list[Place]

    def lines(self, jobs: int) -> list[str]:
        """Return the cost in words, a line a place."""
        cpu = sum(place.seconds for place in self.places)
        tune, train = (
            sum(getattr(place, name) for place in self.places)
            for name in ("to_tune", "to_train")
        )
        size = sum(place.bytes for place in self.places) / 1e6
        said = [
            f"Atlas: {train} networks to train and {tune} to choose rates by, about "
            f"{_long(cpu)} of one core ({_long(cpu / jobs)} on {jobs}), {size:.0f} MB "
            "of recordings, and the reports; fewer --rules, --seeds, --steps, "
            "--network or --dataset make it less, and stopped, it goes on from there."
        ]
        for place in self.places:
            rules = ", ".join(place.spec.conditions)
            said.append(f"  {place.name}: {_long(place.seconds)}; {rules}")
            said += [f"    without {n}: {why}" for n, why in place.left_out.items()]
        return said


def _long(seconds: float) -> str:
    """Return a time as a reader wants it."""
    minutes = int(round(seconds / 60))
    if minutes < 1:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def plan_atlas(
    out: str | Path = "atlas",
    *,
    rules: Iterable[str] | None = None,
    networks: Sequence[str] | None = None,
    datasets: Sequence[str] | None = None,
    seeds: int | Sequence[int] = 5,
    depth: int | None = None,
    width: int | None = None,
    steps: int | None = None,
    root: str | Path | None = None,
    **options: Any,
) -> Plan:
    """Return what an atlas will train, with its cost measured in a few updates.

    Parameters
    ----------
    out : path
        Its folder; what is finished there costs nothing.
    rules : iterable of str or None
        Conditions, the first one the reference; None is every rule of
        `repsim.learning.names()`.
    networks, datasets : sequence of str or None
        None is mlp, cnn and vit, and digits with MNIST or else Fashion-MNIST where its
        files are at hand.
    seeds, depth, width, steps, root
        As in `repsim.run_study`; by default sizes that a night on two cores allows.
    **options
        Further ones of `repsim.run_study`.

    Returns
    -------
    Plan
        For `run_atlas`; `.lines(jobs)` says it.

    Raises
    ------
    ValueError
        If an option does not fit, or the reference is not defined on a network.
    """
    out = local_folder(out, "out")
    if (out / SUMMARY).exists():
        msg = f"Expected {out} to be a new folder or an atlas, but it holds one study."
        raise ValueError(msg)
    asked = list(learning.names() if rules is None else rules)
    found = datasets or ["digits", *_images(root)]
    places = [
        _place(
            out,
            asked,
            network,
            data,
            {
                "seeds": seeds,
                "depth": depth or SIZES.get(network, (4, 32))[0],
                "width": width or SIZES.get(network, (4, 32))[1],
                "steps": steps or STEPS.get(data, LONG),
                "root": root,
                "grid": GRID,
                "tune_seeds": TUNE_SEEDS,
                "examples": EXAMPLES,
                "common_rate": False,
                **options,
            },
        )
        for data in found
        for network in networks or SIZES
    ]
    return Plan(out, places)


def _images(root: str | Path | None) -> list[str]:
    there = [name for name in ("mnist", "fashion_mnist") if at_hand(name, root)]
    return there[:1]


def _place(
    out: Path, asked: list[str], network: str, data: str, options: dict[str, Any]
) -> Place:
    """Return one study's settings, without the rules that its network cannot take."""
    options = {**options, "network": network, "dataset": data}
    name = f"{network}_{data}".replace(":", "_").replace("/", "_")
    spec = make_spec(asked, **options)
    import_modules(spec.plugins)
    kept, seconds, left_out = [], {}, _left_out(out / name)
    for condition in spec.parsed:
        if condition.text in left_out:
            continue
        try:
            seconds[condition.label] = _seconds(spec, condition)
        except ValueError as error:
            if error.args and isinstance(error.args[0], Unknown):
                raise  # a name that does not exist is a mistake, no finding
            left_out[condition.text] = " ".join(str(error).split())
        else:
            kept.append(condition.text)
    if asked[0] not in kept:
        msg = (
            f"Expected the first rule, which others are compared with, to train "
            f"{network} on {data}, but: {left_out[asked[0]]}"
        )
        raise ValueError(msg)
    place = Place(name, make_spec(kept, **options), options, left_out)
    _count(place, out / name, seconds)
    return place


def _count(place: Place, folder: Path, seconds: dict[str, float]) -> None:
    """Count what is not finished, and what it will cost."""
    spec = place.spec
    scores = Scores(folder / TUNING)
    for condition, _, _ in trials(spec, spec.parsed, scores):
        place.to_tune += 1
        place.seconds += seconds[condition.label]
    runs = runs_of(folder)
    units = spec.depth * spec.width + classes_of(load(spec)[0])
    for condition in spec.parsed:
        for seed in spec.seeds:
            if not is_complete(runs, condition.label, seed):
                place.to_train += 1
                place.seconds += seconds[condition.label]
                place.bytes += 4 * len(spec.record) * spec.examples * units


@one_thread()
def _seconds(spec: Spec, condition: Condition) -> float:
    """Return what one network costs, from a few updates and one evaluation."""
    data, test = load(spec)
    x, y = tensors(spec, data.isel(example=slice(spec.batch_size)))
    rate = spec.lr or spec.grid[0]
    rule = build(spec, condition, 0, 0, rate, tuple(x.shape[1:]), classes_of(data))
    rule.step(x, y)
    began = time.process_time()
    for _ in range(TRIED):
        rule.step(x, y)
    step = (time.process_time() - began) / TRIED
    began = time.process_time()
    with torch.no_grad():
        rule.network(x)
    each = (time.process_time() - began) / len(x)
    seen = 1000 + test.sizes["example"] + spec.examples
    return step * spec.steps + each * seen * len(spec.record)


def _left_out(folder: Path) -> dict[str, str]:
    """Return the rules that an earlier run could not train, and why."""
    path = folder / PLAN
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def run_atlas(
    plan: Plan,
    *,
    jobs: int | None = None,
    progress: bool = True,
    after_cell: Callable[[Path, str, int], None] | None = None,
) -> Path:
    """Run the studies of a plan, write their reports and the page over all.

    A rule that no rate trains on a network, or that diverges there, is left out of its
    study with the reason.

    Parameters
    ----------
    plan : Plan
        From `plan_atlas`.
    jobs, progress, after_cell
        As in `repsim.run_study`.

    Returns
    -------
    Path
        Of the page; beside it `atlas.zarr` and a folder for each study.
    """
    from repsim.studies.atlas_page import write_page

    for place in plan.places:
        folder = plan.out / place.name
        rules = list(place.spec.conditions)
        while True:
            try:
                run_study(
                    rules,
                    out=folder,
                    jobs=jobs,
                    progress=progress,
                    after_cell=after_cell,
                    **place.options,
                )
                break
            except Untrainable as error:
                text = next(
                    c.text for c in place.spec.parsed if c.label == error.condition
                )
                if text == rules[0]:
                    raise
                rules.remove(text)
                place.left_out[text] = str(error)
                _forget(folder, text, error.condition)
                why = json.dumps(place.left_out, indent=1)
                write_whole(folder / PLAN, why.encode())
        write_report(folder, jobs=jobs, progress=progress)
    return write_page(plan.out, {p.name: p.left_out for p in plan.places})


def _forget(folder: Path, text: str, label: str) -> None:
    """Take a condition out of a study."""
    path = folder / SUMMARY
    content = json.loads(path.read_text())
    content["spec"]["conditions"].remove(text)
    shutil.rmtree(folder / RUNS / label, ignore_errors=True)
    write_whole(path, json.dumps(content, indent=1).encode())
