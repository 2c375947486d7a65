"""Copies that travel, on the processor: when they are started, waited for and used."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import repsim
from repsim.capture import copies


class _Device:
    """Stands for a GPU: a copy is there only once it has been waited for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[str] = []
        self._coming: list[tuple[Tensor, Tensor]] = []
        monkeypatch.setattr(copies, "travels", lambda rows: True)
        monkeypatch.setattr(copies, "memory_for", self.memory_for)
        monkeypatch.setattr(copies, "wait_for", self.wait_for)

    def memory_for(self, rows: Tensor) -> Tensor:
        self.log.append("start")
        there = _Pinned(torch.full(rows.shape, torch.nan, dtype=rows.dtype))
        there.coming = self._coming
        return there

    def wait_for(self, device: torch.device) -> None:
        self.log.append("wait")
        for there, rows in self._coming:
            Tensor.copy_(there, rows)
        self._coming.clear()


class _Pinned(Tensor):
    coming: list[tuple[Tensor, Tensor]]

    def copy_(self, rows: Tensor, non_blocking: bool = False) -> Tensor:  # type: ignore[override]
        assert non_blocking
        self.coming.append((self.as_subclass(Tensor), rows.detach().clone()))
        return self


def _model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(5, 4), nn.ReLU(inplace=True), nn.Linear(4, 3), nn.Tanh()
    )


def test_layers_are_waited_for_once_a_batch(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    x = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
    plain = repsim.record(_model(), x)
    device = _Device(monkeypatch)
    run = repsim.record(_model(), x)
    assert device.log == ["start"] * 4 + ["wait"]
    for name in repsim.layers(plain):
        np.testing.assert_array_equal(run[name], plain[name])
    device.log.clear()
    with repsim.Recorder(_model(), [x[:6], x[6:]], store=tmp_path / "s.zarr"):
        pass
    assert device.log == (["start"] * 4 + ["wait"]) * 2
    kept = repsim.open_recording(tmp_path / "s.zarr")
    for name in repsim.layers(plain):
        np.testing.assert_allclose(kept[name][0], plain[name], atol=1e-6)


def test_no_more_travels_than_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "MOST", 12 * 4 * 4)
    x = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
    plain = repsim.record(_model(), x)
    device = _Device(monkeypatch)
    run = repsim.record(_model(), x)
    assert device.log == ["start"] * 2 + ["wait"] + ["start"] * 2 + ["wait"]
    for name in repsim.layers(plain):
        np.testing.assert_array_equal(run[name], plain[name])


def test_what_travels_and_is_refused_is_told_of_its_layer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Complaining(copies.Copies):
        def then(self, use):  # type: ignore[no-untyped-def]
            def refused() -> None:
                raise ValueError("Expected a smaller layer, but got this one.")

            name = use.args[0]
            super().then(use if name != "2" else _with(use, refused))

    def _with(use, refused):  # type: ignore[no-untyped-def]
        from functools import partial

        return partial(use.func, use.args[0], refused)

    _Device(monkeypatch)
    monkeypatch.setattr("repsim.capture.moment.Copies", Complaining)
    with pytest.raises(ValueError, match="Expected a smaller layer, but got this one"):
        repsim.record(_model(), torch.zeros(3, 5))


@pytest.mark.gpu
def test_a_gpus_outputs_are_those_of_the_processor() -> None:
    x = torch.randn(64, 5)
    plain = repsim.record(_model(), x)
    run = repsim.record(_model().cuda(), x)
    for name in repsim.layers(plain):
        np.testing.assert_allclose(run[name], plain[name], atol=1e-5)
