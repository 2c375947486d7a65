"""Into how much an object of a stranger would unpack, told before it is unpacked.

Every codec takes the size of what it makes from the object itself, and allocates it
first; text says how many texts there are, and a place is made for each of them. Here
those numbers are read, and held against what the array's document says.
"""

import bz2
import gzip
import io
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from repsim.datasets.store.untrusted import (
    INDEX_SUM,
    OBJECT_BYTES,
    SMALL,
    TEXT,
    array_fault,
    codec_name,
    item_bytes,
    memory_fault,
)

PIECE = 2**20
BLOCK = 2**17
"""Bytes that a block of zstd unpacks into at most (RFC 8878, 3.1.1.2.3)."""

MOST_BLOCKS = 2**17
"""Blocks that an object of zstd may have; full ones are 16 GiB."""


@dataclass(frozen=True)
class Claim:
    """What the document of an array says of each of its objects."""

    compressors: tuple[str, ...]
    """In the order in which they unpack."""
    plain: int | None
    """Bytes of an unpacked object; None where they are not known beforehand."""
    items: int | None
    """Texts in an object; None for numbers."""
    inner: int | None
    """Objects in a shard; None where there are no shards."""
    index_bytes: int
    at_end: bool

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> "Claim":
        """Return what a document claims, or raise where it claims what cannot be."""
        if fault := array_fault(document):
            raise ValueError(fault)
        codecs = document["codecs"]
        chunk = outer = document["chunk_grid"]["configuration"]["chunk_shape"]
        inner, index_bytes, at_end = None, 0, True
        if codec_name(codecs[0]) == "sharding_indexed":
            settings = codecs[0]["configuration"]
            codecs, chunk = settings["codecs"], settings["chunk_shape"]
            inner = _product(outer) // _product(chunk)
            summed = INDEX_SUM in map(codec_name, settings["index_codecs"])
            index_bytes = 16 * inner + 4 * summed
            at_end = settings.get("index_location", "end") == "end"
        names = [codec_name(c) for c in codecs]
        exact = not any(n.startswith("numcodecs.") and n not in PACKED for n in names)
        item = item_bytes(document["data_type"], known=True)
        text = bool(TEXT & set(names))
        plain = None if text or item is None or not exact else _product(chunk) * item
        packed = tuple(PACKED[n] for n in reversed(names) if n in PACKED)
        items = _product(chunk) if text else None
        return cls(packed, plain, items, inner, index_bytes, at_end)

    def object_fault(self, data: memoryview) -> str | None:
        """Return what is wrong with an object, before zarr unpacks it, or None."""
        for place, name in enumerate(self.compressors):
            if name == "crc32c":  # zarr compares it; here it is only taken off
                data = data[:-4]
                continue
            last = all(n == "crc32c" for n in self.compressors[place + 1 :])
            size, exact = SIZES[name](data)
            if fault := self._size_fault(size, exact, last):
                return fault
            if size is not None and last and self.items is None:
                return None
            most = size or self.plain or SMALL
            if not last:  # what is packed twice may have grown a little in between
                most += most // 8 + 4096
            unpacked = UNPACK[name](data, most, not last or self.items is not None)
            if unpacked is None:
                return f"unpacks into more than {most} bytes"
            data = memoryview(unpacked)
        if self.items is None:
            return None
        said = int.from_bytes(data[:4], "little") if len(data) >= 4 else 0
        if said != self.items:
            return f"claims {said} texts where {self.items} belong"
        return None

    def _size_fault(self, size: int | None, exact: bool, last: bool) -> str | None:
        if size is None:
            return None
        if exact and last and self.plain is not None and size != self.plain:
            return f"claims {size} bytes where {self.plain} belong"
        if (
            size > OBJECT_BYTES
            or not exact
            and size > max(SMALL, 2 * (self.plain or 0))
        ):
            return f"claims {size} bytes, more than an object may have"
        fault = memory_fault(size)
        return fault and f"claims {fault}"

    def shard_fault(self, data: memoryview) -> str | None:
        """Return what is wrong with any of the objects in a whole shard, or None."""
        index = data[-self.index_bytes :] if self.at_end else data[: self.index_bytes]
        if fault := self.index_fault(index):
            return fault
        for start, length in self._entries(index):
            if fault := self.object_fault(data[start : start + length]):
                return fault
        return None

    def index_fault(self, index: memoryview) -> str | None:
        """Return what is wrong with the index of a shard, or None."""
        if len(index) != self.index_bytes:
            return f"has an index of {len(index)} bytes where {self.index_bytes} belong"
        # An object in the index itself could not be told from it when it is read.
        if not self.at_end and any(
            start < self.index_bytes for start, _ in self._entries(index)
        ):
            return "has an object in its index"
        return None

    def _entries(self, index: memoryview) -> Iterator[tuple[int, int]]:
        assert self.inner is not None
        pairs = np.frombuffer(index[: 16 * self.inner], "<u8").reshape(-1, 2)
        there = pairs[:, 0] != np.iinfo(np.uint64).max
        yield from ((int(a), int(b)) for a, b in pairs[there])


