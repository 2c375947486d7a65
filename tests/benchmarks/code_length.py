"""Code lengths of labels that share nothing with a layer, and of some that do.

    OMP_NUM_THREADS=1 python -P tests/benchmarks/code_length.py [--networks 4]

Gaussian layers, whose class means have `signal` as standard deviation (0: the labels
are random). Each row gives the worst (largest) code length of several draws, as a
share of n log₂ k: by `codelength_layers`; by the value of C that costs least in
hindsight; and by C = 1, in the same blocks. `--networks` draws a row, from seeds on
which nothing in the package was chosen; `--signals 0` takes the random labels only.
"""

import argparse
import sys
import warnings

import numpy as np
import xarray as xr
from sklearn.linear_model import LogisticRegression

from repsim.probes import codelength_layers

SHAPES = ((200, 300, 2), (250, 20, 3), (500, 100, 5), (900, 30, 7), (2000, 50, 10))
SIGNALS = (0.0, 0.1, 0.3, 0.5)
FIRST_SEED = 9100


def recording(n: int, width: int, k: int, signal: float, seed: int) -> xr.Dataset:
    """Return a layer of Gaussian classes in equal numbers."""
    rng = np.random.default_rng(seed)
    label = rng.permutation(np.arange(n) % k)
    values = rng.normal(size=(n, width)) + signal * rng.normal(size=(k, width))[label]
    layer = (("example", "h_unit"), values.astype("float32"))
    return xr.Dataset({"h": layer}, coords={"label": ("example", label)})


def of_one_penalty(run: xr.Dataset, seed: int, ends: list[int], C: float) -> float:
    """Return the bits of one C throughout, fitted by scikit-learn."""
    order = np.random.default_rng([seed, 3]).permutation(run.sizes["example"])
    x, y = run["h"].values[order], run["label"].values[order]
    k = y.max() + 1
    bits = ends[0] * np.log2(k)
    for t, end in zip(ends[:-1], ends[1:], strict=True):
        z = (x - x[:t].mean(0)) / np.sqrt(x[:t].var(0).mean())
        fitted = LogisticRegression(C=C, tol=1e-7, max_iter=20_000).fit(z[:t], y[:t])
        chances = np.zeros((end - t, k))
        chances[:, fitted.classes_] = fitted.predict_proba(z[t:end])
        unseen = ~np.isin(np.arange(k), fitted.classes_)
        chances = (t * chances + 1 / k + unseen) / (t + 1 + unseen.sum())
        bits -= np.log2(chances[np.arange(end - t), y[t:end]]).sum()
    return float(bits)


def shares(n: int, width: int, k: int, signal: float, draw: int) -> list[float]:
    """Return one draw's code lengths as shares of the uniform code's."""
    seed = 60 + draw
    run = recording(n, width, k, signal, FIRST_SEED + draw)
    found = codelength_layers(run, seed=seed)
    ends = [*found["block"].values[1:].tolist(), n]
    singly = {C: of_one_penalty(run, seed, ends, C) for C in found.attrs["C_grid"]}
    uniform = n * np.log2(k)
    best = min(uniform, *singly.values())
    bits = float(found["codelength"][0]), best, singly[1.0]
    return [each / uniform for each in bits]


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=int, default=4)
    parser.add_argument("--signals", type=float, nargs="+", default=SIGNALS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    out = sys.stdout
    out.write(
        "| signal | examples × units | classes | code length | best C | C = 1 |\n"
    )
    out.write("| --- | --- | --- | --- | --- | --- |\n")
    for signal in options.signals:
        for n, width, k in SHAPES:
            draws = [shares(n, width, k, signal, d) for d in range(options.networks)]
            cells = " | ".join(f"{value:.3f}" for value in np.max(draws, axis=0))
            out.write(f"| {signal} | {n} × {width} | {k} | {cells} |\n")
            out.flush()
    rng = np.random.default_rng(FIRST_SEED)
    layer = (("example", "h_unit"), rng.normal(size=(2000, 20)))
    rare = (rng.random(2000) < 0.1).astype(int)
    found = codelength_layers(xr.Dataset({"h": layer}), rare)
    out.write("random labels of which a tenth are 1, n = 2,000: compression ")
    out.write(f"{float(found['compression'][0]):.2f}\n")


if __name__ == "__main__":
    main()
