"""The page people look at: every analysis of a study, its figures, one HTML file."""

import base64
import hashlib
import io
import json
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import joblib
import matplotlib as mpl
import xarray as xr
import zarr
from jinja2 import Environment
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from tqdm.auto import tqdm

from repsim.analyses import Analysis, NotApplicable, collect
from repsim.core.files import write_whole
from repsim.core.threads import one_thread
from repsim.datasets.recordings import networks
from repsim.datasets.results import restored, storable
from repsim.datasets.studies import open_study
from repsim.studies.workers import occupied, workers

RUNS, RESULTS, SUMMARY = "runs.zarr", "results.zarr", "study.json"


def write_report(
    out: str | Path, *, jobs: int | None = None, progress: bool = True
) -> Path:
    """Compute every analysis of a study, draw its figures and write the page.

    Results that the folder already holds for the same networks are read, not
    computed again.
    """
    out = Path(out)
    if not (out / SUMMARY).exists():
        msg = (
            f"Expected {out} to be the folder of a study, but it has no {SUMMARY}; "
            "run `repsim study` first."
        )
        raise FileNotFoundError(msg)
    content = json.loads((out / SUMMARY).read_text())
    zarr.open_group(out / RESULTS, mode="a", zarr_format=3)
    names = list(collect())
    found: dict[str, dict[str, Any]] = {}
    with (
        occupied(out),
        workers(jobs, out) as run,
        tqdm(total=len(names), desc="analyses", disable=not progress) as bar,
    ):
        for section in run([joblib.delayed(_section)(out, name) for name in names]):
            found[section["name"]] = section
            bar.set_postfix_str(section["name"])
            bar.update()
    sections = [found[name] for name in names]
    numbers = {s["name"]: s["summary"] for s in sections if s["summary"]}
    content["summary"] = numbers
    write_whole(out / SUMMARY, json.dumps(content, indent=1).encode())
    recorded = next(iter(networks(open_study(out / RUNS)).values()))
    page = render(content, sections, recorded.sizes["example"])
    write_whole(out / "report.html", page.encode())
    return out / "report.html"


@one_thread()
def preview(out: str | Path, name: str = "layer_similarity") -> list[Path]:
    """Draw one analysis of the networks that are finished, before the rest is."""
    out = Path(out)
    analysis = collect()[name]
    whole = {
        "/".join(key): run
        for key, run in networks(open_study(out / RUNS)).items()
        if run.attrs.get("complete") == 1
    }
    result = analysis.compute(xr.DataTree.from_dict(whole))
    with plain_style():
        return [
            path
            for stem, figure in analysis.figures(result).items()
            for path in save(figure, out / "figures", stem)[1:]
        ]


@one_thread()
def _section(out: Path, name: str) -> dict[str, Any]:
    """Return what the page shows of one analysis."""
    analysis = collect()[name]
    study = open_study(out / RUNS)
    section: dict[str, Any] = {
        "name": name,
        "title": analysis.TITLE,
        "figures": [],
        "caption": "",
        "summary": {},
        "missing": "",
    }
    try:
        result = _result(out, study, name, analysis)
    except NotApplicable as error:
        section["missing"] = str(error)
        return section
    with plain_style():
        for stem, figure in analysis.figures(result).items():
            png, *_ = save(figure, out / "figures", stem)
            section["figures"].append(
                {"stem": stem, "png": base64.b64encode(png).decode()}
            )
    section["caption"] = analysis.caption(result)
    section["summary"] = dict(analysis.summary(result))
    return section


def _result(out: Path, study: xr.DataTree, name: str, analysis: Analysis) -> xr.Dataset:
    """Return a stored result for the same networks, or compute and store it."""
    store = out / RESULTS
    mark = _fingerprint(study, analysis)
    try:
        if zarr.open_group(store, mode="r", path=name).attrs["fingerprint"] == mark:
            found: xr.Dataset = xr.open_zarr(store, group=name, consolidated=False)
            return restored(found.load())
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


def _fingerprint(study: xr.DataTree, analysis: Analysis) -> str:
    """Return a digest of the networks and of the analysis's own code."""
    code = Path(str(analysis.__file__)).read_bytes()
    cells = sorted(
        f"{condition}/{seed}/{run.attrs.get('created')}"
        for (condition, seed), run in networks(study).items()
    )
    return hashlib.sha256(code + "\n".join(cells).encode()).hexdigest()


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


def save(figure: Figure, folder: Path, stem: str) -> tuple[bytes, Path, Path]:
    """Write a figure as PNG and SVG, close it, and return the PNG's bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, facecolor="white")
    png, svg = folder / f"{stem}.png", folder / f"{stem}.svg"
    png.write_bytes(buffer.getvalue())
    figure.savefig(svg, format="svg", facecolor="white", metadata={"Date": None})
    plt.close(figure)
    return buffer.getvalue(), png, svg


def render(
    content: Mapping[str, Any],
    sections: list[dict[str, Any]],
    examples: int | None = None,
) -> str:
    """Return the page: one HTML file that needs nothing else."""
    page = files("repsim.studies").joinpath("report.html").read_text(encoding="utf-8")
    template = Environment(autoescape=True, trim_blocks=True).from_string(page)
    return template.render(
        spec=content["spec"],
        rates=content.get("learning_rates")
        or {text: "" for text in content["spec"].get("conditions", ())},
        reached=content.get("summary", {}).get("learning_curves", {}),
        versions=content["versions"],
        sections=sections,
        examples=content["spec"].get("examples") if examples is None else examples,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
