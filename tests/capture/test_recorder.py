"""The recorder never disturbs training, and keeps what it should."""

import copy
import dataclasses
import itertools
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn
from torch.nn import functional as F

import repsim
from repsim.datasets.store import worker


@pytest.fixture
def listening() -> Iterator[None]:
    """Let SIGINT raise, also where a shell in the background has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


# Three kinds of network, each with its kind of inputs.


class Block(nn.Module):
    """A residual block whose ReLUs work in place."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Any:
        out = self.relu(self.norm1(self.conv1(x)))
        return self.relu(self.norm2(self.conv2(out)) + x)


def _mlp() -> nn.Module:
    layers: list[nn.Module] = []
    for width in (6, 8, 8):
        layers += [nn.Linear(width, 8), nn.BatchNorm1d(8), nn.ReLU(True), nn.Dropout()]
    return nn.Sequential(*layers, nn.Linear(8, 3))


def _resnet() -> nn.Module:
    body = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(True), Block(4), Block(4)]
    return nn.Sequential(
        *body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(4, 3)
    )


def _gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=17, n_positions=8, n_embd=8, n_layer=2, n_head=2, use_cache=False
    )
    return GPT2LMHeadModel(config)


def _vectors(n: int) -> Tensor:
    return torch.randn(n, 6)


def _images(n: int) -> Tensor:
    images = torch.randn(n, 1, 7, 7)
    return images.flip(-1) if random.random() < 0.5 else images  # augmentation


def _words(n: int) -> Tensor:
    return torch.from_numpy(np.random.randint(0, 17, (n, 6)))  # noqa: NPY002


KINDS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Tensor]]] = {
    "mlp": (_mlp, _vectors),
    "resnet": (_resnet, _images),
    "gpt2": (_gpt2, _words),
}


def _loss(output: Any, y: Tensor) -> Tensor:
    if hasattr(output, "logits"):
        return F.cross_entropy(output.logits[:, -1, :3], y)
    return F.cross_entropy(output, y)


def _seed() -> None:
    torch.manual_seed(7)
    random.seed(7)
    np.random.seed(7)  # noqa: NPY002


class Stop(RuntimeError):
    """What a user's own code may raise."""


def _train(
    kind: str, stop: type[BaseException] | str = "", **options: Any
) -> tuple[dict[str, Any], repsim.Recorder | None]:
    """Train, with a recorder where there are options, and return all there is.

    With `stop` the recorder is left after four of seven updates, by that exception or
    by Ctrl-C in the middle of a pass, and training goes on without it.
    """
    make, batch = KINDS[kind]
    make()  # what a library's first import draws is neither run's
    _seed()
    model = make()
    frozen = next(model.parameters())
    frozen.requires_grad_(False)
    list(model.modules())[2].eval()  # a flag of its own
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad])
    pressing = [False]

    def press(*_: Any) -> None:
        torch.rand(1), random.random(), np.random.rand()  # noqa: NPY002 # also in eval
        if pressing[0]:
            pressing[0] = False
            os.kill(os.getpid(), signal.SIGINT)

    list(model.children())[-1].register_forward_hook(press)  # the user's own hook
    fixed = options.pop("fixed", None)
    done = 0
    try:
        with (
            nullcontext()
            if fixed is None
            else repsim.Recorder(model, fixed, **options) as recorder
        ):
            while done < 7:
                _update(model, optimiser, batch)
                done += 1
                pressing[0] = stop == "pressed" and done == 4
                if recorder is not None:
                    recorder.step()
                if done == 4 and isinstance(stop, type):
                    raise stop
    except (Stop, KeyboardInterrupt):
        assert stop
        assert done == 4
    for _ in range(done, 7):
        _update(model, optimiser, batch)
    return _everything(model, optimiser), recorder


def _update(model: nn.Module, optimiser: Any, batch: Callable[[int], Tensor]) -> None:
    optimiser.zero_grad()
    x, y = batch(12), torch.randint(0, 3, (12,))
    _loss(model(x), y).backward()
    optimiser.step()


def _everything(model: nn.Module, optimiser: Any) -> dict[str, Any]:
    return {
        "state": model.state_dict(),
        "buffers": list(model.buffers()),
        "grad": [p.grad for p in model.parameters()],
        "optimiser": [
            list(v.values()) for v in optimiser.state_dict()["state"].values()
        ],
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": np.random.get_state()[1],  # noqa: NPY002
        "training": [m.training for m in model.modules()],
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "hooks": [
            [len(v) for k, v in vars(m).items() if k.endswith("_hooks")]
            for m in model.modules()
        ],
    }


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b)


def _assert_same(a: dict[str, Any], b: dict[str, Any]) -> None:
    for key, value in a.items():
        assert _same(value, b[key]), key


