"""Every kind of data that people have, each against scikit-learn in float64 by hand."""

import warnings
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from repsim.probes import LinearProbe, codelength_layers, probe_layers

Scaler = Callable[[np.ndarray, np.ndarray], np.ndarray]
N = 160


def kinds() -> Iterator[tuple[str, np.ndarray]]:
    """Yield layers (example, unit) that hold something of three classes."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, 8))
    yield "continuous", x
    yield "tied", x.round(0)
    yield "one-hot", np.eye(8)[x.argmax(1)]
    yield "binary", (x > 0).astype(float)
    yield "integer", (3 * x).astype(np.int32)
    sparse = np.maximum(x - 0.5, 0)
    sparse[:, 5], sparse[::9] = 0, 0
    yield "dead units and rows", sparse
    yield "duplicated rows", np.repeat(x[: N // 4], 4, axis=0)
    yield "low rank", x[:, :2] @ rng.normal(size=(2, 8))
    yield "one huge unit", x * np.array([1e3, *[1] * 7])
    yield "offset", x + 1e6
    for factor in (1e-30, 1e30):
        yield f"times {factor:.0e}", x * factor
        yield f"float32 times {factor:.0e}", (x * factor).astype("f4")
    yield "float16", x.astype("f2")
    yield "bfloat16", torch.from_numpy(x).bfloat16().float().numpy()
    yield "float32", x.astype("f4")
    yield "big-endian", x.astype(">f8")
    yield "big-endian float32", x.astype(">f4")
    yield "non-contiguous", np.asfortranarray(np.repeat(x, 2, axis=1))[:, ::2]
    fixed = x.copy()
    fixed.flags.writeable = False
    yield "read-only", fixed


KINDS = dict(kinds())
LABEL = np.argmax(
    KINDS["continuous"][:, :3] + np.random.default_rng(1).gumbel(size=(N, 3)), axis=1
)


@pytest.fixture(autouse=True)
def _repeats_are_said() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Examples are not independent")
        yield


def objective(z: np.ndarray, model: LinearProbe | LogisticRegression) -> float:
    """Return the mean objective of C = 1 in float64."""
    scores = z @ np.asarray(model.coef_, float).T + model.intercept_
    losses = logsumexp(scores, axis=1) - scores[np.arange(len(z)), LABEL]
    return float((losses.sum() + 0.5 * (np.asarray(model.coef_, float) ** 2).sum()) / N)


@pytest.mark.parametrize("kind", KINDS)
def test_linear_probe_reaches_scikit_learns_minimum(
    kind: str, one_scale: Scaler
) -> None:
    # Raw where the objective means anything, else in the layer's own unit.
    x = KINDS[kind]
    if kind == "offset" or "times" in kind:
        x = one_scale(x, np.arange(N))
    wide = x.astype(np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        best = LogisticRegression(solver="newton-cholesky", tol=1e-10).fit(wide, LABEL)
    probe = LinearProbe().fit(x, LABEL)
    assert objective(wide, probe) <= objective(wide, best) * (1 + 1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_probe_layers_is_the_split_by_hand(kind: str, one_scale: Scaler) -> None:
    x = KINDS[kind]
    ids = np.random.default_rng(2).permutation(N)
    run = xr.Dataset({"h": (("example", "h_unit"), x)}, coords={"example": ids})
    found = probe_layers(run, LABEL).isel(layer=0)
    train, test = train_test_split(
        np.arange(N), test_size=0.25, random_state=0, stratify=LABEL
    )
    z = one_scale(x, train)
    fitted = LogisticRegression(tol=1e-9, max_iter=5000).fit(z[train], LABEL[train])
    right = fitted.predict(z[test]) == LABEL[test]
    # One example may lie on the border.
    assert abs(float(found["accuracy"]) - right.mean()) <= 1 / 40 + 1e-9
    chosen = fitted.predict_log_proba(z[test])[np.arange(40), LABEL[test]]
    assert float(found["log_loss"]) == pytest.approx(-chosen.mean(), rel=5e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_code_lengths_are_those_of_float64_by_hand(
    kind: str, one_scale: Scaler
) -> None:
    x = KINDS[kind]
    scaled = one_scale(x, np.arange(N))
    found, expected = (
        codelength_layers(
            xr.Dataset({"h": (("example", "h_unit"), values)}), LABEL, estimator=probe
        ).isel(layer=0)
        for values, probe in (
            (x, None),
            (scaled, LogisticRegression(tol=1e-9, max_iter=5000)),
        )
    )
    bits = float(expected["codelength"])
    assert float(found["codelength"]) == pytest.approx(bits, rel=5e-3)
    assert found["codelength"] <= found["uniform"] + 1 + 1e-6
