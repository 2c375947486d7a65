"""The batches that are learnt: what training's own passes compute, and its errors."""

import copy
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import repsim


def _net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(4, 6),
        nn.BatchNorm1d(6),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Linear(6, 3),
    )


def _data(n: int = 40, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, generator=generator)
    return x, torch.arange(n) % 3


def _train(
    net: nn.Module,
    recorder: Any = None,
    *,
    updates: int = 5,
    size: int = 8,
    seed: int = 1,
    reduction: str = "mean",
    call: Callable[..., Tensor] = lambda net, x: net(x),
    between: Callable[[], object] = lambda: None,
) -> None:
    x, y = _data(updates * size, seed)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    for k in range(updates):
        rows = slice(k * size, (k + 1) * size)
        optimiser.zero_grad()
        F.cross_entropy(call(net, x[rows]), y[rows], reduction=reduction).backward()
        optimiser.step()
        between()
        if recorder is not None:
            recorder.step()


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_activations_and_gradients_are_those_of_the_training_pass(
    reduction: str,
) -> None:
    net = _net()
    other = copy.deepcopy(net)
    with repsim.Recorder(net, "training", every=2, errors=reduction) as recorder:  # type: ignore[arg-type]
        torch.manual_seed(5)
        _train(net, recorder, reduction=reduction)
    run = recorder.dataset()
    seen: list[dict[str, Tensor]] = []

    def spelt_out(net: Any, x: Tensor) -> Tensor:
        seen.append({})
        h = x
        for name, module in net.named_children():
            h = module(h.clone() if name == "2" else h)  # never in place
            h.retain_grad()
            seen[-1][name] = h
        return h

    torch.manual_seed(5)
    _train(other, reduction=reduction, call=spelt_out)
    assert run["step"].values.tolist() == [0, 2, 4]
    assert repsim.layers(run) == ["0", "1", "2", "3", "4"]
    many = 8 if reduction == "mean" else 1
    for i, k in enumerate((0, 2, 4)):
        for name, h in seen[k].items():
            assert h.grad is not None
            np.testing.assert_array_equal(run[name][i], h.detach())
            np.testing.assert_array_equal(run[f"{name}@error"][i], h.grad * many)
    for a, b in zip(
        net.state_dict().values(), other.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b)
    assert not any(
        m._forward_hooks or m._forward_pre_hooks or m._forward_hooks_always_called
        for m in net.modules()
    )


def test_passes_that_are_not_learnt_from_do_not_count() -> None:
    net, (x, _) = _net(), _data()

    def between() -> None:
        net.eval()
        net(x)
        net.train()
        with torch.no_grad():
            net(x)

    with (
        repsim.Recorder(net, "training", every=1) as recorder,
        repsim.Recorder(net, x[:3], every=1) as beside,
    ):
        both = [recorder.step, beside.step]
        _train(net, between=lambda: (between(), *(step() for step in both)))
    assert recorder.dataset().sizes["example"] == 8
    assert recorder.dataset()["step"].values.tolist() == [0, 1, 2, 3, 4]
    assert beside.dataset().sizes == {**beside.dataset().sizes, "step": 6, "example": 3}


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpoint_that_computes_again_is_seen_once(reentrant: bool) -> None:
    class Checked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.inner = nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 6))
            self.last = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Any:
            h = checkpoint(self.inner, self.first(x), use_reentrant=reentrant)
            return self.last(h)

    net = Checked()
    recorder = repsim.Recorder(net, "training", "**", every=1, errors="mean").start()
    _train(net, recorder)
    if reentrant:  # its layers have no graph while they pass
        with pytest.warns(UserWarning, match=r"No error was recorded at inner, inner"):
            recorder.close()
    else:
        recorder.close()
    run = recorder.dataset()
    assert run.sizes["example"] == 8
    assert ("inner.0@error" in run) is not reentrant
    assert "last@error" in run
    assert not [name for name in run if "@call" in str(name)]


