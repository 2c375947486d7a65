"""Objects that would unpack into more than their array holds are refused before."""

import gzip
import itertools
import json
import os
import pickle
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import xarray as xr
from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec, ZstdCodec

import repsim
from repsim.datasets.store.unpacking import (
    BLOCK,
    blosc_size,
    lz4_size,
    zstd_size,
)
from repsim.datasets.store.untrusted import OBJECT_BYTES, SMALL, array_fault
from repsim.datasets.store.zarr_format import Codec, checksum

ZSTD = b"\x28\xb5\x2f\xfd"
MUCH = 2**24
BIG = 4 * MUCH
"""What a bomb unpacks into: more than reading one may take."""

Fill = Callable[[], bytes]


def _zstd(data: bytes) -> bytes:
    return bytes(numcodecs.zstd.compress(data, 1))


def _unsized(blocks: int) -> bytes:
    """Return a frame that does not say its size: blocks that repeat a zero."""
    frame = ZSTD + b"\x00\x58"
    for place in range(blocks):
        head = int(place == blocks - 1) | 1 << 1 | BLOCK << 3
        frame += head.to_bytes(3, "little") + b"\0"
    return frame


# what objects say of themselves


@pytest.mark.parametrize("size", [0, 1, 5, 255, 256, 300, 65_791, 70_000, 300_000])
def test_an_object_says_how_long_it_is(size: int) -> None:
    data = os.urandom(size)
    assert zstd_size(memoryview(_zstd(data))) == (size, True)
    assert zstd_size(memoryview(_zstd(data + bytes(size)))) == (2 * size, True)
    assert lz4_size(memoryview(numcodecs.lz4.compress(data or b"0"))) == (
        max(size, 1),
        True,
    )
    blosc = Codec().encode(np.frombuffer(data, np.uint8))
    assert blosc_size(memoryview(blosc)) == (size, True)


def test_frames_are_added_up_as_numcodecs_unpacks_them() -> None:
    frames = [
        _zstd(os.urandom(1000) + bytes(5000)),
        b"\x50\x2a\x4d\x18\x04\0\0\0abcd",  # one that is to be skipped
        _zstd(bytes(7)),
    ]
    for order in itertools.permutations(frames):
        data = b"".join(order)
        length = len(numcodecs.zstd.decompress(data))
        assert zstd_size(memoryview(data)) == (length, True) == (6007, True)


def test_of_a_frame_that_does_not_say_its_size_there_is_a_bound() -> None:
    data = _unsized(3)
    assert zstd_size(memoryview(data)) == (3 * BLOCK, False)
    assert len(numcodecs.zstd.decompress(data)) == 3 * BLOCK
    endless = ZSTD + b"\x00\x58" + bytes(3 * (2**17 + 1))  # of empty blocks
    assert zstd_size(memoryview(endless)) == (OBJECT_BYTES + 1, False)


# what is honest opens

COMPRESSORS: dict[str, Any] = {
    "none": None,
    "zstd": [ZstdCodec()],
    "gzip": [GzipCodec()],
    "blosc": [BloscCodec()],
    "twice": [ZstdCodec(), GzipCodec(), Crc32cCodec()],
}


def _run() -> xr.Dataset:
    values = np.random.default_rng(0).normal(size=(6, 4))
    coords = {
        "example": np.arange(6),
        "label": ("example", np.array([*"uvwxyz"], dtype=object)),
    }
    return xr.Dataset({"a": (("example", "a_unit"), values)}, coords)


def _written(path: Path, compressors: Any, shards: bool = False) -> Path:
    layer: dict[str, Any] = {"compressors": compressors, "chunks": (3, 2)}
    if shards:
        layer["shards"] = (6, 4)
    encoding = {"a": layer, "label": {"compressors": compressors}}
    _run().to_zarr(path, consolidated=False, encoding=encoding)
    return path