def _fixed(kind: str) -> list[tuple[Tensor, Tensor]]:
    generator = torch.random.get_rng_state()
    x = KINDS[kind][1](9)
    torch.random.set_rng_state(generator)
    return [(x[:5], torch.arange(5) % 3), (x[5:], torch.arange(4) % 3)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("errors", [False, True])
def test_training_is_the_same_bit_for_bit(
    kind: str, errors: bool, tmp_path: Path
) -> None:
    plain, _ = _train(kind)
    layers = lambda name, m: not re.search(r"attn_dropout|h$", name)  # noqa: E731
    options = {"fixed": _fixed(kind), "every": 2, "last": True, "layers": layers}
    if errors:
        options |= {"errors": _loss}
    recorded, memory = _train(kind, **options)
    stored, store = _train(kind, **options, store=tmp_path / "s.zarr")
    _assert_same(plain, recorded)
    _assert_same(plain, stored)
    assert memory is not None
    assert store is not None
    run, held = memory.dataset(), store.dataset()
    assert run["step"].values.tolist() == [0, 2, 4, 6, 7]
    run.attrs["created"] = held.attrs["created"]
    xr.testing.assert_identical(run, held.load())
    assert not any(np.isnan(v).any() for v in run.data_vars.values())
    if errors:
        assert sum(str(n).endswith("@error") for n in run) > 3


@pytest.mark.usefixtures("listening")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stop", [Stop, KeyboardInterrupt, "pressed"])
def test_training_goes_on_the_same_after_a_stop(
    kind: str, stop: type[BaseException] | str, tmp_path: Path
) -> None:
    plain, _ = _train(kind)
    layers = lambda name, m: not re.search(r"attn_dropout|h$", name)  # noqa: E731
    options = {"fixed": _fixed(kind), "every": 2, "layers": layers, "errors": _loss}
    stopped, recorder = _train(kind, stop, **options, store=tmp_path / "s.zarr")
    _assert_same(plain, stopped)
    assert recorder is not None
    run = recorder.dataset()
    assert run["step"].values.tolist() == [0, 2, 4]
    assert run.attrs["complete"] == 0


def test_an_exception_in_the_loop_leaves_all_in_place(tmp_path: Path) -> None:
    model = _mlp()
    before = _everything(model, torch.optim.SGD(model.parameters()))
    with pytest.raises(RuntimeError, match="mine"):
        with repsim.Recorder(
            model, _vectors(4).clone(), every=1, store=tmp_path / "s.zarr"
        ) as recorder:
            torch.set_rng_state(before["torch"])
            recorder.step()
            raise RuntimeError("mine")
    after = _everything(model, torch.optim.SGD(model.parameters()))
    _assert_same(before, after)
    run = repsim.open_recording(tmp_path / "s.zarr")
    assert run["step"].values.tolist() == [0, 1]
    assert run.attrs["complete"] == 0


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
def test_an_exception_in_the_pass_leaves_all_in_place(
    kind: type[BaseException], tmp_path: Path
) -> None:
    model = _mlp()
    stop = [False]

    class Bomb(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            torch.rand(3)
            if stop[0]:
                raise kind("inside")
            return x

    model.append(Bomb())
    with repsim.Recorder(
        model, _vectors(4), every=1, errors=_loss, labels=[0, 1, 2, 0]
    ) as recorder:
        before = _everything(model, torch.optim.SGD(model.parameters()))
        stop[0] = True
        with (
            pytest.raises(kind, match="inside")
            if kind is KeyboardInterrupt  # an error of the pass ends no training
            else pytest.warns(UserWarning, match="Nothing .* after 1 updates.*inside")
        ):
            recorder.step()
        _assert_same(before, _everything(model, torch.optim.SGD(model.parameters())))
        assert torch.is_grad_enabled()
        stop[0] = False
        recorder.step()
    assert recorder.dataset()["step"].values.tolist() == [0, 2]


@pytest.mark.usefixtures("listening")
def test_ctrl_c_during_a_pass_waits_until_all_is_back(tmp_path: Path) -> None:
    model = _mlp()
    pressed = []

    class Press(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if pressed == [0]:
                os.kill(os.getpid(), signal.SIGINT)
            return x

    model.append(Press())
    before = _everything(model, torch.optim.SGD(model.parameters()))
    with pytest.raises(KeyboardInterrupt):
        with repsim.Recorder(
            model, _vectors(4), every=1, store=tmp_path / "s.zarr"
        ) as recorder:
            before["torch"] = torch.get_rng_state()
            pressed.append(0)
            recorder.step()
    _assert_same(before, _everything(model, torch.optim.SGD(model.parameters())))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    run = repsim.open_recording(tmp_path / "s.zarr")
    assert run["step"].values.tolist() == [0, 1]
    assert run.attrs["complete"] == 0


def test_buffers_that_a_pass_changes_are_given_back() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(6, 3)
            self.register_buffer("calls", torch.zeros(()))
            self.mean: Tensor
            self.register_buffer("mean", torch.zeros(3))

        def forward(self, x: Tensor) -> Any:
            self.calls += 1
            self.mean = self.mean + 1
            return self.linear(x)

    model = Counting()
    mean = model.mean
    repsim.record(model, _vectors(4))
    assert model.calls == 0
    assert model.mean is mean


def test_autocast_casts_of_a_pass_do_not_reach_training() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        repsim.record(model, _vectors(4))
        model(_vectors(4)).float().sum().backward()
    assert next(model.parameters()).grad is not None


def test_recordings_in_threads_give_the_process_its_switches_back() -> None:
    both, first_left = threading.Event(), threading.Event()
    inside = threading.Event()
    graphs = []

    def compiled(graph: torch.fx.GraphModule, _: object) -> object:
        graphs.append(graph)
        return graph.forward

    class First(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            inside.set()
            assert both.wait(30)
            return x

    class Second(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            both.set()
            assert first_left.wait(30)
            assert not torch.backends.mha.get_fastpath_enabled()
            return x

    torch.compiler.reset()  # loads the compiler, whose switch is one of them
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(repsim.record, nn.Sequential(First()), _vectors(3))
        assert inside.wait(30)
        second = pool.submit(repsim.record, nn.Sequential(Second()), _vectors(3))
        first.result()
        first_left.set()
        second.result()
    assert torch.backends.mha.get_fastpath_enabled()
    torch.compile(nn.Linear(6, 3), backend=compiled)(_vectors(3))
    assert graphs


def test_an_overridden_eval_is_not_called() -> None:
    class Merging(nn.Linear):
        def train(self, mode: bool = True) -> "Merging":
            raise AssertionError("called")

    run = repsim.record(nn.Sequential(Merging(6, 3)), _vectors(4))
    assert run["0"].shape == (4, 3)


@pytest.mark.gpu
def test_an_accelerators_random_numbers_are_given_back() -> None:
    class Noise(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.randn_like(x)

    model, x = nn.Sequential(nn.Linear(6, 3), Noise()).cuda(), _vectors(5)
    before = torch.cuda.get_rng_state()
    run = repsim.record(model, x)
    assert torch.equal(torch.cuda.get_rng_state(), before)
    np.testing.assert_array_equal(run["0"], model[0](x.cuda()).detach().cpu())
    np.testing.assert_array_equal(run["1"], model(x.cuda()).detach().cpu())


# what is stored


def test_an_operation_in_place_after_the_layer_changes_nothing_stored() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(inplace=True))
    x = _vectors(20)
    with repsim.Recorder(model, x) as recorder:
        pass
    expected = F.linear(x, model[0].weight, model[0].bias).detach()
    run = recorder.dataset()
    np.testing.assert_array_equal(run["0"][0], expected)
    np.testing.assert_array_equal(run["1"][0], expected.relu())


def test_the_pieces_of_a_pass_do_not_matter() -> None:
    model, x = _mlp(), _vectors(30)
    runs = []
    for size in (1, 7, 256):
        with repsim.Recorder(model, x, batch_size=size) as recorder:
            pass
        runs.append(recorder.dataset())
    xr.testing.assert_allclose(runs[0], runs[2], rtol=1e-4, atol=1e-5)
    xr.testing.assert_allclose(runs[1], runs[2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"every": 3}, [0, 3, 6]),
        ({"every": 3, "last": True}, [0, 3, 6, 7]),
        ({"every": 7, "last": True}, [0, 7]),
        ({"steps": [1, 5, 90]}, [1, 5]),
        ({"steps": {0, 2}}, [0, 2]),
        ({"steps": np.array([1, 4])}, [1, 4]),
        ({"steps": range(0, 100, 4)}, [0, 4]),
        ({"steps": itertools.count(0, 5)}, [0, 5]),
        ({"steps": iter([2, 3])}, [2, 3]),
        ({"steps": lambda k: k > 5}, [6, 7]),
        ({"steps": [], "last": True}, [7]),
        ({"start": 10, "every": 5}, [10, 15]),
        ({"start": 11, "every": 5}, [15]),
    ],
)
def test_schedules(options: dict[str, Any], expected: list[int]) -> None:
    with repsim.Recorder(_mlp(), _vectors(3), **options) as recorder:
        for _ in range(7):
            recorder.step()
    assert recorder.dataset()["step"].values.tolist() == expected


def test_schedules_that_cannot_be_are_refused() -> None:
    def made(**options: Any) -> repsim.Recorder:
        return repsim.Recorder(_mlp(), _vectors(3), **options)

    with pytest.raises(ValueError, match="Expected `every` to be at least 1"):
        made(every=0)
    with pytest.raises(TypeError, match="Expected `every` to be a whole number"):
        made(every=1.5)
    with pytest.raises(TypeError, match="Expected `steps` to be an iterable"):
        made(steps=3)
    with pytest.raises(ValueError, match="Expected `steps` to hold integers from 0"):
        made(steps=[-1])
    with pytest.raises(ValueError, match="an iterator given as `steps` to increase"):
        with made(steps=iter([3, 1])) as recorder:
            for _ in range(5):
                recorder.step()
    with pytest.raises(ValueError, match="Expected `start` to be at least 0"):
        made(start=-1)
    for bad in (True, 1.5, "3"):
        with pytest.raises(TypeError, match="Expected `start` to be a whole number"):
            made(start=bad)
    assert made(start=np.int64(4))._count == 4


def test_options_that_cannot_be_are_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    store = tmp_path / "s.zarr"
    for options, sentence in (
        ({"batch_size": 0}, "Expected `batch_size` to be at least 1"),
        ({"reduce": "max"}, "Expected `reduce` to be None, 'flatten'"),
        ({"level": 10}, "Expected `level` to be an integer from 0 to 9"),
        ({"level": 1.5}, "Expected `level` to be an integer from 0 to 9"),
        ({"on_error": "no"}, "Expected `on_error` to be one of raise, skip"),
        ({"axes": {"x": "example unit"}}, "Expected `axes` to be one of 0, 1"),
        ({"axes": {"0": "token unit"}}, "`example` among them"),
        ({"mask": [1, 0]}, r"Expected `mask` to be None, an array \(example, token"),
        ({"errors": 3}, "Expected labels to compute errors with"),
        ({"labels": [1, 0, 1], "errors": 3}, "Expected `errors` to be a loss"),
    ):
        with pytest.raises(ValueError, match=sentence):
            repsim.Recorder(_mlp(), _vectors(3), store=store, **options)
        assert not store.exists()
    with pytest.raises(TypeError, match="Expected `batch_size` to be a whole number"):
        repsim.Recorder(_mlp(), _vectors(3), batch_size=2.5)


def test_a_snapshot_records_now_and_replaces_the_same_step(tmp_path: Path) -> None:
    for store in (None, tmp_path / "s.zarr"):
        model = nn.Sequential(nn.Linear(6, 2))
        with repsim.Recorder(model, _vectors(3), every=2, store=store) as recorder:
            recorder.step()
            recorder.snapshot()
            first = recorder.dataset()["0"].values.copy()
            nn.init.zeros_(model[0].weight)
            recorder.snapshot()
            recorder.step()
        run = recorder.dataset()
        assert run["step"].values.tolist() == [0, 1, 2]
        np.testing.assert_array_equal(run["0"][0], first[0])
        assert (run["0"][1] == run["0"][1, 0]).all()
        assert not np.array_equal(run["0"][1], first[1])


def test_several_recorders_at_once(tmp_path: Path) -> None:
    model, store = _mlp(), tmp_path / "s.zarr"
    with (
        repsim.Recorder(model, _vectors(3), every=1, store=store, group="a/0") as a,
        repsim.Recorder(model, _vectors(5), every=2, store=store, group="a/1") as b,
        repsim.Recorder(model, _vectors(4), every=3, layers="0") as c,
        repsim.tap(model, "0") as seen,
    ):
        for _ in range(4):
            model(_vectors(12))
            for recorder in (a, b, c):
                recorder.step()
        assert len(seen["0"]) == 12
    assert a.dataset()["step"].values.tolist() == [0, 1, 2, 3, 4]
    assert b.dataset()["step"].values.tolist() == [0, 2, 4]
    assert c.dataset()["step"].values.tolist() == [0, 3]
    assert len(repsim.open_study(store)["a"].children) == 2


class Skipping(nn.Module):
    """A layer that some passes leave out, and one that all do."""

    def __init__(self) -> None:
        super().__init__()
        self.always, self.late = nn.Linear(6, 4), nn.Linear(4, 2)
        self.never = nn.Linear(4, 2)
        self.deep = False

    def forward(self, x: Tensor) -> Any:
        x = self.always(x)
        return self.late(x) if self.deep else x


@pytest.mark.parametrize("stored", [False, True])
def test_layers_unset_on_some_steps_are_nan_there(stored: bool, tmp_path: Path) -> None:
    model = Skipping()
    store = tmp_path / "s.zarr" if stored else None
    with pytest.warns(UserWarning, match="Nothing was recorded of never"):
        with repsim.Recorder(model, _vectors(3), every=1, store=store) as recorder:
            for k in range(100):
                model.deep = k % 3 == 1
                recorder.step()
    run = recorder.dataset()
    assert repsim.layers(run) == ["always", "late"]
    there = ~np.isnan(run["late"]).all(("example", "late_unit"))
    assert run["step"][there].values.tolist() == list(range(2, 101, 3))
    assert not np.isnan(run["always"]).any()
    assert run["late"].attrs == {"partial": 1}
    assert run["always"].attrs == {}


@pytest.mark.parametrize("stored", [False, True])
def test_what_is_not_finite_is_said_once_and_kept(stored: bool, tmp_path: Path) -> None:
    model, x = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2)), _vectors(3)
    store = tmp_path / "s.zarr" if stored else None
    with pytest.warns(UserWarning, match=r"infinite .* after 2 updates in 2: ") as told:
        with repsim.Recorder(model, x, every=1, store=store) as recorder:
            for k in range(1, 5):
                with torch.no_grad():
                    if k == 2:
                        model[2].bias[0] = torch.inf
                    if k == 4:
                        model[0].weight[:] = torch.nan
                recorder.step()
    assert len(told) == 1
    run = recorder.dataset()
    assert [run[n].attrs.get("not_finite_since") for n in "012"] == [4, 4, 2]
    assert (
        np.isinf(run["2"].sel(step=2)).any() and np.isfinite(run["2"].sel(step=1)).all()
    )
    if not stored:
        return
    again = repsim.Recorder(
        nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2)),
        x, every=1, store=store, resume=True, start=3,
    )  # fmt: skip
    with again:
        again.step()
    run = repsim.open_recording(
        store
    )  # the NaN of step 4 was recorded again, inf stays
    assert [run[n].attrs.get("not_finite_since") for n in "012"] == [None, None, 2]


