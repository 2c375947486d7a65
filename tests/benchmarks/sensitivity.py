"""Which measure notices what changes function, and ignores what does not.

    python -P tests/benchmarks/sensitivity.py [--seeds 6] [--out sensitivity.json]

After Ding, Denain & Steinhardt 2021, on networks trained here: MLPs on digits from
several seeds. For every measure, of layer activations on held-out digits:

- `same layer`: how often the layer of another seed's network that is most similar to
  a given layer is the same layer (specificity to depth; chance is 1 / layers);
- `components`: the share of a layer's variance that can be removed, smallest
  principal components last, before the distance to the intact layer exceeds the
  distance to the same layer of another seed (small: it notices early);
- `rank correlation`: Spearman's correlation, over networks and numbers of removed
  components, of the distance to the intact layer with the loss of probe accuracy;
- `swap`: the share of pairs of networks in which putting the other's middle layer into
  a network, which breaks it, moves its last hidden layer farther than the same layer
  of the other, which works, is away (1: it tells broken from merely different).
"""

import argparse
import copy
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats
from sklearn.linear_model import RidgeClassifier

import repsim
from repsim.datasets import load, to_tensors

KEPT = (0, 1, 2, 4, 8, 16, 24)
MEASURES: dict[str, dict[str, Any]] = {
    "cka": {},
    "cka, rbf": {"kernel": "rbf"},
    "cka, biased": {"debiased": False},
    "svcca": {"variance": 0.99},
    "pwcca": {},
    "procrustes_distance": {},
    "mutual_knn": {},
    "linear_predictivity": {},
    "rsa": {},
}


def trained(seed: int, depth: int, width: int, steps: int) -> torch.nn.Module:
    """Return a network trained on digits by backpropagation."""
    net = repsim.networks.mlp(
        64, hidden=[width] * depth, classes=10, batch_norm=True, seed=seed
    )
    rule = repsim.learning.make("bp", net, lr=1e-3, seed=seed)
    repsim.train(rule, load("digits", "train"), steps, seed=seed, progress=False)
    return net


def activations(net: torch.nn.Module, layers: str = "hidden_*") -> list[np.ndarray]:
    """Return layers' activations on held-out digits."""
    images, _ = to_tensors(load("digits", "test"), "flat")
    run = repsim.record(net, images, layers=layers)
    return [run[name].values.astype(np.float64) for name in repsim.layers(run)]


def swapped(net: torch.nn.Module, other: torch.nn.Module, name: str) -> torch.nn.Module:
    """Return a network with one layer of another."""
    made = copy.deepcopy(net)
    made.get_submodule(name).load_state_dict(other.get_submodule(name).state_dict())
    return made


def accuracy(net: torch.nn.Module, labels: np.ndarray) -> float:
    """Return the share of held-out digits that are told right."""
    return float((activations(net, "output")[0].argmax(1) == labels).mean())


def without_components(x: np.ndarray, kept: int) -> np.ndarray:
    """Return a layer with its first `kept` principal components only."""
    mean = x.mean(0)
    u, s, v = np.linalg.svd(x - mean, full_matrices=False)
    return np.asarray(u[:, :kept] * s[:kept] @ v[:kept] + mean)


def probe(x: np.ndarray, labels: np.ndarray) -> float:
    """Return the held-out accuracy of a ridge probe."""
    half = len(x) // 2
    fitted = RidgeClassifier().fit(x[:half], labels[:half])
    return float(fitted.score(x[half:], labels[half:]))


def score(
    name: str,
    options: dict[str, Any],
    nets: list[list[np.ndarray]],
    broken: dict[tuple[int, int], np.ndarray],
    labels: np.ndarray,
) -> dict[str, Any]:
    """Return one row of the table."""
    measure = repsim.measures.get(name.split(",")[0])
    sign = -1.0 if measure.larger_is_more_similar else 1.0
    depth, middle = len(nets[0]), len(nets[0]) // 2

    def distance(x: np.ndarray, y: np.ndarray) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return sign * measure(x, y, **options)

    pairs = [(i, j) for i in range(len(nets)) for j in range(len(nets)) if i != j]
    table = np.array(
        [[[distance(x, y) for y in nets[j]] for x in nets[i]] for i, j in pairs]
    )
    found = table.argmin(2) == np.arange(depth)
    seeds = np.array([np.diagonal(one) for one in table])
    swaps = [
        distance(nets[i][-1], broken[i, j]) > seeds[row, -1]
        for row, (i, j) in enumerate(pairs)
    ]
    removed, losses, noticed = [], [], []
    for net in nets:
        x = net[middle]
        whole, spectrum = probe(x, labels), np.linalg.svd(x - x.mean(0))[1] ** 2
        shares = 1 - np.cumsum(spectrum) / spectrum.sum()
        limit, share = np.median(seeds[:, middle]), 1.0
        for kept in sorted(KEPT, reverse=True):
            if kept == 0:
                continue
            cut = without_components(x, kept)
            removed.append(distance(x, cut))
            losses.append(whole - probe(cut, labels))
            if removed[-1] > limit and share == 1.0:
                share = float(shares[kept - 1])
        noticed.append(share)
    rank = stats.spearmanr(removed, losses).statistic
    return {
        "measure": name,
        "same layer": float(found.mean()),
        "components": float(np.mean(noticed)),
        "rank correlation": float(rank),
        "swap": float(np.mean(swaps)),
    }


def main() -> None:
    """Train, score and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--width", type=int, default=48)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    networks = [
        trained(seed, options.depth, options.width, options.steps)
        for seed in range(options.seeds)
    ]
    labels = load("digits", "test")["label"].values
    middle = f"hidden_{options.depth // 2 + 1}"
    mixed = {
        (i, j): swapped(a, b, middle)
        for i, a in enumerate(networks)
        for j, b in enumerate(networks)
        if i != j
    }
    broken = {key: activations(net)[-1] for key, net in mixed.items()}
    nets = [activations(net) for net in networks]
    whole = np.mean([accuracy(net, labels) for net in networks])
    parts = np.mean([accuracy(net, labels) for net in mixed.values()])
    print(
        f"Test accuracy {whole:.3f}; with another seed's {middle}: {parts:.3f}; "
        f"{options.seeds} networks, {len(mixed)} pairs.\n"
    )
    rows = []
    columns = ("same layer", "components", "rank correlation", "swap")
    print("| measure | " + " | ".join(columns) + " |")
    print("| --- |" + " ---: |" * len(columns))
    for name, extra in MEASURES.items():
        row = score(name, extra, nets, broken, labels)
        rows.append(row)
        cells = " | ".join(f"{row[column]:.2f}" for column in columns)
        print(f"| {name} | {cells} |", flush=True)
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