@pytest.mark.parametrize("shards", [False, True])
@pytest.mark.parametrize("compressors", COMPRESSORS)
def test_what_is_honest_opens(compressors: str, shards: bool, tmp_path: Path) -> None:
    path = _written(tmp_path / "s.zarr", COMPRESSORS[compressors], shards)
    run = repsim.open_recording(path)
    xr.testing.assert_equal(
        run.isel(example=[1, 4]).load(), _run().isel(example=[1, 4])
    )
    xr.testing.assert_equal(pickle.loads(pickle.dumps(run)).load(), _run())


def test_frames_without_a_size_open(tmp_path: Path) -> None:
    path = _written(tmp_path / "s.zarr", [ZstdCodec()])
    raw = np.arange(6.0).tobytes()
    frame = ZSTD + b"\x00\x58" + (1 | len(raw) << 3).to_bytes(3, "little") + raw
    (path / "a/c/0/0").write_bytes(frame)
    read = repsim.open_recording(path)["a"].values[:3, :2]
    np.testing.assert_array_equal(read, np.arange(6.0).reshape(3, 2))


# bombs


def _texts(count: int) -> bytes:
    return count.to_bytes(4, "little") + bytes(24)


BOMBS: dict[str, tuple[str, Any, Fill, str]] = {
    "blosc": (
        "a",
        "blosc",
        lambda: bytes(numcodecs.Blosc().encode(bytes(BIG))),
        f"0 claims {BIG} bytes where 48 belong",
    ),
    "zstd": (
        "a",
        "zstd",
        lambda: _zstd(bytes(BIG)),
        f"0 claims {BIG} bytes where 48 belong",
    ),
    "zstd, the second frame": (
        "a",
        "zstd",
        lambda: _zstd(bytes(48)) + _zstd(bytes(BIG)),
        f"0 claims {BIG + 48} bytes where 48 belong",
    ),
    "zstd, no size": (
        "a",
        "zstd",
        lambda: _unsized(1000),
        "0 claims 131072000 bytes, more than an object may have",
    ),
    "gzip": ("a", "gzip", lambda: gzip.compress(bytes(BIG)), "0 unpacks into more"),
    "gzip, many": (
        "a",
        "gzip",
        lambda: 9 * gzip.compress(bytes(BIG)),
        "0 unpacks into more than 48 bytes",
    ),
    "packed twice": (
        "a",
        "twice",
        lambda: gzip.compress(_zstd(bytes(BIG))),
        "0 (unpacks into more than|claims)",
    ),
    "packed twice, inside": (
        "a",
        "twice",
        lambda: gzip.compress(_zstd(bytes(BIG))[:4000]),
        f"0 claims {BIG} bytes where 48 belong",
    ),
    "text, a count": (
        "label",
        "zstd",
        lambda: _zstd(_texts(2**27)),
        "0 claims 134217728 texts where 6 belong",
    ),
    "text, a count in gzip": (
        "label",
        "gzip",
        lambda: gzip.compress(_texts(2**27)),
        "0 claims 134217728 texts where 6 belong",
    ),
    "text, a count alone": (
        "label",
        "none",
        lambda: _texts(2**27),
        "0 claims 134217728 texts where 6 belong",
    ),
    "text, nothing": ("label", "zstd", lambda: _zstd(b"ab"), "0 claims 0 texts"),
    "text, gzip": (
        "label",
        "gzip",
        lambda: gzip.compress(bytes(SMALL + 1)),
        f"0 unpacks into more than {SMALL} bytes",
    ),
    "text, a petabyte": (
        "label",
        "zstd",
        # One flag for a content size of eight bytes, the window, the size.
        lambda: ZSTD + b"\xc0\x50" + (2**50).to_bytes(8, "little") + bytes(8),
        "0 claims 1125899906842624 bytes, more than an object may have",
    ),
}


Refused = Callable[..., None]


