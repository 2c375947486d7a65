"""Studies on the workers of a dask scheduler."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

import repsim
from repsim import run_study
from repsim.cli import main
from repsim.datasets.recordings import networks
from repsim.studies.completeness import is_complete
from repsim.studies.workers import claimed, on_scheduler

distributed = pytest.importorskip("distributed")
pytest.importorskip("fcntl")


def _same(a: xr.DataTree, b: xr.DataTree) -> None:
    first, second = networks(a), networks(b)
    assert list(first) == list(second)
    for key, run in first.items():
        xr.testing.assert_equal(run.load(), second[key].load())


def test_a_study_on_workers_is_the_study_here(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny: dict[str, Any],
    alone: xr.DataTree,
) -> None:
    monkeypatch.chdir(tmp_path)
    with distributed.LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        processes=False,
        dashboard_address=":0",
        worker_dashboard_address=None,
    ) as local:
        there = run_study(out="there", scheduler=local.scheduler_address, **tiny)
        _same(there, alone)
        assert not (tmp_path / "there" / ".claims").exists()
        # Nothing is left to do, so nobody is asked.
        run_study(out="there", scheduler="tcp://127.0.0.1:9", **tiny)


def test_a_scheduler_that_is_not_there_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("repsim.core.cluster.CONNECT", "1s")
    with (
        pytest.raises(ValueError, match="Expected a dask scheduler at 'tcp://127"),
        on_scheduler("tcp://127.0.0.1:9"),
    ):
        pass
    words = ["study", "--scheduler", "tcp://127.0.0.1:9", "--out", str(tmp_path / "s")]
    monkeypatch.setattr(sys, "argv", ["repsim", *words])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert "Expected a dask scheduler" in capsys.readouterr().err


class Late:
    """A way to a scheduler on which every message takes its time, or all are lost."""

    def __init__(self, address: str, seconds: float) -> None:
        host, _, port = address.removeprefix("tcp://").rpartition(":")
        self._there, self._seconds = (host, int(port)), seconds
        self._door = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.address = f"tcp://127.0.0.1:{self._door.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near = self._door.accept()[0]
                self._open.append(near)
                if self._seconds < float("inf"):
                    far = socket.create_connection(self._there)
                    self._open.append(far)
                    for ends in ((near, far), (far, near)):
                        threading.Thread(
                            target=self._carry, args=ends, daemon=True
                        ).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(2**16):
                time.sleep(self._seconds)
                target.sendall(data)
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End it."""
        for one in (self._door, *self._open):
            one.close()


@pytest.fixture
def local() -> Iterator[Any]:
    """Return a cluster in this process."""
    with distributed.LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        processes=False,
        protocol="tcp",
        host="127.0.0.1",
        dashboard_address=":0",
        worker_dashboard_address=None,
    ) as cluster:
        yield cluster


def test_a_scheduler_that_answers_late_gives_the_same(
    local: Any, tmp_path: Path, tiny: dict[str, Any], alone: xr.DataTree
) -> None:
    slow = Late(local.scheduler_address, 0.05)
    there = run_study(out=tmp_path / "there", scheduler=slow.address, **tiny)
    _same(there, alone)
    expected = repsim.compare(networks(alone)["bp", "0"])
    with distributed.Client(slow.address, set_as_default=True):
        cells = repsim.compare(networks(there)["bp", "0"])
    xr.testing.assert_allclose(cells, expected, rtol=1e-10, atol=1e-10)
    slow.close()


def test_a_scheduler_that_never_answers_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny: dict[str, Any]
) -> None:
    monkeypatch.setattr("repsim.core.cluster.CONNECT", "1s")
    silent = Late("tcp://127.0.0.1:9", float("inf"))
    with pytest.raises(ValueError, match="Expected a dask .* but got no answer; start"):
        run_study(out=tmp_path / "s", scheduler=silent.address, **tiny)
    silent.close()
    # Nothing was trained, and the folder is free for the next.
    assert not is_complete(tmp_path / "s" / "runs.zarr", "bp", 0)


