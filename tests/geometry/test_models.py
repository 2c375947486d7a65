"""Model RDMs of labels, inputs and depth."""

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr
from scipy.spatial.distance import pdist

import repsim


def test_model_rdms_of_labels_inputs_and_depth(
    recording: Callable[..., xr.Dataset],
) -> None:
    rdms = repsim.rdms(recording(steps=None))
    pixels = np.random.default_rng(0).random((12, 2, 4))
    models = repsim.model_rdms(rdms, inputs=pixels)
    assert models["model"].values.tolist() == ["label", "inputs"]
    labels = recording()["label"].values
    i, j = np.triu_indices(12, 1)
    np.testing.assert_array_equal(models[0], labels[i] != labels[j])
    np.testing.assert_allclose(models[1], pdist(pixels.reshape(12, 8), "correlation"))
    network = repsim.network_rdm(rdms)
    depth = repsim.model_rdms(network, apart=["depth"], same=())
    np.testing.assert_array_equal(depth.values, [[1, 2, 1]])


def test_model_rdms_say_what_is_wrong(recording: Callable[..., xr.Dataset]) -> None:
    rdms = repsim.rdms(recording(steps=None))
    with pytest.raises(ValueError, match="Did you mean 'label'"):
        repsim.model_rdms(rdms, same=["lable"])
    with pytest.raises(ValueError, match="behind 66 pairs, but got 5 rows"):
        repsim.model_rdms(rdms, inputs=np.ones((5, 2)))
    with pytest.raises(ValueError, match="got none that vary"):
        repsim.model_rdms(rdms.drop_vars(["label_a", "label_b"]))
