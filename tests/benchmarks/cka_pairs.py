"""All pairs of layers by CKA: time and error against the peers, one thread, CPU time.

    export OMP_NUM_THREADS=1
    python -P tests/benchmarks/cka_pairs.py 2000x50 5000x512 --out t.json
    python -P tests/benchmarks/cka_pairs.py show --out t.json

Peers that need a value for every pair are timed on some pairs and scaled ("x k"); all
run in one process, in an order that rotates, and the table holds medians. Errors are
the largest absolute difference from the same estimator in float64. Rounds add to
those in the file, so a busy machine can be measured in pieces.
"""

import argparse
import json
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import xarray as xr

import repsim
from repsim.measures.kernels.hsic_sums import LeftFactor

# Beside this file, also where Python is told not to look there.
sys.path.insert(0, str(Path(__file__).parent))

import clock

LAYERS = 20
CASES = {
    "2000x50": (2_000, 50),
    "5000x512": (5_000, 512),
    "10000x512": (10_000, 512),
    "2000x4096": (2_000, 4_096),
}
BATCH = 256


def network(n: int, d: int, seed: int) -> list[np.ndarray]:
    """Return the layers of a random ReLU network on shared inputs."""
    rng = np.random.default_rng(seed)
    x = np.random.default_rng(0).normal(size=(n, d)).astype(np.float32)
    made = []
    for _ in range(LAYERS):
        weight = rng.normal(size=(d, d)).astype(np.float32) * np.float32((2 / d) ** 0.5)
        x = np.maximum(x @ weight, 0)
        made.append(x)
    return made


def recording(values: list[np.ndarray]) -> xr.Dataset:
    """Return the layers as a recording."""
    return xr.Dataset(
        {f"h{i}": (("example", f"h{i}_unit"), x) for i, x in enumerate(values)}
    )


def google(x: torch.Tensor, y: torch.Tensor) -> float:
    """Linear CKA in feature space with debiasing, as in Google's demo, in torch."""
    x, y = x - x.mean(0, keepdim=True), y - y.mean(0, keepdim=True)
    cross = torch.linalg.norm(x.T @ y) ** 2
    own_x = torch.linalg.norm(x.T @ x)
    own_y = torch.linalg.norm(y.T @ y)
    n = len(x)
    k, m = (x * x).sum(1), (y * y).sum(1)
    sk, sm = k.sum(), m.sum()

    def debiased(value: Any, a: Any, b: Any, sa: Any, sb: Any) -> Any:
        return value - n / (n - 2) * (a @ b) + sa * sb / ((n - 1) * (n - 2))

    cross = debiased(cross, k, m, sk, sm)
    own_x = debiased(own_x**2, k, k, sk, sk)
    own_y = debiased(own_y**2, m, m, sm, sm)
    return float(cross / torch.sqrt(own_x * own_y))


def anatome(x: torch.Tensor, y: torch.Tensor) -> float:
    """Linear CKA as in anatome's `linear_cka_distance` (biased), as a similarity."""
    x, y = x - x.mean(0, keepdim=True), y - y.mean(0, keepdim=True)
    dot = torch.linalg.norm(y.T @ x) ** 2
    return float(dot / (torch.linalg.norm(x.T @ x) * torch.linalg.norm(y.T @ y)))


def per_pair(
    function: Callable[[torch.Tensor, torch.Tensor], float], pairs: int
) -> Callable[[list[torch.Tensor], list[torch.Tensor]], tuple[np.ndarray, float]]:
    """Return a peer that loops over pairs, on the first `pairs` of them."""

    def run(a: list[torch.Tensor], b: list[torch.Tensor]) -> tuple[np.ndarray, float]:
        values = np.full((LAYERS, LAYERS), np.nan)
        for cell in range(pairs):
            i, j = divmod(cell * 7 % LAYERS**2, LAYERS)
            values[i, j] = function(a[i], b[j])
        return values, LAYERS**2 / pairs

    return run


def pytorch_cka_full(
    a: list[torch.Tensor], b: list[torch.Tensor]
) -> tuple[np.ndarray, float]:
    """Return pytorch-cka's values from all examples at once."""
    from cka import cka_from_features

    return cka_from_features(torch.stack(a), torch.stack(b)).numpy(), 1.0


def pytorch_cka_batches(
    a: list[torch.Tensor], b: list[torch.Tensor]
) -> tuple[np.ndarray, float]:
    """Return pytorch-cka's minibatch values (its own accumulation, whole batches)."""
    from cka import hsic

    cross, own_a, own_b = 0.0, 0.0, 0.0
    for start in range(0, len(a[0]) - BATCH + 1, BATCH):
        rows = slice(start, start + BATCH)
        grams = [torch.stack([torch.mm(x[rows], x[rows].T) for x in s]) for s in (a, b)]
        one, two, three = hsic(*grams)
        cross, own_a, own_b = cross + one, own_a + two, own_b + three
    values = cross / torch.sqrt(torch.outer(own_a, own_b))  # type: ignore[arg-type]
    return values.numpy(), 1.0


def ours(
    **options: Any,
) -> Callable[[xr.Dataset, xr.Dataset], tuple[np.ndarray, float]]:
    """Return `repsim.compare` with some options."""

    def run(a: xr.Dataset, b: xr.Dataset) -> tuple[np.ndarray, float]:
        return repsim.compare(a, b, **options).values, 1.0

    return run


