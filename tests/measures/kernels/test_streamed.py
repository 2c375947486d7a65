"""Blocks that are read ahead, and what a device may hold."""

import pickle
import threading
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch.utils._python_dispatch import TorchDispatchMode

import repsim
from repsim.core import devices
from repsim.measures import kernels
from repsim.measures.kernels import centred, grams, streamed
from repsim.measures.kernels.centred import Centred
from repsim.measures.kernels.moments import Moments


def _run(n: int = 3000, layers: int = 4, units: int = 48) -> xr.Dataset:
    rng = np.random.default_rng(0)
    base = rng.normal(size=(n, 8))
    return xr.Dataset(
        {
            f"l{i}": (
                ("example", f"l{i}_unit"),
                np.tanh(base @ rng.normal(size=(8, units)) + 0.3 * i),
            )
            for i in range(layers)
        }
    )


# device_memory


def test_what_is_larger_than_the_device_goes_there_by_blocks() -> None:
    run = _run()
    whole = repsim.compare(run, precision="float64")
    parts = repsim.compare(run, precision="float64", device_memory=2**21)
    np.testing.assert_allclose(parts, whole, atol=1e-10)
    assert "streamed" not in whole.attrs
    assert parts.attrs["streamed"] == 1
    assert parts.attrs["device_memory"] == 2**21
    less = repsim.compare(run, precision="float64", device_memory=2**20)
    np.testing.assert_allclose(less, whole, atol=1e-10)


def test_blocks_and_sums_stay_within_what_the_device_may_hold() -> None:
    sources = [v.values for v in _run(20_000).data_vars.values()]
    with streamed.within(None, 2**24):
        assert streamed.budget() <= 2**23
        blocks = list(streamed.Blocks(sources, "float64", "cpu"))
        assert max(b.numel() * 8 for b in blocks) <= 2**21
        assert sum(map(len, blocks)) == 20_000
        assert not streamed.fits_device(sources)
    with streamed.within(None, 2**30):
        assert streamed.fits_device(sources)
    assert streamed.device_limit() is None
    assert streamed.fits_device(sources)


