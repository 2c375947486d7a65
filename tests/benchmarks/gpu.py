"""How much of a device the products, RDMs and probes use: TFLOP/s, share of peak, GB/s.

    python -P tests/benchmarks/gpu.py --device cuda

Peak is what one large product of the same precision reaches on this device, bandwidth
what one copy reaches, both measured in the same run. Bytes are those that must be read
and written once; operations are those of the products. `--device cpu --small` tries the
script where there is no accelerator; its numbers say nothing about one.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import xarray as xr

import repsim
from repsim.core.devices import device_named, multiplying
from repsim.measures.kernels.hsic_sums import operations
from repsim.probes.linear import LinearProbe

Row = dict[str, Any]
Call = tuple[Callable[[], object], float, float, str]


def waited(device: str) -> None:
    """Wait until the device has done what it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    elif device == "mps":
        torch.mps.synchronize()
    elif device == "xpu":
        torch.xpu.synchronize()


def median(work: Callable[[], object], device: str, repeats: int) -> float:
    """Return the median seconds of a call, the first one left out."""
    spent = []
    for _ in range(repeats + 1):
        waited(device)
        began = time.perf_counter()
        work()
        waited(device)
        spent.append(time.perf_counter() - began)
    return statistics.median(spent[1:])


def peak(device: str, dtype: torch.dtype, size: int, repeats: int) -> float:
    """Return the operations a second of one large product."""
    x = torch.randn(size, size, device=device).to(dtype)
    return 2.0 * size**3 / median(lambda: x @ x, device, repeats)


def bandwidth(device: str, size: int, repeats: int) -> float:
    """Return the bytes a second of one copy, read and written."""
    x = torch.randn(size * size, device=device)
    return 2.0 * 4 * size**2 / median(lambda: x.clone(), device, repeats)


def recording(n: int, layers: int, units: int) -> xr.Dataset:
    """Return layers in memory, float32."""
    rng = np.random.default_rng(0)
    return xr.Dataset(
        {
            f"l{i}": (
                ("example", f"l{i}_unit"),
                rng.standard_normal((n, units), dtype=np.float32),
            )
            for i in range(layers)
        },
        {"label": ("example", np.arange(n) % 10)},
    )


def cka(device: str, precision: str, n: int, layers: int, units: int) -> Call:
    """Return a call, its operations, its bytes and what it is called."""
    run = recording(n, layers, units)
    widths = [units] * layers
    space = min(
        ("feature", "sample"), key=lambda space: operations(n, widths, None, space)
    )
    work = operations(n, widths, None, space)
    name = f"CKA {layers} × {units}, n = {n}, {precision}"
    return (
        lambda: repsim.compare(run, device=device, precision=precision),
        work,
        4.0 * n * layers * units,
        name,
    )


def rdm(device: str, metric: str, n: int, layers: int, units: int) -> Call:
    """Return a call, its operations, its bytes and what it is called."""
    run = recording(n, layers, units)
    work = float(layers) * n * n * units  # one triangle, multiply and add
    size = 4.0 * layers * (n * units + n * n / 2)
    name = f"RDMs {metric}, {layers} × {units}, n = {n}"
    return lambda: repsim.rdms(run, metric=metric, device=device), work, size, name


def probe(device: str, n: int, units: int, classes: int = 10) -> Call:
    """Return a call, its operations, its bytes and what it is called."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, units), dtype=np.float32)
    y = (x @ rng.normal(size=(units, classes))).argmax(1)
    fitted = LinearProbe(device=device).fit(x, y)
    passes = int(np.max(fitted.n_iter_)) + 1
    # Scores and gradient of an iteration, and the metric once: XᵀX.
    work = passes * 4.0 * n * units * classes + 2.0 * n * units**2
    size = 4.0 * n * units * (2 * passes + 1)
    name = f"probe {units} → {classes}, n = {n}, {passes} passes"
    return lambda: LinearProbe(device=device).fit(x, y), work, size, name


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    try:
        device_named(options.device)
    except ValueError as error:
        parser.error(str(error))
    device, repeats, cut = options.device, options.repeats, 20 if options.small else 1
    size = 512 if options.small else 8192
    with multiplying("float32", device):
        single = peak(device, torch.float32, size, repeats)
    with multiplying("tf32", device):
        fast = peak(device, torch.float32, size, repeats)
    best = {
        "float32": single,
        "tf32": fast,
        "bfloat16": peak(device, torch.bfloat16, size, repeats),
    }
    copied = bandwidth(device, size, repeats)
    calls = [
        (cka(device, "float32", 10_000 // cut, 20, 512), "float32"),
        (cka(device, "tf32", 10_000 // cut, 20, 512), "tf32"),
        (cka(device, "bfloat16", 10_000 // cut, 20, 512), "bfloat16"),
        (cka(device, "float32", 2_000 // cut, 20, 4096), "float32"),
        (rdm(device, "correlation", 3_000 // cut, 20, 512), "float32"),
        (rdm(device, "euclidean", 3_000 // cut, 20, 512), "float32"),
        (probe(device, 10_000 // cut, 512), "float32"),
    ]
    rows: list[Row] = []
    for (call, work, moved, name), precision in calls:
        seconds = median(call, device, repeats)
        rows.append(
            {
                "work": name,
                "ms": 1e3 * seconds,
                "TFLOP/s": work / seconds / 1e12,
                "of peak": work / seconds / best[precision],
                "GB/s": moved / seconds / 1e9,
                "of a copy": moved / seconds / copied,
            }
        )
    where = torch.cuda.get_device_name() if device.startswith("cuda") else device
    lines = [
        f"{where}, torch {torch.__version__}: "
        + ", ".join(f"{k} {v / 1e12:.3g} TFLOP/s" for k, v in best.items())
        + f", copy {copied / 1e9:.3g} GB/s; medians of {repeats}",
        "| " + " | ".join(rows[0]) + " |",
        "| " + " | ".join("---" for _ in rows[0]) + " |",
    ]
    for row in rows:
        cells = [v if isinstance(v, str) else f"{v:.3g}" for v in row.values()]
        lines.append("| " + " | ".join(cells) + " |")
    print(json.dumps(rows) if options.json else "\n".join(lines))  # noqa: T201


if __name__ == "__main__":
    main()
