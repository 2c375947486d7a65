"""Zarr v3 on the disk: documents and objects that appear whole or not at all.

The writer makes its own documents and objects instead of going through zarr's
array interface: an object is one encode and one write (a quarter of the time),
and the order in which things appear, which crash safety rests on, is ours.
Everything is read back with plain zarr.
"""

import json
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import google_crc32c
import numcodecs
import numpy as np

from repsim.core.files import DOCUMENT
from repsim.datasets.store.elsewhere import (
    fetch,
    is_elsewhere,
    make_folder,
    put_new,
    put_whole,
)
from repsim.datasets.store.untrusted import DOCUMENT_BYTES

CHUNK_BYTES = 16 * 2**20
"""One object of a live recording holds at most this much, uncompressed."""


@dataclass(frozen=True)
class Codec:
    """How values become bytes: Blosc with zstd and bit shuffling.

    `keepbits` rounds the mantissa to so many bits first (lossy; None keeps all).
    """

    level: int = 1
    keepbits: int | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if self.level not in range(10):
            msg = (
                "Expected `level` to be an integer from 0 to 9, but got "
                f"{self.level!r}."
            )
            raise ValueError(msg)
        if self.keepbits is not None and self.keepbits not in range(1, 53):
            msg = (
                "Expected `keepbits` to be None or an integer from 1 to 52, but got "
                f"{self.keepbits!r}."
            )
            raise ValueError(msg)

    def encode(self, values: np.ndarray) -> bytes:
        """Return the bytes of one object."""
        if self.keepbits is not None and values.dtype.kind == "f":
            bits = min(self.keepbits, np.finfo(values.dtype).nmant)
            values = np.asarray(numcodecs.BitRound(bits).encode(values.copy()))
        blosc = numcodecs.Blosc("zstd", self.level, numcodecs.Blosc.BITSHUFFLE)
        data = bytes(blosc.encode(np.ascontiguousarray(values)))
        # Blosc trusts its header: of an object cut short it would give back whatever
        # lies behind it in memory. The check sum notices.
        return data + checksum(data)


@dataclass(frozen=True)
class Array:
    """What a layer's `zarr.json` says; `shape` has its capacity along `step`."""

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype[Any]
    shards: tuple[int, ...] | None = None
    attrs: dict[str, Any] = field(default_factory=dict)
    fill: int | None = None
    level: int = 1

    def document(self) -> dict[str, Any]:
        """Return the zarr v3 metadata document."""
        inner = [
            {"name": "bytes", "configuration": {"endian": "little"}},
            {
                "name": "blosc",
                "configuration": {
                    "typesize": self.dtype.itemsize,
                    "cname": "zstd",
                    "clevel": self.level,
                    "shuffle": "bitshuffle",
                    "blocksize": 0,
                },
            },
        ]
        inner.append({"name": "crc32c"})
        if self.dtype.itemsize == 1:
            inner[0] = {"name": "bytes"}
        codecs: list[dict[str, Any]] = inner
        if self.shards is not None:
            index = [
                {"name": "bytes", "configuration": {"endian": "little"}},
                {"name": "crc32c"},
            ]
            settings = {
                "chunk_shape": list(self.chunks),
                "codecs": inner,
                "index_codecs": index,
                "index_location": "end",
            }
            codecs = [{"name": "sharding_indexed", "configuration": settings}]
        # Live objects lie flat beside the document (c.5.0.0), shards in c/: the two
        # forms never touch each other, and replacing the document swaps them.
        separator = "." if self.shards is None else "/"
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": list(self.shape),
            "data_type": self.dtype.name,
            "chunk_grid": {
                "name": "regular",
                "configuration": {"chunk_shape": list(self.shards or self.chunks)},
            },
            "chunk_key_encoding": {
                "name": "default",
                "configuration": {"separator": separator},
            },
            "fill_value": _fill(self.dtype) if self.fill is None else self.fill,
            "codecs": codecs,
            "attributes": self.attrs,
            "dimension_names": list(self.dims),
            "storage_transformers": [],
        }

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> "Array":
        """Return the array that a document of ours describes."""
        codec = document["codecs"][0]
        outer = tuple(document["chunk_grid"]["configuration"]["chunk_shape"])
        sharded = codec["name"] == "sharding_indexed"
        inner = tuple(codec["configuration"]["chunk_shape"]) if sharded else outer
        inside = codec["configuration"]["codecs"] if sharded else document["codecs"]
        level = next(
            (c["configuration"]["clevel"] for c in inside if c["name"] == "blosc"), 1
        )
        fill = document["fill_value"]
        dtype = np.dtype(document["data_type"])
        return cls(
            tuple(document["dimension_names"]),
            tuple(document["shape"]),
            inner,
            dtype,
            outer if sharded else None,
            dict(document.get("attributes", {})),
            None if fill == _fill(dtype) else fill,
            level,
        )


