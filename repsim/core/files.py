"""Files that others see whole or not at all."""

import json
import os
import re
import threading
from pathlib import Path

DOCUMENT = "zarr.json"
"""The file by which zarr describes a group or an array."""

RUNS, SUMMARY = "runs.zarr", "study.json"
"""In the folder of a study: its recordings, and what it is."""

SUMMARY_BYTES = 2**24
"""What a study is never takes more; to read on might take all memory."""

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


def is_address(path: object) -> bool:
    """Whether an address such as s3://… was given, also as the path made of one."""
    return bool(re.match(r"[A-Za-z][A-Za-z0-9+]+:/", str(path)))


def local_folder(path: str | Path, what: str, instead: str = "") -> Path:
    """Return a path, or say what to do where an address of an object store came."""
    if is_address(path):
        instead = instead or (
            "name a folder, and give the address as `store` (--store): the recordings "
            "go there"
        )
        msg = (
            f"Expected `{what}` to be a folder of this machine, as locks, tables and "
            f"pages lie there, but got {str(path)!r}; {instead}."
        )
        raise ValueError(msg)
    return Path(path)


def address_of_runs(folder: Path) -> str | None:
    """Return where a study says that its recordings lie; None: in its own folder."""
    path = folder / SUMMARY
    if not path.is_file():
        return None
    if (size := path.stat().st_size) > SUMMARY_BYTES:  # a stranger's, perhaps
        msg = (
            f"Expected {path} to be what a study is, but got {size} bytes; copy it "
            "from a backup, or name the store of recordings itself."
        )
        raise ValueError(msg)
    try:
        there = json.loads(path.read_text()).get("store")
    except (ValueError, AttributeError, RecursionError):
        return None  # whoever needs more of it says what is wrong
    if there is not None and not (isinstance(there, str) and _is_whole(there)):
        msg = (
            f"Expected `store` in {path} to be an address or a whole path, but got "
            f"{there!r}; write what the study was told."
        )
        raise ValueError(msg)
    return there


def _is_whole(text: str) -> bool:
    return is_address(text) or Path(text).is_absolute()
