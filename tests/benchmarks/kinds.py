"""Kinds of data × measures: every number against a slow reference, as a table.

    python -P tests/benchmarks/kinds.py

Each reference is written from the definition, in loops or by SciPy, and shares no code
with the package; neighbours and ranks are told apart in exact rational arithmetic, so
that ties are ties. `tests/measures/test_kinds.py` runs the same cells.
"""

import warnings
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from itertools import permutations
from typing import Any

import numpy as np
import scipy.sparse
import torch
import xarray as xr
from scipy.linalg import orth, subspace_angles, svdvals
from scipy.spatial.distance import pdist, squareform
from scipy.stats import pearsonr, rankdata

from repsim import measures

N = 24
Array = np.ndarray


# Kinds: what is handed over, what it says in float64, and options.
class Kind:
    """Two sides as a user has them, and as the reference reads them."""

    def __init__(
        self, x: Any, y: Any, exact_x: Array, exact_y: Array, **options: Any
    ) -> None:
        self.x, self.y = x, y
        self.exact = np.asarray(exact_x, float), np.asarray(exact_y, float)
        self.options = options


def related(rng: np.random.Generator) -> tuple[Array, Array]:
    """Two related layers of six and five units."""
    x = rng.normal(size=(N, 6)) * [3, 2, 1, 1, 0.5, 0.5]
    return x, x[:, :5] + rng.normal(size=(N, 5))


def each(change: Callable[[Array], Any]) -> Callable[[np.random.Generator], Kind]:
    """A kind that changes both sides alike."""

    def make(rng: np.random.Generator) -> Kind:
        x, y = (change(side) for side in related(rng))
        return Kind(x, y, dense(x), dense(y))

    return make


def dense(x: Any) -> Array:
    """What a side says, in float64."""
    if isinstance(x, torch.Tensor):
        return np.asarray(x.detach().to_dense().double())
    return np.asarray(x.toarray() if scipy.sparse.issparse(x) else x, float)


def one_hot(rng: np.random.Generator) -> Kind:
    """Winner-take-all layers."""
    winner = rng.integers(0, 6, N)
    other = np.where(rng.random(N) < 0.6, winner % 5, rng.integers(0, 5, N))
    x, y = np.eye(6)[winner], np.eye(5)[other]
    return Kind(x, y, x, y)


def dead(rng: np.random.Generator) -> Kind:
    """Sparse layers of rectified units, with dead units and dead rows."""
    x, y = (np.maximum(side - 0.3, 0) for side in related(rng))
    x[:, 2] = y[:, 4] = 0
    x[rng.random(N) < 0.3] = 0
    y[rng.random(N) < 0.3] = 0
    return Kind(x, y, x, y)