def test_what_a_device_may_hold_follows_from_what_is_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert streamed.on_device("cpu", None) is None
    monkeypatch.setattr(streamed, "free_on", lambda device: 80 * 10**9)
    assert streamed.on_device("cuda", None) == 2**35
    assert streamed.on_device("cuda", 2**21) == 2**21


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        (3, ValueError, "`device_memory` to be .*, but got 3"),
        (
            2.5e9,
            TypeError,
            "`device_memory` to be a whole number, but got 2500000000.0",
        ),
    ],
)
def test_a_budget_that_cannot_be(
    asked: int, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        repsim.compare(_run(10), device_memory=asked)


# blocks ahead


class _Watched:
    """A layer that says when it is read, and waits for what it is told to."""

    stored, chunk, dtype = True, 1, np.dtype(np.float64)

    def __init__(self, n: int = 1000, awaited: int = 256) -> None:
        self.awaited = awaited
        self.values = np.random.default_rng(0).normal(size=(n, 2))
        self.shape = self.values.shape
        self.read: list[tuple[int, str]] = []
        self.second = threading.Event()

    def __getitem__(self, rows: slice) -> np.ndarray:
        self.read.append((rows.start, threading.current_thread().name))
        if rows.start == self.awaited:
            self.second.set()
        if rows.start == 768 and len(self.values) == 1001:
            raise ValueError("Expected a file, but got none.")
        return self.values[rows]


@pytest.mark.parametrize("chunk", [1, 100, 600])
def test_what_is_read_at_once_does_not_grow_with_the_examples(
    monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(streamed, "ENOUGH", (2**12, 300))
    most = []
    for n in (5000, 50_000):
        layer = _Watched(n)
        layer.chunk = chunk
        how = (None, torch.float64, "float64", "cpu")
        moments = streamed.span_moments(*how, (0, n), [layer])
        starts = [start for start, _ in layer.read]
        most.append(int(np.diff([*starts, n]).max()))
        whole = Moments([2])
        whole.update(torch.from_numpy(layer.values))
        got, expected = (one.sums().hsic(True)[0] for one in (moments, whole))
        np.testing.assert_allclose(got, expected, rtol=1e-10)
    assert most[0] == most[1] <= 300 + chunk


def test_a_processor_takes_smaller_blocks_than_a_gpu() -> None:
    size, rows = streamed.ENOUGH
    assert streamed.block_rows(8, "cpu") == size // 8
    assert streamed.block_rows(size, "cpu") == streamed.BLOCK // size < rows
    assert streamed.block_rows(2 * size // rows, "cpu") == rows
    assert streamed.block_rows(8, "cuda") == streamed.BLOCK // 8


def test_rows_that_are_over_are_copied_only_where_they_hold_more() -> None:
    x = torch.zeros(100, 2)
    over = streamed._let_go(x[40:])
    assert over is not None and over.data_ptr() == x[40:].data_ptr()
    fewer = streamed._let_go(over[20:])
    assert fewer is not None and fewer.untyped_storage().nbytes() == fewer.nbytes
    assert len(fewer) == 40
    assert streamed._let_go(x[100:]) is None


def _readers() -> set[threading.Thread]:
    return {t for t in threading.enumerate() if t.name.startswith("repsim-reader")}


def test_the_next_block_is_read_while_the_last_one_is_multiplied() -> None:
    layer, before = _Watched(), _readers()
    edges = [0, 256, 512, 768, 1000]
    taken = []
    for block in streamed.Blocks([layer], "float64", "cpu", edges):
        # Only a thread can have read it: this one has not asked for it yet.
        assert layer.second.wait(60)
        taken.append(block.clone())
    joined = torch.cat(taken).numpy()
    np.testing.assert_allclose(joined, layer.values - layer.values[0], atol=1e-12)
    assert {name.rpartition("_")[0] for _, name in layer.read} == {"repsim-reader"}
    assert _readers() <= before


def test_the_next_chunk_is_read_while_the_last_one_is_multiplied() -> None:
    layer = _Watched(awaited=512)
    layer.chunk = 512
    edges = [0, 128, 256, 384, 512, 640, 768, 896, 1000]
    blocks = iter(streamed.Blocks([layer], "float64", "cpu", edges))
    joined = [next(blocks).clone()]
    # Three blocks of the first chunk are still to be multiplied.
    assert layer.second.wait(60)
    joined += [block.clone() for block in blocks]
    rows = torch.cat(joined).numpy()
    np.testing.assert_allclose(rows, layer.values - layer.values[0], atol=1e-12)
    assert [start for start, _ in layer.read] == [0, 512]


@pytest.mark.parametrize(
    ("far", "memory", "ahead"),
    [(True, 2**20, 4), (True, 2**13, 1), (False, 2**20, 1)],
)
def test_two_chunks_are_held_only_where_there_is_room(
    far: bool, memory: int, ahead: int
) -> None:
    layer = _Watched()
    layer.chunk = 1024  # of two units, 16 KiB
    blocks = streamed.Blocks([layer], "float32", "cpu", far=far)
    with streamed.within(memory):
        assert blocks._blocks_ahead([(0, 256), (256, 512)]) == ahead


def test_streams_give_the_same_bits_on_any_number_of_threads() -> None:
    sources = [v.values for v in _run(3000, layers=9, units=64).data_vars.values()]
    found, before = [], torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        try:
            for how in ((torch.float32, "float32"), (torch.float64, "float64")):
                asked = (None, *how, "cpu", (0, 3000), sources)
                found.append(streamed.span_moments(*asked).sums())
        finally:
            torch.set_num_threads(before)
    for other in (2, 4):
        for i in (0, 1):
            np.testing.assert_array_equal(found[i].off, found[i + other].off)
            np.testing.assert_array_equal(found[i].totals, found[i + other].totals)


def test_what_the_thread_raises_is_raised_here() -> None:
    layer, before = _Watched(1001), _readers()
    with pytest.raises(ValueError, match="Expected a file, but got none"):
        list(streamed.Blocks([layer], "float64", "cpu", [0, 256, 512, 768, 1001]))
    blocks = iter(streamed.Blocks([layer], "float64", "cpu", [0, 256, 512]))
    next(blocks)
    blocks.close()  # type: ignore[attr-defined]
    assert _readers() <= before


def test_several_devices_share_the_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    run = _run()
    one = repsim.compare(run, precision="float64", device_memory=2**21)
    monkeypatch.setattr(streamed, "devices_of", lambda device: 3 * ["cpu"])
    spans: list[tuple[int, int]] = []
    before = streamed.span_moments

    def noted(*args: object, **options: object) -> object:
        spans.append(args[4])  # type: ignore[arg-type]
        return before(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(streamed, "span_moments", noted)
    three = repsim.compare(run, precision="float64", device_memory=2**21)
    np.testing.assert_allclose(three, one, atol=1e-12)
    assert sorted(spans)[:3] == [(0, 1000), (1000, 2000), (2000, 3000)]


def test_sums_that_travel_do_not_grow_with_the_examples() -> None:
    sizes = []
    for n in (2000, 20_000):
        sources = [v.values for v in _run(n).data_vars.values()]
        asked = (None, torch.float32, "float32", "cpu", (0, n), sources)
        sizes.append(len(pickle.dumps(streamed.span_moments(*asked))))
    assert sizes[1] < 1.01 * sizes[0] < n * 4 * 48


# precision and synchronisation


def test_tf32_errs_less_than_it_may() -> None:
    exact = repsim.compare(_run(2000), precision="float64")
    tf32 = repsim.compare(_run(2000), precision="tf32", device="cpu")
    error = float(abs(tf32 - exact).max())
    assert 0 < error < 1.4e-5
    assert tf32.attrs["precision"] == "tf32"
    by_blocks = repsim.compare(_run(2000), precision="tf32", device_memory=2**20)
    assert 0 < float(abs(by_blocks - exact).max()) < 1.4e-5
    few = repsim.compare(_run(100), precision="tf32")
    np.testing.assert_allclose(few, repsim.compare(_run(100)), atol=1e-12)


@pytest.mark.parametrize("size", [7, 8, 100_001])
def test_the_middle_is_found_on_the_device(size: int) -> None:
    values = torch.rand(size, generator=torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(
        grams.middle(values, "cuda"), grams.middle(values, "cpu")
    )
    assert float(grams.middle(values).mean()) == pytest.approx(float(np.median(values)))


@pytest.mark.parametrize("kernel", ["linear", "rbf", "distance"])
@pytest.mark.parametrize("n", [300, 1500])
def test_numbers_come_back_once_and_not_once_a_pair_or_tile(
    kernel: str, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    xs = [v.values for v in _run(n, layers=12).data_vars.values()]
    fetched = []
    for name in ("cpu", "item", "__float__", "__bool__", "tolist"):
        before = getattr(torch.Tensor, name)

        def counted(tensor: torch.Tensor, _before=before) -> object:  # type: ignore[no-untyped-def]
            fetched.append(1)
            return _before(tensor)

        monkeypatch.setattr(torch.Tensor, name, counted)
    kernels.cka_pairs(xs, kernel=kernel, precision="float32")  # type: ignore[arg-type]
    # A few a layer (is it finite, is it constant), of 78 pairs and 6 tiles none.
    assert len(fetched) < 5 * len(xs)


class _Copies(TorchDispatchMode):
    """Counts what is made as large as a layer."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size, self.count = size, 0

    def __torch_dispatch__(  # type: ignore[no-untyped-def]
        self, func, types, args=(), kwargs=None
    ):
        before = {t.untyped_storage().data_ptr() for t in _tensors(args)}
        before |= {t.untyped_storage().data_ptr() for t in _tensors(kwargs or {})}
        result = func(*args, **(kwargs or {}))
        for made in _tensors([result]):
            new = made.untyped_storage().data_ptr() not in before
            self.count += new and made.numel() >= self._size
        return result


def _tensors(values: Any) -> list[torch.Tensor]:
    kept = values.values() if isinstance(values, dict) else values
    return [v for v in kept if isinstance(v, torch.Tensor)]


@pytest.mark.parametrize("precision", ["float64", "float32", "tf32", "bfloat16"])
@pytest.mark.parametrize("space", ["feature", "sample"])
def test_a_layer_is_copied_once_on_a_device(
    precision: str, space: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = np.float64 if precision == "float64" else np.float32
    x = np.random.default_rng(0).normal(size=(500, 300)).astype(kind) + 3
    expected = Centred.of([x], None, precision, "cpu", space)
    monkeypatch.setattr(centred, "by_blocks", lambda tensor: False)
    with _Copies(x.size) as copies:
        there = Centred.of([x], None, precision, "cpu", space)
    # As near as the roundings to 8 or 11 bits let two sums be.
    near = {"float64": 1e-13, "float32": 2e-6, "tf32": 2e-3, "bfloat16": 2e-2}
    for a, b in zip(there.layers, expected.layers, strict=True):
        np.testing.assert_allclose(a.double(), b.double(), atol=near[precision])
    np.testing.assert_allclose(there.norms, expected.norms, rtol=near[precision])
    if precision.startswith("float"):  # else there is also what is rounded
        assert copies.count == 1


def test_devices_are_those_of_the_machine() -> None:
    assert streamed.devices_of is devices.devices_of