def test_large_values_and_masked_tokens_are_finite() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.bad = nn.Identity(), torch.zeros(3, 4, 2)

        def forward(self, x: Tensor, attention_mask: Tensor) -> Any:
            return self.layer(x + self.bad)

    model, mask = Tokens(), torch.ones(3, 4, dtype=torch.long)
    mask[1, 2] = 0
    batch = {"x": torch.full((3, 4, 2), 5e37), "attention_mask": mask}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not repsim.record(model, [batch], axes=TOKENS)["layer"].attrs
        model.bad[1, 2] = torch.nan
        assert not repsim.record(model, [batch], axes=TOKENS)["layer"].attrs
        repsim.record(model, [batch], axes=TOKENS, reduce="mean")
    model.bad[1, 3] = torch.nan
    for reduce in (None, "mean"):
        with pytest.warns(UserWarning, match="recorded after 7 updates in layer:"):
            run = repsim.record(model, [batch], axes=TOKENS, reduce=reduce, step=7)
        assert run["layer"].attrs["not_finite_since"] == 7


TOKENS = {"layer": "example token unit"}


class Routing(nn.Module):
    """A layer for some examples only."""

    def __init__(self) -> None:
        super().__init__()
        self.expert, self.rest, self.least = nn.Linear(6, 2), nn.Linear(6, 2), 0.0

    def forward(self, x: Tensor) -> Any:
        return self.expert(x) if x[0, 0] >= self.least else self.rest(x)


