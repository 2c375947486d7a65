"""Studies on the workers of a dask scheduler."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

from repsim import run_study
from repsim.cli import main
from repsim.datasets.recordings import networks
from repsim.studies.completeness import is_complete
from repsim.studies.workers import claimed, on_scheduler

distributed = pytest.importorskip("distributed")
pytest.importorskip("fcntl")

SMALL: dict[str, Any] = {
    "conditions": ["bp", "sg"],
    "seeds": 1,
    "lr": 1e-3,
    "depth": 1,
    "width": 8,
    "steps": 6,
    "examples": 20,
    "progress": False,
}


def _same(a: xr.DataTree, b: xr.DataTree) -> None:
    first, second = networks(a), networks(b)
    assert list(first) == list(second)
    for key, run in first.items():
        xr.testing.assert_equal(run.load(), second[key].load())


def test_a_study_on_workers_is_the_study_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    here = run_study(out="here", jobs=1, **SMALL)
    with distributed.LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        processes=False,
        dashboard_address=":0",
        worker_dashboard_address=None,
    ) as local:
        there = run_study(out="there", scheduler=local.scheduler_address, **SMALL)
        _same(there, here)
        assert not (tmp_path / "there" / ".claims").exists()
        # Nothing is left to do, so nobody is asked.
        run_study(out="there", scheduler="tcp://127.0.0.1:9", **SMALL)


def test_a_scheduler_that_is_not_there_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("repsim.studies.workers.CONNECT", "1s")
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


def test_two_workers_never_write_one_cell(tmp_path: Path) -> None:
    """The second one waits until the first is done, or has died."""
    store, order = tmp_path / "runs.zarr", []

    def first() -> None:
        with claimed(store, "bp/0"):
            inside.set()
            time.sleep(0.2)
            order.append("first")

    inside = threading.Event()
    thread = threading.Thread(target=first)
    thread.start()
    inside.wait(10)
    with claimed(store, "bp/1"):
        order.append("other cell")
    with claimed(store, "bp/0"):
        order.append("second")
    thread.join()
    assert order == ["other cell", "first", "second"]


def test_a_cell_whose_worker_died_is_free(tmp_path: Path) -> None:
    code = (
        "import time\nfrom pathlib import Path\n"
        "from repsim.studies.workers import claimed\n"
        f"with claimed(Path({str(tmp_path / 'runs.zarr')!r}), 'bp/0'):\n"
        "    print('in', flush=True)\n    time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-P", "-c", code], stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        child.send_signal(signal.SIGKILL)
    with claimed(tmp_path / "runs.zarr", "bp/0"):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2, 4])
def test_processes_one_of_them_killed(number: int, tmp_path: Path) -> None:
    options = {**SMALL, "seeds": 3, "steps": 60}
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
