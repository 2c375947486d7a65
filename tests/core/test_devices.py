"""How a device is chosen and multiplies; what a GPU would do, on the processor."""

import numpy as np
import pytest
import torch

from repsim.core import devices
from repsim.core.devices import device_named, devices_of, multiplying, to_tf32


def test_a_device_is_named_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device_named("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match="Expected `device` to work here, but got 'a'"):
        device_named("a")
    with pytest.raises(ValueError, match="to have float64, .* but got 'mps'"):
        device_named("mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device_named("auto") == torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.xpu, "is_available", lambda: True)
    assert device_named("auto") == torch.device("xpu")
    monkeypatch.setattr(torch.xpu, "is_available", lambda: False)
    assert device_named("auto") == torch.device("cpu")


def test_cuda_without_a_number_is_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert devices_of("cpu") == ["cpu"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert devices_of("cuda") == ["cuda:0", "cuda:1", "cuda:2"]
    assert devices_of("cuda:1") == ["cuda:1"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert devices_of("cuda") == ["cuda"]


def _switch() -> object:
    matmul = torch.backends.cuda.matmul
    new = hasattr(matmul, "fp32_precision")  # to read the old one then is an error
    return matmul.fp32_precision if new else matmul.allow_tf32


def test_a_gpu_multiplies_as_was_asked_and_the_switch_is_as_it_was() -> None:
    before = _switch()
    with multiplying("tf32", "cpu"):
        assert _switch() == before  # nobody else's products change
    with multiplying("tf32", "cuda:0"):
        assert _switch() in ("tf32", True)
        with multiplying("float32", "cuda:0"):
            assert _switch() in ("ieee", False)
        assert _switch() in ("tf32", True)
    assert _switch() == before


def test_tf32_is_the_nearest_number_of_ten_bits() -> None:
    x = torch.from_numpy(np.random.default_rng(0).normal(size=5000)).float()
    x = torch.cat([x, x * 1e30, x * 1e-30, torch.tensor([0.0, -0.0, 1.0, -2.0])])
    fraction, power = np.frexp(x.double().numpy())
    nearest = np.ldexp(np.rint(fraction * 2**11), power - 11)  # to even, as hardware
    np.testing.assert_array_equal(to_tf32(x).double().numpy(), nearest)
    ties = torch.tensor([1 + 2**-11, 1 + 3 * 2**-11], dtype=torch.float32)
    assert to_tf32(ties).tolist() == [1.0, 1 + 2 * 2**-10]


def test_what_is_free_is_asked_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    assert devices.free_on("cpu") is None
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda where: (2**30, 2**34))
    assert devices.free_on("cuda:0") == 2**30
