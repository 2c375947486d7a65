"""A study on a queue of batch jobs, with stand-ins for Slurm's own commands."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

import repsim
from repsim.datasets.recordings import networks

pytest.importorskip("distributed")
pytest.importorskip("fcntl")

# A job is the script that the queue was given, in the background of this machine; its
# number is that of its process, which leads a group of its own.
SBATCH = """#!{python}
import pathlib, shutil, subprocess, sys
jobs = pathlib.Path({jobs!r})
held = shutil.copy(sys.argv[-1], jobs / pathlib.Path(sys.argv[-1]).name)
with open(str(held) + ".log", "w") as log:
    job = subprocess.Popen(
        ["bash", held], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        start_new_session=True,
    )
(jobs / str(job.pid)).touch()
print("Submitted batch job", job.pid)
"""

SCANCEL = """#!{python}
import os, signal, sys
for job in sys.argv[1:]:
    try:
        os.killpg(int(job), signal.SIGTERM)
    except ProcessLookupError:
        pass
"""


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return where jobs are noted by number; `sbatch` and `scancel` are on the path."""
    commands, folder = tmp_path / "bin", tmp_path / "jobs"
    commands.mkdir()
    folder.mkdir()
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        script = commands / name
        script.write_text(text.format(python=sys.executable, jobs=str(folder)))
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    yield folder
    for job in folder.glob("[0-9]*"):  # what scancel has not ended
        with suppress(ProcessLookupError):
            os.killpg(int(job.name), signal.SIGKILL)


@pytest.mark.slow
def test_jobs_of_a_queue_train_the_study_that_one_process_trains(
    tmp_path: Path, jobs: Path, tiny: dict[str, Any], alone: xr.DataTree
) -> None:
    jobqueue = pytest.importorskip("dask_jobqueue")
    with jobqueue.SLURMCluster(
        cores=1,
        processes=1,
        memory="2GB",
        walltime="00:10:00",
        interface="lo",
        local_directory=str(tmp_path),
        scheduler_options={"dashboard_address": ":0"},
    ) as cluster:
        assert "#SBATCH --mem=2G" in cluster.job_script()
        cluster.scale(jobs=2)
        cluster.wait_for_workers(2, timeout=900)
        there = repsim.run_study(
            out=tmp_path / "there", scheduler=cluster.scheduler_address, **tiny
        )
        stored = networks(there)
        run = stored[next(iter(stored))]
        measured = repsim.compare(run, scheduler=cluster.scheduler_address)
    assert len([job for job in jobs.glob("*") if job.name.isdigit()]) == 2
    assert list(stored) == list(networks(alone))
    for key, expected in networks(alone).items():
        xr.testing.assert_equal(stored[key].load(), expected.load())
    xr.testing.assert_allclose(measured, repsim.compare(run.load()), rtol=1e-6)
