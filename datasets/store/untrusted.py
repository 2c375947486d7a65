"""What a stranger's file may claim: checked before anything is made of it.

A document of some hundred bytes can claim an array of a petabyte, and an object of some
kilobytes can claim to unpack into gigabytes. Whoever believes them has lost before the
first value is read.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from repsim.core.free_memory import available_memory

DOCUMENT_BYTES = 2**24
"""No `zarr.json` is longer: a longer one takes a second to parse, and a gigabyte."""

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

PLUGINS = frozenset(
    f"numcodecs.{name}"
    for name in "blosc bz2 gzip lz4 zlib zstd shuffle bitround delta "
    "fixedscaleoffset quantize astype".split()
)
"""Those of numcodecs whose results cannot grow beyond what is told beforehand."""

TEXT = frozenset(("vlen-bytes", "vlen-utf8"))
TEXT_BYTES = 64
"""Memory that one text takes at least: a reference, an object, and a copy."""

INDEX_SUM = "crc32c"

MOST_OBJECTS = 2**16
"""Objects that an array may lack, as zarr lists all that it touches before it reads."""


def array_fault(document: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the description of an array, or None."""
    shape = document.get("shape")
    if not _sizes(shape, 0):
        return f"the shape {_short(shape)}"
    assert isinstance(shape, list)
    dims = document.get("dimension_names")
    if dims is None and not shape:
        dims = []  # zarr names none of none
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
        name = codec_name(codec)
        if name not in CODECS | PLUGINS or not _plain_types(codec):
            what = _short(name if name not in PLUGINS else codec)
            return f"the codec {what}, none of {', '.join(sorted(CODECS))}"
        if name == "sharding_indexed":
            if len(codecs) > 1:
                return "shards along with other codecs"
            index = _within(codec, "configuration", "index_codecs")
            if not _index_codecs(index):
                return f"the codecs {_short(index)} for the index of shards"
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


def codec_name(codec: object) -> str:
    """Return the name of a codec; that of none is no codec's."""
    name = codec if isinstance(codec, str) else _within(codec, "name")
    return name if isinstance(name, str) else repr(name)


def _plain_types(codec: object) -> bool:
    """Whether the types that a filter names are those of numbers."""
    settings = _within(codec, "configuration")
    settings = settings if isinstance(settings, Mapping) else {}
    keys = ("dtype", "astype", "encode_dtype", "decode_dtype")
    named = [settings[key] for key in keys if settings.get(key) is not None]
    return all(re.fullmatch(r"[<>|=]?[biufc]\d{1,2}", str(n)) for n in named)


def _index_codecs(codecs: object) -> bool:
    """Whether the index of a shard is what it is: numbers, perhaps a check sum."""
    names = [codec_name(c) for c in codecs] if isinstance(codecs, list) else []
    endian = names and _within(codecs, 0, "configuration", "endian")
    return names in (["bytes"], ["bytes", INDEX_SUM]) and endian in (None, "little")


def memory_fault(size: int) -> str | None:
    """Return what is wrong with reading so many bytes at once, or None."""
    if size <= SMALL or size <= available_memory() // 2:
        return None
    return f"{size} bytes, more than half of the memory that is free"


def item_bytes(data_type: object, *, known: bool = False) -> int | None:
    """Return the bytes of one value, of text those of the least; None for no type.

    With `known` also None where they do not follow from the type's name.
    """
    guess = None if known else 8
    if isinstance(data_type, Mapping):
        length = _within(data_type, "configuration", "length_bytes")
        return length if isinstance(length, int) and length > 0 else guess
    if not isinstance(data_type, str):
        return None
    if data_type in ("string", "variable_length_bytes", "bytes"):
        return None if known else TEXT_BYTES
    try:
        return max(1, np.dtype(data_type).itemsize)
    except (TypeError, ValueError):
        return guess


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


def _within(value: object, *keys: str | int) -> Any:
    for key in keys:
        if isinstance(value, list) and key == 0:
            value = value[0]
        else:
            value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _short(value: object, most: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}…"
