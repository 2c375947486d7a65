"""Files that others see whole or not at all."""

import os
import re
import threading
from pathlib import Path

DOCUMENT = "zarr.json"
"""The file by which zarr describes a group or an array."""

NOT_FINITE = "not_finite_since"
"""Attribute of a layer that gave NaN or infinite values: at which step first."""


def write_whole(path: Path, data: bytes | str) -> None:
    """Write a file so that others see the old content or the new, never a part."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        beside.write_bytes(data.encode() if isinstance(data, str) else data)
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def local_folder(path: str | Path, what: str) -> Path:
    """Return a path, or say what to do where an address of an object store came."""
    text = str(path)
    if re.match(r"[A-Za-z][A-Za-z0-9+]+:/", text):
        scheme = text.partition(":")[0]
        msg = (
            f"Expected `{what}` to be a folder of this machine, as locks, tables and "
            f"pages lie there, too, but got {text!r}; work in a folder, and copy the "
            f'recordings, as by fsspec.filesystem("{scheme}").put("study/runs.zarr", '
            f'"{scheme}://…/runs.zarr", recursive=True): repsim.open_study reads them '
            "there."
        )
        raise ValueError(msg)
    return Path(path)
