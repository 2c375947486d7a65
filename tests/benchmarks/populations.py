"""Populations with a known truth, for tests/benchmarks/calibration.py."""

import functools
from collections.abc import Callable

import numpy as np
import xarray as xr
from scipy import stats
from scipy.spatial.distance import pdist

import repsim

Sides = tuple[np.ndarray, np.ndarray]
Draw = Callable[[int, np.random.Generator], Sides]


def latent(n: int, r: np.random.Generator, p: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Return normal units and a copy with noise, variances falling as 1/k."""
    root = np.arange(1, p + 1) ** -0.5
    x = r.normal(size=(n, p)) * root
    return x, 0.8 * x + 0.7 * root * r.normal(size=(n, p))


def population(kind: str, p: int) -> tuple[Draw, float]:
    """Return a sampler of both sides and the population's linear CKA."""
    rng = np.random.default_rng(0)
    if kind == "independent":
        return (lambda n, r: (r.normal(size=(n, p)), r.normal(size=(n, p)))), 0.0
    if kind == "power law":
        return (lambda n, r: latent(n, r, p)), 0.64 / 1.13
    a, b = rng.normal(size=(2, 10, p))

    def classes(n: int, r: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        label, e = r.integers(0, 10, n), r.normal(size=(n, p))
        return a[label] + e, b[label] + 0.5 * e + r.normal(size=(n, p))

    a0, b0, eye = a - a.mean(0), b - b.mean(0), np.eye(p)
    xx, yy = a0.T @ a0 / 10 + eye, b0.T @ b0 / 10 + 1.25 * eye
    xy = a0.T @ b0 / 10 + 0.5 * eye
    truth = (xy**2).sum() / np.sqrt((xx**2).sum() * (yy**2).sum())
    return classes, float(truth)


def population_rsa(
    kind: str, p: int, draw: Draw, examples: int = 400_000, turns: int = 16
) -> float:
    """Return the population's RSA, from so many pairs that its own error is 0.0006.

    An error of 0.004, as of 100,000 pairs, costs two points of coverage at n = 300.
    """
    if kind == "independent":
        return 0.0
    rng, found = np.random.default_rng(1), []
    batch = max(2_000, 4_000_000 // p)
    for _ in range(-(-examples // batch)):
        sides = []
        for side in draw(batch, rng):
            rows = side - side.mean(1, keepdims=True)
            with np.errstate(invalid="ignore"):
                rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            others = (np.roll(rows, turn, axis=0) for turn in range(1, turns + 1))
            sides.append(np.concatenate([1 - (rows * o).sum(1) for o in others]))
        found.append(np.stack(sides))
    entries = np.concatenate(found, 1)
    # Rows of zeros have no distance.
    entries = entries[:, np.isfinite(entries).all(0)]
    return float(stats.spearmanr(*entries).statistic)


def heavy_tails(n: int, r: np.random.Generator) -> Sides:
    """Examples whose size is that of a t with five degrees of freedom."""
    x, y = latent(n, r)
    size = 1 / np.sqrt(r.chisquare(5, n) / 5)[:, None]
    return x * size, y * size


def clusters(n: int, r: np.random.Generator) -> Sides:
    """Ten class centres plus noise."""
    draw, _ = population("classes", 8)
    return draw(n, r)


def low_rank(n: int, r: np.random.Generator) -> Sides:
    """Three directions in 50 units."""
    x, y = latent(n, r, 3)
    fixed = np.random.default_rng(0).normal(size=(2, 3, 50))
    return x @ fixed[0], y @ fixed[1]


def sparse(n: int, r: np.random.Generator) -> Sides:
    """Rectified units of which few are on, some never: whole rows are zero."""
    x, y = latent(n, r)
    fixed = np.random.default_rng(0).normal(size=(2, 8, 12))
    on = [np.maximum(s @ w - 2.0, 0) for s, w in zip((x, y), fixed, strict=True)]
    for side in on:
        side[:, :2] = 0
    return on[0], on[1]


def rare_large(n: int, r: np.random.Generator) -> Sides:
    """One unit is fifty times as large in one of a hundred examples."""
    x, y = latent(n, r)
    rare = r.random(n) < 0.01
    x[rare, 0] *= 50
    y[rare, 0] *= 50
    return x, y


def grouped(size: int, noise: float, related: bool = True) -> Draw:
    """Return a sampler of groups: `size` noisy versions of each of n / size."""

    def draw(n: int, r: np.random.Generator) -> Sides:
        x, y = latent(n // size, r)
        if not related:
            y = latent(n // size, r)[0]
        return tuple(  # type: ignore[return-value]
            np.repeat(side, size, 0) + noise * r.normal(size=(n, side.shape[1]))
            for side in (x, y)
        )

    return draw


DATA: dict[str, tuple[Draw, int, Draw]] = {
    "normal": (latent, 1, latent),
    "heavy tails": (heavy_tails, 1, heavy_tails),
    "clusters": (clusters, 1, clusters),
    "low rank": (low_rank, 1, low_rank),
    "sparse, dead units and rows": (sparse, 1, sparse),
    "one outlying unit in 1 %": (rare_large, 1, rare_large),
    "every example twice": (grouped(2, 0.0), 2, grouped(1, 0.0)),
    "augmentations, 5 an image": (grouped(5, 0.3), 5, grouped(1, 0.3)),
    "augmentations, unrelated": (grouped(5, 0.3, False), 5, grouped(1, 0.3, False)),
    "tokens of sentences, 20 each": (grouped(20, 1.0), 20, grouped(1, 1.0)),
}
"""Sampler, examples a group, and a sampler of independent examples for the truth."""


@functools.cache
def population_value(kind: str, measure: str) -> float:
    """Return the population's debiased CKA or RSA, of independent examples."""
    alone = DATA[kind][2]
    if measure == "rsa":
        return population_rsa(kind, 8, alone, 60_000, 8)
    rng, whole = np.random.default_rng(11), repsim.StreamingCKA()
    for _ in range(60):
        x, y = alone(5_000, rng)
        whole.update({"h": x}, {"h": y})
    return float(whole.compute().item())


def similarities(
    rng: np.random.Generator,
    counts: tuple[int, int],
    shift: float,
    spreads: tuple[float, float],
    shared: bool,
) -> np.ndarray:
    """Return debiased CKA between networks: noisy copies of a base that rule b moves.

    As `all_pairs` gives it, by one product of the vectors that it compares.
    """
    base, other = rng.normal(size=(2, 40, 6))
    starts = rng.normal(size=(max(counts), 40, 6)) * shared
    centers = base, np.sqrt(1 - shift**2) * base + shift * other
    x = np.concatenate(
        [
            center + starts[:count] + noise * rng.normal(size=(count, 40, 6))
            for center, count, noise in zip(centers, counts, spreads, strict=True)
        ]
    )
    n = x.shape[1]
    x = x - x.mean(1, keepdims=True)
    kernel = x @ x.transpose(0, 2, 1)
    diagonal = np.arange(n)
    kernel[:, diagonal, diagonal] = 0
    sums = kernel.sum(2)
    kernel -= (sums[:, :, None] + sums[:, None]) / (n - 2)
    kernel += (sums.sum(1) / ((n - 1) * (n - 2)))[:, None, None]
    kernel[:, diagonal, diagonal] = 0
    rows = kernel.reshape(len(kernel), -1)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows @ rows.T)


def as_run(x: np.ndarray) -> xr.Dataset:
    """Return a recording of one layer."""
    return xr.Dataset({"h": (("example", "h_unit"), x)})


def as_study(rules: dict[str, list[np.ndarray]]) -> xr.DataTree:
    """Return networks of one layer by rule and seed."""
    return xr.DataTree.from_dict(
        {
            f"{rule}/{seed}": as_run(x)
            for rule, xs in rules.items()
            for seed, x in enumerate(xs)
        }
    )


def around(
    rng: np.random.Generator, count: int, bases: np.ndarray, shift: float
) -> xr.DataTree:
    """Return networks of two rules around two given bases."""
    return as_study(
        {
            rule: list(center + rng.normal(size=(count, *center.shape)))
            for rule, center in (("a", bases[0]), ("b", bases[0] + shift * bases[1]))
        }
    )


WEIGHT = 0.6
"""How much networks differ in how large a direction is."""


def weighing(
    rng: np.random.Generator, base: np.ndarray, count: int, noise: float
) -> list[np.ndarray]:
    """Return networks that weigh the base's directions each in its own way."""
    scales = 1 + WEIGHT * rng.normal(size=(count, 1, base.shape[1]))
    return list(base * scales + noise * rng.normal(size=(count, *base.shape)))


def of_many_networks(turn: np.ndarray, noise: float) -> np.ndarray:
    """Return a vector whose product with another rule's is their networks' mean CKA.

    Of very many examples of normal directions, `turn` large, a network's kernel has a
    variance along each direction, plus noise that no other network shares.
    """
    rng = np.random.default_rng(5)
    along = (turn * (1 + WEIGHT * rng.normal(size=(2_000_000, len(turn))))) ** 2
    size = np.linalg.norm(along + noise**2, axis=1, keepdims=True)
    return np.asarray((along / size).mean(0))


def measured(rng: np.random.Generator, stimuli: np.ndarray, count: int) -> np.ndarray:
    """Return RDMs of noisy measurements of stimuli, one a subject."""
    return np.array(
        [pdist(stimuli + rng.normal(size=stimuli.shape)) for _ in range(count)]
    )