def _fill(dtype: np.dtype[Any]) -> object:
    if dtype.kind == "f":
        return "NaN"
    if dtype.kind == "c":
        return ["NaN", "NaN"]
    return False if dtype.kind == "b" else 0


def checksum(data: bytes) -> bytes:
    """Return zarr's crc32c of some bytes."""
    return int(google_crc32c.value(data)).to_bytes(4, "little")


def object_name(index: Sequence[int]) -> str:
    """Return the file name of a live object at this place of the chunk grid."""
    return ".".join(["c", *map(str, index)])


def block_rows(row_bytes: int, rows: int | None = None) -> int:
    """Return how many examples one object holds: all, or up to 16 MiB."""
    most = max(1, CHUNK_BYTES // max(1, row_bytes))
    return most if rows is None else max(1, min(rows, most))


def write_document(folder: Path, document: Mapping[str, Any]) -> None:
    """Write a node's `zarr.json`, whole."""
    make_folder(folder)
    text = json.dumps(document, indent=1, ensure_ascii=False)
    put_whole(folder / DOCUMENT, text.encode())


def read_document(folder: Path) -> dict[str, Any]:
    """Return a node's `zarr.json`, or raise a sentence that names the file."""
    path = folder / DOCUMENT
    try:
        text = fetch(path, DOCUMENT_BYTES + 1)
        if len(text) > DOCUMENT_BYTES:
            raise ValueError(f"it has more than {DOCUMENT_BYTES} bytes")
        document = json.loads(text)
        if not isinstance(document, dict) or "node_type" not in document:
            raise ValueError("not a zarr v3 document")
        if not isinstance(document.get("attributes", {}), dict):
            raise ValueError("its attributes are no mapping")
        if document["node_type"] not in ("group", "array"):
            raise ValueError("it is neither group nor array")
    except (ValueError, RecursionError, IsADirectoryError) as error:
        msg = (
            f"Expected {path} to be a zarr v3 document, but it cannot be read "
            f"({error}): cut short or overwritten. It cannot be repaired by itself; "
            "copy the file from a backup or from an equal recording."
        )
        raise ValueError(msg) from error
    return document


def group_document(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata document of a group."""
    return {"zarr_format": 3, "node_type": "group", "attributes": dict(attrs)}


def ensure_group(folder: Path) -> None:
    """Make a group where there is none; several processes may do so at once."""
    make_folder(folder)
    target = folder / DOCUMENT
    if target.exists():
        return
    if is_elsewhere(folder):
        put_new(target, json.dumps(group_document({})).encode())
        return
    beside = folder / f".{DOCUMENT}.{os.getpid()}.{threading.get_ident()}"
    try:
        beside.write_text(json.dumps(group_document({})), encoding="utf-8")
        try:
            os.link(beside, target)  # unlike a rename, never replaces another's
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links
            if not target.exists():
                os.replace(beside, target)
    finally:
        beside.unlink(missing_ok=True)
