"""Examples that an interval cannot count as drawn one by one: said in warnings."""

import warnings
from collections.abc import Sequence

import numpy as np

from repsim.inference.layer_pairs import LayerPair
from repsim.measures.magnitudes import array_near_one


def warn_of_copies(pair: LayerPair) -> None:
    """Warn where examples are not independent of each other."""
    first = [x for side in pair.matrices(-1) for x in side]
    copies = exact_copies(first)
    if copies:
        warnings.warn(
            f"{copies} of {len(first[0])} examples are exact copies of others, but are "
            "counted as independent, so that intervals are too narrow; leave copies "
            "out, or name a coordinate that they share, as in over='stimulus'.",
            UserWarning,
            stacklevel=4,
        )
    if "sequence" in pair.a.coords and pair.a["sequence"].dims == ("example",):
        warnings.warn(
            "Tokens of one sequence are not independent of each other, but are counted "
            "so, so that intervals are too narrow; take over='sequence'.",
            UserWarning,
            stacklevel=4,
        )


def warn_of_one_example(pair: LayerPair) -> None:
    """Warn of an example that is most of a layer, as a unit with rare large values."""
    outliers = {}
    for side, names in zip(
        pair.matrices(-1), (pair.layers_a, pair.layers_b), strict=True
    ):
        for x, name in zip(side, names, strict=True):
            which = outlying(x)
            if len(which):
                outliers[name] = which
    if outliers:
        name, which = next(iter(outliers.items()))
        many = len(which)
        what = "One example holds" if many == 1 else f"{many} examples hold"
        warnings.warn(
            f"{what} more than a fifth of the variance of "
            f"{', '.join(outliers)} (position {which[0]} in {name}), as where a unit "
            "has rare large values: such intervals cover far less than they say, in "
            "samples without such an example too; look at the unit, or take a measure "
            "of ranks (rsa).",
            UserWarning,
            stacklevel=4,
        )


def outlying(x: np.ndarray) -> np.ndarray:
    """Return the few examples that are far from all others and hold a fifth of it all.

    At most one in twenty, the farthest first; none where they hold less. Of a unit that
    is large in 1 % of examples a sample of 1,000 has ten, none of them that much alone.
    """
    nothing = np.empty(0, dtype=np.intp)
    if len(x) < 20:
        return nothing
    x, _ = array_near_one(x)
    size = np.linalg.norm(x - np.median(x, axis=0), axis=1)
    order = np.argsort(-size, kind="stable")[: len(x) // 20]
    # Not the median: of a rectified unit half of the examples are at 0 anyhow.
    far = order[size[order] > 4 * np.quantile(size, 0.75)]
    share = (size[far] ** 2).sum() / max(float((size**2).sum()), np.finfo(float).tiny)
    return far if share > 0.2 else nothing


def exact_copies(layers: Sequence[np.ndarray]) -> int:
    """Return how many examples equal an earlier one in every layer (not all zero)."""
    rows = np.concatenate([np.ascontiguousarray(x) for x in layers], axis=1)
    rows = np.ascontiguousarray(rows[np.ptp(rows, axis=1) > 0])
    seen = {row.tobytes() for row in rows}
    return len(rows) - len(seen)
