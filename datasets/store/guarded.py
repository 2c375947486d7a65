"""zarr's stores, of which every object is looked at before a codec unpacks it."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from zarr.abc.store import (
    ByteRequest,
    OffsetByteRequest,
    RangeByteRequest,
    Store,
    SuffixByteRequest,
)
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore, WrapperStore

from repsim.core.files import DOCUMENT
from repsim.datasets.store.elsewhere import expect_file, for_zarr, is_elsewhere
from repsim.datasets.store.unpacking import Claim
from repsim.datasets.store.untrusted import DOCUMENT_BYTES


class GuardedStore(WrapperStore[Store]):
    """A store that hands on no object that claims more than its document does.

    It remembers the documents that zarr itself has read, so that no other can be meant.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._claims: dict[str, Claim | None] = {}

    def with_read_only(self, read_only: bool = False) -> "GuardedStore":
        """Return the same store, to read from alone or to write to."""
        return GuardedStore(self._store.with_read_only(read_only))

    async def get(
        self,
        key: str,
        prototype: BufferPrototype,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Return what lies there, or raise ValueError where it claims too much."""
        if isinstance(self._store, LocalStore):
            with suppress(FileNotFoundError, NotADirectoryError):
                expect_file(self._store.root / key)
        try:
            span = await self._from_start(key, byte_range)
        except FileNotFoundError:
            return None
        found = await self._store.get(key, prototype, span)
        if found is None:
            return None
        folder, _, name = key.rpartition("/")
        if name == DOCUMENT:
            self._remember(folder, found)
        else:
            self._expect_honest(key, found, byte_range)
        return found

    async def _from_start(
        self, key: str, byte_range: ByteRequest | None
    ) -> ByteRequest | None:
        """Return a range that is counted from the start where it must be.

        Azure knows no "last bytes" of an object, with which zarr asks for an index.
        """
        protocol = getattr(getattr(self._store, "fs", None), "protocol", ())
        if "az" not in protocol or not isinstance(byte_range, SuffixByteRequest):
            return byte_range
        size = await self._store.getsize(key)
        return OffsetByteRequest(max(0, size - byte_range.suffix))

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Any
    ) -> list[Buffer | None]:
        """Return several, each looked at."""
        return [await self.get(key, prototype, span) for key, span in key_ranges]

    def _remember(self, folder: str, found: Buffer) -> None:
        if len(found) > DOCUMENT_BYTES:
            raise ValueError(f"{DOCUMENT} has more than {DOCUMENT_BYTES} bytes")
        document = json.loads(found.to_bytes())
        array = isinstance(document, dict) and document.get("node_type") == "array"
        self._claims[folder] = Claim.of(document) if array else None

    def _expect_honest(
        self, key: str, found: Buffer, byte_range: ByteRequest | None
    ) -> None:
        folder, _, name = key.rpartition("/")
        while folder not in self._claims and folder:
            folder, _, _ = folder.rpartition("/")
        claim = self._claims.get(folder)
        if claim is None:
            raise ValueError(f"{key} is of no array that zarr.json describes")
        data = found.as_numpy_array().data.cast("B")
        if claim.inner is None:
            fault = claim.object_fault(data)
        elif byte_range is None:
            fault = claim.shard_fault(data)
        elif not _is_index(byte_range, claim):
            fault = claim.object_fault(data)
        else:
            fault = claim.index_fault(data)
        if fault:
            raise ValueError(f"{name} {fault}")


def _is_index(byte_range: ByteRequest, claim: Claim) -> bool:
    """Whether this part of a shard is its index: its end, or its beginning."""
    if claim.at_end:
        return not isinstance(byte_range, RangeByteRequest)
    return isinstance(byte_range, RangeByteRequest) and byte_range.start == 0


def guarded(path: Path) -> GuardedStore:
    """Return a store over a place that may be a stranger's."""
    if is_elsewhere(path):
        return GuardedStore(for_zarr(path))
    return GuardedStore(LocalStore(path, read_only=True))