def _product(sizes: list[int]) -> int:
    product = 1
    for size in sizes:
        product *= size
    return product


def blosc_size(data: memoryview) -> tuple[int, bool]:
    """Return the size in a header of Blosc; 0 where there is none."""
    return (int.from_bytes(data[4:8], "little") if len(data) >= 16 else 0), True


def lz4_size(data: memoryview) -> tuple[int, bool]:
    """Return the size that numcodecs writes before a block of LZ4."""
    return int.from_bytes(data[:4], "little"), True


def zstd_size(data: memoryview) -> tuple[int, bool]:
    """Return the size of all frames of zstd, or, where one does not say it, a bound."""
    total, at, blocks, exact = 0, 0, 0, True
    while at + 5 <= len(data):
        magic = int.from_bytes(data[at : at + 4], "little")
        if magic & 0xFFFFFFF0 == 0x184D2A50:  # skippable
            at += 8 + int.from_bytes(data[at + 4 : at + 8], "little")
            continue
        if magic != 0xFD2FB528:
            break  # numcodecs will say so
        # RFC 8878, 3.1.1.1: flags, window, dictionary, and then the content's size.
        flags = data[at + 4]
        single = flags >> 5 & 1
        start = at + 5 + (1 - single) + (0, 1, 2, 4)[flags & 3]
        length = (single, 2, 4, 8)[flags >> 6]
        size = int.from_bytes(data[start : start + length], "little")
        size += 256 * (length == 2)
        at, most, final = start + length, 0, False
        while not final and at + 3 <= len(data):
            head = int.from_bytes(data[at : at + 3], "little")
            final, kind, count = bool(head & 1), head >> 1 & 3, head >> 3
            at += 3 + (1 if kind == 1 else count)
            most += BLOCK if kind == 2 else count
            blocks += 1
            if blocks > MOST_BLOCKS:
                return OBJECT_BYTES + 1, False
        at += 4 * (flags >> 2 & 1)
        exact &= length > 0
        total += size if length else most
    return total, exact


def _unsaid(data: memoryview) -> tuple[int | None, bool]:
    return None, False


def _streamed(opened: Callable[[io.BytesIO], Any]) -> Any:
    """Return what unpacks a stream a piece at a time, and stops beyond a bound."""

    def unpack(data: memoryview, most: int, keep: bool) -> bytes | None:
        kept, total = [], 0
        try:
            with opened(io.BytesIO(data)) as stream:
                while piece := stream.read(PIECE):
                    total += len(piece)
                    if total > most:
                        return None
                    if keep:
                        kept.append(piece)
        except (EOFError, OSError, zlib.error):  # the codec will say what is wrong
            pass
        return b"".join(kept)

    return unpack


def _zlib(data: memoryview, most: int, keep: bool) -> bytes | None:
    unpacked = zlib.decompressobj().decompress(data, most + 1)
    return None if len(unpacked) > most else unpacked


def _whole(codec: str) -> Any:
    """Return what unpacks by numcodecs an object whose size has been told."""

    def unpack(data: memoryview, most: int, keep: bool) -> bytes | None:
        import numcodecs

        return bytes(numcodecs.get_codec({"id": codec}).decode(bytes(data)))

    return unpack


SIZES: dict[str, Callable[[memoryview], tuple[int | None, bool]]] = {
    "blosc": blosc_size,
    "zstd": zstd_size,
    "lz4": lz4_size,
    "gzip": _unsaid,
    "zlib": _unsaid,
    "bz2": _unsaid,
}
UNPACK: dict[str, Callable[[memoryview, int, bool], bytes | None]] = {
    "blosc": _whole("blosc"),
    "zstd": _whole("zstd"),
    "lz4": _whole("lz4"),
    "gzip": _streamed(lambda data: gzip.GzipFile(fileobj=data)),
    "zlib": _zlib,
    "bz2": _streamed(bz2.BZ2File),
}
PACKED = {
    "crc32c": "crc32c",
    **{prefix + name: name for name in SIZES for prefix in ("", "numcodecs.")},
}
"""What unpacks bytes, by the name in a document."""
