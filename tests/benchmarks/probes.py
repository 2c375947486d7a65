"""Logistic probes: time and objective beside scikit-learn's, on one thread.

    OMP_NUM_THREADS=1 python -P tests/benchmarks/probes.py [--repeats 5]
    OMP_NUM_THREADS=1 python -P tests/benchmarks/probes.py --history 256x256 2000x50

The features are layers of a 20-layer MLP (batch norm, ReLU) after a short
training on generated images. Both probes fit the same arrays; CPU seconds, medians,
the order rotated within each repeat. "Excess" is how far the objective lies above the
best one known, (F − F*) / F*, both evaluated in float64. scikit-learn stops by its
gradient and is timed as it comes, and once with the largest `tol` of 1e-4, 3e-5, … at
which its objective is no worse than ours. `--history` times probe_layers over the
training of 20-layer networks, 100 moments each: of five networks and all layers, or,
where that would not fit in memory, of one network and every sixth layer.
"""

import argparse
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import sklearn
import torch
import xarray as xr
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression

import repsim
from repsim.probes import LinearProbe, probe_layers

# Beside this file, also where Python is told not to look there.
sys.path.insert(0, str(Path(__file__).parent))

import clock

EXAMPLES, CLASSES, DEPTH = 10_000, 10, 20
TRAINING = {50: 600, 512: 150}