def test_batches_gathered_for_one_update_lie_one_after_another() -> None:
    net, (x, y) = nn.Sequential(nn.Linear(4, 3)), _data()
    with repsim.Recorder(net, "training", every=1, errors="sum") as recorder:
        for _ in range(2):
            for part in (slice(0, 5), slice(5, 12)):
                F.cross_entropy(net(x[part]), y[part], reduction="sum").backward()
            recorder.step()
    run = recorder.dataset()
    assert run.sizes["example"] == 12
    expected = net(x[:12]).softmax(1) - F.one_hot(y[:12], 3)
    np.testing.assert_allclose(run["0"][0], net(x[:12]).detach(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        run["0@error"][1], expected.detach(), rtol=1e-5, atol=1e-6
    )


def test_parts_that_a_trainer_calls_one_by_one_are_one_pass() -> None:
    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(4, 6), nn.Linear(6, 3)

    def call(net: Any, x: Tensor) -> Any:
        with torch.no_grad():
            h = net.body(x)
        return net.head(h)

    def whole(net: Any, x: Tensor) -> Any:
        return net.head(net.body(x).relu())

    net = Module()
    with repsim.Recorder(net, "training", every=1, errors="mean") as recorder:
        _train(net, recorder, call=whole)
    run = recorder.dataset()
    assert run.sizes == {"step": 5, "example": 8, "body_unit": 6, "head_unit": 3}
    with (
        pytest.warns(UserWarning, match=r"Nothing was recorded of body: the forward"),
        repsim.Recorder(net, "training", every=1) as recorder,
    ):
        _train(net, recorder, call=call)  # a pass of its own without gradients


def test_what_a_frozen_part_gives_inside_a_pass_is_seen() -> None:
    class Probe(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(4, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Any:
            with torch.no_grad():
                h = self.body(x)
            return self.head(h)

    net = Probe()
    with (
        pytest.warns(UserWarning, match=r"No error was recorded at body: the loss"),
        repsim.Recorder(net, "training", every=1, errors="mean") as recorder,
    ):
        _train(net, recorder)
    run = recorder.dataset()
    assert sorted(run) == ["body", "head", "head@error"]
    expected = net.body(_data()[0][:8]).detach()
    np.testing.assert_allclose(run["body"][0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("stored", [False, True])
def test_a_batch_of_another_size_is_a_gap(stored: bool, tmp_path: Path) -> None:
    net, (x, y) = _net(), _data()
    store = tmp_path / "s.zarr" if stored else None
    with repsim.Recorder(net, "training", every=1, store=store) as recorder:
        F.cross_entropy(net(x[:8]), y[:8]).backward()
        recorder.step()
        F.cross_entropy(net(x[:5]), y[:5]).backward()
        with pytest.warns(
            UserWarning, match=r"after 1 updates.*Expected 8 examples as before.* 5"
        ):
            recorder.step()
        F.cross_entropy(net(x[8:16]), y[8:16]).backward()
        recorder.step()
        with pytest.warns(UserWarning, match=r"after 3 updates.*but none was seen"):
            recorder.step()
    assert recorder.dataset()["step"].values.tolist() == [0, 2]


def test_the_last_batch_may_stay_without_its_update() -> None:
    net, (x, _) = _net(), _data()
    with repsim.Recorder(net, "training", every=1) as recorder:
        _train(net, recorder, updates=2)
        net(x)
    assert recorder.dataset()["step"].values.tolist() == [0, 1]
    assert recorder.dataset().attrs["complete"] == 1


def test_a_copy_or_a_file_of_the_network_keeps_no_hook() -> None:
    net, (x, y) = _net(), _data()
    with repsim.Recorder(net, "training", every=1) as recorder:
        other = copy.deepcopy(net)
        file = io.BytesIO()
        torch.save(net, file)
        F.cross_entropy(net(x[:8]), y[:8]).backward()
        F.cross_entropy(other(x), y).backward()
        recorder.step()
    assert recorder.dataset().sizes["example"] == 8
    assert b"repsim" not in file.getvalue()
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    assert torch.equal(loaded(x[:8]).isfinite(), other(x[:8]).isfinite())
    assert torch.equal(loaded[0].weight, other[0].weight)


class Words(nn.Module):
    """Words as a tokenizer gives them, in a batch of keywords."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(11, 4), nn.Linear(4, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        return self.head(self.words(input_ids)).mean(1)


def test_masks_of_a_training_are_obeyed_or_asked_about() -> None:
    words = torch.arange(40).reshape(8, 5) % 11
    mask = torch.arange(5) < torch.arange(8)[:, None] % 5 + 1
    net, y = Words(), _data(8)[1]

    def call(net: Any, x: Tensor) -> Any:
        return net(input_ids=words, attention_mask=mask.long())

    with repsim.Recorder(net, "training", every=1, reduce="last") as recorder:
        _train(net, recorder, updates=2, call=call)
    last = recorder.dataset()
    state = net.words.weight[words[torch.arange(8), mask.sum(1) - 1]].detach()
    np.testing.assert_allclose(last["words"][1], state, atol=0.05)
    assert "mask" not in last.coords
    assert len(y) == 8
    with (
        pytest.raises(
            ValueError, match=r"Expected `reduce` where the batches of a tra"
        ),
        repsim.Recorder(net, "training", every=1) as recorder,
    ):
        _train(net, recorder, updates=2, call=call)


def test_a_resumed_recording_goes_on_and_keeps_its_kind(tmp_path: Path) -> None:
    net, store = _net(), tmp_path / "s.zarr"
    with repsim.Recorder(net, "training", every=2, store=store) as recorder:
        _train(net, recorder)
    options: dict[str, Any] = {"every": 2, "store": store, "resume": True, "start": 5}
    with pytest.raises(ValueError, match="Expected the same inputs as in"):
        repsim.Recorder(net, _data()[0], **options)
    with repsim.Recorder(net, "training", **options) as recorder:
        _train(net, recorder)
    assert recorder.dataset()["step"].values.tolist() == [0, 2, 4, 6, 8]


def test_other_batches_are_other_examples() -> None:
    runs = []
    for seed in (1, 1, 2):
        net = _net(seed=len(runs))
        with repsim.Recorder(net, "training", every=2) as recorder:
            _train(net, recorder, seed=seed)
        runs.append(recorder.dataset())
    assert repsim.compare(runs[0], runs[1]).sizes["step"] == 3
    with pytest.raises(
        ValueError, match="Expected both recordings to be made on the same"
    ):
        repsim.compare(runs[0], runs[2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": np.arange(3)}, "Expected no labels with inputs="),
        ({"examples": np.arange(3)}, "Expected no examples with inputs="),
        ({"last": True}, "Expected no last with inputs="),
        ({"forward": lambda m, b: m(b)}, "Expected no forward with inputs="),
        ({"mask": np.ones((3, 2))}, "Expected no mask as an array with inputs="),
        ({"reduce": "tokens"}, "Expected no reduce='tokens' with inputs="),
        ({"errors": True}, "Expected `errors` to be 'mean' or 'sum' with inputs="),
        ({"errors": F.mse_loss}, "Expected `errors` to be 'mean' or 'sum' with inp"),
    ],
)
def test_what_training_batches_cannot_have_is_refused(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        repsim.Recorder(_net(), "training", **options)


def test_what_hooks_cannot_see_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Expected a network that Python .* compiled"):
        repsim.Recorder(torch.compile(_net()), "training")
    rule = repsim.learning.make("bp", repsim.networks.mlp(4, hidden=[3], seed=0))
    with pytest.raises(
        ValueError, match="got the learning rule BackPropagation|got the"
    ):
        repsim.Recorder(rule, "training")
    with pytest.raises(ValueError, match="Expected `errors` to be 'mean' or 'sum'"):
        repsim.Recorder(_net(), _data()[0], errors="mean")
    with repsim.Recorder(_net(), "training") as recorder:
        with pytest.raises(ValueError, match="Expected fixed examples for a snapshot"):
            recorder.snapshot()
        recorder.close(complete=False)
    net = _net().eval()
    recorder = repsim.Recorder(net, "training", every=1).start()
    with pytest.raises(ValueError, match="between two calls of step.., but none was"):
        _train(net, recorder)
    recorder.close(complete=False)


class Faulty(nn.Module):
    """Gives what cannot be kept after so many calls."""

    def __init__(self, kind: str, after: int) -> None:
        super().__init__()
        self.kind, self.left = kind, after
        self.bad, self.head = nn.Identity(), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Any:
        self.left -= 1
        odd = {"shape": x[:-1], "sparse": x.to_sparse(), "rows": x[0, 0]}[self.kind]
        self.bad(x if self.left >= 0 else odd)
        return self.head(x)


@pytest.mark.parametrize("kind", ["shape", "sparse", "rows"])
def test_what_a_layer_does_later_ends_no_training(kind: str) -> None:
    net = Faulty(kind, 2)
    with (
        pytest.warns(UserWarning, match="Layer 'bad' was not recorded after 2 updates"),
        repsim.Recorder(net, "training", every=1) as recorder,
    ):
        _train(net, recorder)
    run = recorder.dataset()
    assert run["step"].values.tolist() == [0, 1, 2, 3, 4]
    assert np.isnan(run["bad"][2:]).all()
    assert not np.isnan(run["head"]).any()
    with (
        pytest.warns(UserWarning, match="Nothing was recorded|Layer 'bad' was not rec"),
        repsim.Recorder(Faulty(kind, 0), "training", steps=[3]) as recorder,
    ):
        _train(recorder._network, recorder)  # the first one comes late: never raised
    assert recorder.dataset()["head"].sizes["step"] == 1
