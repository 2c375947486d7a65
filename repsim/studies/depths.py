"""Studies of several depths, and what changes from one to the next."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr
from matplotlib.figure import Figure

from repsim import plot
from repsim.core.files import SUMMARY, local_folder, write_whole
from repsim.core.scoring import Score, score_of
from repsim.datasets.results import storable
from repsim.datasets.store import opened
from repsim.datasets.store.places import place_of
from repsim.plot.style import panels
from repsim.studies.fingerprints import PAGE
from repsim.studies.report import (
    RESULTS,
    drawn,
    render,
    write_report,
)
from repsim.studies.run import check, run_study
from repsim.studies.spec import DEFAULT_CONDITIONS, make_spec

STORE = "depths.zarr"


def run_depths(
    depths: Iterable[int],
    conditions: Iterable[str] = DEFAULT_CONDITIONS,
    dataset: str = "digits",
    seeds: int | Sequence[int] = 5,
    out: str | Path = "study",
    *,
    jobs: int | None = None,
    store: Any = None,
    storage_options: Mapping[str, Any] | None = None,
    progress: bool = True,
    after_cell: Callable[[Path, str, int], None] | None = None,
    **options: Any,
) -> xr.Dataset:
    """Run one study a depth, each with its report, and one page over all.

    Networks of different depths have different layers, so each depth is a study of
    its own, `out/depth_N`, as `run_study` and `write_report` leave it, with its
    recordings in `store/depth_N.zarr` where there is a `store`. Run again on the same
    folder, finished networks are kept, and depths are added to those there.
    """
    depths, conditions, out = list(depths), list(conditions), local_folder(out, "out")
    if not depths or len(set(depths)) != len(depths):
        msg = f"Expected different depths, at least one, but got {depths}."
        raise ValueError(msg)
    if (out / SUMMARY).exists():
        msg = (
            f"Expected {out} to be a new folder or one of several depths, but it holds "
            "one study; choose another `out`."
        )
        raise ValueError(msg)
    for depth in depths:
        check(make_spec(conditions, dataset, seeds, depth=depth, **options), jobs)
    place = None if store is None else place_of(store, storage_options)
    for depth in depths:
        folder = out / f"depth_{depth}"
        run_study(
            conditions,
            dataset,
            seeds,
            folder,
            jobs=jobs,
            store=None if place is None else place / f"depth_{depth}.zarr",
            progress=progress,
            after_cell=after_cell,
            depth=depth,
            **options,
        )
        write_report(
            folder, storage_options=storage_options, jobs=jobs, progress=progress
        )
    return _overview(out)


def _overview(out: Path) -> xr.Dataset:
    """Write the page over all depths in a folder, and return its numbers."""
    folders = sorted(
        (folder for folder in out.glob("depth_*") if (folder / RESULTS).is_dir()),
        key=lambda folder: int(folder.name.removeprefix("depth_")),
    )
    result, score = _scores(folders)
    storable(result).to_zarr(out / STORE, mode="w", consolidated=False, zarr_format=3)
    content = json.loads((folders[-1] / SUMMARY).read_text())
    spec = content["spec"] | {"depth": [int(v) for v in result["depth"].values]}
    reached = result[score.test]
    final = reached.mean("seed")
    deepest = final.isel(depth=-1)
    claim = (
        f"Test {score.words} at {int(deepest['depth'])} hidden layers: "
        + ", ".join(
            f"{name} {float(deepest.sel(condition=name)):.3f}"
            for name in deepest["condition"].values
        )
    )
    figures = drawn(lambda: {"depths": _figure(reached, score)}, out / "figures", claim)
    section: dict[str, Any] = {
        "name": "depths",
        "title": "What depth does to each rule",
        "claim": claim,
        "figures": figures,
        "caption": (
            f"Test {score.words} after training ({score.direction}), by number of "
            "hidden layers; line: mean over seeds, band: one standard deviation, faint "
            "lines: seeds."
        ),
        "details": (
            "Learning rates are chosen at each depth anew. Each depth's layers are "
            "compared on the page of its own."
        ),
        "links": [
            (f"{f.name.removeprefix('depth_')} hidden layers", f"{f.name}/{PAGE}")
            for f in folders
        ],
        "summary": {
            f"{depth} hidden layers": {
                str(name): f"{float(of.mean()):.3f} ± {float(of.std(ddof=1)):.3f}"
                for name, of in reached.sel(depth=depth).groupby("condition")
            }
            for depth in reached["depth"].values
        },
        "missing": "",
    }
    text = render(
        question=f"What does depth do to each rule on {spec['dataset']}?",
        setting=f"{len(folders)} studies, a page each",
        verdicts=_verdicts(final, score),
        hero=figures[0],
        hero_caption=section["caption"],
        sections=[section],
        settings=spec | content["versions"],
        folder=out / "figures",
    )
    write_whole(out / PAGE, text.encode())
    return result


def _scores(folders: Sequence[Path]) -> tuple[xr.Dataset, Score]:
    """Return the final test scores of all depths, and what the score is."""
    scores = {folder: final_scores(folder) for folder in folders}
    score = next(iter(scores.values()))[1]
    depths = [int(folder.name.removeprefix("depth_")) for folder in folders]
    rows = [last for last, _ in scores.values()]
    along = xr.Variable("depth", depths)
    return xr.Dataset({score.test: xr.concat(rows, along, join="outer")}), score


def final_scores(folder: Path) -> tuple[xr.DataArray, Score]:
    """Return a study's final test scores (condition, seed), and what the score is."""
    store = opened(folder / RESULTS / "learning_curves", None)
    score = score_of(store.attrs)
    return store[score.test].isel(step=-1, drop=True).load(), score


def _verdicts(final: xr.DataArray, score: Score) -> list[str]:
    """Return what each rule reached at each depth it was trained at, in a sentence."""
    said = []
    for name, of in final.groupby("condition"):
        reached = of.squeeze("condition").dropna("depth").sortby("depth")
        parts = [f"{float(v):.3f} with {int(v['depth'])}" for v in reached]
        parts[0] += (
            " hidden layers" if int(reached["depth"][0]) > 1 else " hidden layer"
        )
        said.append(f"{name}: test {score.words} {', '.join(parts)}.")
    return said


def _figure(reached: xr.DataArray, score: Score) -> Figure:
    figure, (ax,) = panels(1, width=7.5, height=4)
    curve = reached.rename(depth="layer").assign_coords(
        layer=[str(v) for v in reached["depth"].values]
    )
    plot.layer_curve(curve.assign_attrs(long_name=f"test {score.words}"), ax=ax)
    ax.set_xlabel("hidden layers")
    return figure
