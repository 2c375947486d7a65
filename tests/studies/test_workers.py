"""Workers end with their leader, and a folder has one leader."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from repsim.studies.workers import occupied

pytest.importorskip("fcntl")


def test_a_folder_has_one_leader(tmp_path: Path) -> None:
    with (
        occupied(tmp_path),
        pytest.raises(BlockingIOError, match="to be free, but another process"),
        occupied(tmp_path),
    ):
        pass
    with occupied(tmp_path):
        pass


def test_workers_end_with_a_killed_leader(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(
        "import os, signal, time\n"
        "from pathlib import Path\n"
        "def job(out):\n"
        "    blocked = signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])\n"
        "    (Path(out) / f'pid-{os.getpid()}').write_text(str(blocked))\n"
        "    time.sleep(600)\n"
    )
    code = (
        f"import sys; sys.path.append({str(tmp_path)!r})\n"
        "from pathlib import Path\n"
        "import joblib\n"
        "from job import job\n"
        "from repsim.studies.workers import workers\n"
        f"with workers(2, Path({str(tmp_path)!r})) as run:\n"
        f"    list(run([joblib.delayed(job)({str(tmp_path)!r})] * 4))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", code], env=environment) as leader:
        deadline = time.monotonic() + 600
        while len(list(tmp_path.glob("pid-*"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        with pytest.raises(BlockingIOError), occupied(tmp_path, wait=0.1):
            pass
        leader.send_signal(signal.SIGKILL)
    # Ctrl-C in a terminal is for the leader alone, whatever its workers are at.
    assert [file.read_text() for file in tmp_path.glob("pid-*")] == ["True"] * 2
    with occupied(tmp_path, wait=20):
        pass
