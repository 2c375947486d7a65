"""Positions that count: pooling by the mask, tokens as examples, labels of tokens."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn

import repsim


class Words(nn.Module):
    """Embedded words, mixed a little, and a class."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.body = nn.Embedding(30, 4), nn.Linear(4, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, input_ids: Tensor, **_: Any) -> Tensor:
        return self.head(self.body(self.embed(input_ids)).mean(1))


MASK = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [0, 1, 1, 1]])  # right and left
IDS = torch.arange(12).reshape(3, 4)


@pytest.fixture
def net() -> Words:
    return Words()


def _body(net: Words) -> np.ndarray:
    values: np.ndarray = net.body(net.embed(IDS)).detach().numpy()
    return values


def _expected(values: np.ndarray, how: str) -> np.ndarray:
    mask = MASK.bool().numpy()
    pairs = zip(values, mask, strict=True)
    pick = {
        "mean": lambda v: v.mean(0),
        "last": lambda v: v[-1],
        "first": lambda v: v[0],
    }
    return np.stack([pick[how](v[m]) for v, m in pairs])


@pytest.mark.parametrize("how", ["mean", "last", "first"])
def test_every_way_to_pool_obeys_the_mask(net: Words, how: Any, tmp_path: Path) -> None:
    batch = {"input_ids": IDS, "attention_mask": MASK}
    expected = _expected(_body(net), how)
    live = repsim.record(net, batch, reduce=how)
    assert live["body"].dims == ("example", "body_unit")
    np.testing.assert_allclose(live["body"], expected, rtol=1e-5, atol=1e-6)
    kept = repsim.record(net, batch, store=tmp_path / "s.zarr")
    assert kept["mask"].dims == ("example", "token")
    np.testing.assert_array_equal(kept["mask"], MASK.bool())
    later = repsim.reduce(kept, how)
    np.testing.assert_allclose(later["body"], expected, rtol=1e-5, atol=1e-6)
    assert "mask" not in later.coords
    for mask in (MASK.numpy(), lambda b: b["attention_mask"]):
        said = repsim.record(net, {"input_ids": IDS, "attention_mask": MASK}, mask=mask,
                             reduce=how)  # fmt: skip
        np.testing.assert_allclose(said["body"], expected, rtol=1e-5, atol=1e-6)
    with repsim.tap(net, "body", reduce=how) as seen:
        net(**batch)
    np.testing.assert_allclose(seen["body"], expected, rtol=1e-5, atol=1e-6)
    with repsim.Recorder(net, batch, reduce=how, batch_size=2) as recorder:
        pass
    np.testing.assert_allclose(
        recorder.dataset()["body"][0], expected, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("stored", [False, True])
def test_tokens_are_examples_with_their_sequence_and_position(
    net: Words, stored: bool, tmp_path: Path
) -> None:
    batch = {"input_ids": IDS, "attention_mask": MASK}
    labels = np.arange(12).reshape(3, 4) % 2
    store = tmp_path / "s.zarr" if stored else None
    options = {"labels": labels, "examples": [7, 8, 9], "layers": "!head"}
    live = repsim.record(net, batch, reduce="tokens", store=store, **options)
    whole = repsim.record(
        net, batch, store=tmp_path / "w.zarr" if stored else None, **options
    )
    np.testing.assert_array_equal(whole["label"], labels)
    later = repsim.reduce(whole, "tokens")
    sequence, position = np.nonzero(MASK.numpy())
    for run in (live, later):
        np.testing.assert_array_equal(
            run["body"], _body(net)[sequence, position].astype(np.float32)
        )
        assert run["sequence"].values.tolist() == (sequence + 7).tolist()
        assert run["position"].values.tolist() == position.tolist()
        np.testing.assert_array_equal(run["label"], labels[sequence, position])
    xr.testing.assert_equal(live.load(), later.load())
    cells = repsim.compare(later)
    xr.testing.assert_allclose(cells, repsim.compare(live))
    scores = repsim.probes.probe_layers(later, "label", groups="sequence", seed=0)
    assert scores.sizes == {"layer": 2}
    some = later["body"][2:6, 1:3]
    np.testing.assert_array_equal(some, live["body"].values[2:6, 1:3])
    np.testing.assert_array_equal(later["body"][3], live["body"].values[3])


def test_tokens_over_steps_and_batches(net: Words, tmp_path: Path) -> None:
    batch = {"input_ids": IDS, "attention_mask": MASK}
    runs = []
    for reduce in ("tokens", None):
        with repsim.Recorder(
            net, batch, "body", every=1, reduce=reduce, batch_size=2,
            store=tmp_path / f"{reduce}.zarr", labels=[5, 6, 7],
        ) as recorder:  # fmt: skip
            recorder.step()
        runs.append(recorder.dataset())
    later = repsim.reduce(runs[1], "tokens")
    xr.testing.assert_equal(runs[0].load(), later.load())
    assert later["label"].values.tolist() == [5, 5, 6, 6, 6, 6, 7, 7, 7]
    np.testing.assert_array_equal(
        repsim.reduce(runs[1], "flatten")["body"].values,
        runs[1]["body"].values.reshape(2, 3, -1),
    )


def test_layers_without_the_tokens_are_left_out_or_refused(net: Words) -> None:
    batch = {"input_ids": IDS, "attention_mask": MASK}
    with pytest.warns(UserWarning, match="Left out by reduce='tokens'.*: head"):
        run = repsim.record(net, batch, reduce="tokens")
    assert repsim.layers(run) == ["embed", "body"]
    with pytest.warns(UserWarning, match='Left out by "tokens".*: head'):
        assert repsim.layers(repsim.reduce(repsim.record(net, batch), "tokens"))
    with pytest.raises(ValueError, match="Expected layers with tokens for reduce"):
        repsim.record(net, batch, layers="head", reduce="tokens")
    short = nn.Sequential(nn.Embedding(30, 4), Shorter())
    with pytest.raises(ValueError, match="same tokens for reduce='tokens'.*one tower"):
        repsim.record(short, IDS, reduce="tokens")
    with pytest.raises(ValueError, match="same tokens, but '0' has 12 in 4 pos"):
        repsim.reduce(repsim.record(short, IDS), "tokens")


class Shorter(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, 1:]


def test_masks_that_do_not_fit_are_refused_or_said(net: Words) -> None:
    with pytest.raises(ValueError, match=r"`mask` to have one row for each of 3"):
        repsim.record(net, IDS, mask=MASK[:2])
    with pytest.raises(ValueError, match=r"Expected `mask` to be None, an array"):
        repsim.record(net, IDS, mask=lambda batch: MASK[0])
    with pytest.warns(UserWarning, match="other positions than embed, body: all of"):
        run = repsim.record(net, IDS, mask=MASK[:, :3], reduce="mean")
    np.testing.assert_allclose(run["body"], _body(net).mean(1), rtol=1e-5, atol=1e-6)


def test_sequences_of_their_own_lengths_are_unpacked(net: Words) -> None:
    class Jagged(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x)

    parts = [torch.randn(n, 3) for n in (2, 4)]
    jagged = torch.nested.nested_tensor(parts, layout=torch.jagged)
    model = Jagged()
    run = repsim.record(model, [jagged])
    np.testing.assert_array_equal(run["linear_mask"], [[1, 1, 0, 0], [1, 1, 1, 1]])
    for i, part in enumerate(parts):
        np.testing.assert_allclose(
            run["linear"][i, : len(part)], model(part).detach(), rtol=1e-5, atol=1e-6
        )
    last = repsim.record(model, [jagged], reduce="last")
    np.testing.assert_allclose(
        last["linear"],
        torch.stack([model(p)[-1] for p in parts]).detach(),
        rtol=1e-5,
        atol=1e-6,
    )


def test_a_callable_may_take_mask_layer_and_batch(net: Words) -> None:
    seen = []

    def last(x: Tensor, *, mask: Tensor, layer: str, batch: Any) -> Tensor:
        seen.append((layer, len(batch["input_ids"])))
        if x.ndim < 3:
            return x
        place = (torch.arange(4) * mask).argmax(1)
        return x[torch.arange(len(x)), place]

    batch = {"input_ids": IDS, "attention_mask": MASK}
    with repsim.Recorder(net, batch, reduce=last, batch_size=2) as recorder:
        pass
    np.testing.assert_allclose(
        recorder.dataset()["body"][0], _expected(_body(net), "last"), rtol=1e-5
    )
    assert seen == [(n, k) for k in (2, 1) for n in ("embed", "body", "head")]


def test_a_vocabulary_for_every_token_says_what_it_costs() -> None:
    class Speaking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(2000, 4)
            self.unembed = nn.Linear(4, 2000)

        def forward(self, x: Tensor) -> Tensor:
            return self.unembed(self.embed(x))

    with pytest.warns(UserWarning, match=r"2000 values, .* 0.0 MiB .* '!unembed'\]"):
        repsim.record(Speaking(), IDS)
    repsim.record(Speaking(), IDS, layers=["embed", "unembed"])
    repsim.record(Speaking(), IDS, reduce="last")


def test_an_example_without_tokens_is_nan(net: Words) -> None:
    mask = MASK.clone()
    mask[1] = 0
    for how in ("mean", "last", "first"):
        run = repsim.record(net, IDS, mask=mask, reduce=how, layers="body")
        assert np.isnan(run["body"]).any("body_unit").values.tolist() == [0, 1, 0]


def test_places_in_no_order_have_no_last_one() -> None:
    conv = nn.Sequential(nn.Conv2d(1, 2, 3))
    x = torch.randn(3, 1, 6, 6)
    with pytest.raises(ValueError, match=r"places along \(y, x\); take \"mean\" or"):
        repsim.record(conv, x, reduce="last")
    with pytest.raises(ValueError, match="tokens in one order for reduce='first'"):
        repsim.reduce(repsim.record(conv, x), "first")


@pytest.mark.parametrize(
    ("labels", "kept"),
    [
        (torch.tensor([[1], [0], [2]]), [1, 0, 2]),
        (torch.eye(3)[[2, 0, 1]], [2, 0, 1]),
        (torch.arange(12).reshape(3, 4), np.arange(12).reshape(3, 4)),
    ],
)
def test_labels_of_every_shape_are_kept(net: Words, labels: Tensor, kept: Any) -> None:
    for run in (
        repsim.record(net, IDS, labels=labels),
        repsim.record(net, [(IDS, labels)]),
    ):
        np.testing.assert_array_equal(run["label"], kept)


def test_other_labels_are_refused_with_a_reason(net: Words) -> None:
    with pytest.raises(ValueError, match=r"`labels` to have one value .*\(3, 2\)"):
        repsim.record(net, IDS, labels=torch.ones(3, 2))
    with pytest.warns(UserWarning, match=r"Labels of shape \(3, 2\) are not kept"):
        repsim.record(net, [(IDS, torch.ones(3, 2))])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        targets = {"input_ids": IDS, "labels": IDS}  # a language model's own
        assert "label" not in repsim.record(net, targets, reduce="mean").coords


def test_rows_of_a_data_set_are_refused_with_the_line(net: Words) -> None:
    rows = [{"input_ids": [1, 2], "attention_mask": [1, 1]}, {"input_ids": [3]}]
    with pytest.raises(ValueError, match=r"single rows .*'input_ids' holds 2 .*pad\("):
        repsim.record(net, rows)
    with pytest.raises(ValueError, match="single rows of a data set"):
        repsim.Recorder(net, [{"input_ids": IDS[0]}])


def test_recordings_reduced_in_different_ways_are_warned_of(net: Words) -> None:
    batch = {"input_ids": IDS, "attention_mask": MASK}
    more = {k: v.repeat(2, 1) for k, v in batch.items()}
    runs = {
        how: repsim.record(net, more, "body", reduce=how) for how in ("mean", "last")
    }
    with pytest.warns(UserWarning, match=r"different `reduce` \(mean and last\)"):
        repsim.compare(runs["mean"], runs["last"])
    other = repsim.record(net, more, "body", reduce="mean", mask=np.ones((6, 4)))
    with pytest.warns(UserWarning, match="different `mask`"):
        repsim.compare(runs["mean"], other)
    tokens = repsim.record(net, more, "body", reduce="tokens")
    flipped = more["attention_mask"].flip(1)
    turned = repsim.record(net, more, "body", reduce="tokens", mask=flipped)
    assert turned.sizes == tokens.sizes
    with pytest.raises(ValueError, match="the same tokens, but their `position`"):
        repsim.compare(tokens, turned)
    kept = repsim.record(net, more, "body")
    with pytest.raises(ValueError, match=r'"tokens"\) makes each .*"mean", "last"'):
        repsim.compare(kept)
