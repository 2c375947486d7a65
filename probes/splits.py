"""Which examples are learnt from and which held out, and that none has kin on both."""

import warnings
from numbers import Real

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike
from sklearn.model_selection import GroupShuffleSplit, train_test_split

from repsim.core.messages import Misuse, seed_number, whole
from repsim.datasets.recordings import matrix, matrix_layers
from repsim.probes.targets import Target, per_example, some

Split = tuple[np.ndarray, np.ndarray]
"""Positions of training and of held-out examples, sorted."""

TRIES = 20
"""Draws of groups, of which the one with classes nearest to proportion is taken."""


def group_codes(
    run: xr.Dataset, groups: str | ArrayLike | None
) -> tuple[str, np.ndarray] | None:
    """Return the groups' name and each example's group 0 … m − 1; None without any.

    Without groups, a warning says where examples visibly belong together.
    """
    if groups is None:
        _warn_of_kin(run)
        return None
    name, values = per_example(run, groups, "groups")
    values = values.astype(str) if values.dtype.kind == "O" else values
    kinds, codes = np.unique(values, return_inverse=True)
    if len(kinds) < 2:
        msg = f"Expected `groups` {name!r} to have at least 2 groups, but got 1."
        raise ValueError(msg)
    return name, codes


def _warn_of_kin(run: xr.Dataset) -> None:
    n = run.sizes["example"]
    for name in ("sequence", "example"):
        if name in run.coords and run[name].dims == ("example",):
            kinds = len(np.unique(run[name].values))
            if kinds < n:
                _warn(f"the {n} examples have {kinds} values of {name!r}", repr(name))
                return
    same = duplicates(run)
    if same:
        _warn(
            f"{same} of {n} examples equal another one in every layer",
            "a coordinate or an array that says which belong together",
        )


def _warn(what: str, groups: str) -> None:
    warnings.warn(
        f"Examples are not independent: {what}. A probe can know held-out ones by "
        f"heart from their kin among the training examples; give groups={groups}.",
        stacklevel=2,
    )


def duplicates(run: xr.Dataset) -> int:
    """Return how many examples equal another one, bit by bit, in every layer.

    At the last step. Examples that are zero in the first layer are dead, not repeated:
    whatever they were, all later layers give them the same answer.
    """
    step = -1 if "step" in run.dims else None
    codes = np.zeros(run.sizes["example"], dtype=np.int64)
    left = np.arange(len(codes))
    for place, layer in enumerate(matrix_layers(run)):
        x = np.ascontiguousarray(matrix(run, layer, step)[left] + 0)  # -0 is 0
        if place == 0:
            alive = (x != 0).any(axis=1)
            x, left = x[alive], left[alive]
        rows = x.view(np.dtype((np.void, x.dtype.itemsize * x.shape[1])))[:, 0]
        kinds = np.unique(rows, return_inverse=True)[1].reshape(-1)
        both = np.column_stack([codes[left], kinds])
        _, codes[left], counts = np.unique(
            both, axis=0, return_inverse=True, return_counts=True
        )
        left = left[counts[codes[left]] > 1]
        if not left.size:
            break
    return len(left)


def splits(
    target: Target,
    test_size: float,
    seed: int,
    *,
    repeats: int = 1,
    groups: np.ndarray | None = None,
) -> list[Split]:
    """Return seeded splits: classes in proportion, no group on both sides."""
    if not isinstance(test_size, Real) or not 0 < float(test_size) < 1:
        msg = f"Expected `test_size` to be between 0 and 1, but got {test_size!r}."
        raise ValueError(Misuse(msg))
    n = len(target.values)
    k = 2 if target.classes is None else len(target.classes)
    held = int(np.ceil(n * test_size))
    if min(held, n - held) < k:
        msg = (
            f"Expected `test_size` to leave at least {k} examples on either side, "
            f"but {test_size} of {n} examples leaves {n - held} and {held}."
        )
        raise ValueError(msg)
    rng = np.random.RandomState(seed_number(seed))
    single = target.values.ndim == 1
    chosen: list[Split] = []
    for _ in range(whole(repeats, "repeats", 1)):
        if groups is None and (single or target.classes is None):
            train, test = train_test_split(
                np.arange(n),
                test_size=float(test_size),
                random_state=rng,
                stratify=None if target.classes is None else target.values,
            )
        else:
            # Groups cannot be stratified, nor several labels at once: the fairest of
            # some draws.
            draws = GroupShuffleSplit(
                TRIES, test_size=float(test_size), random_state=rng
            )
            kin = np.arange(n) if groups is None else groups
            train, test = min(
                draws.split(kin, groups=kin),
                key=lambda sides: _unfairness(target, sides[1], float(test_size)),
            )
        _expect_all_classes(target, train, test_size)
        chosen.append((np.sort(train), np.sort(test)))
    return chosen


def _unfairness(target: Target, test: np.ndarray, test_size: float) -> float:
    """Return how far the shares held out of any class, or of all, are from asked."""
    shares = np.array([len(test) / len(target.values)])
    if target.classes is not None:
        shares = np.append(shares, _counts(target, test) / _counts(target))
    return float(np.abs(shares - test_size).max())


def _counts(target: Target, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
    """Return the classes' frequencies, of several labels one after another."""
    assert target.classes is not None
    values = target.values[rows]
    k = len(target.classes)
    if values.ndim == 1:
        return np.bincount(values, minlength=k)
    return np.concatenate([(values == code).sum(axis=0) for code in range(k)])


def _expect_all_classes(target: Target, train: np.ndarray, test_size: float) -> None:
    if target.classes is None:
        return
    lost = np.flatnonzero(_counts(target, train) == 0)
    if lost.size:
        names = target.classes[lost % len(target.classes)]
        if target.values.ndim == 2:
            names = np.asarray(target.outputs)[lost % target.values.shape[1]]
        msg = (
            f"Expected a training example of every class of `target` "
            f"{target.name!r}, but `test_size`={test_size} leaves none of "
            f"{some(names)}; hold out less."
        )
        raise ValueError(msg)
