"""What the commands share: open a recording, read options, write a result."""

import json
from pathlib import Path
from typing import Any, cast

import typer

from repsim.core.messages import unknown


def open_run(path: Path, step: str = "all", reduce: str | None = None) -> Any:
    """Open a recording at one moment, or at all, maps and tokens as units if asked."""
    run = _open_run(path, step)
    if reduce is None:
        return run
    from repsim.core.reductions import HOWS
    from repsim.datasets.reduction import reduce as reduced

    if reduce not in HOWS:
        raise typer.BadParameter(unknown("--reduce", reduce, HOWS))
    return reduced(run, cast(Any, reduce))


def _open_run(path: Path, step: str) -> Any:
    from repsim.datasets.store import open_recording  # slow; not for --help

    _refuse_study(path)
    run = open_recording(path)
    if step == "all" or ("step" not in run.dims and step == "last"):
        return run
    if "step" not in run.dims:
        msg = (
            f"Expected no --step, as {path} holds a single moment, but got {step!r}; "
            "leave it out."
        )
        raise typer.BadParameter(msg)
    if step == "last":
        return run.isel(step=-1)
    there = [int(s) for s in run["step"].values]
    if not step.isdigit() or int(step) not in there:
        msg = (
            f"Expected --step to be last, all or one of {there}, but got {step!r} "
            f"for {path}."
        )
        raise typer.BadParameter(msg)
    return run.sel(step=int(step))


def _refuse_study(path: Path) -> None:
    """Say what to name instead where the path is a whole study."""
    from repsim.datasets.store.places import study_at
    from repsim.datasets.store.zarr_format import read_document

    root = study_at(path)
    try:
        attributes = read_document(root).get("attributes", {})
    except (OSError, ValueError):
        return  # open_recording says what is wrong
    if "repsim_study" in attributes:
        there = sorted(str(p.parent) for p in root.glob("*/*/zarr.json"))
        shown = ", ".join(there[:6]) + (", …" if len(there) > 6 else "")
        msg = (
            f"Expected a recording, but got {path}, which is a study of several; name "
            f"one of {shown or 'its recordings, of which it has none yet'}."
        )
        raise ValueError(msg)


def listed(text: str | None) -> list[str] | None:
    """Return what commas separate."""
    return None if text is None else [name.strip() for name in text.split(",")]


def expect_place(out: Path | None) -> None:
    """Refuse a result's file that cannot be written before anything is computed."""
    if out is None:
        return
    if out.suffix.lower() not in (".png", ".svg", ".pdf", ".csv", ".json"):
        msg = (
            f"Expected --out to end in .png, .svg, .pdf, .csv or .json, but got {out}."
        )
        raise typer.BadParameter(msg)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = (
            f"Expected a folder at {out.parent} for {out.name}, but it cannot be made "
            f"({error.strerror})."
        )
        raise OSError(msg) from error


def whole_numbers(text: str | None, name: str) -> list[int]:
    """Return the whole numbers that commas separate."""
    try:
        return [int(part) for part in listed(text) or []]
    except ValueError as error:
        msg = (
            f"Expected --{name} to be a whole number, or several separated by commas, "
            f"but got {text!r}."
        )
        raise typer.BadParameter(msg) from error


def parsed_options(pairs: list[str] | None, called: str = "option") -> dict[str, Any]:
    """Return name=value pairs, values as JSON where they are, else as text."""
    options: dict[str, Any] = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            msg = f"Expected --{called} NAME=VALUE, but got {pair!r}."
            raise typer.BadParameter(msg)
        try:
            options[name] = json.loads(value)
        except json.JSONDecodeError:
            options[name] = value
    return options


def plain_numbers(result: Any) -> dict[str, Any]:
    """Return a labelled result as plain values for JSON; NaN as null."""
    plain = result.to_dict()
    text = json.dumps(plain, default=str)
    # JSON has no infinity either; as text it is at least not lost.
    return dict(json.loads(text, parse_constant=lambda x: None if x == "NaN" else x))


def write_result(result: Any, out: Path | None, draw: Any) -> list[str]:
    """Write numbers (CSV, JSON, netCDF) or a picture with its numbers beside it."""
    if out is None:
        return []
    frame = (
        result.to_dataframe(name="value")
        if hasattr(result, "name")
        else (result.to_dataframe())
    )
    kind = out.suffix.lower()
    if kind == ".csv":
        frame.to_csv(out)
        return [str(out)]
    if kind == ".json":
        out.write_text(json.dumps(plain_numbers(result), indent=1))
        return [str(out)]
    figure = draw(result)
    figure.savefig(out, dpi=150, facecolor="white", bbox_inches="tight")
    table = out.with_suffix(".csv")
    frame.to_csv(table)
    return [str(out), str(table)]