@pytest.fixture
def refused(growth: Callable[[], Any]) -> Refused:
    """Return what holds that a recording is refused, and before it takes memory."""

    def check(path: Path, message: str, most: int = MUCH) -> None:
        with growth() as grown:
            with pytest.raises(ValueError, match=f"^Expected .*{message}"):
                repsim.open_recording(path).load()
            assert grown() < most

    return check


@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_is_refused_before_it_is_unpacked(
    kind: str, tmp_path: Path, refused: Refused
) -> None:
    array, compressors, fill, message = BOMBS[kind]
    path = _written(tmp_path / "s.zarr", COMPRESSORS[compressors])
    repsim.open_recording(path).load()  # what is imported late counts as memory, too
    data = fill()
    if compressors == "twice":
        data += checksum(data)
    place = "c/0/0" if array == "a" else "c/0"
    (path / array / place).write_bytes(data)
    # Text that does not say its size is unpacked, up to 64 MiB of it.
    refused(path, message, most=3 * SMALL if kind == "text, gzip" else MUCH)


def _codec(name: str, **settings: Any) -> dict[str, Any]:
    return {"name": name, "configuration": settings}


@pytest.mark.parametrize(
    ("codec", "data", "message"),
    [
        ("zlib", zlib.compress(bytes(BIG)), "0 unpacks into more than 48 bytes"),
        ("bz2", numcodecs.BZ2().encode(bytes(BIG)), "0 unpacks into more than 48"),
        ("lz4", numcodecs.LZ4().encode(bytes(BIG)), f"0 claims {BIG} bytes where 48"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.filterwarnings("ignore:Numcodecs codecs:UserWarning")
def test_codecs_of_numcodecs_are_held_to_the_same(
    codec: str, data: bytes, message: str, tmp_path: Path, refused: Refused
) -> None:
    path = _written(tmp_path / "s.zarr", None)
    document = path / "a/zarr.json"
    described = json.loads(document.read_text())
    described["codecs"].append(_codec(f"numcodecs.{codec}"))
    document.write_text(json.dumps(described))
    whole = np.arange(6.0)
    packed = numcodecs.get_codec({"id": codec}).encode(whole.tobytes())
    for place in itertools.product("01", "01"):
        (path / "a/c" / "/".join(place)).write_bytes(packed)
    read = repsim.open_recording(path)["a"].values[3:, 2:]
    np.testing.assert_array_equal(read, whole.reshape(3, 2))
    (path / "a/c/1/1").write_bytes(data)
    refused(path, message.replace("0 ", "1 ", 1))


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("where", ["end", "start"])
def test_a_bomb_in_a_shard_is_refused(where: str, whole: bool, tmp_path: Path) -> None:
    path = _written(tmp_path / "s.zarr", [ZstdCodec()], shards=True)
    document = path / "a/zarr.json"
    described = json.loads(document.read_text())
    described["codecs"][0]["configuration"]["index_location"] = where
    document.write_text(json.dumps(described))

    def write(packed: bytes, start: int) -> None:
        entries = np.array([[start, len(packed)]] * 4, "<u8").tobytes()
        index = entries + checksum(entries)
        shard = packed + index if where == "end" else index + packed
        (path / "a/c/0/0").write_bytes(shard)

    first = 0 if where == "end" else 4 * 16 + 4
    honest = np.arange(6.0).reshape(3, 2)
    write(_zstd(honest.tobytes()), first)
    rows = slice(None) if whole else slice(0, 3)
    read = repsim.open_recording(path)["a"].isel(example=rows, a_unit=slice(0, 2))
    np.testing.assert_array_equal(read.values[:3], honest)
    write(_zstd(bytes(BIG)), first)
    with pytest.raises(ValueError, match=f"0 claims {BIG} bytes where 48 belong"):
        repsim.open_recording(path)["a"].isel(example=rows).load()
    if where == "start":
        write(_zstd(honest.tobytes()), 0)
        with pytest.raises(ValueError, match="0 has an object in its index"):
            repsim.open_recording(path)["a"].isel(example=rows).load()
    (path / "a/c/0/0").write_bytes(b"short")
    with pytest.raises(ValueError, match="0 has an index of 5 bytes where 68 belong"):
        repsim.open_recording(path)["a"].isel(example=rows).load()


@pytest.mark.skipif(os.name != "posix", reason="devices are files on POSIX only")
def test_what_has_no_end_is_not_read(tmp_path: Path) -> None:
    path = _written(tmp_path / "s.zarr", None)
    run = repsim.open_recording(path)
    (path / "a/c/0/0").unlink()
    (path / "a/c/0/0").symlink_to("/dev/zero")
    with pytest.raises(ValueError, match="0 is a pipe or a device, no file"):
        run.load()
    (path / "a/zarr.json").unlink()
    os.mkfifo(path / "a/zarr.json")
    with pytest.raises(ValueError, match="zarr.json is a pipe or a device, no file"):
        repsim.open_recording(path)


# documents


def test_objects_that_nobody_wrote_are_not_listed(tmp_path: Path) -> None:
    path = _written(tmp_path / "s.zarr", None)
    document = path / "a/zarr.json"
    described = json.loads(document.read_text())
    described["shape"] = [6, 2**40]
    document.write_text(json.dumps(described))
    run = repsim.open_recording(path)
    message = "it claims 1099511627776 objects, of which at most 8 lie there"
    with pytest.raises(ValueError, match=message):
        run["a"].load()
    filled = run["a"].isel(a_unit=slice(2**30, 2**30 + 3)).values
    # Older versions of xarray write a fill value of 0.
    assert np.isnan(filled).all() or not filled.any()


def test_an_index_of_objects_that_nobody_wrote_is_refused(tmp_path: Path) -> None:
    path = _written(tmp_path / "s.zarr", None)
    document = path / "example/zarr.json"
    described = json.loads(document.read_text())
    described["shape"] = [2**20]
    described["chunk_grid"]["configuration"]["chunk_shape"] = [1]
    document.write_text(json.dumps(described))
    with pytest.raises(ValueError, match="claims 1048576 objects, of which at most"):
        repsim.open_recording(path)


@pytest.mark.parametrize(
    ("codecs", "message"),
    [
        ([_codec("numcodecs.pickle")], "the codec 'numcodecs.pickle', none of blosc"),
        ([_codec("numcodecs.pcodec")], "the codec 'numcodecs.pcodec', none of blosc"),
        (
            [_codec("numcodecs.astype", encode_dtype="f4", decode_dtype="S99999999")],
            "the codec {'name': 'numcodecs.astype'",
        ),
        (
            [_codec("sharding_indexed", chunk_shape=[3, 2]), _codec("gzip")],
            "shards along with other codecs",
        ),
        (
            [_codec("sharding_indexed", chunk_shape=[3, 2], index_codecs=["gzip"])],
            r"the codecs \['gzip'\] for the index of shards",
        ),
    ],
)
def test_codecs_that_may_grow_are_refused(
    codecs: list[Any], message: str, tmp_path: Path
) -> None:
    path = _written(tmp_path / "s.zarr", None)
    document = path / "a/zarr.json"
    described = json.loads(document.read_text())
    assert array_fault(described) is None
    described["codecs"] = codecs
    document.write_text(json.dumps(described))
    with pytest.raises(ValueError, match=f"a/zarr.json to describe .*{message}"):
        repsim.open_recording(path)


def test_filters_of_numbers_open(tmp_path: Path) -> None:
    codec = _codec("numcodecs.delta", dtype="<f8", astype=None)
    document = json.loads(
        (_written(tmp_path / "s.zarr", None) / "a/zarr.json").read_text()
    )
    document["codecs"].insert(0, codec)
    assert array_fault(document) is None
