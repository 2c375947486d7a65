"""Several writers of one recording: here threads, in tests/capture processes."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import repsim
from repsim.datasets.store.agreement import Apart, share_of
from repsim.datasets.store.memory import MemorySink
from repsim.datasets.store.resumption import resumed_writer
from repsim.datasets.store.together import Together, opened_together
from repsim.datasets.store.writer import Writer


class _Hall:
    """Where the ranks of a test meet."""

    def __init__(self, world: int) -> None:
        self.world = world
        self.changed = threading.Condition()
        self.said: dict[tuple[int, int], str] = {}
        self.written = dict.fromkeys(range(world), 0)
        self.losers: set[int] = set()
        self.someone_died = False


class _Rank:
    """One rank, as repsim.capture.distributed.StoreRanks is one."""

    def __init__(self, hall: _Hall, rank: int) -> None:
        self.rank, self.world, self._hall, self._round = rank, hall.world, hall, 0

    def die(self) -> None:
        """Let nobody wait for this rank, as time would in the end."""
        with self._hall.changed:
            self._hall.someone_died = True
            self._hall.changed.notify_all()

    def _wait(self, ready: Callable[[], bool], what: str) -> None:
        with self._hall.changed:
            self._hall.changed.wait_for(lambda: ready() or self._hall.someone_died)
            if not ready():
                raise Apart(what)

    def exchange(self, said: str, *, opening: bool = False) -> list[str]:
        keys = [(self._round, rank) for rank in range(self.world)]
        self.say(said)
        self._wait(lambda: all(k in self._hall.said for k in keys), "one is silent")
        return [self._hall.said[key] for key in keys]

    def say(self, said: str) -> None:
        with self._hall.changed:
            self._hall.said[self._round, self.rank] = said
            self._hall.changed.notify_all()
        self._round += 1

    def wrote(self) -> None:
        with self._hall.changed:
            self._hall.written[self.rank] += 1
            self._hall.changed.notify_all()

    def lost(self) -> None:
        with self._hall.changed:
            self._hall.losers.add(self.rank)
            self._hall.changed.notify_all()

    def await_written(self, moments: int) -> None:
        def ready() -> bool:
            if self._hall.losers:
                raise Apart("one has lost")
            return min(self._hall.written.values()) >= moments

        self._wait(ready, "one did not write")


def _opened(
    rank: _Rank, path: Path, rows: int | None, *, start: int | None = None, **same: Any
) -> Together:
    def first(make: Callable[..., Together]) -> Writer:
        return resumed_writer(
            path,
            path,
            start=start,
            due=lambda _: True,
            choices=["wide", "deep"],
            attrs={"repsim_schema": 1},
            examples=rows,
            make=make,
        )

    return opened_together(rank, path, first, rows=rows, same={"inputs": 1, **same})


def _layers(rows: int, step: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(step)
    return {
        "wide": rng.standard_normal((rows, 3)).astype(np.float32),
        "deep": rng.standard_normal((rows, 2, 2)),
    }


DIMS = {"wide": ("example", "wide_unit"), "deep": ("example", "deep_y", "deep_x")}


def _moment(sink: Any, step: int, rows: int, span: slice, batch: int) -> None:
    """Record one moment of all the examples that this rank passes."""
    labels = np.array([f"l{i % 3}" for i in range(rows)], object)
    mask = np.arange(rows * 2).reshape(rows, 2) % 3 > 0
    sink.begin(step)
    for start in range(span.start, span.stop, batch):
        part = slice(start, min(start + batch, span.stop))
        for name, values in _layers(rows, step).items():
            sink.put(name, values[part], DIMS[name], {})
    coords = {"example": np.arange(rows)[span], "label": labels[span]}
    coords["mask"] = mask[span]
    sink.commit(["wide", "deep"], coords, {"repsim_schema": 1})


def _on_all(world: int, work: Callable[[_Rank], None]) -> Any:
    """Run what each rank does in a thread of its own; return the errors by rank."""
    hall = _Hall(world)
    errors: dict[int, BaseException] = {}

    def run(rank: int) -> None:
        member = _Rank(hall, rank)
        try:
            work(member)
        except BaseException as error:
            errors[rank] = error
            member.die()

    threads = [threading.Thread(target=run, args=(r,)) for r in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def _alone(rows: int, steps: list[int]) -> xr.Dataset:
    sink = MemorySink(rows, {})
    for step in steps:
        _moment(sink, step, rows, slice(0, rows), rows)
    return sink.dataset()


@settings(max_examples=15)
@given(
    world=st.integers(1, 4),
    rows=st.integers(1, 40),
    batch=st.integers(1, 7),
    divided=st.booleans(),
)
def test_ranks_write_what_one_process_would(
    world: int,
    rows: int,
    batch: int,
    divided: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.mktemp("together") / "run.zarr"
    passed = []

    def work(rank: _Rank) -> None:
        writer = _opened(rank, path, rows if divided else None)
        span = writer.span or slice(0, rows)
        passed.append(span.stop - span.start)
        for step in (0, 3):
            _moment(writer, step, rows, span, batch)
        writer.finish()

    assert _on_all(world, work) == {}
    run = repsim.open_recording(path)
    expected = _alone(rows, [0, 3])
    for name in ("wide", "deep", "label", "mask", "example", "step"):
        np.testing.assert_array_equal(run[name].values, expected[name].values)
    assert run.attrs["complete"] == 1
    assert len(set(passed)) == 1  # equal passes: shards are gathered by all
    if divided and world > 1 and rows >= 2 * world:
        assert passed[0] <= 1.25 * -(-rows // world)


@given(rows=st.integers(1, 10**7), world=st.integers(1, 64))
def test_shares_cover_the_examples_and_are_even(rows: int, world: int) -> None:
    share = share_of(rows, world)
    assert share * world >= rows
    assert share <= rows
    even = -(-rows // world)
    assert share < even + max(1, even / 8)
    assert share_of(rows, world, [rows]) == rows  # one object of all is not cut


def test_a_dead_rank_leaves_the_moments_that_all_completed(tmp_path: Path) -> None:
    path, rows = tmp_path / "run.zarr", 6

    def work(rank: _Rank) -> None:
        writer = _opened(rank, path, rows)
        assert writer.span is not None
        _moment(writer, 0, rows, writer.span, 2)
        if rank.rank:
            writer.flush()
            rank.die()
            return
        try:
            _moment(writer, 1, rows, writer.span, 2)
        finally:
            writer.close()

    errors = _on_all(2, work)
    assert list(errors) == [0]
    assert str(errors[0]) == (
        f"Expected all ranks to write the recording at {path} together, but one is "
        "silent; 1 complete steps are kept, and resume=True, start=0 goes on."
    )
    run = repsim.open_recording(path)
    assert run["step"].values.tolist() == [0]
    assert run.attrs["complete"] == 0
    np.testing.assert_array_equal(run["wide"], _alone(rows, [0])["wide"])

    def again(rank: _Rank) -> None:  # three processes go on with objects of two
        writer = _opened(rank, path, rows, start=1)
        _moment(writer, 1, rows, writer.span or slice(0, rows), 2)
        writer.finish()

    assert _on_all(3, again) == {}
    run = repsim.open_recording(path)
    np.testing.assert_array_equal(run["deep"], _alone(rows, [0, 1])["deep"])


def test_a_moment_without_the_objects_of_one_rank_is_not_shown(tmp_path: Path) -> None:
    path, rows = tmp_path / "run.zarr", 6

    def work(rank: _Rank) -> None:
        writer = _opened(rank, path, rows)
        assert writer.span is not None
        _moment(writer, 0, rows, writer.span, 2)
        writer.flush()
        if rank.rank:  # it says what it has, and dies before that is written
            writer._worker.submit = lambda *_: None  # type: ignore[method-assign]
        _moment(writer, 1, rows, writer.span, 2)
        if rank.rank:
            rank.die()
        else:
            writer.finish()

    errors = _on_all(2, work)
    assert "one did not write; 1 complete steps are kept" in str(errors[0])
    assert repsim.open_recording(path)["step"].values.tolist() == [0]


def test_a_full_disk_of_one_rank_ends_the_recording_on_all(tmp_path: Path) -> None:
    path, rows = tmp_path / "run.zarr", 6

    def work(rank: _Rank) -> None:
        writer = _opened(rank, path, rows)
        assert writer.span is not None
        _moment(writer, 0, rows, writer.span, 2)
        writer.flush()

        def refuse(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        if rank.rank:
            writer._worker.submit = refuse  # type: ignore[method-assign]
            writer._submit(lambda: None)
        _moment(writer, 1, rows, writer.span, 2)

    errors = _on_all(2, work)
    assert "rank 1 cannot ([Errno 28] No space left" in str(errors[0])
    assert "the system refused (No space left" in str(errors[1])


def test_a_pass_that_fails_on_one_rank_leaves_a_gap_on_all(tmp_path: Path) -> None:
    path, rows = tmp_path / "run.zarr", 9
    said = []

    def work(rank: _Rank) -> None:
        writer = _opened(rank, path, rows)
        assert writer.span is not None
        for step in (0, 1, 2):
            if (rank.rank, step) == (1, 1):
                writer.begin(step)
                writer.abandon()
                continue
            try:
                _moment(writer, step, rows, writer.span, 2)
            except ValueError as error:
                said.append(str(error))
                writer.abandon()
        writer.finish()

    assert _on_all(2, work) == {}
    assert said == [
        "Expected rank 1 to record its examples, but its pass failed; a warning or an "
        "error there says why."
    ]
    run = repsim.open_recording(path)
    assert run["step"].values.tolist() == [0, 2]
    np.testing.assert_array_equal(run["wide"], _alone(rows, [0, 2])["wide"])


def test_a_layer_that_one_rank_lacks_is_missing_there_alone(tmp_path: Path) -> None:
    path, rows = tmp_path / "run.zarr", 8

    def work(rank: _Rank) -> None:
        writer = _opened(rank, path, rows)
        assert writer.span is not None
        for step in (0, 1):
            writer.begin(step)
            values = _layers(rows, step)
            writer.put("wide", values["wide"][writer.span], DIMS["wide"], {})
            if rank.rank == 1 or step:
                writer.put("deep", values["deep"][writer.span], DIMS["deep"], {})
            if rank.rank == 1:
                writer.mark("wide", {"not_finite_since": step})
            if (rank.rank, step) == (1, 1):
                writer.drop("deep")
            coords = {"example": np.arange(rows)[writer.span]}
            writer.commit(["wide", "deep"], coords, {"repsim_schema": 1})
        writer.finish()

    assert _on_all(2, work) == {}
    run = repsim.open_recording(path)
    assert run["deep"].attrs["partial"] == 1
    assert run["wide"].attrs == {"not_finite_since": 0}
    expected = _alone(rows, [0, 1])["deep"].values
    expected[0, :4] = expected[1, 4:] = np.nan
    np.testing.assert_array_equal(run["deep"], expected)


class Unseen(type(Path())):  # type: ignore[misc]
    """A folder of another machine."""

    def is_dir(self) -> bool:
        return False


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("inputs", "same inputs on every rank, as each records a part, but rank 1 has"),
        ("store", "same store on every rank, as each records a part, but rank 1 has"),
        ("shared", "every rank to see the folder {path}, but rank 1 does not; give a"),
        ("step", "the same number of updates, but got 0, 1; call step() on every rank"),
        ("tail", "layer 'wide' to give [3] <f4 for each example on every rank, but on"),
        ("taken", "but {path} is occupied; choose another, or continue it"),
    ],
)
def test_what_ranks_must_agree_on(wrong: str, message: str, tmp_path: Path) -> None:
    path, rows = tmp_path / "run.zarr", 4

    def first(make: Callable[..., Together]) -> Writer:
        raise FileExistsError(
            f"Expected …, but {path} is occupied; choose another, or continue it"
        )

    def work(rank: _Rank) -> None:
        if wrong == "taken":
            opened_together(rank, path, first, rows=rows, same={})
        other = {"inputs": 2} if wrong == "inputs" and rank.rank else {}
        mine = path.with_name("b.zarr") if wrong == "store" and rank.rank else path
        if wrong == "shared" and rank.rank:
            mine = Unseen(path)
        writer = _opened(rank, mine, rows, **other)
        try:
            writer.begin(rank.rank if wrong == "step" else 0)
            width = 4 if wrong == "tail" and rank.rank else 3
            values = np.zeros((2, width), np.float32)
            writer.put("wide", values, DIMS["wide"], {})
            writer.commit(["wide"], {"example": np.arange(2)}, {"repsim_schema": 1})
        finally:
            writer.close()

    errors = _on_all(2, work)
    for rank in (0, 1):
        assert message.format(path=path) in str(errors[rank])
        kind = FileExistsError if wrong == "taken" else ValueError
        assert isinstance(errors[rank], kind)
