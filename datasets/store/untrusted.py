"""What a stranger's file may claim: checked before anything is made of it.

A document of some hundred bytes can claim an array of a petabyte, and an object of some
kilobytes can claim to unpack into gigabytes. Whoever believes them has lost before the
first value is read.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from repsim.core.free_memory import available_memory

DOCUMENT_BYTES = 2**26
"""No `zarr.json` is longer."""

OBJECT_BYTES = 2**31
"""No object holds more; Blosc, too, can pack no more at once."""

MOST_INNER = 2**20
"""Objects that one shard may hold: its index takes 16 bytes of each."""

SMALL = 2**26
"""Bytes that are believed without asking how much memory there is."""

CODECS = frozenset(
    "bytes blosc crc32c gzip sharding_indexed transpose vlen-bytes vlen-utf8 "
    "zstd".split()
)
"""What unpacks numbers and text, and nothing else; pickles are not among them."""


def array_fault(document: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the description of an array, or None."""
    shape = document.get("shape")
    if not _sizes(shape, 0):
        return f"the shape {_short(shape)}"
    assert isinstance(shape, list)
    dims = document.get("dimension_names")
    if not _names(dims, len(shape)):
        return f"the dimension names {_short(dims)} for {len(shape)} axes"
    grid = document.get("chunk_grid")
    chunks = _within(grid, "configuration", "chunk_shape")
    if _within(grid, "name") != "regular" or not _sizes(chunks, 1, len(shape)):
        return f"the chunks {_short(grid)}"
    item = item_bytes(document.get("data_type"))
    if item is None:
        return f"the data type {_short(document.get('data_type'))}"
    return _codecs_fault(document.get("codecs"), chunks, item)


def _codecs_fault(
    codecs: object, chunks: list[int], item: int, inside: bool = False
) -> str | None:
    if not isinstance(codecs, list) or not codecs:
        return f"the codecs {_short(codecs)}"
    for codec in codecs:
        name = codec if isinstance(codec, str) else _within(codec, "name")
        plugin = isinstance(name, str) and name.startswith("numcodecs.")
        if not plugin and (not isinstance(name, str) or name not in CODECS):
            return f"the codec {_short(name)}, none of {', '.join(sorted(CODECS))}"
        if name == "sharding_indexed":
            inner = _within(codec, "configuration", "chunk_shape")
            fits = _sizes(inner, 1, len(chunks)) and not inside
            if not fits or any(a % b for a, b in zip(chunks, inner, strict=True)):
                return f"shards of {_short(chunks)} in objects of {_short(inner)}"
            if math.prod(chunks) // math.prod(inner) > MOST_INNER:
                return f"shards of more than {MOST_INNER} objects"
            within = _within(codec, "configuration", "codecs")
            return _codecs_fault(within, inner, item, inside=True)
    if math.prod(chunks) * item > OBJECT_BYTES:
        return f"objects of {math.prod(chunks) * item} bytes"
    return None


def memory_fault(size: int) -> str | None:
    """Return what is wrong with reading so many bytes at once, or None."""
    if size <= SMALL or size <= available_memory() // 2:
        return None
    return f"{size} bytes, more than half of the memory that is free"


def unpacked(head: bytes, codec: str) -> int | None:
    """Return into how many bytes an object says that it unpacks, if it does."""
    if codec == "blosc" and len(head) >= 16:
        return int.from_bytes(head[4:8], "little")
    if codec == "zstd" and head[:4] == b"\x28\xb5\x2f\xfd" and len(head) >= 18:
        # RFC 8878, 3.1.1.1: flags, window, dictionary, and then the content's size.
        flags = head[4]
        single = flags >> 5 & 1
        start = 5 + (1 - single) + (0, 1, 2, 4)[flags & 3]
        length = (single, 2, 4, 8)[flags >> 6]
        size = int.from_bytes(head[start : start + length], "little")
        return size + 256 * (length == 2) if length else None
    return None


def item_bytes(data_type: object) -> int | None:
    """Return the bytes of one value; of text, those of a reference to it."""
    if isinstance(data_type, Mapping):
        length = _within(data_type, "configuration", "length_bytes")
        return length if isinstance(length, int) and length > 0 else 8
    if not isinstance(data_type, str):
        return None
    try:
        return max(1, np.dtype(data_type).itemsize)
    except (TypeError, ValueError):
        return 8


def refuse_link(path: Path) -> None:
    """Refuse a part of a recording that is a link: what it leads to lies elsewhere."""
    if isinstance(path, Path) and path.is_symlink():  # elsewhere there are none
        msg = (
            f"Expected {path} to be a part of the recording, but it is a link to "
            "another place; copy there what it leads to."
        )
        raise ValueError(msg)


def _sizes(value: object, least: int, count: int | None = None) -> bool:
    """Whether a value is a list of sizes."""
    return (
        isinstance(value, list)
        and all(type(n) is int and least <= n < 2**62 for n in value)
        and (len(value) <= 32 if count is None else len(value) == count)
    )


def _names(value: object, count: int) -> bool:
    """Whether a value names so many axes, each another way."""
    return (
        isinstance(value, list)
        and all(isinstance(name, str) for name in value)
        and len(value) == len(set(value)) == count
    )


def _within(value: object, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _short(value: object, most: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}…"
