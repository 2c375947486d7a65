"""RDMs of layers and of whole networks."""

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

import repsim
from repsim.geometry.between_networks import items_of


def test_network_rdm_of_layers_and_networks(study: Callable[..., xr.DataTree]) -> None:
    rdms = repsim.rdms(study())
    layers = repsim.network_rdm(rdms)
    assert layers.sizes["pair"] == 18 * 17 // 2
    items = items_of(layers)
    assert items["layer"][:4].tolist() == ["hidden_1", "hidden_2", "hidden_3"] + [
        "hidden_1"
    ]
    assert items["condition"][8:10].tolist() == ["bp", "sg"]
    stack = rdms.values.reshape(18, -1)
    expected = 1 - repsim.compare_rdms(stack[2], stack[7])
    square = repsim.squareform(layers.values)
    assert square[2, 7] == pytest.approx(expected, abs=1e-12)
    networks = repsim.squareform(repsim.network_rdm(rdms, items="networks").values)
    pairs = [square[3 * 1 + k, 3 * 4 + k] for k in range(3)]
    assert networks[1, 4] == pytest.approx(np.mean(pairs), abs=1e-12)


def test_network_rdm_says_what_is_wrong(recording: Callable[..., xr.Dataset]) -> None:
    rdms = repsim.rdms(recording())
    with pytest.raises(ValueError, match="select one moment first"):
        repsim.network_rdm(rdms)
    one = rdms.isel(step=0)
    with pytest.raises(
        ValueError, match="at least three networks to compare, but got 1"
    ):
        repsim.network_rdm(one, items="networks")
    with pytest.raises(ValueError, match="`items` to be one of layers"):
        repsim.network_rdm(one, items="units")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`method`"):
        repsim.network_rdm(one, method="r")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="pairs of n things, but got 4"):
        items_of(xr.DataArray(np.ones(4), dims="pair"))
