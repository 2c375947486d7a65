"""Which axis is what: said, told, tried; and what is refused with the line to write."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import repsim


class Call(nn.Module):
    """Any function as a layer."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any) -> Any:
        return self.function(*args)


def _net(**layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(layers))


def test_said_axes_are_stored_with_the_examples_first() -> None:
    x = torch.randn(5, 3, 4)
    net = _net(block=nn.Linear(4, 6), head=nn.Linear(6, 2))
    axes = {"inputs": "token example unit", "*": "token example unit"}
    run = repsim.record(net, x, axes=axes, labels=[0, 1, 2])
    expected = net.block(x).detach().transpose(0, 1)
    assert run["block"].dims == ("example", "block_token", "block_unit")
    np.testing.assert_array_equal(run["block"], expected)
    assert run.attrs["axes"].startswith('{"inputs": "token')
    less = repsim.record(net, x, axes=axes, reduce="mean")
    np.testing.assert_allclose(less["block"], expected.mean(1), rtol=1e-5, atol=1e-6)
    images = torch.randn(3, 4, 5, 2)
    turned = _net(flip=Call(lambda t: t + 1))
    run = repsim.record(turned, images, axes={"fl*": "example y x channel"})
    assert run["flip"].dims == ("example", "flip_y", "flip_x", "flip_channel")
    with repsim.tap(net, axes=axes) as seen:
        net(x)
    torch.testing.assert_close(seen["block"], expected)


def test_sequence_first_inputs_are_cut_along_their_examples() -> None:
    x = torch.randn(4, 9, 3)
    net = _net(block=nn.Linear(3, 5))
    axes = {"inputs": "token example unit", "block": "token example unit"}
    with repsim.Recorder(net, x, axes=axes, batch_size=2) as recorder:
        pass
    run = recorder.dataset().isel(step=0)
    np.testing.assert_allclose(
        run["block"], net(x).detach().transpose(0, 1), rtol=1e-5, atol=1e-6
    )
    told = repsim.record(net, x, labels=range(9))  # by the number of labels
    assert told["block"].shape == (9, 4, 5)


def test_what_follows_the_examples_is_tried_where_shapes_are_equal() -> None:
    x = torch.randn(4, 4, 4)
    net = _net(turned=Call(lambda t: t.transpose(0, 1)), same=Call(lambda t: t * 2))
    run = repsim.record(net, x)
    np.testing.assert_array_equal(run["turned"], x)
    np.testing.assert_array_equal(run["same"], 2 * x)


def test_what_cannot_be_tried_is_refused_or_warned_of_with_the_line() -> None:
    def turned(t: Tensor) -> Tensor:
        assert len(t) > 3  # takes no part of its inputs
        return t.transpose(0, 1)

    net = _net(turned=Call(turned))
    with pytest.raises(
        ValueError,
        match=r"'turned'.* each of 5 .*\(3, 5, 4\).*axes=\{'turned': 'token example un",
    ):
        repsim.record(net, torch.randn(5, 3, 4))
    with pytest.warns(UserWarning, match="axes of turned were not told by any module"):
        repsim.record(net, torch.randn(4, 4, 6))


def test_said_axes_that_do_not_fit_are_refused() -> None:
    x, net = torch.randn(5, 4), _net(block=nn.Linear(4, 6))
    with pytest.raises(ValueError, match=r"'block' to have the axes \(token, example"):
        repsim.record(net, x, axes={"block": "token example unit"})
    with pytest.raises(ValueError, match="Expected `axes` to be one of block, inputs"):
        repsim.record(net, x, axes={"blok": "example unit"})
    with pytest.raises(ValueError, match="name every axis once and `example` among"):
        repsim.record(net, x, axes={"block": "unit"})
    with pytest.raises(TypeError, match="Expected `axes` to be a mapping"):
        repsim.record(net, x, axes="example unit")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"each of 4 examples.*\(axis 1 was taken"):
        repsim.record(net, x, axes={"block": "unit example"})


def test_a_layer_that_says_its_format_is_believed() -> None:
    class Stage(nn.Module):
        output_fmt = "NHWC"

        def forward(self, x: Tensor) -> Tensor:
            return x.permute(0, 2, 3, 1)

    run = repsim.record(_net(stage=Stage()), torch.randn(2, 3, 5, 5))
    assert run["stage"].dims == ("example", "stage_y", "stage_x", "stage_channel")


def test_maps_that_may_be_either_are_warned_of() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.linear = nn.Conv2d(6, 6, 1), nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(self.conv(x))

    with pytest.warns(
        UserWarning, match=r"axes of both were not told.*channel, y, x\)"
    ):
        repsim.record(_net(both=Both()), torch.randn(2, 6, 6, 6))


