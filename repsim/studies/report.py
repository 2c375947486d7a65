"""The page people look at: every analysis of a study, its figures, one HTML file."""

import io
import json
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import joblib
import matplotlib as mpl
import xarray as xr
import zarr
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from PIL import Image

from repsim.analyses import Analysis, NotApplicable, collect
from repsim.core.bars import progress_bar
from repsim.core.files import NOT_FINITE, SUMMARY, write_whole
from repsim.core.messages import unknown, whole
from repsim.core.reductions import HOWS
from repsim.core.threads import one_thread
from repsim.datasets.pooling import How
from repsim.datasets.recordings import layers, networks
from repsim.datasets.reduction import reduce as reduced
from repsim.datasets.results import restored, storable
from repsim.datasets.store import opened
from repsim.datasets.studies import open_study
from repsim.inference.summaries import table
from repsim.plot.style import room
from repsim.studies.completeness import runs_of
from repsim.studies.facts import Facts, study_facts
from repsim.studies.fingerprints import (
    PAGE,
    SECTIONS,
    TABLES,
    content,
    kept,
    page_is,
    page_mark,
    places,
    section_marks,
)
from repsim.studies.pages import as_text, page
from repsim.studies.workers import jobs_at, occupied, workers

RESULTS = "results.zarr"
HERO = "seeds"
"""The section whose figure and verdicts open the page."""

_LARGE = 300_000
"""Bytes from which pixels are embedded instead of a vector picture."""

_PHONE = 4.8
"""Inches that a picture may be wide where letters must be read on a phone."""


def write_report(
    path: str | Path,
    out: str | Path | None = None,
    *,
    reduce: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    jobs: int | None = None,
    progress: bool = True,
) -> Path:
    """Compute every analysis of a study, draw its figures and write the page.

    Results, figures and sections are kept with a fingerprint of what made them
    (networks, code, versions): what is there is neither computed nor drawn again.

    Parameters
    ----------
    path : path
        Folder of a study, as `run_study` leaves it, or any store that holds
        recordings at ``/<condition>/<seed>``, also elsewhere ("s3://…").
    out : path or None
        Folder to write; None takes the study's own, ``<name>_report`` beside a store.
        Of a store elsewhere it must be named.
    reduce : {"mean", "flatten", "last", "first", "tokens"} or None
        What becomes of stored maps and tokens, as in `repsim.reduce`.
    storage_options : mapping or None
        What fsspec needs for recordings elsewhere: keys, an endpoint.
    jobs : int or None
        Processes; None takes the processor's cores.
    progress : bool
        Whether to show a bar on standard error.

    Returns
    -------
    Path
        Of `report.html`; beside it `results.zarr`, `figures/*.png|svg`, `sections/`,
        and in a study's own folder the summary numbers in `study.json`.

    Raises
    ------
    FileNotFoundError
        If the path holds no study.
    BlockingIOError
        If another process works in the folder.

    Examples
    --------
    >>> write_report("no/such/folder", progress=False)
    Traceback (most recent call last):
    FileNotFoundError: Expected a study at no/such/folder, but found none; run ...
    """
    store, out = places(path, out, storage_options)
    jobs = jobs_at(store, jobs)
    if jobs is not None:
        whole(jobs, "jobs", 1)
    if reduce not in (None, *HOWS):
        raise ValueError(unknown("reduce", reduce, HOWS))
    facts = study_facts(store, reduce)
    if not facts.cells:
        found = "none; record into groups, as in Recorder(store=..., group='bp/0')."
        if facts.left_out:
            found = f"NaN or infinite values in all: {', '.join(facts.left_out)}."
        msg = f"Expected recordings at {store}/<condition>/<seed>, but found {found}"
        raise FileNotFoundError(msg)
    out.mkdir(parents=True, exist_ok=True)
    marks = section_marks(facts)
    with occupied(out):
        held = {name: kept(out, name, mark[1]) for name, mark in marks.items()}
        made = page_mark(out, marks)
        if all(held.values()) and page_is(out, made):
            return out / PAGE
        zarr.open_group(out / RESULTS, mode="a", zarr_format=3)
        todo = [name for name, section in held.items() if section is None]
        with (
            workers(jobs, out) as run,
            progress_bar(
                total=len(todo), desc="analyses", progress=progress and bool(todo)
            ) as bar,
        ):
            calls = [
                joblib.delayed(_section)(out, facts, name, marks[name]) for name in todo
            ]
            for section in run(calls) if calls else ():
                held[section["name"]] = section
                bar.set_postfix_str(section["name"])
                bar.update()
        sections = [s for s in held.values() if s is not None]
        _write_page(out, facts, sorted(sections, key=lambda s: s["order"]), made)
    return out / PAGE