def test_two_workers_never_write_one_cell(tmp_path: Path) -> None:
    """The second one waits until the first is done, or has died."""
    order = []

    def first() -> None:
        with claimed(tmp_path, "bp/0"):
            inside.set()
            time.sleep(0.2)
            order.append("first")

    inside = threading.Event()
    thread = threading.Thread(target=first)
    thread.start()
    inside.wait(10)
    with claimed(tmp_path, "bp/1"):
        order.append("other cell")
    with claimed(tmp_path, "bp/0"):
        order.append("second")
    thread.join()
    assert order == ["other cell", "first", "second"]


def test_a_cell_whose_worker_died_is_free(tmp_path: Path) -> None:
    code = (
        "import time\nfrom pathlib import Path\n"
        "from repsim.studies.workers import claimed\n"
        f"with claimed(Path({str(tmp_path)!r}), 'bp/0'):\n"
        "    print('in', flush=True)\n    time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-P", "-c", code], stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        child.send_signal(signal.SIGKILL)
    with claimed(tmp_path, "bp/0"):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2, 4])
def test_processes_one_of_them_killed(
    number: int, tmp_path: Path, tiny: dict[str, Any]
) -> None:
    options = {**tiny, "seeds": 3, "steps": 60}
    here = run_study(out=tmp_path / "here", jobs=1, **options)
    with distributed.LocalCluster(
        n_workers=number, threads_per_worker=1, dashboard_address=":0"
    ) as local:

        def kill() -> None:
            while not any(
                is_complete(tmp_path / "there" / "runs.zarr", c, 0)
                for c in ("bp", "sg")
            ):
                time.sleep(0.05)
            os.kill(next(iter(local.workers.values())).pid, signal.SIGKILL)

        killing = threading.Thread(target=kill, daemon=True)
        killing.start()
        there = run_study(
            out=tmp_path / "there", scheduler=local.scheduler_address, **options
        )
        killing.join(60)
        _same(there, here)


@pytest.fixture
def apart(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Return the address and the process of a scheduler that has one worker."""
    told = tmp_path / "scheduler.json"
    dask = [sys.executable, "-P", "-m", "distributed.cli.dask_"]
    options = ["--no-dashboard", "--host", "127.0.0.1", "--scheduler-file", str(told)]

    def start(kind: str, *more: str) -> subprocess.Popen[bytes]:
        words = [*dask[:-1], dask[-1] + kind, *options, *more]
        with (tmp_path / f"{kind}.log").open("w") as log:
            return subprocess.Popen(words, stdout=log, stderr=log)

    with start("scheduler", "--port", "0") as scheduler:
        while not (told.exists() and told.read_text().strip().endswith("}")):
            assert scheduler.poll() is None
            time.sleep(0.05)
        address = json.loads(told.read_text())["address"]
        with start("worker", "--nthreads", "1", "--no-nanny") as worker:
            try:
                yield address, scheduler
            finally:
                scheduler.kill()
                worker.kill()


@pytest.mark.slow
def test_a_killed_scheduler_is_told_and_the_study_goes_on(
    apart: tuple[str, subprocess.Popen[bytes]], tmp_path: Path, tiny: dict[str, Any]
) -> None:
    address, scheduler = apart
    options = {**tiny, "seeds": 3, "steps": 60}
    with pytest.raises(ValueError, match=f"^Expected the dask .*{address}.* was lost;"):
        run_study(
            out=tmp_path / "s",
            scheduler=address,
            after_cell=lambda *_: scheduler.kill(),
            **options,
        )
    before = {
        (c, s): (tmp_path / f"s/runs.zarr/{c}/{s}/zarr.json").read_bytes()
        for c in ("bp", "sg")
        for s in range(3)
        if is_complete(tmp_path / "s/runs.zarr", c, s)
    }
    assert before
    there = run_study(out=tmp_path / "s", jobs=1, **options)
    for (c, s), document in before.items():
        path = tmp_path / f"s/runs.zarr/{c}/{s}/zarr.json"
        assert path.read_bytes() == document
    _same(there, run_study(out=tmp_path / "here", jobs=1, **options))
