"""Where a recording may lie, and what lies there already."""

import json
import os
import re
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote

from zarr.abc.store import Store
from zarr.storage import FsspecStore, LocalStore

from repsim.core.files import DOCUMENT, RUNS, address_of_runs
from repsim.datasets.store.elsewhere import (
    is_elsewhere,
    is_file,
    make_folder,
    place_elsewhere,
    reaching,
)
from repsim.datasets.store.zarr_format import ensure_group

_OBJECT = re.compile(
    r"[^/]+/(c(\.\d+)+|c(/\d+)+|zarr\.json|\.zarr\.json[^/]*)|\.zarr\.json\.[^/]*"
)
"""Objects of layers, and a group's document that was never put in its place."""


OTHERS = {
    f".{kind}"
    for kind in "csv tsv txt npy npz json pkl pickle pt pth h5 hdf5 mat".split()
} | {".nc", ".parquet", ".feather", ".xlsx", ".zip"}
"""Endings that promise a file that is no zarr folder."""

RESERVED = ("step", "example", "label")


def place_of(store: Any, options: Mapping[str, Any] | None = None) -> Path:
    """Return a place: of a path, an address, or a store of zarr that lies at one."""
    text = store if isinstance(store, str) else ""
    scheme, separator, rest = text.partition("://")
    if separator and scheme != "file":
        return place_elsewhere(text, options or {})
    if options:
        msg = (
            "Expected `storage_options` along with an address such as "
            f"s3://bucket/run.zarr, but got {str(store)!r}."
        )
        raise ValueError(msg)
    if isinstance(store, Store):
        return _place_of_zarr(store)
    if separator:
        if not rest.startswith("/"):
            msg = (
                f"Expected three slashes in the address of a file, but got {text!r}; "
                "write file:///folder/run.zarr, or a path."
            )
            raise ValueError(msg)
        return Path(unquote(rest))
    if _FORGOTTEN.match(text):
        msg = f"Expected two slashes in an address, but got {text!r}; write s3://…"
        raise ValueError(msg)
    if hasattr(store, "storage_options") and hasattr(store, "fs"):  # a UPath
        if getattr(store, "protocol", "") in ("", "file", "local"):
            return Path(store.path)
        return cast(Path, store)
    if not isinstance(store, str | os.PathLike):
        msg = (
            "Expected a path, an address such as s3://bucket/run.zarr, or a store of "
            f"zarr, but got a {type(store).__name__}."
        )
        raise TypeError(msg)
    return Path(store)


def writable_place_of(store: Any, options: Mapping[str, Any] | None = None) -> Path:
    """Return a place that will be written; ValueError for a store opened to read."""
    place = place_of(store, options)
    if isinstance(store, Store) and store.read_only:
        msg = (
            f"Expected a store that may be written, but got {store}, which is "
            "read-only; open it with read_only=False."
        )
        raise ValueError(msg)
    return place


def study_at(path: Any, options: Mapping[str, Any] | None = None) -> Path:
    """Return the store of a study: itself, or where its folder keeps the recordings."""
    if not (isinstance(path, str) and "://" in path and path[:5] != "file:"):
        folder = place_of(path)  # `options` may be for what its study.json names
        if not is_elsewhere(folder) and (address := address_of_runs(folder)):
            return place_of(address, options)
    root = place_of(path, options)
    inner = root / RUNS
    whole = not is_file(root / DOCUMENT) and (inner / DOCUMENT).is_file()
    return inner if whole else root


_FORGOTTEN = re.compile(r"(s3a?|gs|gcs|az|abfs|https?|memory|file):")


def _place_of_zarr(store: Any) -> Path:
    if isinstance(store, LocalStore):
        return Path(store.root)
    if isinstance(store, FsspecStore):
        fs = getattr(store.fs, "sync_fs", store.fs)
        protocol = fs.protocol if isinstance(fs.protocol, str) else fs.protocol[0]
        if protocol in ("file", "local"):
            return Path(store.path)
        options = {k: v for k, v in fs.storage_options.items() if k != "asynchronous"}
        return place_elsewhere(f"{protocol}://{store.path.lstrip('/')}", options)
    msg = (
        "Expected a zarr store that lies in a folder or behind fsspec (LocalStore, "
        f"FsspecStore), but got a {type(store).__name__}; give its path or address."
    )
    raise ValueError(msg)


