"""Two living networks: the numbers of `compare`, whatever the batches."""

from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn

import repsim
from repsim import live_models


def _mlp(width: int) -> nn.Module:
    layers = OrderedDict(a=nn.Linear(4, width), r=nn.ReLU(), b=nn.Linear(width, 5))
    return nn.Sequential(layers)


@pytest.mark.parametrize("sizes", [[30], [7, 7, 7, 7, 2], [1] * 30, [29, 1]])
def test_cka_is_that_of_recordings_for_any_batches(sizes: list[int]) -> None:
    nets, x = (_mlp(6), _mlp(8)), torch.randn(30, 4) + 5
    runs = [repsim.record(net, x) for net in nets]
    expected = repsim.compare(*runs, precision="float64")
    before = [p.clone() for net in nets for p in net.parameters()]
    cells = repsim.compare_models(*nets, x.split(sizes), progress=False)
    np.testing.assert_allclose(cells, expected, atol=1e-6)
    assert cells.dims == expected.dims
    assert cells["layer_a"].values.tolist() == ["a", "r", "b"]
    after = [p for net in nets for p in net.parameters()]
    assert all(torch.equal(p, q) for p, q in zip(before, after, strict=True))
    assert all(m.training and not m._forward_hooks for n in nets for m in n.modules())


@pytest.mark.parametrize("measure", ["rsa", "procrustes_distance", "mutual_knn"])
def test_other_measures_are_computed_at_the_end(measure: str) -> None:
    nets, x = (_mlp(6), _mlp(8)), torch.randn(30, 4)
    a, b = (repsim.record(net, x) for net in nets)
    expected = repsim.compare(a, b, measure)
    cells = repsim.compare_models(*nets, x.split(11), measure=measure, progress=False)
    xr.testing.assert_allclose(cells, expected, atol=1e-5)


def test_layers_too_wide_for_sums_are_kept_instead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nets, x = (_mlp(6), _mlp(8)), torch.randn(30, 4)
    sums = repsim.compare_models(*nets, x.split(11), progress=False)
    monkeypatch.setattr(live_models, "SUMS", 0)
    kept = repsim.compare_models(*nets, x.split(11), progress=False)
    np.testing.assert_allclose(kept, sums, atol=2e-6)


def test_one_network_with_itself_and_other_layers() -> None:
    net, x = _mlp(6), torch.randn(30, 4)
    own = repsim.compare_models(net, batches=x, progress=False)
    np.testing.assert_allclose(np.diag(own), 1)
    some = repsim.compare_models(
        net, None, x, layers=["a", "b"], layers_b="!a", progress=False
    )
    np.testing.assert_allclose(some, own.sel(layer_a=["a", "b"], layer_b=["r", "b"]))


def test_labels_are_no_inputs_and_pairs_are() -> None:
    nets, x, y = (_mlp(6), _mlp(8)), torch.randn(30, 4), torch.arange(30)
    plain = repsim.compare_models(*nets, x, progress=False)
    labelled = [(x[:20], y[:20]), (x[20:], y[20:])]
    np.testing.assert_allclose(
        repsim.compare_models(*nets, labelled, progress=False), plain, atol=1e-9
    )
    pairs = [(x[:20], x[:20] + 1), (x[20:], x[20:] + 1)]
    moved = repsim.compare_models(*nets, pairs, progress=False)
    runs = repsim.record(nets[0], x), repsim.record(nets[1], x + 1)
    runs[0].attrs.clear()
    runs[1].attrs.clear()
    expected = repsim.compare(*runs, precision="float64")
    np.testing.assert_allclose(moved, expected, atol=1e-6)


def test_tokens_and_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.body = nn.Embedding(50, 4), nn.Linear(4, 5)

        def forward(self, input_ids: Tensor, **_: Any) -> Tensor:
            return self.body(self.embed(input_ids))

    nets = Words(), Words()
    mask = torch.arange(6) < torch.tensor([2, 6, 3, 4, 5, 6, 2, 3])[:, None]
    batch = {"input_ids": torch.randint(0, 50, (8, 6)), "attention_mask": mask.long()}
    for reduce in ("mean", "last", "tokens"):
        expected = repsim.compare(
            *(repsim.record(n, batch, reduce=reduce) for n in nets), precision="float64"
        )
        cells = repsim.compare_models(*nets, batch, reduce=reduce, progress=False)
        np.testing.assert_allclose(cells, expected, atol=1e-6)
    with pytest.raises(ValueError, match=r'"tokens"\) makes each token an example'):
        repsim.compare_models(*nets, batch, progress=False)


def test_what_is_missing_is_said() -> None:
    net, x = _mlp(6), torch.randn(5, 4)
    with pytest.raises(ValueError, match="Expected `batches`, the inputs that both"):
        repsim.compare_models(net, net)
    with pytest.raises(ValueError, match="at least one batch to compare on, but"):
        repsim.compare_models(net, net, [], progress=False)
    with pytest.raises(TypeError, match=r"Expected a torch\.nn\.Module"):
        repsim.compare_models(net, len, x, progress=False)
