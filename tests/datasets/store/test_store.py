"""The store: its layout, what it survives, and what it refuses."""

import errno
import importlib.util
import json
import os
import resource
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
import zarr
from torch import nn

import repsim
from repsim.datasets.exchange import to_dataframe
from repsim.datasets.store import (
    compaction,
    is_complete,
    objects,
    remove_recording,
    worker,
)
from repsim.datasets.store import zarr_format as layout
from repsim.datasets.store.places import locate
from repsim.datasets.store.zarr_format import ensure_group

X = torch.linspace(-1, 1, 60).reshape(12, 5)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "s.zarr"


def _record(store: Path, updates: int = 9, **options: Any) -> xr.Dataset:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 4), nn.Tanh())
    with repsim.Recorder(
        net, X, labels=range(12), every=1, store=store, **options
    ) as recorder:
        for _ in range(updates):
            net[0].weight.data += 0.1
            recorder.step()
    return recorder.dataset()


def _broken_off(store: Path, updates: int = 9, **options: Any) -> xr.Dataset:
    """Leave a store as a process does that died after its last commit."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 4), nn.Tanh())
    recorder = repsim.Recorder(
        net, X, labels=range(12), every=1, store=store, **options
    )
    recorder.__enter__()
    for _ in range(updates):
        net[0].weight.data += 0.1
        recorder.step()
    run = recorder.dataset().load()
    recorder.close(complete=False)
    return run


def _files(folder: Path) -> list[str]:
    found = (p for p in folder.rglob("*") if p.is_file())
    return sorted(str(p.relative_to(folder)) for p in found)


def _edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


# layout


def test_while_it_grows_there_is_one_object_a_step_and_layer(store: Path) -> None:
    _broken_off(store, 2)
    assert [f for f in _files(store / "0")] == [
        "c.0.0.0",
        "c.1.0.0",
        "c.2.0.0",
        "zarr.json",
    ]
    plain = xr.open_zarr(store, consolidated=False)
    assert plain["step"].values.tolist()[:4] == [0, 1, 2, -1]
    assert np.isnan(plain["0"][3:]).all()
    assert "label" in plain.coords


def test_closed_in_order_it_is_a_handful_of_shards(store: Path) -> None:
    run = _record(store, 200)
    assert _files(store / "0") == ["c/0/0/0", "zarr.json"]
    plain = xr.open_zarr(store, consolidated=False)
    xr.testing.assert_equal(plain.load(), run.load())
    array = zarr.open_array(str(store / "0"), mode="r")
    assert array.shape == (201, 12, 4)
    assert array.chunks == (1, 12, 4)
    assert array.shards == (201, 12, 4)


def test_shards_and_objects_stay_within_their_sizes(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "CHUNK_BYTES", 5 * 16)  # five examples of four units
    monkeypatch.setattr(compaction, "SHARD_BYTES", 4 + 7 * (5 * 16 + 32))
    before = _broken_off(store, 9)
    assert len(list((store / "0").glob("c.*"))) == 30  # 12 examples in threes of five
    _record(store, 0, resume=True, start=100)
    shards = [p for p in (store / "0" / "c").rglob("*") if p.is_file()]
    assert len(shards) == 6  # two steps a shard
    assert all(p.stat().st_size <= compaction.SHARD_BYTES for p in shards)
    run = repsim.open_recording(store)
    xr.testing.assert_equal(run.isel(step=slice(10)).load(), before)


def test_one_step_may_need_several_shards(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "CHUNK_BYTES", 16)
    monkeypatch.setattr(compaction, "SHARD_BYTES", 4 + 5 * (16 + 32))
    run = _record(store, 3)
    assert len([p for p in (store / "0" / "c").rglob("*") if p.is_file()]) == 4 * 3
    memory = _memory(3)
    xr.testing.assert_equal(run.load(), memory)


def _memory(updates: int) -> xr.Dataset:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 4), nn.Tanh())
    with repsim.Recorder(net, X, labels=range(12), every=1) as recorder:
        for _ in range(updates):
            net[0].weight.data += 0.1
            recorder.step()
    return recorder.dataset()


def test_a_recording_follows_the_store_while_it_is_packed(store: Path) -> None:
    net = nn.Sequential(nn.Linear(5, 4))
    with repsim.Recorder(net, X, every=1, store=store) as recorder:
        for _ in range(5):
            recorder.step()
        before = recorder.dataset()
    assert not np.isnan(before["0"]).any()
    xr.testing.assert_equal(before.load(), recorder.dataset().load())


def test_reading_is_lazy_uncached_and_dask_if_asked(store: Path) -> None:
    run = _record(store)
    assert not run["0"].variable._in_memory
    assert run["0"].values.shape == (10, 12, 4)
    assert not run["0"].variable._in_memory
    chunked = repsim.open_recording(store, chunks={})
    assert chunked["0"].chunks is not None
    xr.testing.assert_equal(chunked.load(), run.load())
    picked = run["0"][[1, 4], :, np.array([2, 0])]
    np.testing.assert_array_equal(picked, run["0"].values[[1, 4]][:, :, [2, 0]])


def test_memory_of_many_marks_is_kept(store: Path) -> None:
    run = _record(store, 1030)
    assert run["step"].values.tolist() == list(range(1031))
    assert _files(store / "step") == ["c.0", "c.1", "zarr.json"]
    run = _record(store, 1, resume=True, start=3)
    assert run["step"].values.tolist() == [0, 1, 2, 3, 4]
    assert _files(store / "step") == ["c.0", "zarr.json"]


# a process that dies


def test_a_step_without_its_mark_is_not_shown_and_is_replaced(store: Path) -> None:
    before = _broken_off(store, 4)
    objects.write_marks(store / "step", [0, 1, 2])  # died before the marks of 3 and 4
    (store / "0" / "c.4.0.0").write_bytes(b"half")
    run = repsim.open_recording(store)
    xr.testing.assert_identical(run.load(), before.isel(step=slice(3)))
    assert run.attrs["complete"] == 0
    assert not is_complete(store)
    again = _record(store, 1, resume=True, start=3)
    assert again["step"].values.tolist() == [0, 1, 2, 3, 4]
    assert not np.isnan(again["0"]).any()
    assert is_complete(store)


def test_unequal_lengths_are_mended(store: Path) -> None:
    before = _broken_off(store, 4)
    _edit(store / "1" / "zarr.json", lambda d: d.update(shape=[128, 12, 4]))
    run = repsim.open_recording(store)
    xr.testing.assert_identical(run.load(), before)
    _edit(store / "1" / "zarr.json", lambda d: d.update(shape=[3, 12, 4]))
    run = repsim.open_recording(store)
    xr.testing.assert_identical(run.load(), before.isel(step=slice(3)))
    again = _record(store, 1, resume=True, start=2)
    assert again["step"].values.tolist() == [0, 1, 2, 3]
    xr.open_zarr(store, consolidated=False).load()


@pytest.mark.parametrize("moment", range(1, 8))
def test_dying_at_any_moment_of_packing_loses_nothing(
    store: Path, moment: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _broken_off(store, 4)
    left = [moment]
    write = compaction.write_document

    def dying(folder: Path, document: dict[str, Any]) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        write(folder, document)

    monkeypatch.setattr(compaction, "write_document", dying)
    try:
        compaction.compact(store)
    except KeyboardInterrupt:
        pass
    monkeypatch.undo()
    run = repsim.open_recording(store)
    xr.testing.assert_identical(run.load(), before)
    again = _record(store, 1, resume=True, start=10)
    xr.testing.assert_equal(again.isel(step=slice(5)).load(), before)
    assert _files(store / "0") == ["c/0/0/0", "zarr.json"]


def test_killed_at_random_moments() -> None:
    """The short version of `python tests/datasets/store/kill_writer.py --kills 200`."""
    path = Path(__file__).with_name("kill_writer.py")
    spec = importlib.util.spec_from_file_location("kill_writer", path)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    found = script.run_apart(6, seed=1)
    assert found.total() - found["too late"] == 6


def test_leftovers_of_a_first_step_are_cleared_when_asked(store: Path) -> None:
    (store / "0").mkdir(parents=True)
    (store / "0" / "c.0.0.0").write_bytes(b"half")
    with pytest.raises(FileNotFoundError, match="a recorder died here before its"):
        repsim.open_recording(store)
    with pytest.raises(FileExistsError, match="is occupied"):
        _record(store)
    assert _record(store, 2, resume=True).sizes["step"] == 3


# what is refused, and damage


def test_foreign_folders_are_neither_overwritten_nor_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "notes").write_text("precious")
    for options in ({}, {"resume": True}, {"resume": True, "start": 0}):
        with pytest.raises(FileExistsError, match="is occupied"):
            _record(folder, **options)
    with pytest.raises(ValueError, match="found other files; not deleted"):
        remove_recording(folder)
    assert (folder / "deep" / "notes").read_text() == "precious"
    xr.Dataset({"a": ("x", [1.0])}).to_zarr(tmp_path / "z", consolidated=False)
    with pytest.raises(FileExistsError, match="is occupied"):
        _record(tmp_path / "z", resume=True)
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(FileExistsError, match="is occupied"):
        _record(file)


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".a", "__a", "step", "zarr.json"])
def test_a_name_that_leaves_the_store_is_refused(name: str, tmp_path: Path) -> None:
    run = xr.Dataset({name: (("example", "u"), np.ones((2, 3)))})
    if name == "step":
        run = xr.Dataset({"a": (("example", "u"), np.ones((2, 3)))}).rename(a="step")
    with pytest.raises(
        ValueError, match="Expected a layer's name that can be a folder"
    ):
        repsim.save_recording(run, tmp_path / "deep" / "s.zarr")
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


@pytest.mark.parametrize("group", ["../x", "a/../../b", "./a", "a\\b", "__x"])
def test_a_group_that_leaves_the_store_is_refused(group: str, store: Path) -> None:
    with pytest.raises(ValueError, match="Expected `group` to name a place"):
        _record(store, group=group)
    assert not store.parent.joinpath("x").exists()


def test_a_module_named_like_a_path_is_refused(store: Path) -> None:
    net = nn.Sequential()
    net.add_module("/etc/x", nn.Linear(5, 2))
    with pytest.raises(ValueError, match=r"but got '/etc/x' .* rename the module"):
        repsim.record(net, X, store=store)
    assert not store.exists()
    assert repsim.layers(repsim.record(net, X)) == ["/etc/x"]


def test_metadata_cut_short_is_named(store: Path) -> None:
    _record(store)
    text = (store / "1" / "zarr.json").read_text()
    (store / "1" / "zarr.json").write_text(text[: len(text) // 2])
    with pytest.raises(ValueError, match=r"1/zarr.json to be a zarr v3 document.*cut"):
        repsim.open_recording(store)
    (store / "1" / "zarr.json").write_text('{"node_type": "array"}')
    with pytest.raises(ValueError, match=r"1/zarr.json to describe an array"):
        repsim.open_recording(store)
    (store / "zarr.json").write_text("")
    with pytest.raises(ValueError, match=r"s.zarr/zarr.json to be a zarr v3 document"):
        repsim.open_recording(store)


@pytest.mark.parametrize("packed", [False, True])
def test_an_object_cut_short_is_named_when_it_is_read(
    packed: bool, store: Path
) -> None:
    before = (_record if packed else _broken_off)(store, 4).load()
    victim = store / "0" / ("c/0/0/0" if packed else "c.2.0.0")
    victim.write_bytes(victim.read_bytes()[:-20])
    run = repsim.open_recording(store)
    with pytest.raises(ValueError, match=r"objects of .*s.zarr/0 to be readable"):
        run["0"].load()
    np.testing.assert_array_equal(run["1"], before["1"])
    if not packed:
        np.testing.assert_array_equal(run["0"][:2], before["0"][:2])


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("state", ["empty", "missing"])
def test_an_object_that_was_lost_is_no_nan(
    packed: bool, state: str, store: Path
) -> None:
    before = (_record if packed else _broken_off)(store, 4).load()
    victim = store / "0" / ("c/0/0/0" if packed else "c.2.0.0")
    victim.unlink()
    if state == "empty":
        victim.touch()
    run = repsim.open_recording(store)
    for lost in (run["0"], run["0"][2], run["0"][[0, 2], 3], run["0"][::-2]):
        with pytest.raises(ValueError, match=f"0 to be readable.*0.0 is {state}.*cut"):
            lost.load()
    np.testing.assert_array_equal(run["1"], before["1"])
    if packed:
        return
    np.testing.assert_array_equal(run["0"][[0, 1, 3]], before["0"][[0, 1, 3]])
    if state == "missing":  # packing would make it look as if it never was
        with pytest.warns(UserWarning, match=r"No such file .*0/c.2.0.0.*; 6 complete"):
            _record(store, 0, resume=True, start=10)
    else:
        _record(store, 0, resume=True, start=10)
    with pytest.raises(ValueError, match="0 to be readable"):
        repsim.open_recording(store)["0"].load()


@pytest.mark.parametrize("length", [0, 10, -3])
def test_a_recording_whose_shard_was_cut_short_is_not_resumed(
    length: int, store: Path
) -> None:
    _record(store, 4)
    victim = store / "0" / "c" / "0" / "0" / "0"
    data = victim.read_bytes()
    victim.write_bytes(data[:length])
    with pytest.raises(ValueError, match="0/c/0/0/0 to be a whole shard, .* cut short"):
        _record(store, 1, resume=True, start=2)
    victim.write_bytes(data)
    run = _record(store, 1, resume=True, start=2)
    assert run["step"].values.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("name", ["label", "example"])
@pytest.mark.parametrize("labels", [range(12), list("abcdefghijkl")])
def test_a_coordinate_that_was_lost_is_named(
    name: str, labels: Any, store: Path
) -> None:
    repsim.record(NET, X, labels=labels, store=store)
    victim = next(f for f in (store / name).rglob("*0") if f.is_file())
    data = bytearray(victim.read_bytes())
    data[-9] ^= 1
    victim.write_bytes(bytes(data))
    with pytest.raises(ValueError, match=f"s.zarr/{name} to be readable"):
        repsim.open_recording(store)
    victim.unlink()
    with pytest.raises(ValueError, match=f"s.zarr/{name} to be readable.*missing"):
        repsim.open_recording(store)
    (store / name / "zarr.json").unlink()
    with pytest.raises(ValueError, match=f"to hold '{name}', one value for each"):
        repsim.open_recording(store)


def test_labels_that_say_nothing_come_back(store: Path) -> None:
    run = repsim.record(NET, X, labels=[""] * 12, store=store)
    assert run["label"].values.tolist() == [""] * 12


def test_commit_marks_that_were_lost_are_told(store: Path) -> None:
    _record(store, 4)
    (store / "step" / "c.0").rename(store / "step" / "c.0x")
    with pytest.raises(ValueError, match="Expected 5 steps in .*complete, but .*0: a"):
        repsim.open_recording(store)


@pytest.mark.parametrize("place", ["", "1"])
@pytest.mark.parametrize("value", [None, 0, [1]])
def test_attributes_that_are_none_are_told(place: str, value: Any, store: Path) -> None:
    _record(store, 2)
    _edit(store / place / "zarr.json", lambda d: d.update(attributes=value))
    with pytest.raises(ValueError, match=r"zarr.json to be .*attributes are no mapp"):
        repsim.open_recording(store)
    _edit(store / place / "zarr.json", lambda d: d.update(attributes={}))


def test_documents_that_do_not_fit_together_are_told(store: Path) -> None:
    _record(store, 2)
    _edit(store / "zarr.json", lambda d: d["attributes"].update(coordinates="step"))
    with pytest.raises(ValueError, match="its zarr.json files do not fit together"):
        repsim.open_recording(store)


def test_nothing_outside_the_store_is_read(store: Path) -> None:
    _record(store.parent / "other.zarr", 2)
    _record(store, 2)
    other = "../other.zarr/label"
    _edit(store / "zarr.json", lambda d: d["attributes"].update(coordinates=other))
    with pytest.raises(ValueError, match=f"to hold '{other}'"):
        repsim.open_recording(store)


def test_a_layer_that_is_gone_is_named(store: Path) -> None:
    _record(store)
    shutil.rmtree(store / "1")
    with pytest.raises(
        ValueError, match="layer '1' is listed, but not there: .*repair"
    ):
        repsim.open_recording(store)


@pytest.mark.parametrize("array", ["0", "step", "example", "label"])
def test_a_shape_of_a_trillion_is_refused_or_mended(array: str, store: Path) -> None:
    before = _record(store).load()
    document = store / array / "zarr.json"
    axis = 0 if array in ("step", "example", "label") else 1

    def huge(d: dict[str, Any]) -> None:
        d["shape"][axis] = 10**12

    _edit(document, huge)
    if array == "step":
        xr.testing.assert_identical(repsim.open_recording(store).load(), before)
        return
    with pytest.raises(ValueError, match=r"zarr.json claims .*1000000000000"):
        repsim.open_recording(store)


def test_an_array_of_a_recording_is_no_recording(store: Path) -> None:
    _record(store)
    with pytest.raises(ValueError, match="found a single array of one"):
        repsim.open_recording(store / "0")
    with pytest.raises(FileNotFoundError, match="Expected a recording at"):
        repsim.open_recording(store / "nothing")


def test_a_full_disk_is_one_clear_error_and_loses_no_complete_step(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = nn.Sequential(nn.Linear(5, 4))
    write = Path.write_bytes

    def full(self: Path, data: Any) -> int:
        if self.name.startswith("c.3."):
            raise OSError(28, "No space left on device")
        return write(self, data)

    with pytest.warns(
        UserWarning,
        match=r"training goes on: .*to write .*No space left.*3 complete .*=2 goes on",
    ) as told:
        with repsim.Recorder(net, X, every=1, store=store) as recorder:
            monkeypatch.setattr(Path, "write_bytes", full)
            for _ in range(20):
                recorder.step()
    assert len(told) == 1  # said once
    monkeypatch.undo()
    assert "No space left" in str(recorder.failure)
    run = recorder.dataset()
    assert run["step"].values.tolist() == [0, 1, 2]
    assert run.attrs["complete"] == 0
    with repsim.Recorder(
        net, X, every=1, store=store, resume=True, start=2
    ) as recorder:
        recorder.step()
    assert recorder.dataset()["step"].values.tolist() == [0, 1, 2, 3]


def test_a_refusal_by_the_system_is_told(store: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    net = nn.Sequential(nn.Linear(5, 2000))
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, hard))  # a real refusal
    try:
        with pytest.raises(OSError, match=r"Expected to write .*File too large"):
            repsim.Recorder(net, torch.randn(100, 5), store=store).start()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_the_users_exception_comes_first(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, data: Any) -> int:
        raise OSError(28, "No space left on device")

    net = nn.Sequential(nn.Linear(5, 4))
    with (
        pytest.raises(RuntimeError, match="mine"),
        pytest.warns(UserWarning, match="No space left"),
        repsim.Recorder(net, X, every=1, store=store) as recorder,
    ):
        monkeypatch.setattr(Path, "write_bytes", full)
        recorder.step()
        raise RuntimeError("mine")


def _refuse(number: int, only: Callable[[Path], bool] = bool) -> Any:
    """Return an `open` for binary writing that the system refuses for some files."""

    def opened(self: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        if "w" in mode and only(self):
            raise OSError(number, os.strerror(number), str(self))
        return _open(self, mode, *args, **options)

    return opened


_open = Path.open


def test_where_nothing_was_complete_nothing_is_left(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, run = nn.Sequential(nn.Linear(5, 4)), _memory(2)
    monkeypatch.setattr(Path, "open", _refuse(errno.ENOSPC))
    for attempt in (
        lambda: repsim.record(net, X, store=store),
        lambda: repsim.save_recording(run, store),
        lambda: repsim.Recorder(net, X, store=store).__enter__().close(),
    ):
        with pytest.raises(OSError, match=r"No space left.*nothing of it was complete"):
            attempt()
        assert not store.exists()
    with pytest.raises(OSError, match=r"s.zarr/bp/0, .*No space.*nothing was written"):
        repsim.record(net, X, store=store, group="bp/0")


def test_a_disk_that_fills_up_while_packing_loses_nothing(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shard(path: Path) -> bool:
        return path.parent.parent.parent.name == "c" and path.parts[-5] == "1"

    monkeypatch.setattr(Path, "open", _refuse(errno.ENOSPC, shard))
    with pytest.warns(UserWarning, match=r"No space left.*5 complete steps are kept"):
        _record(store, 4)
    monkeypatch.undo()
    run = repsim.open_recording(store)
    assert run.attrs["complete"] == 0
    assert not (store / "1" / "c").exists()
    xr.testing.assert_equal(run.load(), _memory(4))
    run = _record(store, 1, resume=True, start=4)
    assert run["step"].values.tolist() == [0, 1, 2, 3, 4, 5]
    xr.testing.assert_equal(run.isel(step=slice(4)).load(), _memory(3))


def test_a_disk_that_is_full_when_resuming_is_told(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _record(store, 4).load()
    monkeypatch.setattr(Path, "open", _refuse(errno.ENOSPC, lambda p: "c.1" in p.name))
    with pytest.raises(OSError, match=r"No space left.*steps before 4 are kept"):
        _record(store, 1, resume=True, start=4)
    monkeypatch.undo()
    run = repsim.open_recording(store)
    xr.testing.assert_equal(run.load(), before.isel(step=slice(4)))
    again = _record(store, 0, resume=True, start=10).isel(step=slice(4))
    xr.testing.assert_equal(again.load(), before.isel(step=slice(4)))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_one_clear_error(tmp_path: Path) -> None:
    _record(tmp_path / "old.zarr", 2)
    for folder in (tmp_path, *(p for p in tmp_path.rglob("*") if p.is_dir())):
        folder.chmod(0o500)
    try:
        with pytest.raises(PermissionError, match=r"s.zarr.*nothing was written there"):
            _record(tmp_path / "s.zarr")
        with pytest.raises(PermissionError, match=r"old.zarr.*before 2 are kept"):
            _record(tmp_path / "old.zarr", resume=True, start=2)
        assert repsim.open_recording(tmp_path / "old.zarr").sizes["step"] == 3
    finally:
        for folder in (tmp_path, *(p for p in tmp_path.rglob("*") if p.is_dir())):
            folder.chmod(0o700)


@pytest.mark.parametrize("group", [None, "bp/0"])
def test_a_folder_that_may_not_be_written_is_told_to_root_too(
    group: str | None, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Any, *_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(
        PermissionError, match=r"to write .*s.zarr.*Permission denied.*nothing was"
    ):
        _record(store, group=group)


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match=r"s.zarr.*Make room or choose"):
        _record(tmp_path / "file" / "s.zarr")


# studies


def _study(store: Path) -> None:
    for place in ("bp/0", "bp/1", "sg/0"):
        _record(store, group=place)


def test_a_study_opens_with_its_training_records(store: Path) -> None:
    _study(store)
    log = xr.Dataset({"loss": ("step", np.arange(30.0))}, {"step": np.arange(-10, 20)})
    log.to_zarr(store, group="bp/0/training", mode="a", consolidated=False)
    inputs = xr.Dataset(
        {"input": (("example", "feature"), X.numpy())}, {"example": np.arange(12)}
    )
    inputs.to_zarr(store, mode="a", consolidated=False)
    study = repsim.open_study(store)
    assert sorted(repsim.datasets.recordings.networks(study)) == [
        ("bp", "0"),
        ("bp", "1"),
        ("sg", "0"),
    ]
    training = study["bp/0/training"]
    assert training["step"].values.tolist() == list(range(10))
    assert training["loss"].values.tolist() == list(range(10, 20))
    np.testing.assert_array_equal(study["input"], X)
    assert study["sg/0"].attrs["complete"] == 1
    xr.testing.assert_equal(
        repsim.open_recording(f"{store}/bp/1").load(),
        study["bp/1"].to_dataset().load(),
    )


def test_a_study_shows_the_incomplete_too_and_names_the_damaged(store: Path) -> None:
    _study(store)
    _broken_off(store, 3, group="sg/1")
    (store / "sg" / "2").mkdir()  # died before its first step
    study = repsim.open_study(store)
    assert study["sg/1"].attrs["complete"] == 0
    assert study["sg/1"].sizes["step"] == 4
    assert "2" not in study["sg"].children
    shutil.rmtree(store / "sg" / "0" / "1")
    with pytest.raises(ValueError, match=r"s.zarr/sg/0 to be a recording.*layer '1'"):
        repsim.open_study(store)


def test_what_is_no_study_is_refused(store: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="Expected a study at"):
        repsim.open_study(store)
    _record(store)
    with pytest.raises(ValueError, match="a single recording opens with"):
        repsim.open_study(store)


def test_a_study_folder_leads_to_its_runs(tmp_path: Path) -> None:
    _record(tmp_path / "runs.zarr", group="bp/0")
    assert list(repsim.open_study(tmp_path).children) == ["bp"]


def test_other_inputs_at_the_root_are_named(store: Path) -> None:
    _record(store, group="bp/0")
    inputs = xr.Dataset({"input": ("example", [1.0])}, {"example": [7]})
    inputs.to_zarr(store, mode="a", consolidated=False)
    with pytest.raises(ValueError, match="a group differs from the one above it"):
        repsim.open_study(store)


def test_complete_recordings_are_told_and_removed(store: Path) -> None:
    _record(store, group="bp/0")
    _broken_off(store, 3, group="bp/1")
    assert is_complete(store, "bp/0")
    assert not is_complete(store, "bp/1")
    assert not is_complete(store, "bp/2")
    remove_recording(store, "bp/1")
    remove_recording(store, "bp/2")
    _record(store, group="bp/1")
    assert is_complete(f"{store}/bp/1")


def test_many_recorders_share_one_store(store: Path) -> None:
    begin = threading.Barrier(6)

    def grouped(place: int) -> None:
        begin.wait(30)
        repsim.record(NET, X, store=store, group=f"deep/c{place % 2}/{place}")

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(grouped, range(6)))
    assert len(list(store.glob("deep/c*/*/zarr.json"))) == 6
    assert len(list(zarr.open_group(str(store), mode="r").members(max_depth=2))) == 9


NET = nn.Sequential(nn.Linear(5, 2))


def test_a_parents_own_attributes_survive(store: Path) -> None:
    ensure_group(store)
    _edit(store / "zarr.json", lambda d: d["attributes"].update(mine=1))
    _record(store, group="bp/0")
    assert json.loads((store / "zarr.json").read_text())["attributes"] == {"mine": 1}


def test_places_are_found_in_paths(tmp_path: Path) -> None:
    assert locate(tmp_path / "s.zarr", "bp/0") == (
        tmp_path / "s.zarr/bp/0",
        tmp_path / "s.zarr",
    )
    assert locate(tmp_path / "s.zarr/bp/0") == locate(tmp_path / "s.zarr", "bp/0")
    assert locate(tmp_path / "plain")[1] == tmp_path / "plain"


# saving


def test_a_saved_recording_comes_back(store: Path) -> None:
    run = _memory(5)
    repsim.save_recording(run, store / "bp" / "0")
    xr.testing.assert_identical(repsim.open_recording(store / "bp/0").load(), run)
    with pytest.raises(FileExistsError, match="is occupied"):
        repsim.save_recording(run, store / "bp/0")


@pytest.mark.parametrize(
    "kind", ["float16", "float32", "float64", "complex64", "int32"]
)
@pytest.mark.parametrize("labels", [["é", "b", "cc"], [True, False, True], [0.5, 1, 2]])
def test_a_recording_made_by_hand_comes_back(
    kind: str, labels: list[Any], store: Path
) -> None:
    run = xr.Dataset(
        {
            "b": (("example", "b_unit"), np.arange(6).reshape(3, 2).astype(kind)),
            "a": (("example", "a_y", "a_x"), np.ones((3, 2, 2), kind)),
        },
        {"label": ("example", labels), "group": ("example", [1, 1, 2])},
        {"seed": 3},
    )
    repsim.save_recording(run, store)
    back = repsim.open_recording(store)
    xr.testing.assert_equal(back.load().drop_vars("example"), run)
    assert repsim.layers(back) == ["b", "a"]
    assert back["a"].dtype == kind
    assert back.attrs["seed"] == 3
    xr.testing.assert_equal(
        xr.open_zarr(store, consolidated=False).load().drop_vars("example"), run
    )


def test_saving_says_what_is_no_recording(store: Path) -> None:
    with pytest.raises(ValueError, match="Expected a recording with layers"):
        repsim.save_recording(xr.Dataset({"a": ("x", [1.0])}), store)
    two = xr.Dataset({"a": (("example", "u"), np.ones((2, 3))), "b": ("x", [1.0])})
    with pytest.raises(ValueError, match="every variable to lie on `example`, but b"):
        repsim.save_recording(two, store)
    with pytest.raises(TypeError, match="Expected a recording"):
        repsim.save_recording(3, store)  # type: ignore[arg-type]
    bad = xr.Dataset({"a": (("u", "step", "example"), np.ones((2, 3, 4)))})
    with pytest.raises(ValueError, match=r"run.transpose\('step', 'example', ...\)"):
        repsim.save_recording(bad.assign_coords(step=[0, 1, 2]), store)
    assert not store.exists()


def test_what_would_be_lost_in_saving_is_refused(store: Path) -> None:
    run = _memory(2)
    for name, place in (("epoch", "step"), ("unit", "0_unit")):
        more = run.assign_coords({name: (place, np.arange(run.sizes[place]))})
        with pytest.raises(ValueError, match=f"'{name}' lies on .{place}. and would"):
            repsim.save_recording(more, store)
        with pytest.raises(ValueError, match="and would be lost"):
            to_dataframe(more)
        path = store.with_name(f"{name}.nc")
        repsim.save_recording(more, path)
        assert name in repsim.open_recording(path).coords
    for name in ("../y", "a b"):
        more = run.assign_coords({name: ("example", np.arange(12))})
        with pytest.raises(
            ValueError, match="Expected a coordinate's name that can be"
        ):
            repsim.save_recording(more, store)
    with pytest.raises(ValueError, match="zarr store along with `level` or `keepbits`"):
        repsim.save_recording(run, store.with_name("run.nc"), keepbits=7)
    with pytest.raises(TypeError, match="Expected the attribute 'f' to be text"):
        repsim.save_recording(run.assign_attrs(f=len), store)
    assert not store.exists()
    nested = run.assign_attrs(nested={"a": [1]}, rate=np.float32(2), on=True)
    for place in (store, store.with_name("nested.nc")):
        repsim.save_recording(nested, place)
        attrs = repsim.open_recording(place).attrs
        assert (attrs["nested"], attrs["rate"], attrs["on"]) == ('{"a": [1]}', 2.0, 1)


@pytest.mark.parametrize(
    "labels", [[None] * 12, np.array(["2020-01-01"] * 12, "M8[D]"), [b"a"] * 12]
)
def test_labels_that_cannot_be_kept_are_refused(labels: Any, store: Path) -> None:
    for place in (None, store):
        with pytest.raises(
            TypeError, match="Expected `labels` to hold numbers or text"
        ):
            repsim.record(NET, X, labels=labels, store=place)
    assert not store.exists()
    run = _memory(1).assign_coords(kind=("example", labels))
    with pytest.raises(TypeError, match="Expected `kind` to hold numbers or text"):
        repsim.save_recording(run, store)


def test_other_groups_and_files_are_no_recordings(store: Path, tmp_path: Path) -> None:
    other = xr.Dataset({"a": ("time", [1.0, 2.0])})
    other.to_zarr(store, consolidated=False)
    with pytest.raises(ValueError, match="no variable has an `example` dim"):
        repsim.open_recording(store)
    _memory(1).to_zarr(tmp_path / "v2.zarr", zarr_format=2)
    with pytest.raises(FileNotFoundError, match="it is zarr v2: open it with xarray"):
        repsim.open_recording(tmp_path / "v2.zarr")
    path = tmp_path / "run.nc"
    repsim.save_recording(_memory(1), path)
    for length in (0, path.stat().st_size // 2):
        path.write_bytes(path.read_bytes()[:length] or b"")
        with pytest.raises(
            ValueError, match=r"run.nc to be a netCDF-4 file.*cut short"
        ):
            repsim.open_recording(path)
    with pytest.raises(FileNotFoundError, match="Expected a recording at"):
        repsim.open_recording(tmp_path / "none.nc")


def test_a_copy_of_a_broken_off_recording_says_so(store: Path, tmp_path: Path) -> None:
    _broken_off(store)
    repsim.save_recording(repsim.open_recording(store), tmp_path / "copy.zarr")
    copy = repsim.open_recording(tmp_path / "copy.zarr")
    assert copy.attrs["complete"] == 0
    xr.testing.assert_identical(copy.load(), repsim.open_recording(store).load())


# the background


def test_the_worker_keeps_order_bounds_its_backlog_and_stops_after_an_error() -> None:
    done: list[int] = []
    gate = threading.Event()
    line = worker.Worker(backlog=10)
    line.submit(lambda: gate.wait(5) and None, 8)
    blocked = threading.Thread(target=lambda: line.submit(lambda: done.append(1), 8))
    blocked.start()
    blocked.join(0.05)
    assert blocked.is_alive()  # more than ten bytes would wait
    gate.set()
    blocked.join(5)
    line.submit(lambda: done.append(2), 100)  # alone, anything fits
    line.flush()
    assert done == [1, 2]

    def fail() -> None:
        raise OSError("lost")

    line.submit(fail)
    line.submit(lambda: done.append(3))
    with pytest.raises(OSError, match="lost"):
        line.flush()
    with pytest.raises(OSError, match="lost"):
        line.submit(lambda: done.append(4))
    line.close()
    assert done == [1, 2]


@pytest.mark.parametrize("shape", ["normal", "rectified"])
def test_bfloat16_takes_no_more_room_than_its_bits(shape: str) -> None:
    """NumPy has no bfloat16, and zeros behind it shuffle and pack into nothing."""
    values = torch.randn(256, 512, generator=torch.Generator().manual_seed(0))
    half = (values.relu() if shape == "rectified" else values).bfloat16()
    as_stored = len(layout.Codec().encode(half.float().numpy()))
    as_bits = len(layout.Codec().encode(half.view(torch.int16).numpy()))
    assert as_stored < 1.01 * as_bits < 2 * half.numel()


def test_one_killed_while_its_document_was_put_in_place_is_cleared(
    tmp_path: Path,
) -> None:
    run = repsim.record(nn.Sequential(nn.Linear(5, 2)), X)
    path = tmp_path / "run.zarr"
    repsim.save_recording(run, path)
    (path / "zarr.json").rename(path / ".zarr.json.4711.1")
    remove_recording(path)
    assert not path.exists()
    repsim.save_recording(run, path)
    found = repsim.open_recording(path)
    xr.testing.assert_equal(found["0"].load(), run["0"])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / ".zarr.jsonx").touch()
    with pytest.raises(ValueError, match="but found other files"):
        remove_recording(tmp_path / "other")


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ("runs.zarr/plan/0", "found none; did you mean {}/runs.zarr/plain/0?"),
        ("run.zarr/plain/0", "found none; did you mean {}/runs.zarr/plain/0?"),
        ("runs.zarr/plain/9", "found none; {}/runs.zarr/plain holds 0, 1."),
        ("nowhere.zarr", "found none."),
        ("nowhere/plain/0", "found none."),
        ("runs.zarr/plain/0/fc/x", "found none."),
    ],
)
def test_a_wrong_path_is_told_what_lies_beside_it(
    asked: str, answer: str, tmp_path: Path
) -> None:
    run = repsim.from_arrays({"fc": np.eye(3)})
    for seed in "01":
        repsim.save_recording(run, tmp_path / "runs.zarr" / "plain" / seed)
    with pytest.raises(FileNotFoundError) as caught:
        repsim.open_recording(tmp_path / asked)
    assert str(caught.value).endswith(answer.format(tmp_path))
