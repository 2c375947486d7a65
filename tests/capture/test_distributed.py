"""Two processes that train together write one recording; training is untouched."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import repsim


def _together(kind: str, folder: Path) -> None:
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
    errors = [process.communicate(timeout=200)[1] for process in processes]
    assert [p.returncode for p in processes] == [0, 0], errors


@pytest.mark.parametrize(
    "kind", [pytest.param("ddp", marks=pytest.mark.slow), "sharded"]
)
def test_all_ranks_train_and_one_store_is_written(kind: str, tmp_path: Path) -> None:
    _together(kind, tmp_path)
    (tmp_path / "plain").touch()
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
    fixed = torch.randn(10, 6)
    start = repsim.record(net, fixed)
    for layer in "012":
        np.testing.assert_allclose(run[layer][0], start[layer], rtol=1e-5, atol=1e-6)
    for parameter, value in zip(net.parameters(), plain, strict=True):
        parameter.data = value
    end = repsim.record(net, fixed)
    for layer in "012":
        np.testing.assert_allclose(run[layer][2], end[layer], rtol=1e-5, atol=1e-6)


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
