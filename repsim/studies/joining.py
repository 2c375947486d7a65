"""A study of recordings that were made elsewhere."""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import xarray as xr
import zarr

from repsim.core.files import (
    DOCUMENT,
    RUNS,
    SUMMARY,
    is_address,
    local_folder,
    write_whole,
)
from repsim.core.provenance import versions
from repsim.datasets.pooling import How
from repsim.datasets.reduction import reduce as reduce_recording
from repsim.datasets.store import open_recording, save_recording
from repsim.datasets.store.places import study_at
from repsim.studies.completeness import expect_runs
from repsim.studies.facts import attributes
from repsim.studies.workers import occupied


def join_recordings(
    paths: Sequence[str | Path], out: str | Path, *, reduce: How | None = None
) -> Path:
    """Copy recordings of any stores into one study, and return its folder.

    The condition of a recording is its attribute `condition`, else `rule`, else the
    group above it, else the store's name; networks of one condition are numbered in
    the order given. Training records beside recordings come along. Run again, what is
    there stays, and further recordings are added. Where a network lies inside of
    another module, as in most Lightning modules, its layers (``net.0``) take the names
    of the first recording's (``0``), if they are the same but for that.

    Parameters
    ----------
    paths : sequence of path
        Stores of one recording, of several in groups, or of whole studies.
    out : path
        Folder of the study; `write_report` makes its page.
    reduce : {"mean", "flatten", "last", "first", "tokens"}, callable or None
        What becomes of maps and tokens, as in `repsim.reduce`; None keeps them.

    Returns
    -------
    Path
        The folder, with `runs.zarr` and `study.json`.

    Raises
    ------
    FileNotFoundError
        If a path holds no recording.
    BlockingIOError
        If another process works in the folder.

    Examples
    --------
    >>> join_recordings(["nothing.zarr"], "s")
    Traceback (most recent call last):
    FileNotFoundError: Expected recordings in nothing.zarr, but found none...
    """
    out = local_folder(out, "out")
    expect_runs(out, out / RUNS)
    places = [_here(path) for path in paths]
    groups = [group for place in places for group in _recordings(place)]
    out.mkdir(parents=True, exist_ok=True)
    summary = out / SUMMARY
    with occupied(out):
        known = json.loads(summary.read_text()) if summary.is_file() else {}
        joined: dict[str, str] = known.get("joined", {})
        like = next((_layers(out / RUNS / place) for place in joined.values()), [])
        for label, group in groups:
            source = str(group.resolve())
            if source in joined:
                continue
            taken = [name for name in joined.values() if name.startswith(f"{label}/")]
            place = f"{label}/{len(taken)}"
            zarr.open_group(out / RUNS, mode="a", path=label, zarr_format=3)
            # Beside first, then moved: a copy cut short is never taken for whole.
            part = out / f".joining-{len(joined)}"
            shutil.rmtree(part, ignore_errors=True)
            like = like or _layers(group)
            _copy(group, part, reduce, like)
            shutil.rmtree(out / RUNS / place, ignore_errors=True)
            part.rename(out / RUNS / place)
            joined[source] = place
            content = {**known, "joined": joined, "versions": versions()}
            write_whole(summary, json.dumps(content, indent=1).encode())
        root = zarr.open_group(out / RUNS, mode="r+")
        order = dict.fromkeys(place.split("/")[0] for place in joined.values())
        root.attrs["conditions"] = list(order)
    return out


def _copy(group: Path, part: Path, how: How | None, like: Sequence[str]) -> None:
    """Copy a recording and the records beside it, its maps and tokens as units."""
    moved = _moved(_layers(group), like)
    if how is None and moved is None:
        shutil.copytree(group, part)
        return
    run = open_recording(group)
    if moved is not None:
        run = _renamed(run, *moved)
    save_recording(run if how is None else reduce_recording(run, how), part)
    for document in group.glob(f"*/{DOCUMENT}"):
        if json.loads(document.read_text())["node_type"] == "group":
            shutil.copytree(document.parent, part / document.parent.name)


def _layers(group: Path) -> list[str]:
    """Return the layers that a recording says it has."""
    return [str(name) for name in attributes(group).get("layers", ())]


def _inside_of(layers: Sequence[str]) -> str:
    """Return the module that all layers lie in, with its dot; "" for none."""
    parts = [name.split(".")[:-1] for name in layers]
    return "".join(f"{part}." for part in os.path.commonprefix(parts))


def _moved(layers: Sequence[str], like: Sequence[str]) -> tuple[str, str] | None:
    """Return which prefix becomes which, where that alone parts two recordings."""
    old, new = _inside_of(layers), _inside_of(like)
    if old == new:
        return None
    bare = {name.removeprefix(old) for name in layers}
    return (old, new) if bare == {name.removeprefix(new) for name in like} else None


def _renamed(run: xr.Dataset, old: str, new: str) -> xr.Dataset:
    """Return a recording whose layers lie in another module, by name."""

    def name(one: object) -> str:
        text = str(one)
        return new + text.removeprefix(old) if text.startswith(old) else text

    held = set(map(str, run.variables)) | set(map(str, run.dims))
    if not old:  # no prefix tells what belongs to a layer
        layers = [str(layer) for layer in run.attrs["layers"]]
        held = {
            one
            for one in held
            if any(one == x or one.startswith((f"{x}_", f"{x}@")) for x in layers)
        }
    attrs = {
        key: [name(one) for one in run.attrs[key]]
        for key in ("layers", "splits")
        if isinstance(run.attrs.get(key), list)
    }
    return run.rename({one: name(one) for one in held}).assign_attrs(attrs)


def _here(path: str | Path) -> Path:
    """Return the folder of a store, which must be one of this machine."""
    store = path if is_address(path) else study_at(path)
    return local_folder(store, "paths", "copy what lies there to this machine first")


def _recordings(store: Path) -> Iterator[tuple[str, Path]]:
    """Yield label and folder of every recording in a store."""
    recorded = False
    for document in sorted(store.rglob(DOCUMENT)):
        folder = document.parent
        content = json.loads(document.read_text())
        attrs = content.get("attributes", {})
        # The root of a study has arrays, too; what a Recorder wrote says its schema.
        if content.get("node_type") != "group" or "repsim_schema" not in attrs:
            continue
        recorded = True
        above = folder.parent.name if folder != store else store.stem
        label = attrs.get("condition") or attrs.get("rule") or above
        yield str(label).replace("/", "_"), folder
    if not recorded:
        msg = (
            f"Expected recordings in {store}, but found none; a store is what "
            "repsim.Recorder(store=...) or repsim.save_recording wrote."
        )
        raise FileNotFoundError(msg)