@one_thread()
def preview(out: str | Path, name: str = "layer_similarity") -> list[Path]:
    """Draw one analysis of the networks that are finished, before the rest is."""
    out = Path(out)
    analysis = collect()[name]
    whole = {
        "/".join(key): run
        for key, run in networks(open_study(runs_of(out))).items()
        if run.attrs.get("complete") == 1
    }
    result = analysis.compute(xr.DataTree.from_dict(whole))
    with plain_style():
        return [
            path
            for stem, figure in analysis.figures(result).items()
            for path in save(figure, out / "figures", stem)
        ]


@lru_cache(maxsize=1)
def _opened(store: Path, mark: str, how: str | None = None) -> xr.DataTree:
    """Return the study, opened once a process as long as it does not change.

    Zarr keeps no order of variables: recordings that do not say their layers' order get
    that of their names, numbers as numbers, or each network would have its own.
    """
    study = open_study(store)
    for key, run in networks(study).items():
        if any(NOT_FINITE in layer.attrs for layer in run.values()):
            del study[key[0]][key[1]]  # no measure can compare it; the page says so
            continue
        if "layers" not in run.attrs:
            run = run.assign_attrs(layers=sorted(layers(run), key=_natural))
            study["/".join(key)].dataset = run
        if how is not None:
            study["/".join(key)].dataset = reduced(run, cast(How, how))
    return study


def _natural(name: str) -> list[tuple[int, str]]:
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


@one_thread()
def _section(
    out: Path, facts: Facts, name: str, marks: tuple[str, str]
) -> dict[str, Any]:
    """Compute, draw and keep what the page shows of one analysis."""
    analysis = collect()[name]
    section: dict[str, Any] = {
        "name": name,
        "order": analysis.ORDER,
        "title": analysis.TITLE,
        "claim": "",
        "caption": "",
        "details": "",
        "verdicts": [],
        "cautions": [],
        "figures": [],
        "summary": {},
        "missing": "",
        "interactive": None,
        "table": "",
        "fingerprint": marks[1],
    }
    try:
        study = _opened(facts.store, facts.mark, facts.reduce)
        result = _result(out, study, name, analysis, marks[0])
    except NotApplicable as error:
        section["missing"] = str(error)
    else:
        section |= {
            "claim": analysis.claim(result),
            "caption": analysis.caption(result),
            "details": analysis.details(result),
            "summary": dict(analysis.summary(result)),
        }
        if (choose := getattr(analysis, "interactive", None)) is not None:
            section["interactive"] = choose(result)
        section["table"] = _numbers(out, name, result)
        for part in ("verdicts", "cautions"):
            if (say := getattr(analysis, part, None)) is not None:
                section[part] = list(say(result))
        section["figures"] = drawn(
            lambda: analysis.figures(result), out / "figures", section["claim"]
        )
    (out / SECTIONS).mkdir(exist_ok=True)
    write_whole(out / SECTIONS / f"{name}.json", json.dumps(section, indent=1).encode())
    return section


def _numbers(out: Path, name: str, result: xr.Dataset) -> str:
    """Write the numbers behind a section's figures as CSV; return the file's name."""
    if not any(v.ndim for v in result.data_vars.values()):
        return ""
    path = out / TABLES / f"{name}.csv"
    path.parent.mkdir(exist_ok=True)
    write_whole(path, table(result).to_csv(index=False).encode())
    return path.name


def drawn(
    make: Callable[[], Mapping[str, Figure]], folder: Path, alt: str
) -> list[dict[str, Any]]:
    """Draw a section's figures, once more for phones where one is too wide for them.

    Returned is what the page needs of each.
    """
    shown: list[dict[str, Any]] = []
    with plain_style():
        for stem, figure in make().items():
            wide = bool(figure.get_size_inches()[0] > _PHONE)
            png, svg = save(figure, folder, stem)
            file = svg if svg.stat().st_size < _LARGE else pixels(png)
            shown.append({"stem": stem, "file": file.name, "alt": alt, "wide": wide})
        if any(one["wide"] for one in shown):
            with room(_PHONE):
                stacked = make()
            for one in shown:
                figure = stacked[one["stem"]]
                if one["wide"] and figure.get_size_inches()[0] <= _PHONE:
                    png, svg = save(figure, folder, f"{one['stem']}_narrow")
                    svg.unlink()
                    one["narrow"] = pixels(png).name
                    png.unlink()
                plt.close(figure)
    return shown