def images(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return blotchy images (n, 784) of classes with four modes each."""
    patch = np.ones((1, 4, 4))
    modes = rng.normal(size=(CLASSES, 4, 7, 7))
    labels = rng.integers(CLASSES, size=EXAMPLES)
    coarse = modes[labels, rng.integers(4, size=EXAMPLES)]
    coarse = coarse + 1.2 * rng.normal(size=coarse.shape)
    values = np.kron(coarse, patch).reshape(EXAMPLES, -1)
    values += 0.5 * rng.normal(size=values.shape)
    return np.maximum(values, 0).astype(np.float32), labels


def activations(
    width: int, shown: list[int]
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield layer number, activations and labels."""
    torch.manual_seed(0)
    x, y = (torch.from_numpy(a) for a in images(np.random.default_rng(0)))
    blocks = torch.nn.ModuleList()
    for i in range(DEPTH):
        linear = torch.nn.Linear(x.shape[1] if i == 0 else width, width)
        norm = torch.nn.BatchNorm1d(width)
        blocks.append(torch.nn.Sequential(linear, norm, torch.nn.ReLU()))
    net = torch.nn.Sequential(*blocks, torch.nn.Linear(width, CLASSES))
    optimiser = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(TRAINING.get(width, 200)):
        batch = torch.randint(EXAMPLES, (128,))
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(net(x[batch]), y[batch]).backward()
        optimiser.step()
    net.eval()
    with torch.no_grad():
        for number, block in enumerate(blocks, start=1):
            x = block(x)
            if number in shown:
                yield number, x.numpy().copy(), y.numpy()


def objective(x: np.ndarray, y: np.ndarray, model: LinearProbe) -> float:
    """Return the mean objective of C = 1 in float64."""
    scores = x.astype(float) @ model.coef_.T.astype(float) + model.intercept_
    loss = logsumexp(scores, axis=1) - scores[np.arange(len(y)), y]
    return float((loss.sum() + 0.5 * (model.coef_.astype(float) ** 2).sum()) / len(y))


def equal(x: np.ndarray, y: np.ndarray, goal: float) -> tuple[float, float]:
    """Return the loosest tolerance that gets scikit-learn as far, and its seconds."""
    for tol in (1e-4, 3e-5, 1e-5, 3e-6, 1e-6, 3e-7, 1e-7):
        start = clock.now()
        model = LogisticRegression(tol=tol, max_iter=20_000).fit(x, y)
        if objective(x, y, model) <= goal:
            break
    return tol, clock.now() - start


def timed(work: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return median CPU seconds of each, in rotated order."""
    times: dict[str, list[float]] = {name: [] for name in work}
    names = list(work)
    for turn in range(repeats):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            start = clock.now()
            work[name]()
            times[name].append(clock.now() - start)
    return {name: float(np.median(each)) for name, each in times.items()}


def compare(x: np.ndarray, y: np.ndarray, repeats: int) -> tuple[dict[str, float], str]:
    """Return median seconds, and one row of the table."""
    ours = LinearProbe().fit(x, y)
    best = objective(x, y, LinearProbe(tol=1e-10).fit(x.astype(float), y))
    theirs = LogisticRegression(max_iter=20_000).fit(x, y)
    reached = objective(x, y, ours)
    tol, patient = equal(x, y, reached)
    seconds = timed(
        {
            "ours": lambda: LinearProbe().fit(x, y),
            "sklearn": lambda: LogisticRegression(max_iter=20_000).fit(x, y),
        },
        repeats,
    )
    seconds["equal"] = patient
    mine = seconds["ours"]
    return seconds, (
        f"{ours.score(x, y):.3f} | {1e3 * mine:.0f} ms | {reached / best - 1:.0e} | "
        f"{ours.n_iter_[0]} | {1e3 * seconds['sklearn']:.0f} ms | "
        f"{objective(x, y, theirs) / best - 1:.0e} | {theirs.n_iter_[0]} | "
        f"{seconds['sklearn'] / mine:.1f} | {tol:.0e} | {seconds['equal'] / mine:.1f}"
    )


def trained(width: int, examples: int, layers: list[str], seed: int) -> xr.Dataset:
    """Return a recording of 100 moments of 1,000 updates, 20 layers deep."""
    images_, labels = (torch.from_numpy(a) for a in images(np.random.default_rng(seed)))
    net = repsim.networks.mlp(784, hidden=[width] * DEPTH, classes=CLASSES, seed=seed)
    optimiser = torch.optim.Adam(net.parameters(), 1e-3)
    draw = torch.Generator().manual_seed(seed)
    shown = images_[:examples], labels[:examples]
    with repsim.Recorder(
        net, shown[0], layers=layers, labels=shown[1].numpy(), every=10
    ) as recorder:
        for _ in range(990):
            batch = torch.randint(EXAMPLES, (128,), generator=draw)
            optimiser.zero_grad()
            loss = torch.nn.functional.cross_entropy(net(images_[batch]), labels[batch])
            loss.backward()
            optimiser.step()
            recorder.step()
    return recorder.dataset()


def history(width: int, examples: int, layers: list[str], seeds: int) -> str:
    """Return what it costs to probe networks' histories, in CPU time."""
    spent, probes, accuracy = 0.0, 0, []
    for seed in range(seeds):
        run = trained(width, examples, layers, seed)
        start = clock.now()
        found = probe_layers(run)
        spent += clock.now() - start
        probes += found["accuracy"].size
        accuracy.append(found["accuracy"].isel(step=-1).mean())
    whole = spent / probes * 20 * 100 * 5 / 60
    how = "" if probes == 20 * 100 * 5 else f" (from {probes:,})"
    return (
        f"| {examples:,} × {width} | {probes:,} | {1e3 * spent / probes:.1f} ms | "
        f"{whole:.1f} min{how} | {np.mean(accuracy):.2f} |\n"
    )


def size(text: str) -> tuple[int, int]:
    """Return examples and units of 256x128."""
    examples, width = text.split("x")
    return int(examples), int(width)


def main() -> None:
    """Write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--widths", type=int, nargs="+", default=[50, 512])
    parser.add_argument("--layers", type=int, nargs="+", default=[1, 10, 20])
    parser.add_argument("--dtype", default="float32", choices=["float32", "float64"])
    parser.add_argument("--history", type=size, nargs="+", metavar="NxD")
    clock.add_option(parser)
    options = parser.parse_args()
    clock.use(options.threads)
    warnings.simplefilter("ignore")
    out = sys.stdout.write
    out(f"scikit-learn {sklearn.__version__}, torch {torch.__version__}, ")
    out(f"{clock.words()}\n")
    if options.history:
        everywhere = [f"hidden_{i + 1}" for i in range(DEPTH)]
        out("| examples × units | probes | CPU a probe | 20 layers × 100 steps × 5 ")
        out("seeds | accuracy at the end |\n| --- | --- | --- | --- | --- |\n")
        for examples, width in options.history:
            few = width * examples > 200_000
            layers = everywhere[::6] if few else everywhere
            out(history(width, examples, layers, seeds=1 if few else 5))
            sys.stdout.flush()
        return
    out(f"n = {EXAMPLES}, {CLASSES} classes, {options.dtype}\n")
    for width in options.widths:
        rows = []
        for number, x, y in activations(width, options.layers):
            row, line = compare(x.astype(options.dtype), y, options.repeats)
            rows.append(row)
            out(f"| {width} | {number} | {line} |\n")
            sys.stdout.flush()
        total = {name: sum(row[name] for row in rows) for name in rows[0]}
        out(
            f"d = {width}: scikit-learn / ours {total['sklearn'] / total['ours']:.1f}, "
        )
        out(f"at no worse objective {total['equal'] / total['ours']:.1f}\n")


if __name__ == "__main__":
    main()