def contestants(n: int, d: int) -> dict[str, tuple[bool, str, Callable[..., Any]]]:
    """Return who runs: whether it is ours, the reference of its error, the function."""
    pairs = max(2, min(LAYERS**2, round(4e11 / (6 * n * d * d))))
    found: dict[str, tuple[bool, str, Callable[..., Any]]] = {
        "repsim float32": (True, "debiased", ours()),
        "repsim float64": (True, "debiased", ours(precision="float64")),
        "repsim bfloat16": (True, "debiased", ours(precision="bfloat16")),
        f"repsim batch={BATCH}": (True, "debiased", ours(batch=BATCH)),
        "Google's feature-space form": (False, "debiased", per_pair(google, pairs)),
        "anatome's form": (False, "biased", per_pair(anatome, pairs)),
    }
    if has("pytorch-cka"):
        name = f"pytorch-cka {version('pytorch-cka')}"
        if n * n * LAYERS * 2 * 4 < 1e9:
            found[name] = (False, "debiased", pytorch_cka_full)
        found[f"{name}, batches of {BATCH}"] = (
            False,
            "debiased",
            pytorch_cka_batches,
        )
    return found


def has(package: str) -> bool:
    """Return whether a peer is installed."""
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


def peak() -> float:
    """Return the float32 matrix peak, GF/s of a 2,048³ product by torch's best."""
    a = torch.ones(2048, 2048)
    rows = LeftFactor(a)
    best = 0.0
    for product in (lambda: a @ a, lambda: rows.times(a)):
        product()
        started = clock.now()
        for _ in range(3):
            product()
        best = max(best, 3 * 2 * 2048**3 / (clock.now() - started) / 1e9)
    return best


def exact(case: str, kind: str, folder: Path) -> np.ndarray:
    """Return the values in float64, kept beside the results."""
    kept = folder / f"{case}-{kind}.npy"
    if not kept.exists():
        n, d = CASES[case]
        a, b = recording(network(n, d, 1)), recording(network(n, d, 2))
        debiased = kind == "debiased"
        values = repsim.compare(a, b, precision="float64", debiased=debiased).values
        np.save(kept, values)
    return np.asarray(np.load(kept))


def measure(
    case: str, rounds: int, only: list[str], folder: Path, known: dict[str, Any]
) -> dict[str, Any]:
    """Time every contestant on one case, adding to what is known."""
    n, d = CASES[case]
    a, b = network(n, d, 1), network(n, d, 2)
    run_a, run_b = recording(a), recording(b)
    tensors = [torch.from_numpy(x) for x in a], [torch.from_numpy(x) for x in b]
    who = contestants(n, d)
    who = {name: w for name, w in who.items() if not only or name in only}
    order, peaks, rows = list(who), known.get("peaks", []), known.get("rows", {})
    for turn in range(len(peaks), len(peaks) + rounds):
        peaks.append(peak())
        for name in order[turn % len(order) :] + order[: turn % len(order)]:
            mine, reference, function = who[name]
            arguments: Any = (run_a, run_b) if mine else tensors
            started = clock.now()
            values, scale = function(*arguments)
            seconds = (clock.now() - started) * scale
            row = rows.setdefault(name, {"times": [], "scale": scale})
            row["times"].append(seconds)
            difference = np.abs(values - exact(case, reference, folder))
            row["error"] = float(np.nanmax(difference))
    return {
        "case": case,
        "torch": torch.__version__,
        "clock": clock.words(),
        "peaks": peaks,
        "feature_operations": 2 * n * d * d * (LAYERS**2 + 2 * LAYERS),
        "rows": rows,
    }


def show(results: list[dict[str, Any]]) -> str:
    """Return the table of all results."""
    lines = []
    for result in results:
        best = median(result["rows"]["repsim float32"]["times"])
        top = median(result["peaks"])
        lines += [
            f"**{result['case']}**, {LAYERS} × {LAYERS} layers, {len(result['peaks'])} "
            f"rounds, torch {result['torch']}, float32 peak {top:.0f} GF/s",
            "",
            f"| | {result['clock']} (least to most) | / repsim float32 "
            "| largest error |",
            "| --- | --- | --- | --- |",
        ]
        for name, row in result["rows"].items():
            scaled = f", x {row['scale']:.0f}" if row["scale"] > 1 else ""
            times = row["times"]
            lines.append(
                f"| {name}{scaled} | {median(times):.3g} ({min(times):.3g} to "
                f"{max(times):.3g}) | {median(times) / best:.2f} | "
                f"{row['error']:.0e} |"
            )
        share = result["feature_operations"] / best / 1e9 / top
        lines += ["", f"Feature-space operations / time / peak: {share:.0%}", ""]
    return "\n".join(lines)


def main() -> None:
    """Run cases, or show what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="+", choices=[*CASES, "show"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--out", type=Path, required=True)
    clock.add_option(parser)
    asked = parser.parse_args()
    clock.use(asked.threads)
    known = json.loads(asked.out.read_text()) if asked.out.exists() else []
    if asked.cases == ["show"]:
        print(show(known))
        return
    for case in asked.cases:
        before = next((r for r in known if r["case"] == case), {})
        now = measure(case, asked.rounds, asked.only, asked.out.parent, before)
        known = [r for r in known if r["case"] != case] + [now]
        asked.out.write_text(json.dumps(known, indent=1))
    print(show([r for r in known if r["case"] in asked.cases]))


if __name__ == "__main__":
    main()