def pixels(png: Path) -> Path:
    """Write a picture once more, several times smaller and as good to the eye."""
    buffer = io.BytesIO()
    with Image.open(png) as picture:
        picture.convert("RGB").save(buffer, "webp", quality=90)
    write_whole(png.with_suffix(".webp"), buffer.getvalue())
    return png.with_suffix(".webp")


def _result(
    out: Path, study: xr.DataTree, name: str, analysis: Analysis, mark: str
) -> xr.Dataset:
    """Return a stored result for the same networks, or compute and store it."""
    store = out / RESULTS
    try:
        if zarr.open_group(store, mode="r", path=name).attrs["fingerprint"] == mark:
            return restored(opened(store / name, None).load())
    except (FileNotFoundError, KeyError):
        pass
    result = analysis.compute(study)
    shutil.rmtree(store / name, ignore_errors=True)
    storable(result).to_zarr(
        store, group=name, mode="w", consolidated=False, zarr_format=3
    )
    # Written last: a result without its mark was cut short and is computed again.
    zarr.open_group(store, mode="r+", path=name).attrs["fingerprint"] = mark
    return result


def plain_style() -> Any:
    """Return a context in which figures look the same whatever the user set."""
    return mpl.rc_context(
        {
            **mpl.rcParamsDefault,
            "backend": mpl.get_backend(),
            "font.size": 9,
            "axes.titlesize": 10,
            "svg.hashsalt": "repsim",
            "figure.dpi": 100,
        }
    )


def save(figure: Figure, folder: Path, stem: str) -> tuple[Path, Path]:
    """Write a figure as PNG and SVG, and close it."""
    folder.mkdir(parents=True, exist_ok=True)
    png, svg = folder / f"{stem}.png", folder / f"{stem}.svg"
    for path, options in ((png, {"dpi": 130}), (svg, {"metadata": {"Date": None}})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=path.suffix[1:], facecolor="white", **options)
        write_whole(path, buffer.getvalue())
        figure.set_layout_engine(None)  # laid out once, which costs as much as drawing
    plt.close(figure)
    return png, svg


def _write_page(
    out: Path, facts: Facts, sections: list[dict[str, Any]], made: str
) -> None:
    """Write the page and the summary numbers, and then what the page was made of."""
    said = content(out)
    said["summary"] = {s["name"]: s["summary"] for s in sections if s["summary"]}
    if (out / SUMMARY).is_file():
        write_whole(out / SUMMARY, json.dumps(said, indent=1).encode())
    by_name = {s["name"]: s for s in sections}
    hero = by_name.get(HERO, {"verdicts": [], "figures": []})
    cautions = [c for s in sections for c in s["cautions"]]
    text = render(
        question=_question(facts),
        setting=_setting(facts, said),
        verdicts=hero["verdicts"],
        conditions=_conditions(facts, said),
        score=_scored(said),
        cautions=_of_networks(facts) + _of_grids(said) + cautions,
        sections=sections,
        settings=_settings(said),
        hero=next(iter(hero["figures"]), None),
        hero_caption=hero.get("caption", ""),
        folder=out / "figures",
    )
    write_whole(out / PAGE, text.encode())
    write_whole(out / SECTIONS / "page.txt", made.encode())