@pytest.mark.parametrize("stored", [False, True])
def test_a_layer_that_only_some_batches_reach_is_nan_for_the_others(
    stored: bool, tmp_path: Path
) -> None:
    model, batches = Routing(), [torch.zeros(3, 6), torch.ones(3, 6)]
    store = tmp_path / "s.zarr" if stored else None
    with pytest.warns(UserWarning, match="Some batches did not reach expert: NaN"):
        with repsim.Recorder(
            model, batches, layers="expert", every=1, store=store
        ) as recorder:
            model.least = 0.5
            recorder.step()
            model.least = 0.0
            recorder.step()
    run = recorder.dataset()
    expected = model.expert(torch.cat(batches)).detach().numpy()
    assert run["expert"].attrs == {"partial": 1}
    for step in (0, 2):
        np.testing.assert_array_equal(run["expert"].sel(step=step), expected)
    assert np.isnan(run["expert"].sel(step=1)[:3]).all()
    np.testing.assert_array_equal(run["expert"].sel(step=1)[3:], expected[3:])
    model.least = 0.5  # the first batch goes to `rest` alone, the second to `expert`
    with pytest.warns(UserWarning, match="Some batches did not reach"):
        run = repsim.record(model, batches)
    assert np.isnan(run["rest"][3:]).all()
    assert np.isnan(run["expert"][:3]).all()
    assert not np.isnan(run["rest"][:3]).any()


