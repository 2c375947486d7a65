"""Arrays from files of other tools, which are not believed before they are read.

Nothing here opens what could run code, and no file takes more than half of the memory
that is free because of what it claims, or of what it unpacks into.
"""

import math
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from repsim.core.messages import unknown
from repsim.datasets.store.elsewhere import expect_file
from repsim.datasets.store.untrusted import (
    OBJECT_BYTES,
    SMALL,
    TEXT_BYTES,
    memory_fault,
)

RATIO = 1032
"""zlib packs no bytes tighter: a match of 258 bytes takes at least two bits."""

PIECE = 2**20
MATLAB_BYTES = {"double": 8, "single": 4, "logical": 1} | {
    f"{sign}int{8 * size}": size for sign in ("", "u") for size in (1, 2, 4, 8)
}
"""Bytes of a number of each of MATLAB's classes that hold numbers."""


def read_file(file: Path) -> dict[str, Any]:
    """Return the arrays of a file by name, or raise one sentence."""
    if file.suffix not in READERS:
        known = [*READERS, ".nc", ".csv"]
        raise ValueError(unknown("file's ending", file.suffix, known))
    try:
        expect_file(file)  # a pipe would be waited for without end
        return READERS[file.suffix](file)
    except Exception as error:  # whatever a reader makes of a stranger's bytes
        said = " ".join(str(error).split())[:200]
        msg = (
            f"Expected {file} to hold arrays of numbers, but it cannot be read: {said} "
            "(nothing that could run code, such as pickled objects, is opened)."
        )
        raise ValueError(msg) from error


def _believe(size: int) -> None:
    if fault := memory_fault(size):
        raise ValueError(f"it claims {fault}")


def _npy(file: Path) -> dict[str, Any]:
    # A map cannot be longer than its file, whatever the header claims.
    mapped = np.load(file, mmap_mode="r", allow_pickle=False)
    if mapped.dtype.itemsize == 0:
        raise ValueError(f"its values are of {mapped.dtype}, no bytes each")
    _believe(mapped.nbytes)
    return {file.stem: np.array(mapped)}


def _expect_zip(file: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        _believe(sum(info.file_size for info in archive.infolist()))


def _npz(file: Path) -> dict[str, Any]:
    _expect_zip(file)
    with np.load(file, allow_pickle=False) as kept:
        return dict(kept)


def _mat(file: Path) -> dict[str, Any]:
    from scipy.io import loadmat, whosmat

    _expect_matlab(file)
    try:
        listed = whosmat(file)
    except NotImplementedError:  # version 7.3 is HDF5, its axes the other way round
        if find_spec("h5py") is None:
            msg = "MATLAB 7.3 needs h5py, `pip install repsim-toolkit[netcdf]`"
            raise ImportError(msg) from None
        import h5py

        with h5py.File(file) as opened:
            expect_hdf5(opened)
            _believe(sum(_bytes(kept) for _, kept in datasets_of(opened)))
            return {name: np.asarray(kept).T for name, kept in datasets_of(opened)}
    sizes = {n: math.prod(s) * MATLAB_BYTES.get(kind, 0) for n, s, kind in listed}
    numeric = [n for n, _, kind in listed if kind in MATLAB_BYTES]
    _believe(sum(sizes[n] for n in numeric))
    kept = loadmat(file, variable_names=numeric)
    return {n: kept[n] for n in numeric if kept[n].dtype.kind in "fiub"}


def _expect_matlab(file: Path) -> None:
    """Refuse a MAT-file of version 5 whose parts unpack into more than memory holds."""
    with file.open("rb") as opened:
        head = opened.read(128)
        order = "<" if head[126:128] == b"IM" else ">"
        if head[126:128] not in (b"IM", b"MI"):  # version 4 packs nothing
            return
        total = 0
        while len(tag := opened.read(8)) == 8:
            kind, size = struct.unpack(f"{order}2I", tag)
            begins = opened.tell()
            if kind == 15 and size * RATIO > SMALL:
                for piece in _inflated(opened, size):
                    total += piece
                    _believe(total)
            opened.seek(begins + size)


def _inflated(opened: Any, size: int) -> Iterator[int]:
    """Yield how many bytes come next out of so many packed ones."""
    engine = zlib.decompressobj()
    while size > 0 and (data := opened.read(min(size, PIECE))):
        size -= len(data)
        while data:
            yield len(engine.decompress(data, PIECE))
            data = engine.unconsumed_tail


def datasets_of(group: Any) -> Iterator[tuple[str, Any]]:
    """Yield the arrays of a group of HDF5, and nothing that lies in another file."""
    import h5py

    for name in group:
        if isinstance(group.get(name, getlink=True), h5py.HardLink):
            kept = group[name]
            if isinstance(kept, h5py.Dataset):
                yield name, kept


def expect_hdf5(group: Any) -> None:
    """Refuse arrays of other files, and objects that unpack beyond what is claimed."""
    for name, kept in datasets_of(group):
        if kept.is_virtual or kept.external:
            raise ValueError(f"{name!r} lies in another file")
        plain = math.prod(kept.chunks or ()) * kept.dtype.itemsize
        if plain > OBJECT_BYTES:
            raise ValueError(f"{name!r} claims objects of {plain} bytes")
        if kept.compression == "gzip":
            _expect_chunks(name, kept, plain)


def _expect_chunks(name: str, kept: Any, plain: int) -> None:
    large = []

    def note(info: Any) -> None:
        if info.size * RATIO > max(SMALL, 2 * plain):
            large.append((info.chunk_offset, info.filter_mask))

    kept.id.chunk_iter(note)
    for offset, mask in large:
        if not mask:  # else some filters were left out, as for what does not pack
            _, packed = kept.id.read_direct_chunk(offset)
            engine = zlib.decompressobj()
            # Fletcher's check sum, which may come before, takes four bytes.
            if len(engine.decompress(packed, plain + 5)) > plain + 4:
                msg = f"an object of {name!r} unpacks into more than {plain} bytes"
                raise ValueError(msg)


def _bytes(kept: Any) -> int:
    text = kept.dtype.kind == "O"
    return int(kept.size) * (TEXT_BYTES if text else int(kept.dtype.itemsize))


def expect_at_once(group: Any) -> None:
    """Refuse what a reader of netCDF reads at once where it claims more than can be."""
    expect_hdf5(group)
    for name, kept in datasets_of(group):
        if kept.ndim == 1 and (fault := memory_fault(_bytes(kept))):
            raise ValueError(f"{name!r} claims {fault}")


def _pt(file: Path) -> dict[str, Any]:
    import torch

    if zipfile.is_zipfile(file):
        _expect_zip(file)
    try:
        kept = torch.load(file, map_location="cpu", weights_only=True)
    except OSError:  # the system's words say what to do
        raise
    except Exception as error:  # torch's own words tell how to run what is in there
        msg = (
            "PyTorch finds no tensors in it, or more than tensors; save a tensor or a "
            "dict of tensors with torch.save"
        )
        raise TypeError(msg) from error
    if isinstance(kept, torch.Tensor):
        kept = {file.stem: kept}
    if not isinstance(kept, Mapping):
        msg = f"a tensor or a dict of tensors was expected, not {type(kept).__name__}"
        raise TypeError(msg)
    tensors = {str(k): v for k, v in kept.items() if isinstance(v, torch.Tensor)}
    # One number can be seen as a trillion, all of which would be copied.
    _believe(sum(t.numel() * t.element_size() for t in tensors.values()))
    return tensors


READERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".mat": _mat,
    ".pt": _pt,
    ".pth": _pt,
}
