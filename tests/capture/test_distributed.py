"""Two processes that train together write one recording; training is untouched."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import repsim


def _together(kind: str, folder: Path, ends: tuple[int, int] = (0, 0)) -> None:
    script = Path(__file__).with_name("rank.py")
    (folder / "meeting").unlink(missing_ok=True)
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), kind, str(rank), str(folder)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    errors = [process.communicate(timeout=900)[1] for process in processes]
    assert [p.returncode for p in processes] == list(ends), errors


OLD = tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 7)


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("ddp", marks=pytest.mark.slow),
        # torch 2.6 shards on accelerators alone: it asks a processor for its stream.
        pytest.param("sharded", marks=pytest.mark.skipif(OLD, reason="torch >= 2.7")),
    ],
)
def test_all_ranks_train_and_one_store_is_written(kind: str, tmp_path: Path) -> None:
    _together(kind, tmp_path)
    recorded = torch.load(tmp_path / "recorded.pt")
    plain = torch.load(tmp_path / "plain.pt")
    assert all(torch.equal(a, b) for a, b in zip(plain, recorded, strict=True))
    run = repsim.open_recording(tmp_path / "run.zarr")
    assert run["step"].values.tolist() == [0, 2, 4]
    assert run.attrs["complete"] == 1
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    torch.manual_seed(0)
    for module in (net[0], net[2]):
        module.reset_parameters()
    fixed = torch.randn(11, 6)
    assert run["example"].values.tolist() == list(range(100, 111))
    assert run["label"].values.tolist() == [f"label {i % 3}" for i in range(11)]
    start = repsim.record(net, fixed)
    assert run.attrs["inputs_sha256"] == start.attrs["inputs_sha256"]
    for layer in "012":
        np.testing.assert_allclose(run[layer][0], start[layer], rtol=1e-5, atol=1e-6)
    for parameter, value in zip(net.parameters(), plain, strict=True):
        parameter.data = value
    end = repsim.record(net, fixed)
    for layer in "012":
        np.testing.assert_allclose(run[layer][2], end[layer], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_killed_rank_leaves_the_moments_that_both_completed(tmp_path: Path) -> None:
    _together("killed", tmp_path, (0, -signal.SIGKILL))
    assert (tmp_path / "sentence").read_text() == (
        "Nothing more is recorded after 4 updates, and training goes on: Expected all "
        f"ranks to write the recording at {tmp_path / 'run.zarr'} together, but rank 1 "
        "said nothing of this moment within 3 s; 2 complete steps are kept, and "
        "resume=True, start=2 goes on."
    )
    run = repsim.open_recording(tmp_path / "run.zarr")
    assert run["step"].values.tolist() == [0, 2]
    assert run.attrs["complete"] == 0
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    fixed = torch.randn(11, 6)
    alone = repsim.record(net, fixed)
    for layer in "012":
        np.testing.assert_allclose(run[layer][0], alone[layer], rtol=1e-5, atol=1e-6)
        assert np.isfinite(run[layer]).all()
    with repsim.Recorder(
        net, fixed, every=2, store=tmp_path / "run.zarr", resume=True, start=2
    ) as recorder:
        recorder.advance(2)
    assert recorder.dataset()["step"].values.tolist() == [0, 2, 4]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            "alone",
            "Expected all 2 ranks to record .* but only [0] came within 1 s; call",
        ),
        (
            "fsdp1",
            "but got FullyShardedDataParallel (FSDP1), whose passes cannot be rec",
        ),
    ],
)
def test_one_rank_alone_is_told_before_anything_hangs(
    kind: str, message: str, tmp_path: Path
) -> None:
    _together(kind, tmp_path)
    sentences = (tmp_path / "sentence").read_text().splitlines()
    assert len(sentences) == 3  # of a recorder, `record` and `compare_models`
    pattern = re.escape(message).replace(r"\.\*", ".*")
    assert all(re.search(pattern, sentence) for sentence in sentences)
