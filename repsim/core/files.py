"""Files that others see whole or not at all."""

import os
import threading
from pathlib import Path

DOCUMENT = "zarr.json"
"""The file by which zarr describes a group or an array."""


def write_whole(path: Path, data: bytes | str) -> None:
    """Write a file so that others see the old content or the new, never a part."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        beside.write_bytes(data.encode() if isinstance(data, str) else data)
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
