"""Take up a recording that was broken off, or go on with a complete one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from repsim.core.files import DOCUMENT, NOT_FINITE
from repsim.datasets.store.compaction import arrays_of, committed, unpack
from repsim.datasets.store.elsewhere import is_elsewhere, remove_tree
from repsim.datasets.store.objects import clear_objects, marks_array, write_marks
from repsim.datasets.store.places import Lock, is_aborted, prepare, refused
from repsim.datasets.store.untrusted import refuse_link
from repsim.datasets.store.writer import FIRST_CAPACITY, Writer
from repsim.datasets.store.zarr_format import (
    Array,
    Codec,
    group_document,
    read_document,
    write_document,
)

SAME = {
    "network_sha256": "network (parameter names and shapes)",
    "inputs_sha256": "inputs",
    "batches": "inputs",
    "reduce": "`reduce`",
    "errors": "`errors`",
    "keepbits": "`keepbits`",
}


def resumed_writer(
    path: Path,
    root: Path,
    *,
    start: int | None,
    due: Callable[[int], bool],
    choices: Sequence[str],
    attrs: Mapping[str, Any],
    examples: int | None = None,
    codec: Codec | None = None,
    make: Callable[..., Writer] = Writer,
) -> Writer:
    """Return a writer that continues what lies at `path`, or begins it."""
    lock = Lock(path)
    make = partial(make, path, examples=examples, codec=codec)
    try:
        return _resumed(path, root, start, due, choices, attrs, make, lock)
    except (LookupError, TypeError, ArithmeticError, RuntimeError) as error:
        lock.release()
        msg = (
            f"Expected {path} to be a recording that can be continued, but its files "
            f"do not fit together ({error!r}): one was overwritten. Copy it from a "
            "backup, or record into another place."
        )
        raise ValueError(msg) from error
    except BaseException:
        lock.release()
        raise


def _resumed(
    path: Path,
    root: Path,
    start: int | None,
    due: Callable[[int], bool],
    choices: Sequence[str],
    attrs: Mapping[str, Any],
    make: Callable[..., Writer],
    lock: Lock,
) -> Writer:
    if not (path / DOCUMENT).is_file() or _is_bare(path):
        _clear_aborted(path)
        prepare(path, root)
        lock.release()  # there may have been no folder yet to hold it
        return make(attrs=attrs)
    for part in () if is_elsewhere(path) else path.rglob("*"):
        refuse_link(part)  # through which a stranger's store would write elsewhere
    stored = dict(read_document(path).get("attributes", {}))
    stored.pop("repsim_store", None)
    _check_same(path, stored, attrs, choices)
    arrays = dict(arrays_of(path))
    marks = arrays.pop(path / "step", None)
    if marks is None and arrays:
        msg = f"Expected a recording with steps at {path}, but it is of one moment."
        raise ValueError(msg)
    held = committed(path / "step").tolist() if marks is not None else []
    if start is None:
        last = f"its last complete step is {held[-1]}" if held else "it holds no step"
        msg = (
            "Expected `start`, the number of updates already made, along with "
            f"resume=True: {path} is occupied and {last}."
        )
        raise ValueError(msg)
    kept = [s for s in held if s < start or (s == start and not due(start))]
    stored["complete"] = 0
    most = max([FIRST_CAPACITY, *(a.shape[0] for a in arrays.values())])
    try:
        write_document(path, group_document({**stored, "repsim_store": 1}))
        live = _made_live(path, arrays, kept, most)
    except OSError as error:
        state = f"the complete steps before {start} are kept"
        raise refused(error, path, state) from error
    writer = make(capacity=most, attrs=attrs, lock=lock)
    if live:
        writer.adopt(live, kept, {**attrs, **stored})
    return writer


def _made_live(
    path: Path, arrays: Mapping[Path, Array], kept: Sequence[int], capacity: int
) -> dict[str, Array]:
    """Bring every layer into the form that grows, with the kept steps alone."""
    if not arrays:
        return {}
    live = {}
    write_marks(path / "step", kept)
    for folder, array in arrays.items():
        unpack(folder, array, len(kept))
        shape = (capacity, *array.shape[1:])
        # A step that will be recorded again says itself what it holds.
        said = array.attrs.items()
        attrs = {k: v for k, v in said if k != NOT_FINITE or v in kept}
        live[folder.name] = replace(array, shape=shape, shards=None, attrs=attrs)
        write_document(folder, live[folder.name].document())
        remove_tree(folder / "c", missing_ok=True)
        clear_objects(folder, len(kept))
    write_document(path / "step", marks_array(capacity).document())
    return live


def _check_same(
    path: Path,
    stored: Mapping[str, Any],
    attrs: Mapping[str, Any],
    choices: Sequence[str],
) -> None:
    for key, what in SAME.items():
        there, here = stored.get(key), attrs.get(key)
        # A recording made by hand may not say these; the others it would. Of the
        # batches of a training, those still to come are not known.
        unsaid = key not in stored and key in ("network_sha256", "inputs_sha256")
        unsaid = unsaid or (key == "inputs_sha256" and "batches" in attrs)
        if there != here and not unsaid:
            msg = (
                f"Expected the same {what} as in {path}, but they differ "
                f"({str(there)[:12]} there, {str(here)[:12]} here); record into "
                "another place."
            )
            raise ValueError(msg)
    names = [str(n).partition("@")[0] for n in stored.get("layers", [])]
    missing = [n for n in dict.fromkeys(names) if n not in choices]
    if missing:
        msg = (
            f"Expected the layers that {path} holds to be recorded further, but "
            f"{', '.join(missing)} are not chosen; give the same `layers`."
        )
        raise ValueError(msg)


def _is_bare(path: Path) -> bool:
    attrs = read_document(path).get("attributes", {})
    return "repsim_schema" not in attrs


def _clear_aborted(path: Path) -> None:
    if path.is_dir() and any(path.iterdir()) and is_aborted(path):
        remove_tree(path)
