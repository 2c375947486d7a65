"""Common neighbours against scikit-learn."""

from typing import Any

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from repsim.measures import mutual_knn, neighbours


def reference(x: np.ndarray, y: np.ndarray, k: int, metric: str) -> float:
    found = [
        NearestNeighbors(n_neighbors=k, metric=metric).fit(side).kneighbors()[1]
        for side in (x, y)
    ]
    shared = [len(set(a) & set(b)) for a, b in zip(*found, strict=True)]
    return float(np.mean(shared)) / k


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("k", [1, 10, 59])
def test_it_is_the_share_of_common_neighbours(
    rng: np.random.Generator, metric: Any, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "BLOCK", 17)
    x = rng.normal(size=(60, 5)) + 3
    y = x[:, :3] + 0.3 * rng.normal(size=(60, 3))
    expected = reference(x, y, k, metric)
    assert mutual_knn(x, y, k=k, metric=metric) == pytest.approx(expected)


def test_unrelated_representations_share_by_chance(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(400, 10)), rng.normal(size=(400, 10))
    assert mutual_knn(x, y, k=40) == pytest.approx(40 / 399, abs=0.01)


def test_rows_of_zeros_are_far_from_all(rng: np.random.Generator) -> None:
    x = np.abs(rng.normal(size=(20, 3)))
    x[4] = 0
    # Its three neighbours may be any of the 19 others, drawn anew on either side.
    assert mutual_knn(x, x, k=3) == pytest.approx((19 + 3 / 19) / 20)


@pytest.mark.parametrize("k", [0, 20, -1, 2.5, True])
def test_neighbours_that_are_refused(rng: np.random.Generator, k: Any) -> None:
    x = rng.normal(size=(20, 3))
    with pytest.raises(ValueError, match=r"`k` to lie in \[1, 20\)"):
        mutual_knn(x, x, k=k)


def test_a_misspelt_metric(rng: np.random.Generator) -> None:
    x = rng.normal(size=(20, 3))
    with pytest.raises(ValueError, match="Did you mean 'cosine'"):
        mutual_knn(x, x, metric="cosin")  # type: ignore[arg-type]
