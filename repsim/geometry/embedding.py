"""Points whose distances on paper are those of an RDM, as nearly as two dims allow."""

from typing import Literal

import numpy as np
import xarray as xr

from repsim.core.messages import unknown
from repsim.core.provenance import repsim_version
from repsim.geometry.between_networks import items_of
from repsim.geometry.stacks import squareform
from repsim.measures.dissimilarity.given import as_rdms, in_order

Scaling = Literal["classical", "metric"]


def embed(
    rdm: xr.DataArray, *, method: Scaling = "classical", dims: int = 2
) -> xr.DataArray:
    r"""Return a low-dimensional configuration of the things an RDM compares.

    ``classical`` (Torgerson) takes the leading eigenvectors of
    :math:`-\tfrac12 C D^{(2)} C`; ``metric`` starts there and lowers the stress
    :math:`\sum_{i<j} (d_{ij} - \|y_i - y_j\|)^2` by majorisation (SMACOF), so that it
    is deterministic too.

    Parameters
    ----------
    rdm : DataArray, dims (pair)
        Condensed distances without NaN, as from `repsim.network_rdm`.
    method : {"classical", "metric"}
        How.
    dims : int
        Dimensions of the result.

    Returns
    -------
    DataArray, dims (item, axis)
        In the unit of the distances, with one coordinate on `item` for every
        `<name>_a`, `<name>_b` of the RDM. `attrs["stress"]` is Kruskal's stress-1,
        :math:`\sqrt{\sum (d_{ij} - \|y_i - y_j\|)^2 / \sum \|y_i - y_j\|^2}`
        (0: perfect); `attrs["explained"]` the share of positive eigenvalues kept.

    Raises
    ------
    ValueError
        If the RDM has other dims or NaN, the method is unknown, or there are not
        more things than dims.

    References
    ----------
    Torgerson (1952). Psychometrika 17, 401–419. https://doi.org/10.1007/BF02288916

    Examples
    --------
    >>> rdm = xr.DataArray([3.0, 4.0, 5.0], dims="pair")
    >>> round(embed(rdm).attrs["stress"], 6)
    0.0
    """
    rdm = in_order(as_rdms(rdm, "rdm"), "rdm")
    if method not in ("classical", "metric"):
        raise ValueError(unknown("method", method, ["classical", "metric"]))
    if rdm.ndim != 1 or bool(rdm.isnull().any()):
        msg = (
            "Expected `rdm` to be one condensed RDM without NaN, dims (pair), but got "
            f"({', '.join(str(d) for d in rdm.dims)}) with "
            f"{int(rdm.isnull().sum())} NaN."
        )
        raise ValueError(msg)
    square = np.asarray(squareform(rdm.values.astype(np.float64)))
    if not 1 <= dims < len(square):
        msg = f"Expected 1 ≤ `dims` < {len(square)} things, but got {dims}."
        raise ValueError(msg)
    points, explained = _classical(square, dims)
    if method == "metric":
        # Imported here: with it `import repsim` would take longer.
        from sklearn.manifold import smacof

        points, _ = smacof(
            square,
            n_components=dims,
            init=points,
            n_init=1,
            max_iter=1000,
            eps=1e-9,
            normalized_stress=True,
        )
    stress = _stress(points, square)
    labels = items_of(rdm)
    return xr.DataArray(
        points,
        dims=("item", "axis"),
        coords={name: ("item", values) for name, values in labels.items()},
        attrs={
            **rdm.attrs,
            "scaling": method,
            "stress": stress,
            "explained": explained,
            "repsim_version": repsim_version(),
        },
        name="configuration",
    )


def _classical(square: np.ndarray, dims: int) -> tuple[np.ndarray, float]:
    squares = square**2
    centred = squares - squares.mean(0) - squares.mean(1)[:, None] + squares.mean()
    values, vectors = np.linalg.eigh(-centred / 2)
    values, vectors = values[::-1], vectors[:, ::-1]
    points = vectors[:, :dims] * np.sqrt(np.maximum(values[:dims], 0))
    # Eigenvectors have no sign of their own: the longest entry points up.
    ends = np.abs(points).argmax(0)
    points *= np.where(points[ends, np.arange(dims)] < 0, -1, 1)
    positive = values[values > 0].sum()
    share = float(np.maximum(values[:dims], 0).sum() / positive) if positive else 1.0
    return points, share


def _distances(points: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.norm(points[:, None] - points[None], axis=-1))


def _stress(points: np.ndarray, square: np.ndarray) -> float:
    apart = _distances(points)
    missed, total = np.sum((square - apart) ** 2), np.sum(apart**2)
    return float(np.sqrt(missed / total)) if total else float(missed > 0)