def duplicated(rng: np.random.Generator) -> Kind:
    """Examples that come two and three times."""
    x, y = related(rng)
    x, y = x[np.arange(N) // 2 % 11], y[np.arange(N) // 3]
    return Kind(x, y, x, y)


def low_rank(rng: np.random.Generator) -> Kind:
    """Fewer directions than units."""
    x, y = related(rng)
    x, y = x[:, :3] @ rng.normal(size=(3, 6)), y[:, :2] @ rng.normal(size=(2, 5))
    return Kind(x, y, x, y)


def huge_unit(rng: np.random.Generator) -> Kind:
    """One unit ten thousand times larger than the others."""
    x, y = related(rng)
    x, y = x * [1e4, 1, 1, 1, 1, 1], y * [1, 1, 1e4, 1, 1]
    return Kind(x, y, x, y)


def strided(x: Array) -> Array:
    """A view backwards over every second column of something larger."""
    larger = np.zeros((N, 2 * x.shape[1]), order="F")
    larger[::-1, ::2] = x
    return larger[::-1, ::2]


def read_only(x: Array) -> Array:
    """An array that nobody may write to."""
    x = x.copy()
    x.flags.writeable = False
    return x


def with_ids(rng: np.random.Generator) -> Kind:
    """The second side in another order of ids."""
    x, y = related(rng)
    a, b = (
        xr.DataArray(s, dims=("example", "unit"), coords={"example": np.arange(N) * 7})
        for s in (x, y)
    )
    return Kind(a, b.isel(example=rng.permutation(N)), x, y)


def with_nan(rng: np.random.Generator) -> Kind:
    """NaN on either side, left out when asked."""
    x, y = related(rng)
    holes = x.copy(), y.copy()
    holes[0][3, 1] = holes[1][8, 0] = np.nan
    whole = np.delete(np.arange(N), [3, 8])
    return Kind(*holes, x[whole], y[whole], nan="omit")


def masked(rng: np.random.Generator) -> Kind:
    """Masked values, left out when asked."""
    x, y = related(rng)
    mask = np.zeros_like(x, dtype=bool)
    mask[5, 2] = True
    whole = np.delete(np.arange(N), 5)
    return Kind(np.ma.array(x, mask=mask), y, x[whole], y[whole], nan="omit")


def tensor(dtype: torch.dtype) -> Callable[[Array], torch.Tensor]:
    """Tensors that carry a gradient."""
    return lambda x: torch.tensor(x, dtype=dtype).requires_grad_()


KINDS: dict[str, Callable[[np.random.Generator], Kind]] = {
    "continuous": each(lambda x: x),
    "tied": each(lambda x: np.round(x)),
    "one-hot": one_hot,
    "binary": each(lambda x: x > 0),
    "integer": each(lambda x: np.round(3 * x).astype(np.int32)),
    "sparse, dead units and rows": dead,
    "duplicated rows": duplicated,
    "low rank": low_rank,
    "one huge unit": huge_unit,
    "offset 1e6": each(lambda x: x + 1e6),
    "scale 1e-30": each(lambda x: x * 1e-30),
    "scale 1e30": each(lambda x: x * 1e30),
    "float32 at 1e-30": each(lambda x: (x * 1e-30).astype(np.float32)),
    "float32 at 1e30": each(lambda x: (x * 1e30).astype(np.float32)),
    "float32": each(lambda x: x.astype(np.float32)),
    "float16": each(lambda x: x.astype(np.float16)),
    "bfloat16, with gradient": each(tensor(torch.bfloat16)),
    "longdouble": each(lambda x: x.astype(np.longdouble)),
    "read-only": each(read_only),
    "non-contiguous": each(strided),
    "big-endian": each(lambda x: x.astype(">f8")),
    "scipy.sparse": each(lambda x: scipy.sparse.csr_array(np.maximum(x, 0))),
    "torch.sparse": each(lambda x: torch.tensor(np.maximum(x, 0)).to_sparse()),
    "ids permuted": with_ids,
    'NaN, nan="omit"': with_nan,
    'masked, nan="omit"': masked,
}


# References.
def centred(x: Array) -> Array:
    """Of modest size, and without its mean."""
    x = x / np.abs(x).max()
    return x - x.mean(axis=0)


def kernel_of(x: Array, kernel: str) -> Array:
    """The kernel matrix."""
    if kernel == "linear":
        return x @ x.T
    d = squareform(pdist(x))
    median = np.median(d[np.triu_indices(len(x), 1)])
    return -d / median if kernel == "distance" else np.exp(-(d**2) / 2 / median**2)


def hsic(x: Array, y: Array, kernel: str = "linear", debiased: bool = True) -> float:
    """Song et al. 2012, or Gretton et al. 2005, from the matrices."""
    size = (np.abs(x).max() * np.abs(y).max()) ** 2 if kernel == "linear" else 1.0
    k, m = (kernel_of(centred(side), kernel) for side in (x, y))
    n, one = len(x), np.ones(len(x))
    if not debiased:
        h = np.eye(n) - 1 / n
        return float(np.trace(k @ h @ m @ h) / (n - 1) ** 2 * size)
    k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
    value = np.trace(k @ m) + k.sum() * m.sum() / (n - 1) / (n - 2)
    return float((value - 2 / (n - 2) * one @ k @ m @ one) / n / (n - 3) * size)


def cka(x: Array, y: Array, **options: Any) -> float:
    """HSIC over the root of both own ones."""
    x, y = x / np.abs(x).max(), y / np.abs(y).max()
    own = hsic(x, x, **options) * hsic(y, y, **options)
    return hsic(x, y, **options) / own**0.5 if own > 0 else np.nan


def basis(x: Array) -> Array:
    """An orthonormal basis of what the units span."""
    return np.asarray(orth(centred(x), rcond=1e-9))


def cca(x: Array, y: Array) -> float:
    """The mean cosine of the angles between two spans."""
    return float(np.cos(subspace_angles(basis(x), basis(y))).mean())


def svcca(x: Array, y: Array, variance: float = 0.99) -> float:
    """Of the leading eigenvectors of the Gram matrices."""
    kept = []
    for side in (x, y):
        values, vectors = np.linalg.eigh(centred(side) @ centred(side).T)
        share = np.cumsum(values[::-1]) / values.sum()
        kept.append(
            vectors[:, ::-1][:, : int(np.argmax(share >= variance - 1e-12)) + 1]
        )
    return float(np.cos(subspace_angles(*kept)).mean())


def pwcca(x: Array, y: Array) -> float:
    """Weights from the projections of x."""
    a, b = basis(x), basis(y)
    left, rho, _ = np.linalg.svd(a.T @ b, full_matrices=False)
    alpha = np.abs((a @ left).T @ centred(x)).sum(axis=1)
    return float(alpha @ rho / alpha.sum())


def shape_distance(x: Array, y: Array, alpha: float = 1.0) -> float:
    """The angle after the best rotation, of matrices whitened by their covariance."""
    sides = []
    for side in map(centred, (x, y)):
        u, s, vt = np.linalg.svd(side, full_matrices=False)
        s = s[s > 1e-9 * s[0]]
        z = (1 - alpha) + alpha * s / np.sqrt((s**2).mean())
        sides.append(u[:, : len(s)] * z @ vt[: len(s)])
    a, b = (side / np.linalg.norm(side) for side in sides)
    return float(np.arccos(min(svdvals(a.T @ b).sum(), 1)))


def exact_rows(x: Array) -> list[list[Fraction]]:
    """Every number as the fraction that it is."""
    return [[Fraction(float(v)) for v in row] for row in x]


def chances(x: Array, k: int, metric: str) -> Array:
    """Chance of j to be among the k nearest of i; ties are exact."""
    return _chances(x.tobytes(), x.shape, k, metric)


@lru_cache(8)
def _chances(held: bytes, shape: tuple[int, int], k: int, metric: str) -> Array:
    """What several measures ask of the same numbers."""
    x = np.frombuffer(held).reshape(shape)
    rows, n = exact_rows(x), len(x)

    def dot(a: list[Fraction], b: list[Fraction]) -> Fraction:
        return sum((s * t for s, t in zip(a, b, strict=True)), Fraction(0))

    own = [dot(row, row) for row in rows]
    found = np.zeros((n, n))
    for i in range(n):
        near = []
        for j in range(n):
            inner = dot(rows[i], rows[j])
            if metric == "euclidean":
                near.append(2 * inner - own[j])
            else:
                # The order of cosines is that of their signed squares.
                size = own[i] * own[j]
                near.append(inner * abs(inner) / size if size else Fraction(0))
        others = [near[j] for j in range(n) if j != i]
        edge = sorted(others, reverse=True)[k - 1]
        sure, tied = sum(v > edge for v in others), sum(v == edge for v in others)
        for j in range(n):
            if j != i and near[j] >= edge:
                found[i, j] = 1 if near[j] > edge else (k - sure) / tied
    return found


def mutual_knn(x: Array, y: Array, k: int = 10, metric: str = "cosine") -> float:
    """The expected share of neighbours in common."""
    both = chances(x, k, metric) * chances(y, k, metric)
    return float(both.sum() / k / len(x))


def cosines(x: Array) -> Array:
    """Cosines, 0 where a row is; near a common offset float64 has too few digits."""
    x = x.astype(np.longdouble) / np.abs(x).max()
    size = np.linalg.norm(x, axis=1)
    unit = x / np.where(size > 0, size, 1)[:, None]
    return np.asarray(unit @ unit.T)


def cknna(x: Array, y: Array, k: int = 10) -> float:
    """The sum of Huh et al. 2024."""
    a, b = chances(x, k, "cosine"), chances(y, k, "cosine")
    u, v = cosines(x), cosines(y)
    u, v = u - u.mean(axis=1, keepdims=True), v - v.mean(axis=1, keepdims=True)
    return float((a * b * u * v).sum() / np.sqrt((a * u * u).sum() * (b * v * v).sum()))


def second_order_cosine(x: Array, y: Array, k: int = 10) -> float:
    """One example after the other."""
    near = (chances(x, k, "cosine") > 0) | (chances(y, k, "cosine") > 0)
    total = 0.0
    for row, s, t in zip(near, cosines(x), cosines(y), strict=True):
        size = np.linalg.norm(s[row]) * np.linalg.norm(t[row])
        total += s[row] @ t[row] / size if size > 0 else 0
    return total / len(x)


def ridge_folds(x: Array, y: Array, folds: int, by_unit: bool) -> list[Any]:
    """Held-out truth and prediction of each fold, penalties by GCV on its rest."""
    x, y = centred(x), centred(y)
    order = np.random.default_rng(0).permutation(len(x))
    made = []
    for held in np.array_split(order, folds):
        rest = np.setdiff1d(order, held)
        a, b = x[rest] - x[rest].mean(axis=0), y[rest] - y[rest].mean(axis=0)
        n, s = len(rest), svdvals(a)
        tried = []
        for penalty in 10.0 ** np.arange(4, -9, -1):
            ridge = penalty * (s**2).mean()
            # With units outnumbered or not: in the space of examples.
            hat = a @ a.T @ np.linalg.inv(a @ a.T + ridge * np.eye(n))
            error = ((b - hat @ b) ** 2).sum(axis=0)
            error = error if by_unit else error.sum(keepdims=True)
            score = error / (n - 1 - np.trace(hat)) ** 2
            fit = np.linalg.solve(a @ a.T + ridge * np.eye(n), b)
            tried.append((score, (x[held] - x[rest].mean(axis=0)) @ a.T @ fit))
        best = np.argmin([score for score, _ in tried], axis=0)
        if by_unit:
            guess = np.stack([tried[i][1][:, j] for j, i in enumerate(best)], axis=1)
        else:
            guess = tried[int(best[0])][1]
        made.append((y[held] - y[rest].mean(axis=0), guess))
    return made


def linear_predictivity(x: Array, y: Array) -> float:
    """R² over all folds."""
    made = ridge_folds(x, y, 5, by_unit=False)
    left = sum(((truth - guess) ** 2).sum() for truth, guess in made)
    return float(1 - left / sum((truth**2).sum() for truth, _ in made))


def neural_predictivity(x: Array, y: Array) -> float:
    """The median of SciPy's correlations."""
    found = []
    for truth, guess in ridge_folds(x, y, 10, by_unit=True):
        row = []
        for t, g in zip(truth.T, guess.T, strict=True):
            if np.ptp(t) == 0:
                row.append(np.nan)
            else:
                varies = np.ptp(g) > 1e-9 * np.ptp(t)
                row.append(pearsonr(t, g)[0] if varies else 0.0)
        found.append(row)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(np.nanmedian(np.nanmean(found, axis=0)))


def correlations(x: Array, y: Array) -> Array:
    """Between units that vary."""
    a, b = (s[:, np.ptp(s, axis=0) > 0] for s in (centred(x), centred(y)))
    return np.array([[pearsonr(u, v)[0] for v in b.T] for u in a.T])


def hard_unit_matching(x: Array, y: Array) -> float:
    """The best of all matchings, one after the other."""
    r = correlations(x, y)
    r = r if r.shape[0] <= r.shape[1] else r.T
    rows = np.arange(len(r))
    return float(max(r[rows, p].mean() for p in every_matching(r)))


def every_matching(r: Array) -> list[list[int]]:
    """All one-to-one matchings of rows with columns."""
    return [list(p) for p in permutations(range(r.shape[1]), r.shape[0])]


def soft_unit_matching(x: Array, y: Array) -> float:
    """The mean of the best of each row and of each column."""
    r = correlations(x, y)
    return float((r.max(axis=0).mean() + r.max(axis=1).mean()) / 2)


def permutation_distance(x: Array, y: Array) -> float:
    """The smallest angle over all matchings."""
    a, b = (side / np.linalg.norm(side) for side in map(centred, (x, y)))
    a, b = (a, b) if a.shape[1] <= b.shape[1] else (b, a)
    product = a.T @ b
    rows = np.arange(len(product))
    best = max(product[rows, p].sum() for p in every_matching(product))
    return float(np.arccos(np.clip(best, -1, 1)))


def regularized_cca(x: Array, y: Array, penalty: float = 0.1) -> float:
    """Roots of the eigenvalues of the textbook's product of matrices."""
    a, b = centred(x), centred(y)
    sizes = [penalty * (s**2).sum() / min(s.shape[1], len(s) - 1) for s in (a, b)]
    xx, yy = (
        a.T @ a + sizes[0] * np.eye(a.shape[1]),
        b.T @ b + sizes[1] * np.eye(b.shape[1]),
    )
    product = np.linalg.solve(xx, a.T @ b) @ np.linalg.solve(yy, b.T @ a)
    values = np.sort(np.linalg.eigvals(product).real)[::-1]
    rank = min(np.linalg.matrix_rank(s, tol=1e-9) for s in (a, b))
    return float(np.sqrt(np.maximum(values[:rank], 0)).mean())


def gulp_distance(x: Array, y: Array, penalty: float = 0.01) -> float:
    """The norm of the difference of two smoothers."""
    smoothers = []
    for side in map(centred, (x, y)):
        z = side / np.sqrt((side**2).sum() / len(side))
        cov = z.T @ z / len(z)
        smoothers.append(
            z @ np.linalg.inv(cov + penalty * np.eye(len(cov))) @ z.T / len(z)
        )
    return float(np.linalg.norm(smoothers[0] - smoothers[1]))


def uniformity_difference(x: Array, y: Array) -> float:
    """From SciPy's distances."""
    values = []
    for side in (x, y):
        c = cosines(side)
        own, pair = np.diag(c), np.triu_indices(len(c), 1)
        squared = own[pair[0]] + own[pair[1]] - 2 * c[pair]
        values.append(np.log(np.exp(-2 * squared).mean()))
    return float(abs(values[0] - values[1]))


def concentricity_difference(x: Array, y: Array) -> float:
    """From the cosines with the mean as one more example."""
    values = [cosines(np.vstack([s, s.mean(axis=0)]))[-1, :-1].mean() for s in (x, y)]
    return float(abs(values[0] - values[1]))


def distance_correlation(x: Array, y: Array) -> float:
    """Székely et al. 2007, by double centring."""
    tables = []
    for side in map(centred, (x, y)):
        d = squareform(pdist(side))
        tables.append(d - d.mean(axis=0) - d.mean(axis=1)[:, None] + d.mean())
    a, b = tables
    return float(np.sqrt((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())))


def rsa(x: Array, y: Array) -> float:
    """Spearman of correlation distances, ranked in exact arithmetic."""
    ranked = []
    for side in (x, y):
        rows = exact_rows(side)
        rows = [[v - sum(row) / len(row) for v in row] for row in rows]
        own = [sum(v * v for v in row) for row in rows]
        keys: list[Fraction | None] = []
        for i in range(len(rows)):
            for j in range(i + 1, len(rows)):
                inner = sum(s * t for s, t in zip(rows[i], rows[j], strict=True))
                size = own[i] * own[j]
                keys.append(-inner * abs(inner) / size if size else None)
        ranked.append(keys)
    both = [(s, t) for s, t in zip(*ranked, strict=True) if None not in (s, t)]
    ranks = []
    for one in zip(*both, strict=True):
        places = {key: place for place, key in enumerate(sorted(set(one)))}
        ranks.append(rankdata([places[key] for key in one]))
    return float(pearsonr(*ranks)[0])


MEASURES: dict[str, tuple[str, dict[str, Any], Callable[..., float]]] = {
    "hsic": ("hsic", {}, hsic),
    "cka": ("cka", {}, cka),
    "cka, biased": ("cka", {"debiased": False}, cka),
    "cka, RBF": ("cka", {"kernel": "rbf"}, cka),
    "arccos_cka_distance": (
        "arccos_cka_distance", {}, lambda x, y: np.arccos(cka(x, y, debiased=False)),
    ),
    "angular_cka_distance": (
        "angular_cka_distance", {},
        lambda x, y: np.arccos(cka(x, y, debiased=False)) / np.pi * 2,
    ),
    "distance_correlation": ("distance_correlation", {}, distance_correlation),
    "distance_correlation, debiased": (
        "distance_correlation", {"debiased": True},
        lambda x, y, debiased: cka(x, y, kernel="distance"),
    ),
    "cca": ("cca", {}, cca),
    "svcca": ("svcca", {"variance": 0.9}, svcca),
    "pwcca": ("pwcca", {}, pwcca),
    "regularized_cca": ("regularized_cca", {}, regularized_cca),
    "gulp_distance": ("gulp_distance", {}, gulp_distance),
    "procrustes_distance": ("procrustes_distance", {}, shape_distance),
    "shape_distance, α = 0": ("shape_distance", {"alpha": 0.0}, shape_distance),
    "shape_distance, α = ½": ("shape_distance", {"alpha": 0.5}, shape_distance),
    "permutation_distance": ("permutation_distance", {}, permutation_distance),
    "hard_unit_matching": ("hard_unit_matching", {}, hard_unit_matching),
    "soft_unit_matching": ("soft_unit_matching", {}, soft_unit_matching),
    "mutual_knn": ("mutual_knn", {}, mutual_knn),
    "mutual_knn, Euclidean": ("mutual_knn", {"metric": "euclidean"}, mutual_knn),
    "cknna": ("cknna", {}, cknna),
    "second_order_cosine": ("second_order_cosine", {}, second_order_cosine),
    "uniformity_difference": ("uniformity_difference", {}, uniformity_difference),
    "concentricity_difference": (
        "concentricity_difference", {}, concentricity_difference,
    ),
    "linear_predictivity": ("linear_predictivity", {}, linear_predictivity),
    "neural_predictivity": ("neural_predictivity", {}, neural_predictivity),
    "rsa": ("rsa", {}, rsa),
}  # fmt: skip
"""Title → name, options, reference."""


def cell(kind: str, title: str, seed: int = 0) -> tuple[float, float]:
    """The measure's number of a kind of data, and the reference's."""
    sides = KINDS[kind](np.random.default_rng(seed))
    name, options, reference = MEASURES[title]
    got = quietly(measures.get(name), sides.x, sides.y, **options, **sides.options)
    return got, reference(*sides.exact, **options)


def quietly(function: Callable[..., float], *sides: Any, **options: Any) -> float:
    """A number without its warnings: of ranks that add up, of empty rows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*sides, **options)


def agrees(got: float, right: float) -> bool:
    """Whether both are the same but for rounding."""
    return bool(np.isclose(got, right, rtol=1e-6, atol=1e-6, equal_nan=True))


def table(seed: int = 0) -> str:
    """One row a measure, one column a kind: ✓, or the largest number that is wrong."""
    lines = [
        "| measure | " + " | ".join(KINDS) + " |",
        "| --- |" + " --- |" * len(KINDS),
    ]
    for title in MEASURES:
        row = []
        for kind in KINDS:
            got, right = cell(kind, title, seed)
            row.append("✓" if agrees(got, right) else f"{got:.3g}, not {right:.3g}")
        lines.append(f"| `{title}` | " + " | ".join(row) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