@pytest.mark.parametrize("stored", [False, True])
def test_names_that_meet_keep_their_data(stored: bool, tmp_path: Any) -> None:
    class Meeting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.conv_x = nn.Conv2d(1, 2, 3), nn.Flatten()
            self.conv_x_unit = nn.Linear(72, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv_x_unit(self.conv_x(self.conv(x)))

    net, x = Meeting(), torch.randn(3, 1, 8, 8)
    store = tmp_path / "s.zarr" if stored else None
    run = repsim.record(net, x, store=store)
    assert list(run.data_vars) == ["conv", "conv_x", "conv_x_unit"]
    assert run["conv"].dims == ("example", "conv_channel", "conv_y", "conv_x_")
    np.testing.assert_array_equal(run["conv_x_unit"], net(x).detach())
    less = repsim.reduce(run, "mean")
    np.testing.assert_allclose(
        less["conv"], net.conv(x).mean((2, 3)).detach(), rtol=1e-5, atol=1e-6
    )


def test_names_of_coordinates_are_refused_before_the_first_update(
    tmp_path: Any,
) -> None:
    x = torch.randn(3, 4)
    for name in ("step", "label", "example"):
        net = _net(**{name: nn.Linear(4, 2), "out": nn.Linear(2, 2)})
        with pytest.raises(ValueError, match=f"{name!r} is a coordinate of every"):
            repsim.Recorder(net, x, every=100)
        assert repsim.layers(repsim.record(net, x, layers=["*", f"!{name}"])) == ["out"]
    odd = nn.Module()
    net = nn.Sequential(nn.Linear(4, 2))
    net.add_module("a/b", nn.Linear(2, 2))
    np.testing.assert_array_equal(repsim.record(net, x)["a/b"], net(x).detach())
    with pytest.raises(ValueError, match="'a/b'"):
        repsim.Recorder(net, x, store=tmp_path / "s.zarr", steps=[5])
    assert not (tmp_path / "s.zarr").exists()
    del odd


def test_patterns_leave_out_and_name_the_nearest() -> None:
    net = nn.Sequential(*(nn.Linear(4, 4) for _ in range(20)))
    x = torch.randn(3, 4)
    assert repsim.layers(repsim.record(net, x, layers=["*", "!1?"])) == [
        str(i) for i in range(10)
    ]
    assert len(repsim.layers(repsim.record(net, x, layers="!3"))) == 19
    with repsim.tap(net, ["1*", "!1?"]) as seen:
        net(x)
    assert list(seen) == ["1"]
    with pytest.raises(ValueError, match="leaves out all that was chosen") as caught:
        repsim.record(net, x, layers=["3", "!*"])
    with pytest.raises(ValueError, match="20 modules.* 'block' matches none") as caught:
        repsim.record(net, x, layers="block")
    assert len(str(caught.value)) < 300
    with pytest.raises(ValueError, match="'!block' matches none"):
        repsim.record(net, x, layers=["*", "!block"])


def test_inputs_of_a_layer_are_layers_too() -> None:
    net, x = _net(a=nn.Linear(4, 6), b=nn.ReLU(inplace=True)), torch.randn(3, 4)
    run = repsim.record(net, x, layers=["b", "b@input"])
    assert repsim.layers(run) == ["b", "b@input"]
    np.testing.assert_array_equal(run["b@input"], net.a(x).detach())
    np.testing.assert_array_equal(run["b"], net.a(x).relu().detach())
    two = Call(lambda a, b: a + b)
    net2 = nn.Module()
    net2.two = two
    net2.forward = lambda x: two(x, 2 * x)  # type: ignore[method-assign]
    run = repsim.record(net2, x, layers=["two@input", "two@input.1"])
    np.testing.assert_array_equal(run["two@input.1"], 2 * x)
    with pytest.raises(ValueError, match=r"one of two@input\.0, two@input\.1, but"):
        repsim.record(net2, x, layers="two@input.7")


def test_a_function_is_seen_by_a_module_behind_it() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.after_gelu = nn.Linear(4, 6), nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            return self.after_gelu(nn.functional.gelu(self.linear(x)))

    net, x = Net(), torch.randn(3, 4)
    np.testing.assert_array_equal(repsim.record(net, x)["after_gelu"], net(x).detach())


@pytest.mark.parametrize("turned", [True, False])
def test_flattened_maps_say_where_their_channels_went(turned: bool) -> None:
    class Patches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.maps = nn.Sequential(nn.Conv2d(3, 16, 2, 2), nn.Conv2d(16, 8, 2, 2))

        def forward(self, x: Tensor) -> Any:
            flat = self.maps(x).flatten(2)
            return flat.transpose(1, 2) if turned else flat

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.head = Patches(), nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Any:
            h = self.patches(x)
            return self.head(h if turned else h.transpose(1, 2))

    # 16 places, as many as the first convolution has channels.
    run = repsim.record(Net(), torch.randn(3, 3, 16, 16), layers=["patches"])
    axes = ("token", "unit") if turned else ("channel", "x")
    assert run["patches"].dims[1:] == tuple(f"patches_{axis}" for axis in axes)


def test_a_named_tuple_is_asked_by_its_names() -> None:
    class Out(NamedTuple):
        h: Tensor
        state: Tensor

    class Cell(nn.Module):
        def forward(self, x: Tensor) -> Out:
            return Out(x, 2 * x)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = Cell()

        def forward(self, x: Tensor) -> Any:
            return self.cell(x).h

    x = torch.randn(4, 3)
    run = repsim.record(Net(), x, layers=["cell", "cell@state", "cell@1"])
    np.testing.assert_array_equal(run["cell@state"], 2 * x)
    np.testing.assert_array_equal(run["cell@1"], 2 * x)
    with pytest.raises(ValueError, match="cell@0, cell@1, cell@h, cell@state, but got"):
        repsim.record(Net(), x, layers=["cell@c"])


def test_a_module_tells_its_axes_where_all_sizes_are_equal() -> None:
    net = repsim.networks.vit((1, 8, 8), depth=2, width=16, seed=0)
    x = torch.randn(16, 1, 8, 8)
    run = repsim.record(net, x)  # 16 examples, tokens and units, and no doubt
    for layer in ("hidden_1", "hidden_2"):
        assert run[layer].dims == ("example", f"{layer}_token", f"{layer}_unit")
    with torch.no_grad():
        np.testing.assert_allclose(run["hidden_1"], net[0](x), rtol=1e-4, atol=1e-5)

    class Turned(Call):
        output_axes = "token example unit"

    turned = _net(a=Turned(lambda h: h.transpose(0, 1) + 1))
    y = torch.randn(4, 4, 4)
    seen = repsim.record(turned, y)["a"]
    assert seen.dims == ("example", "a_token", "a_unit")
    np.testing.assert_array_equal(seen, y + 1)

    class Wrong(Call):
        output_axes = "token unit"

    with pytest.raises(ValueError, match="name every axis once and `example` among"):
        repsim.record(_net(a=Wrong(lambda h: h + 1)), y)


@pytest.mark.parametrize("rows", [2, 3, 4, 9])
def test_one_row_that_a_network_chose_is_not_shared_by_all(rows: int) -> None:
    pick = Call(lambda x: torch.cat([x, x], 1)[x[:, 0] > 0])  # no rows of an input
    net = _net(pick=pick, roi=nn.Linear(6, 2))
    for one in range(rows):
        x = -torch.rand(rows, 3)
        x[one, 0] = 1.0
        with pytest.raises(ValueError, match="'roi' to give one row for each of"):
            repsim.record(net, x, "roi")
    shared = _net(a=Call(lambda x: x), b=Call(lambda x: torch.ones(1, 5)))
    run = repsim.record(shared, torch.rand(rows, 3))
    np.testing.assert_array_equal(run["b"], np.ones((rows, 5)))


def test_experts_of_a_batch_of_one_are_tokens_and_have_no_error_per_example() -> None:
    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            flat = x.flatten(0, 1)
            first = flat[:, 0] > 0
            out = torch.empty_like(flat)
            out[first], out[~first] = self.one(flat[first]), self.two(flat[~first])
            return out.view_as(x)

    torch.manual_seed(0)
    net = _net(experts=Experts(), head=Call(lambda h: h.mean(1)))
    x = -torch.rand(5, 3, 4)
    x[[0, 0, 1, 2, 4], [0, 2, 1, 0, 1], 0] = (
        1.0  # 4 of the first 4 inputs, 1 of the 5th
    )
    layers = ["experts.one", "experts.two"]
    with repsim.Recorder(
        net, [x[:4], x[4:]], layers, torch.zeros(5).long(),
        errors=lambda output, _: output.sum(),
    ) as recorder:  # fmt: skip
        pass
    run = recorder.dataset()
    assert list(run.data_vars) == layers
    with torch.no_grad():
        for name, chosen in (("one", x[..., 0] > 0), ("two", x[..., 0] <= 0)):
            rows = getattr(net.experts, name)(x)
            rows[~chosen] = torch.nan
            np.testing.assert_allclose(run[f"experts.{name}"][0], rows, rtol=1e-5)
