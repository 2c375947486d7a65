"""Files of other tools that claim, or unpack into, more than memory holds."""

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch

from repsim.core import free_memory
from repsim.datasets import read_activations
from repsim.datasets.imports import RATIO, READERS
from repsim.datasets.store import untrusted
from repsim.studies import given_rdms

MUCH = 2**25
FREE = 2**20


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the system say that a mebibyte is free, and believe nothing beyond."""
    monkeypatch.setattr(untrusted, "available_memory", lambda: FREE)
    monkeypatch.setattr(untrusted, "SMALL", 2**10)
    monkeypatch.setattr("repsim.datasets.imports.SMALL", 2**10)


def _header(shape: tuple[int, ...], descr: str = "<f8") -> bytes:
    file = io.BytesIO()
    head = {"shape": shape, "fortran_order": False, "descr": descr}
    np.lib.format.write_array_header_1_0(file, head)  # type: ignore[arg-type]
    return file.getvalue()


def _zip_bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", _header((MUCH // 8,)) + bytes(MUCH))


def _matlab(element: bytes, packed: bool = True) -> bytes:
    head = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    data = zlib.compress(element) if packed else element
    return head + (struct.pack("<2I", 15, len(data)) + data if packed else data)


def _matrix(shape: tuple[int, int], name: bytes, numbers: bytes) -> bytes:
    parts = struct.pack("<4I", 6, 8, 6, 0)  # flags: double
    parts += struct.pack("<2I2i", 5, 8, *shape)
    parts += struct.pack("<2I", 1, len(name)) + name.ljust(8, b"\0")
    parts += struct.pack("<2I", 9, len(numbers)) + numbers
    return struct.pack("<2I", 14, len(parts)) + parts


def _hdf5(path: Path, **settings: Any) -> Any:
    h5py = pytest.importorskip("h5py")
    file = h5py.File(path, "w", userblock_size=512)
    file.create_dataset("a", **settings)
    return file


def _as_matlab(path: Path) -> None:
    with open(path, "r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")


def _hdf5_claim(path: Path) -> None:
    _hdf5(path, shape=(2**40,), dtype="f8", chunks=(2**10,)).close()
    _as_matlab(path)


def _hdf5_bomb(path: Path) -> None:
    with _hdf5(path, shape=(4,), dtype="f8", chunks=(4,), compression="gzip") as file:
        file["a"].id.write_direct_chunk((0,), zlib.compress(bytes(MUCH)))
    _as_matlab(path)


def _hdf5_large_objects(path: Path) -> None:
    _hdf5(path, shape=(2**29,), dtype="f8", chunks=(2**28 + 2**27,)).close()
    _as_matlab(path)


def _hdf5_elsewhere(path: Path) -> None:
    (path.parent / "secret").write_bytes(bytes(32))
    place = [(str(path.parent / "secret"), 0, 32)]
    _hdf5(path, shape=(4,), dtype="f8", external=place).close()
    _as_matlab(path)


FILES: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "npy, a claim": (
        ".npy",
        lambda p: p.write_bytes(_header((2**40,)) + bytes(64)),
        "greater than file size|mmap",
    ),
    "npy, a shape of nothing": (
        ".npy",
        lambda p: p.write_bytes(_header((2**40,), "|V0")),
        "no bytes each",
    ),
    "npy, truly large": (
        ".npy",
        lambda p: p.write_bytes(_header((MUCH // 8,)) + bytes(MUCH)),
        f"claims {MUCH} bytes, more than half",
    ),
    "npz, a bomb": (".npz", _zip_bomb, f"claims {MUCH + 128} bytes, more than half"),
    "mat, a claim": (
        ".mat",
        lambda p: p.write_bytes(_matlab(_matrix((2**15, 2**15), b"a", bytes(8)))),
        "claims 8589934592 bytes, more than half",
    ),
    "mat, a bomb": (
        ".mat",
        lambda p: p.write_bytes(_matlab(_matrix((1, 1), b"a", bytes(MUCH)))),
        r"claims \d+ bytes, more than half",
    ),
    "mat 7.3, a claim": (".mat", _hdf5_claim, "claims 8796093022208 bytes"),
    "mat 7.3, a bomb": (".mat", _hdf5_bomb, "'a' unpacks into more than 32 bytes"),
    "mat 7.3, large objects": (
        ".mat",
        _hdf5_large_objects,
        "'a' claims objects of 3221225472 bytes",
    ),
    "mat 7.3, elsewhere": (".mat", _hdf5_elsewhere, "'a' lies in another file"),
    "pt, one number a trillion times": (
        ".pt",
        lambda p: torch.save({"a": torch.zeros(1).expand(2**40)}, p),
        "claims 4398046511104 bytes, more than half",
    ),
    "pt, code": (
        ".pt",
        lambda p: torch.save(torch.nn.Linear(2, 2), p),
        "finds no tensors in it, or more than tensors; save a tensor or a dict",
    ),
    "pt, large": (
        ".pt",
        lambda p: torch.save(torch.zeros(2**18), p),
        r"claims \d+ bytes, more than half",
    ),
}


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("kind", FILES)
def test_a_file_is_refused_before_it_takes_the_memory(
    kind: str, tmp_path: Path, growth: Callable[[], Any]
) -> None:
    ending, write, message = FILES[kind]
    path = tmp_path / f"x{ending}"
    write(path)
    said = f"^Expected .*x{ending} to hold arrays of numbers, but .*({message})"
    with pytest.raises(ValueError, match=said):  # what is imported late is, now
        read_activations(path)
    with growth() as grown:
        with pytest.raises(ValueError, match=said):
            read_activations(path)
        assert grown() < MUCH


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("kind", ["npy, a claim", "mat, a bomb"])
def test_so_are_measured_dissimilarities(kind: str, tmp_path: Path) -> None:
    ending, write, message = FILES[kind]
    write(tmp_path / f"x{ending}")
    with pytest.raises(ValueError, match=f"^Expected .*({message})"):
        given_rdms.read(tmp_path / f"x{ending}")


@pytest.mark.usefixtures("little_memory")
def test_so_are_dissimilarities_in_netcdf(tmp_path: Path) -> None:
    _hdf5(tmp_path / "x.nc", shape=(2**40,), dtype="f8", chunks=(2**10,)).close()
    with pytest.raises(ValueError, match="x.nc to fit into memory, but 'a' claims 87"):
        given_rdms.read(tmp_path / "x.nc")
    file = _hdf5(tmp_path / "y.nc", shape=(2**20, 2**20), dtype="f8", chunks=(8, 8))
    for axis, name in enumerate("uv"):
        scale = file.create_dataset(name, (2**20,), "i1", chunks=(8,))
        scale.make_scale(name)
        file["a"].dims[axis].attach_scale(scale)
    file.close()
    with pytest.raises(ValueError, match="y.nc to fit into memory, but"):
        given_rdms.read(tmp_path / "y.nc")


def test_the_same_files_are_read_where_they_are_honest(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(6, 3))
    np.save(tmp_path / "a.npy", x)
    np.save(tmp_path / "b.npy", x.astype(">f4").T.copy().T)
    np.savez_compressed(tmp_path / "c.npz", c=x)
    scipy.io.savemat(tmp_path / "d.mat", {"d": x, "note": "x"}, do_compression=True)
    scipy.io.savemat(tmp_path / "e.mat", {"e": x}, format="4")
    torch.save({"f": torch.as_tensor(x)}, tmp_path / "f.pt")
    settings = {"compression": "gzip", "fletcher32": True, "chunks": (3, 2)}
    _hdf5(tmp_path / "g.mat", data=x.T, **settings).close()
    _as_matlab(tmp_path / "g.mat")
    for path in sorted(tmp_path.iterdir()):
        run = read_activations(path)
        (layer,) = run.data_vars.values()
        np.testing.assert_allclose(layer.values, x, rtol=1e-6)


def test_nothing_is_packed_tighter_than_the_ratio() -> None:
    data = bytes(2**22)
    assert len(data) / RATIO <= len(zlib.compress(data, 9)) < 1.01 * len(data) / RATIO


@pytest.mark.parametrize("ending", [*READERS])
def test_a_pipe_is_refused_and_not_opened(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(file: Path) -> dict[str, Any]:
        raise AssertionError(f"{file} is opened, which waits for a writer")

    monkeypatch.setitem(READERS, ending, opened)
    file = tmp_path / f"a{ending}"
    os.mkfifo(file)
    with pytest.raises(ValueError, match=f"a{ending} is a pipe or a device"):
        read_activations(file)


def test_memory_is_looked_at_when_a_file_is_read() -> None:
    assert untrusted.available_memory is free_memory.available_memory


def test_what_the_system_refuses_of_a_pt_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    torch.save(torch.zeros(2), tmp_path / "a.pt")
    monkeypatch.setattr(torch, "load", refuse)
    with pytest.raises(ValueError, match="cannot be read: .*Permission denied"):
        read_activations(tmp_path / "a.pt")