@pytest.mark.parametrize("stored", [False, True])
def test_the_number_of_examples_may_not_change(stored: bool, tmp_path: Path) -> None:
    model, size = nn.Sequential(nn.Linear(6, 2)), [4]
    store = tmp_path / "s.zarr" if stored else None
    with repsim.Recorder(
        model, ["x"], every=1, store=store, forward=lambda m, _: m(_vectors(size[0]))
    ) as recorder:
        size[0] = 5
        with pytest.warns(UserWarning, match="Expected 4 examples as before, but got"):
            recorder.step()
        size[0] = 4
        recorder.step()
    assert recorder.dataset()["step"].values.tolist() == [0, 2]
    assert recorder.dataset()["0"].shape == (2, 4, 2)


def test_a_layer_that_is_the_same_for_all_examples_has_no_error() -> None:
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.where, self.out = nn.Embedding(1, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Any:
            return self.out(x + self.where(torch.zeros(1, dtype=torch.long)))

    x, y = _vectors(5), torch.arange(5) % 3
    with repsim.Recorder(  # batches of 2, 2 and 1
        Positions(), x, labels=y, errors=F.cross_entropy, batch_size=2
    ) as recorder:
        pass
    assert list(recorder.dataset()) == ["where", "out", "out@error"]
    assert recorder.dataset()["where"].shape == (1, 5, 6)


def test_a_recorder_wants_to_be_entered() -> None:
    recorder = repsim.Recorder(_mlp(), _vectors(3))
    with pytest.raises(ValueError, match="use it as `with Recorder"):
        recorder.step()
    with recorder:
        with pytest.raises(ValueError, match="Expected `updates` to be at least 0"):
            recorder.advance(-1)
    with pytest.raises(ValueError, match="use it as `with Recorder"):
        recorder.snapshot()
    with pytest.raises(ValueError, match="Expected a new recorder, but this one was"):
        recorder.__enter__()


def test_a_recorder_starts_and_closes_without_a_block() -> None:
    model = _mlp()
    recorder = repsim.Recorder(model, _vectors(3), every=2)
    assert repr(recorder) == (
        "<repsim.Recorder of Sequential: 13 layers, not started after 0 updates>"
    )
    assert recorder.start() is recorder
    recorder.step()
    assert "open after 1 update, last recorded 0>" in repr(recorder)
    recorder.step()
    recorder.step()
    assert "open after 3 updates, last recorded 2>" in repr(recorder)
    recorder.close()
    recorder.close()
    assert "closed after 3 updates" in repr(recorder)
    assert recorder.dataset()["step"].values.tolist() == [0, 2]
    assert recorder.dataset().attrs["complete"] == 1


def test_what_cannot_be_recorded_is_said_before_the_first_update() -> None:
    halved = nn.Sequential(nn.Linear(6, 4), nn.Flatten(0))
    recorder = repsim.Recorder(halved, _vectors(5), steps=[90])
    with pytest.raises(ValueError, match=r"'1' to give one row.*\(20,\)"):
        recorder.start()
    with pytest.warns(UserWarning, match="Layer '1' was not recorded"):
        with repsim.Recorder(
            halved, _vectors(5), steps=[1], on_error="skip"
        ) as recorder:
            recorder.step()
    assert repsim.layers(recorder.dataset()) == ["0"]
    assert recorder.dataset()["step"].values.tolist() == [1]


@pytest.mark.parametrize("stored", [False, True])
def test_a_layer_that_changes_its_shape_is_a_gap(stored: bool, tmp_path: Path) -> None:
    model, width = nn.Sequential(nn.Linear(6, 4), nn.Identity()), [4]
    model[1].forward = lambda x: x[:, : width[0]]  # type: ignore[method-assign]
    store = tmp_path / "s.zarr" if stored else None
    with pytest.warns(UserWarning, match=r"'1' was not recorded after 1 upd.*\(4,\)"):
        with repsim.Recorder(model, _vectors(5), every=1, store=store) as recorder:
            for width[0] in (3, 2, 4):
                recorder.step()
    run = recorder.dataset()
    assert np.isnan(run["1"]).all(("example", "1_unit")).values.tolist() == [
        False, True, True, False,
    ]  # fmt: skip
    assert run["1"].attrs == {"partial": 1}
    assert not np.isnan(run["0"]).any()


def test_nothing_recorded_is_an_empty_recording(tmp_path: Path) -> None:
    for store in (None, tmp_path / "s.zarr"):
        with repsim.Recorder(_mlp(), _vectors(3), steps=[9], store=store) as recorder:
            recorder.step()
        run = recorder.dataset()
        assert repsim.layers(run) == []
        assert run.attrs["complete"] == 1


# error signals


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_errors_are_per_sample_whatever_the_reduction(reduction: str) -> None:
    model = _mlp()
    for parameter in model[0].parameters():
        parameter.requires_grad_(False)  # gradients pass below frozen weights, too
    x, y = _vectors(9), torch.arange(9) % 3

    def loss(output: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(output, labels, reduction=reduction)

    with repsim.Recorder(model, x, labels=y, errors=loss, batch_size=4) as recorder:
        pass
    run = recorder.dataset()
    twin = copy.deepcopy(model).eval()
    for module in twin:
        if isinstance(module, nn.ReLU):
            module.inplace = False
    hidden: list[Tensor] = []
    value = x.clone().requires_grad_()
    for module in twin:
        value = module(value)
        value.retain_grad()
        hidden.append(value)
    F.cross_entropy(value, y, reduction="sum").backward()
    for i, h in enumerate(hidden):
        assert run[f"{i}@error"].dims == run[f"{i}"].dims
        torch.testing.assert_close(
            torch.from_numpy(run[f"{i}@error"].values[0]), h.grad
        )
    assert repsim.layers(run) == [str(i) for i in range(len(hidden))]
    assert all(p.grad is None for p in model.parameters())


def test_errors_of_a_rule_are_the_used_and_the_true_ones(tmp_path: Path) -> None:
    class Rule:
        name, options, splits = "half", {"lr": 0.1}, ["0"]

        def __init__(self) -> None:
            self.network = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3))

        def errors(self, x: Tensor, y: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
            return {"0": (x[:, :4] / 2, x[:, :4])}

    rule, x = Rule(), _vectors(5)
    with repsim.Recorder(
        rule, x, labels=range(5), errors=True, store=tmp_path / "s.zarr"
    ) as recorder:
        pass
    run = recorder.dataset()
    np.testing.assert_array_equal(run["0@error"][0], x[:, :4] / 2)
    np.testing.assert_array_equal(run["0@true_error"][0], x[:, :4])
    assert run["0@true_error"].dims == run["0"].dims
    assert run.attrs["rule"] == "half"
    assert run.attrs["rule_options"] == '{"lr": 0.1}'
    assert run.attrs["splits"] == ["0"]
    assert run.attrs["errors"] == "rule"
    assert repsim.layers(repsim.record(rule, x)) == ["0", "1"]


def test_a_layer_without_an_error_is_named_at_the_end() -> None:
    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.after = nn.Linear(6, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Any:
            return self.after(self.before(x).detach())

    x, y = _vectors(5), torch.arange(5) % 3
    with pytest.warns(UserWarning, match="No error was recorded at before: the loss"):
        with repsim.Recorder(Cut(), x, labels=y, errors=F.cross_entropy) as recorder:
            pass
    assert list(recorder.dataset()) == ["before", "after", "after@error"]
    with pytest.warns(UserWarning, match="No error was recorded at before:"):
        with repsim.Recorder(Cut(), x, "before", labels=y, errors=F.cross_entropy):
            pass


def test_errors_are_found_inside_inference_mode_too() -> None:
    model, x, y = nn.Sequential(nn.Linear(6, 3)), _vectors(5), torch.arange(5) % 3
    with repsim.Recorder(model, x, labels=y, errors=F.cross_entropy) as recorder:
        pass
    with torch.inference_mode():
        with repsim.Recorder(model, x, labels=y, errors=F.cross_entropy) as inside:
            pass
    expected = recorder.dataset()["0@error"]
    np.testing.assert_array_equal(inside.dataset()["0@error"], expected)


def test_errors_of_our_rules_agree_with_the_loss() -> None:
    network = repsim.networks.mlp(6, hidden=[8, 8], classes=3)
    rule = repsim.learning.make("bp", network)
    x, y = _vectors(7), torch.arange(7) % 3
    with repsim.Recorder(rule, x, labels=y, errors=True) as a:
        pass
    with repsim.Recorder(network, x, labels=y, errors=F.cross_entropy) as b:
        pass
    used, found = a.dataset(), b.dataset()
    for layer in ("hidden_1", "hidden_2"):
        for name in (f"{layer}@error", f"{layer}@true_error"):
            np.testing.assert_allclose(
                used[name], found[f"{layer}@error"], rtol=1e-4, atol=1e-7
            )


@pytest.mark.parametrize("kind", ["namedtuple", "dataclass", "dict"])
def test_errors_of_outputs_of_every_kind_are_per_example(kind: str) -> None:
    model = Answering(kind)
    x, y = _vectors(5), torch.arange(5) % 3

    def loss(output: Any, labels: Tensor) -> Tensor:
        assert len(labels) == 1
        logits = output["logits"] if kind == "dict" else output.logits
        return F.cross_entropy(logits, labels)

    with repsim.Recorder(model, x, labels=y, errors=loss) as recorder:
        pass
    logits = model.head(x).detach().requires_grad_()
    F.cross_entropy(logits, y, reduction="sum").backward()
    np.testing.assert_allclose(
        recorder.dataset()["head@error"][0], logits.grad, rtol=1e-5, atol=1e-7
    )


class Named(NamedTuple):
    logits: Tensor


@dataclasses.dataclass(frozen=True)
class Data:
    logits: Tensor


def _in_a_dict(logits: Tensor) -> dict[str, Tensor]:
    return {"logits": logits}


class Answering(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.head = nn.Linear(6, 3)
        makers = {
            "namedtuple": Named,
            "dataclass": Data,
            "dict": lambda x: {"logits": x},
        }
        self.make: Any = makers[kind]

    def forward(self, x: Tensor) -> Any:
        return self.make(self.head(x))


def test_errors_want_labels_and_a_loss_or_a_rule() -> None:
    model, x = _mlp(), _vectors(4)
    with pytest.raises(ValueError, match="Expected labels to compute errors with"):
        repsim.Recorder(model, x, errors=F.cross_entropy)
    with pytest.raises(ValueError, match="carry none that are numbers"):
        repsim.Recorder(model, x, errors=F.cross_entropy, labels=list("abca"))
    with pytest.raises(ValueError, match="Expected `errors` to be a loss"):
        repsim.Recorder(model, x, errors=True, labels=[0, 1, 2, 0])


def test_errors_of_a_model_output_and_a_regression() -> None:
    model, words = _gpt2(), _words(4)
    with repsim.Recorder(
        model, [(words, torch.arange(4) % 3)], layers="transformer.h.*", errors=_loss
    ) as recorder:
        pass
    run = recorder.dataset()
    assert run["transformer.h.0@error"].shape == (1, 4, 6, 8)
    assert (abs(run["transformer.h.1@error"]).max() > 0).all()
    linear, x = nn.Sequential(nn.Linear(6, 2)), _vectors(5)
    target = torch.randn(5, 2)
    with pytest.warns(UserWarning, match=r"Labels of shape \(5, 2\) are not kept"):
        with repsim.Recorder(linear, [(x, target)], errors=F.mse_loss) as recorder:
            pass
    run = recorder.dataset()
    np.testing.assert_allclose(
        run["0@error"][0], (linear(x) - target).detach(), rtol=1e-5, atol=1e-6
    )
    assert "label" not in run.coords


# going on after a stop


def _updates(
    model: nn.Module, first: int, stop: int, **options: Any
) -> Iterator[repsim.Recorder]:
    """Yield the recorder after each of the updates, which depend on their number."""
    with repsim.Recorder(model, FIXED, **options) as recorder:
        yield recorder
        for k in range(first, stop):
            generator = torch.Generator().manual_seed(k)
            with torch.no_grad():
                for p in model.parameters():
                    p += 0.01 * torch.randn(p.shape, generator=generator)
            recorder.step()
            yield recorder


FIXED = torch.randn(11, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("closed", [False, True])
def test_a_resumed_recording_equals_one_that_never_stopped(
    closed: bool, tmp_path: Path
) -> None:
    def fresh() -> nn.Module:
        torch.manual_seed(5)
        return _mlp()

    *_, whole = _updates(fresh(), 0, 150, every=2, store=tmp_path / "whole.zarr")
    expected = whole.dataset()
    model, store = fresh(), tmp_path / "parts.zarr"
    first = _updates(model, 0, 90, every=2, store=store)
    for recorder in first:
        if recorder._count == 61:
            saved = copy.deepcopy(model.state_dict())
        if recorder._count == 75 and not closed:
            first.close()  # as an exception would
    model.load_state_dict(saved)
    options = {"every": 2, "store": store, "resume": True, "start": 61}
    *_, second = _updates(model, 61, 150, **options)
    run = second.dataset()
    run.attrs["created"] = expected.attrs["created"]
    xr.testing.assert_identical(run.load(), expected.load())
    assert not list(store.glob("*/c.*.0.0"))


def test_resume_keeps_gaps_and_replaces_later_steps(tmp_path: Path) -> None:
    store, model = tmp_path / "s.zarr", _mlp()
    *_, recorder = _updates(model, 0, 10, every=5, store=store)
    for start, expected in (
        (10, [0, 5, 10, 15]),
        (7, [0, 5, 10]),
        (30, [0, 5, 10, 30]),
    ):
        *_, recorder = _updates(
            model, start, start + 5, every=5, store=store, resume=True, start=start
        )
        held = recorder.dataset()["step"].values.tolist()
        assert held[: len(expected)] == expected


def test_resume_begins_where_nothing_lies(tmp_path: Path) -> None:
    *_, recorder = _updates(_mlp(), 0, 3, every=1, store=tmp_path / "s", resume=True)
    assert recorder.dataset()["step"].values.tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="Expected `store` along with resume=True"):
        repsim.Recorder(_mlp(), FIXED, resume=True)


def test_another_recording_is_not_mixed_in(tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    *_, _ = _updates(_mlp(), 0, 3, every=1, store=store)

    def again(model: nn.Module, x: Tensor = FIXED, **options: Any) -> repsim.Recorder:
        return repsim.Recorder(model, x, store=store, **options)

    before = repsim.open_recording(store).load()
    with pytest.raises(FileExistsError, match="is occupied; choose another, or"):
        again(_mlp())
    with pytest.raises(ValueError, match="`start`.*its last complete step is 3"):
        again(_mlp(), resume=True)
    with pytest.raises(ValueError, match=r"same network \(parameter names and shapes"):
        again(nn.Sequential(nn.Linear(6, 3)), resume=True, start=3)
    with pytest.raises(ValueError, match="Expected the same inputs as in"):
        again(_mlp(), FIXED + 1, resume=True, start=3)
    with pytest.raises(ValueError, match="Expected the same `reduce` as in"):
        again(_mlp(), reduce="mean", resume=True, start=3)
    with pytest.raises(ValueError, match="Expected the same `errors` as in"):
        again(_mlp(), labels=[0] * 11, errors=_loss, resume=True, start=3)
    with pytest.raises(ValueError, match="but 1, 2, .* are not chosen"):
        again(_mlp(), layers="0", resume=True, start=3)
    xr.testing.assert_identical(before, repsim.open_recording(store).load())
    moment = tmp_path / "moment.zarr"
    repsim.record(_mlp(), FIXED, store=moment)
    with pytest.raises(ValueError, match="Expected a recording with steps"):
        repsim.Recorder(_mlp(), FIXED, store=moment, resume=True, start=3)


def test_a_second_writer_is_refused_in_one_sentence(tmp_path: Path) -> None:
    store, model = tmp_path / "s.zarr", _mlp()
    options = {"store": store, "resume": True, "start": 0}
    with repsim.Recorder(model, FIXED, **options) as first:
        with pytest.raises(FileExistsError, match="only one that writes .* another"):
            repsim.Recorder(model, FIXED, **options)
        first.step()
    assert [p.name for p in tmp_path.iterdir()] == ["s.zarr"]
    with repsim.Recorder(model, FIXED, **options):
        pass
    script = "import repsim, torch; from torch import nn; repsim.Recorder("
    script += f"nn.Sequential(nn.Linear(6, 2)), torch.ones(3, 6), store={str(store)!r},"
    script += "resume=True, start=0)"
    with repsim.Recorder(model, FIXED, **options):
        other = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=False
        )
    assert "Expected to be the only one that writes" in other.stderr


def test_files_of_other_kinds_are_no_places(tmp_path: Path) -> None:
    run = repsim.record(_mlp(), FIXED)
    for name in ("run.csv", "run.npz", "run.pt"):
        with pytest.raises(ValueError, match="a place for a zarr folder, such as"):
            repsim.save_recording(run, tmp_path / name)
        with pytest.raises(ValueError, match="to_dataframe.* makes a table"):
            repsim.Recorder(_mlp(), FIXED, store=tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_no_thread_of_the_writer_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "IDLE", 0.01)

    def writing() -> list[str]:
        return [t.name for t in threading.enumerate() if t.name == "repsim-writer"]

    recorder = repsim.Recorder(_mlp(), FIXED, store=tmp_path / "s.zarr").start()
    for _ in range(500):  # never closed, as when a trainer ends by an exception
        if not writing():
            break
        time.sleep(0.01)
    assert not writing()
    recorder.snapshot()  # and yet goes on
    recorder.close()
    assert recorder.dataset().sizes["step"] == 1
    assert not writing()


def test_a_failed_first_pass_leaves_nothing_behind(tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    with pytest.raises(RuntimeError, match="mat1"):
        with repsim.Recorder(_mlp(), torch.ones(3, 9), store=store):
            pass
    assert not store.exists()
