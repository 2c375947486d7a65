"""Loggers tell the numbers of the moments that were recorded, and end no training."""

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import repsim
from repsim.callbacks import Log, TensorBoardLog, TextLog

LABELS = torch.arange(24) % 2


def train(log: Any, **options: Any) -> repsim.Recorder:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv1d(1, 2, 3), nn.Flatten(), nn.Linear(8, 4))
    x = torch.randn(24, 1, 6)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    recorder = repsim.Recorder(net, x, labels=LABELS, every=2, log=log, **options)
    with recorder:
        for _ in range(4):
            optimizer.zero_grad()
            net(x).square().mean().backward()
            optimizer.step()
            recorder.step()
    return recorder


class Kept(Log):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.told: dict[int, dict[str, float]] = {}
        self.pictures: list[np.ndarray] = []

    def tell(self, step: int, values: dict[str, float], picture: np.ndarray) -> None:
        self.told[step] = values
        self.pictures.append(picture)


@pytest.mark.parametrize("stored", [False, True])
def test_it_tells_every_moment_s_numbers(tmp_path: Path, stored: bool) -> None:
    log = Kept(probe=True)
    place = {"store": tmp_path / "runs.zarr", "group": "a/0"} if stored else {}
    run = train(log, **place).dataset()
    flat = repsim.reduce(run, "flatten")
    drift = repsim.compare(flat, flat.isel(step=0))
    read = repsim.probes.probe_layers(flat)["accuracy"]
    assert list(log.told) == [0, 2, 4] == run["step"].values.tolist()
    for step, values in log.told.items():
        for layer in repsim.layers(run):
            cell = drift.sel(step=step, layer_a=layer, layer_b=layer)
            np.testing.assert_allclose(values[f"cka with the start/{layer}"], cell)
            accuracy = read.sel(step=step, layer=layer)
            np.testing.assert_allclose(values[f"probe accuracy/{layer}"], accuracy)
    assert all(p.ndim == 3 and p.dtype == np.uint8 for p in log.pictures)


def test_training_is_what_it_would_have_been() -> None:
    plain = train(None)._network.state_dict()
    logged = train(Kept(probe=True))._network.state_dict()
    for name, value in plain.items():
        assert torch.equal(value, logged[name])


def test_a_logger_that_fails_is_a_warning() -> None:
    class Broken(Log):
        def tell(self, *_: Any) -> None:
            msg = "the disk is full"
            raise OSError(msg)

    with pytest.warns(UserWarning, match=r"not logged by Broken \(OSError: the disk"):
        run = train(Broken()).dataset()
    assert run["step"].values.tolist() == [0, 2, 4]


def test_a_function_will_do() -> None:
    seen: list[tuple[int, int]] = []
    train(lambda step, moment: seen.append((step, moment.sizes["example"])))
    assert seen == [(0, 24), (2, 24), (4, 24)]


def test_a_line_a_moment() -> None:
    stream = io.StringIO()
    train(TextLog(stream))
    first, *others = stream.getvalue().splitlines()
    assert first == "after 0 updates: cka with the start: 0 1.00, 1 1.00, 2 1.00"
    assert [line.split(":")[0] for line in others] == [
        "after 2 updates",
        "after 4 updates",
    ]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_reads_what_was_told(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = TensorBoardLog(tmp_path)
    run = train(log).dataset()
    log.writer.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    flat = repsim.reduce(run, "flatten")
    drift = repsim.compare(flat, flat.isel(step=0))
    told = events.Scalars("repsim/cka with the start/2")
    assert [event.step for event in told] == [0, 2, 4]
    np.testing.assert_allclose(
        [event.value for event in told], drift.sel(layer_a="2", layer_b="2"), rtol=1e-5
    )
    assert len(events.Images("repsim/cka of all layers")) == 3


@pytest.mark.slow
def test_wandb_offline(tmp_path: Path) -> None:
    wandb = pytest.importorskip("wandb")
    run = wandb.init(mode="offline", dir=tmp_path, project="repsim")
    train(repsim.callbacks.WandbLog())
    assert run.summary["repsim/step"] == 4
    assert "repsim/cka with the start/2" in dict(run.summary)
    run.finish()
    assert list(tmp_path.rglob("*.wandb")) and list(tmp_path.rglob("*.png"))


def test_wandb_wants_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wandb:
        run, Image = None, staticmethod(lambda picture: picture.shape)

    monkeypatch.setitem(sys.modules, "wandb", Wandb)
    with pytest.raises(ValueError, match="Expected a run of Weights & Biases"):
        repsim.callbacks.WandbLog()
    said: list[dict[str, Any]] = []

    class Run:
        log = staticmethod(said.append)

    train(repsim.callbacks.WandbLog(Run()))
    assert [s["repsim/step"] for s in said] == [0, 2, 4]
    assert said[0]["repsim/cka of all layers"][2] == 3


@pytest.mark.parametrize("name", ["TensorBoardLog", "WandbLog"])
def test_what_is_missing_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("torch.utils.tensorboard", "wandb"):
        monkeypatch.setitem(sys.modules, module, None)
    place = ("runs",) if name == "TensorBoardLog" else ()
    with pytest.raises(ImportError, match=rf"repsim-toolkit\[{name[:-3].lower()}\]"):
        getattr(repsim.callbacks, name)(*place)


def test_only_the_interface_is_offered() -> None:
    assert dir(repsim.callbacks) == [
        "LightningRecorder", "Log", "TensorBoardLog", "TextLog", "TransformersRecorder",
        "WandbLog",
    ]  # fmt: skip
    assert isinstance(train(None).dataset(), xr.Dataset)
