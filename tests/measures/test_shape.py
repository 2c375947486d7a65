"""Shape distances against SciPy's Procrustes and against CCA."""

import numpy as np
import pytest
import torch
from scipy.linalg import orthogonal_procrustes
from scipy.optimize import minimize_scalar

from repsim import measures
from repsim.measures import cca, procrustes_distance, shape, shape_distance


def normal(x: np.ndarray) -> np.ndarray:
    x = x - x.mean(0)
    return np.asarray(x / np.linalg.norm(x))


def test_it_is_the_angle_after_scipys_rotation(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(20, 4)), rng.normal(size=(20, 4))
    a, b = normal(x), normal(y)
    rotation, scale = orthogonal_procrustes(a, b)
    assert procrustes_distance(x, y) == pytest.approx(np.arccos(scale), abs=1e-12)
    assert np.arccos(np.sum((a @ rotation) * b)) == pytest.approx(np.arccos(scale))


def test_in_the_plane_it_is_the_best_angle(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(9, 2)), rng.normal(size=(9, 2))
    a, b = normal(x), normal(y)

    def distance(angle: float, flip: float) -> float:
        c, s = np.cos(angle), np.sin(angle)
        return float(np.arccos(np.sum((a @ [[c, s], [-s, c]] * [1, flip]) * b)))

    best = min(
        minimize_scalar(distance, (start, start + 1), args=(flip,), tol=1e-12).fun
        for flip in (1.0, -1.0)
        for start in (0, 2, 4)
    )
    assert procrustes_distance(x, y) == pytest.approx(best, abs=1e-9)


def test_widths_may_differ(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(20, 3)), rng.normal(size=(20, 50))
    padded = np.concatenate([x, np.zeros((20, 47))], axis=1)
    expected = np.arccos(orthogonal_procrustes(normal(padded), normal(y))[1])
    assert procrustes_distance(x, y) == pytest.approx(expected, abs=1e-12)
    assert procrustes_distance(y, x) == pytest.approx(expected, abs=1e-12)


def test_small_distances_keep_their_digits(rng: np.random.Generator) -> None:
    x = rng.normal(size=(30, 4))
    noise = rng.normal(size=(30, 4))
    # The arc cosine alone would stop at 1e-8.
    small = [procrustes_distance(x, x + e * noise) for e in (1e-6, 1e-9)]
    assert small[0] / small[1] == pytest.approx(1e3, rel=1e-4)
    assert procrustes_distance(x, x[:, ::-1] * 7 + 1) < 1e-14
    # Units without a partner: at most their size, less what a rotation takes up.
    wide = np.concatenate([x, 1e-9 * noise], axis=1)
    size = np.linalg.norm(noise - noise.mean(0)) / np.linalg.norm(x - x.mean(0))
    assert 0.8e-9 * size < procrustes_distance(x, wide) <= 1.001e-9 * size


def test_the_family_between_cca_and_procrustes(rng: np.random.Generator) -> None:
    x = rng.normal(size=(60, 3)) * [5, 1, 0.2]
    y = rng.normal(size=(60, 3)) + x
    assert shape_distance(x, y, alpha=1.0) == procrustes_distance(x, y)
    # All ranks are 3, so the mean correlation is the cosine.
    assert shape_distance(x, y, alpha=0.0) == pytest.approx(
        np.arccos(cca(x, y)), abs=1e-10
    )

    def partly(x: np.ndarray, alpha: float) -> np.ndarray:
        x = normal(x) * 3**0.5
        whitening = np.linalg.inv(np.linalg.cholesky(x.T @ x)).T
        values, vectors = np.linalg.eigh(x.T @ x)
        whitening = vectors / np.sqrt(values) @ vectors.T
        return np.asarray(x @ ((1 - alpha) * whitening + alpha * np.eye(3)))

    for alpha in (0.2, 0.7):
        expected = procrustes_distance(partly(x, alpha), partly(y, alpha))
        assert shape_distance(x, y, alpha=alpha) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("alpha", [-0.1, 1.5])
def test_alpha_out_of_range(rng: np.random.Generator, alpha: float) -> None:
    x = rng.normal(size=(9, 2))
    with pytest.raises(ValueError, match=r"`alpha` to lie in \[0, 1\]"):
        shape_distance(x, x, alpha=alpha)


def test_full_whitening_of_full_rank_is_refused(rng: np.random.Generator) -> None:
    x = rng.normal(size=(9, 20))
    with pytest.raises(ValueError, match="rank below n − 1 = 8"):
        shape_distance(x, x, alpha=0.0)
    assert shape_distance(x, x, alpha=0.5) < 1e-12


def test_pairs_come_back_together_and_are_those_one_by_one(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of twenty pairs two waits for the device, not two a pair."""
    xs = [rng.normal(size=(30, units)) for units in (4, 4, 7, 4, 40)]
    xs.append(xs[0] + 1e-6 * rng.normal(size=(30, 4)))  # near: by its chord
    one = np.array([[procrustes_distance(x, y) for y in xs] for x in xs])
    fetched: list[tuple[int, ...]] = []
    before = torch.Tensor.cpu

    def counted(tensor: torch.Tensor) -> torch.Tensor:
        fetched.append(tuple(tensor.shape))
        return before(tensor)

    monkeypatch.setattr(torch.Tensor, "cpu", counted)
    together = measures.get("procrustes_distance").all_pairs(xs)
    np.testing.assert_allclose(together, one, atol=1e-9)
    assert fetched.count((6,)) == 1  # the first row's six cosines, once
    assert len(fetched) <= 2 * len(xs)
    monkeypatch.setattr(shape, "TOGETHER", 20)  # one product at a time
    alone = measures.get("procrustes_distance").all_pairs(xs)
    np.testing.assert_allclose(alone, together, atol=1e-12)