def _settings(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a reader is told of how a study was made; hashes tell him nothing."""
    made = {**said.get("spec", {}), **said.get("versions", {})}
    return {name: value for name, value in made.items() if name != "code"}


def render(
    *,
    question: str,
    setting: str,
    sections: Iterable[Mapping[str, Any]],
    verdicts: Iterable[str] = (),
    conditions: Iterable[Mapping[str, Any]] = (),
    cautions: Iterable[str] = (),
    score: str = "test score",
    settings: Mapping[str, Any] | None = None,
    hero: Mapping[str, Any] | None = None,
    hero_caption: str = "",
    folder: Path = Path(),
    tables: Path = Path(),
) -> str:
    """Return the page: one HTML file that needs nothing else."""
    return page(
        "report.html",
        question=question,
        setting=setting,
        verdicts=list(verdicts),
        conditions=list(conditions),
        score=score,
        cautions=list(cautions),
        sections=list(sections),
        settings=settings or {},
        hero=hero,
        hero_caption=hero_caption,
        folder=folder,
        tables=tables,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _question(facts: Facts) -> str:
    names = facts.conditions
    listed = ", ".join(names[:-1]) + f" and {names[-1]}" if len(names) > 1 else names[0]
    data = facts.all_have("dataset")
    where = f" on {' and '.join(data)}" if data else ""
    if len(names) == 1:
        return f"How do the layers of {listed} represent the data{where}?"
    return f"Do the layers of {listed} represent the data differently{where}?"


def _setting(facts: Facts, content: Mapping[str, Any]) -> str:
    spec = content.get("spec", {})
    parts = [*facts.all_have("network")]
    if spec:
        parts.append(f"{spec['steps']} updates of {spec['batch_size']} examples")
        parts.append(f"recorded at {len(spec['record'])} moments")
    ways = [how for how in facts.all_have("reduce") if how != "none"]
    ways += [facts.reduce] if facts.reduce and facts.reduce not in ways else []
    parts += [f"maps and tokens reduced by {how}" for how in ways]
    return " · ".join(str(part) for part in parts)


def _conditions(facts: Facts, content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of the table: each name, what it is, and how well it does."""
    reached = content["summary"].get("learning_curves", {})
    rows = []
    for name in facts.conditions:
        cells = facts.of(name)
        rates = {cell.option("lr") for cell in cells} - {None}
        rows.append(
            {
                "label": name,
                "words": _words(cells[0].attrs),
                "networks": len(cells),
                "rate": sorted(rates) if len(rates) > 1 else next(iter(rates), None),
                "score": _score(reached.get(name)),
            }
        )
    return rows


def _scored(content: Mapping[str, Any]) -> str:
    """Return what the networks' test score is called."""
    reached = content["summary"].get("learning_curves", {})
    return next((str(v["score"]) for v in reached.values()), "test score")


def _words(attrs: Mapping[str, Any]) -> str:
    """Return a condition in words: the rule, and after which layers it is cut."""
    words = str(attrs.get("rule_words") or attrs.get("rule") or "")
    splits = attrs.get("splits", [])
    splits = [splits] if isinstance(splits, str) else list(splits)
    if splits:
        many = f"{len(splits)} layers ({splits[0]} to {splits[-1]})"
        words += f", after {', '.join(splits) if len(splits) < 4 else many}"
    return words


def _score(value: Mapping[str, Any] | None) -> str:
    if value is None or value.get("mean") is None:
        return "–"
    spread = f" ± {value['sd']:.3f}" if value.get("sd") is not None else ""
    return f"{value['mean']:.3f}{spread}"


def _of_networks(facts: Facts) -> list[str]:
    """Return what of the networks themselves could mislead."""
    said = []
    if facts.left_out:
        left_out = ", ".join(facts.left_out)
        said.append(f"Left out, as they hold NaN or infinite values: {left_out}.")
    open_ones = [
        f"{c.condition}/{c.seed}" for c in facts.cells if c.attrs.get("complete") == 0
    ]
    if open_ones:
        said.append(
            f"Recordings that were not closed in order: {', '.join(open_ones)}."
        )
    counts = {name: len(facts.of(name)) for name in facts.conditions}
    few = [f"{name} ({n})" for name, n in counts.items() if n < 4]
    if few:
        said.append(
            f"Few networks: {', '.join(few)}; with fewer than four a rule no test over "
            "networks can reach the 5 % level."
        )
    rates = {
        name: as_text(
            next(iter({c.option("lr") for c in facts.of(name)} - {None}), None)
        )
        for name in facts.conditions
    }
    if len(set(rates.values())) > 1:
        listed = ", ".join(f"{name} {rate}" for name, rate in rates.items())
        said.append(
            f"Learning rates differ ({listed}): such a pair compares rule and rate "
            "together."
        )
    return said


def _of_grids(said: Mapping[str, Any]) -> list[str]:
    """Say which rates are the last of those tried: a better one may lie beyond."""
    edges = []
    for name, rows in said.get("tuning", {}).items():
        tried = sorted(float(rate) for rate in rows)
        rate = said.get("learning_rates", {}).get(name)
        if len(tried) > 1 and rate in (tried[0], tried[-1]):
            which = "smallest" if rate == tried[0] else "largest"
            edges.append(f"{name} {rate:g}, the {which} of {as_text(tried)}")
    if not edges:
        return []
    return [
        f"Learning rates at the edge of those tried ({'; '.join(edges)}): one beyond "
        "may train better; widen `grid`."
    ]