def locate(
    store: Any,
    group: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> tuple[Path, Path]:
    """Return the folder of a recording to write and of the store that holds it."""
    given = writable_place_of(store, options)
    parts = [] if group is None else [p for p in str(group).split("/") if p]
    if any(p in (".", "..") or p.startswith("__") or "\\" in p for p in parts):
        msg = (
            f"Expected `group` to name a place in the store, such as 'bp/0', but got "
            f"{group!r}."
        )
        raise ValueError(msg)
    root = given
    for parent in given.parents:
        if parent.suffix == ".zarr" or (parent / DOCUMENT).is_file():
            root = parent
    return given.joinpath(*parts), root


def prepare(path: Path, root: Path) -> None:
    """Make the groups above a recording and refuse a place that is taken."""
    for place in (root, path):
        expect_folder_name(place)
    taken = is_taken(path)
    try:
        if taken and not only_groups(path):
            msg = (
                f"Expected a new place for the recording, but {path} is occupied; "
                "choose another, or continue it with resume=True and start=."
            )
            raise FileExistsError(msg)
        if path != root:
            ensure_group(root)
            for part in list(path.relative_to(root).parents)[-2::-1]:
                ensure_group(root / part)
        make_folder(path)
    except FileExistsError:
        raise
    except OSError as error:
        raise refused(error, path, "nothing was written there") from error


def expect_folder_name(path: Path) -> None:
    """Refuse a name that promises a file."""
    if path.suffix.lower() in OTHERS:
        msg = (
            f"Expected a place for a zarr folder, such as run.zarr, but got {path}, "
            "the name of a file; `.nc` alone is written as one, by save_recording, and "
            "repsim.datasets.exchange.to_dataframe(run) makes a table."
        )
        raise ValueError(msg)


def is_taken(path: Path) -> bool:
    """Whether there is a file, or a folder that is not empty."""
    with reaching(path):
        return path.is_file() or (path.is_dir() and any(path.iterdir()))


class Lock:
    """Keeps a second writer from a place, until released or its process has ended."""

    def __init__(self, path: Path) -> None:
        self._file = path.parent / f".{path.name}.lock"
        self._held: int | None = None
        if is_elsewhere(path):  # object stores know no locks
            return
        try:
            import fcntl
        except ImportError:  # not on Windows
            return
        try:
            held = os.open(self._file, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError:  # whoever writes there will say why it cannot be
            return
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(held)
            msg = (
                f"Expected to be the only one that writes {path}, but another recorder "
                "is writing there; close it first, or choose another place."
            )
            raise FileExistsError(msg) from None
        except OSError:  # a file system without locks
            os.close(held)
            return
        self._held = held
        self._finalize = weakref.finalize(self, os.close, held)

    def release(self) -> None:
        """Let others write there."""
        if self._held is not None:
            self._held = None
            self._file.unlink(missing_ok=True)
            self._finalize()


class NoLock(Lock):
    """Of a process that writes where another one holds the lock for both."""

    def __init__(self) -> None:
        self._held = None


def refused(error: OSError, path: Path, state: str) -> OSError:
    """Return the sentence for what the system refused, of the error's own class."""
    # What is below 0 is none of the system's: a name that is not found on the net.
    number = error.errno or 0
    reason = os.strerror(number) if number > 0 else str(error)
    if error.errno and error.filename is not None and str(error.filename) != str(path):
        reason = f"{reason}: {error.filename}"
    msg = (
        f"Expected to write the recording at {path}, but the system refused "
        f"({reason}); {state}. Make room or choose another place."
    )
    return OSError(error.errno, msg) if error.errno else OSError(msg)


def only_groups(path: Path) -> bool:
    """Whether a folder holds nothing but a bare group and other groups."""
    if not path.is_dir():
        return False
    for child in path.iterdir():
        if child.suffix == ".lock":
            continue
        if child.name == DOCUMENT:
            attrs = json.loads(child.read_text()).get("attributes", {})
            if "repsim_schema" in attrs:
                return False
        elif not child.is_dir() or not (child / DOCUMENT).is_file():
            return False
        elif json.loads((child / DOCUMENT).read_text())["node_type"] == "array":
            return False
    return True


def is_aborted(path: Path) -> bool:
    """Whether a folder holds only what a writer leaves that died before it committed.

    That is: no group document but one in the making, folders of objects, nothing else.
    """
    if not path.is_dir() or (path / DOCUMENT).exists():
        return False
    files = [f.relative_to(path) for f in path.rglob("*") if not f.is_dir()]
    return all(_OBJECT.fullmatch(f.as_posix()) for f in files)


def check_name(name: str, what: str = "layer") -> None:
    """Refuse names that would leave the store or hide something in it."""
    bad = (
        not name
        or any(c in name for c in "/\\\0")
        or name.startswith((".", "__"))
        or name in (*RESERVED, DOCUMENT)
        or (what == "coordinate" and any(map(str.isspace, name)))
    )
    if bad:
        msg = (
            f"Expected a {what}'s name that can be a folder of the store, but got "
            f"{name!r} (no slashes, no leading dot, none of {', '.join(RESERVED)}); "
            f"rename the {'module' if what == 'layer' else what}."
        )
        raise ValueError(msg)
