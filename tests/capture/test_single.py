"""tap and record: which layers, which outputs, which batches, and no trace."""

import warnings
from collections import OrderedDict, namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import repsim


@pytest.fixture
def net() -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            hidden_1=nn.Sequential(nn.Linear(4, 8), nn.ReLU()),
            hidden_2=nn.Sequential(nn.Linear(8, 6), nn.ReLU()),
            output=nn.Linear(6, 3),
        )
    )


@pytest.fixture
def x() -> Tensor:
    return torch.randn(10, 4)


def _hooks(model: nn.Module) -> int:
    return sum(
        len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()
    )


# which layers


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*", ["hidden_1", "hidden_2", "output"]),
        ("hidden_*", ["hidden_1", "hidden_2"]),
        ("hidden_*.0", ["hidden_1.0", "hidden_2.0"]),
        ("**.1", ["hidden_1.1", "hidden_2.1"]),
        ("hidden_[!1]", ["hidden_2"]),
        ("hidden_?", ["hidden_1", "hidden_2"]),
        (["output", "hidden_1"], ["hidden_1", "output"]),
        (lambda name, m: isinstance(m, nn.ReLU), ["hidden_1.1", "hidden_2.1"]),
    ],
)
def test_names_are_chosen_by_glob_list_and_predicate(
    net: nn.Module, x: Tensor, pattern: Any, expected: list[str]
) -> None:
    assert repsim.layers(repsim.record(net, x, layers=pattern)) == expected


def test_two_stars_cross_dots(net: nn.Module, x: Tensor) -> None:
    run = repsim.record(net, x, layers="**")
    assert repsim.layers(run) == [n for n, _ in net.named_modules() if n]


def test_a_name_that_matches_nothing_lists_those_that_exist(net: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"hidden_1\.0.*got 'hiden_1'.*'hidden_1'"):
        repsim.record(net, torch.ones(2, 4), layers=["hiden_1"])
    with pytest.raises(ValueError, match="Expected `layers` to be one of hidden_1"):
        repsim.record(net, torch.ones(2, 4), layers=lambda n, m: False)
    with pytest.raises(TypeError, match="Expected `layers` to be a glob"):
        repsim.record(net, torch.ones(2, 4), layers=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Expected `layers` to be a glob"):
        repsim.record(net, torch.ones(2, 4), layers=[])


def test_a_scripted_module_is_refused_as_a_layer(x: Tensor) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own: scripting is going
        scripted = torch.jit.script(nn.Sequential(nn.Linear(4, 4)))
    net = nn.Sequential(OrderedDict(a=scripted, b=nn.Linear(4, 4)))
    for layers in ("*", ["a"], lambda name, _: True):
        with pytest.raises(TypeError, match="'a' is scripted or traced and cannot"):
            repsim.record(net, x, layers=layers)
    with pytest.raises(TypeError, match="'0' is scripted or traced and cannot"):
        repsim.record(scripted, x)
    assert repsim.layers(repsim.record(net, x, layers="b")) == ["b"]


def test_torchs_transformer_is_seen_module_by_module() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    net, x = nn.TransformerEncoder(layer, 2), torch.randn(5, 4, 8)
    mask = torch.arange(4).expand(5, 4) > 2
    names = ["layers.0", "layers.0.linear1", "layers.0.dropout2", "layers.1"]
    run = repsim.record(net, [{"src": x, "src_key_padding_mask": mask}], layers=names)
    assert repsim.layers(run) == names
    assert torch.backends.mha.get_fastpath_enabled()
    net.eval()
    with torch.enable_grad(), repsim.tap(net, "layers.1") as seen:
        net(x.requires_grad_(), src_key_padding_mask=mask)  # gradients: no fast path
    np.testing.assert_array_equal(run["layers.1"], seen["layers.1"])


def test_a_model_that_is_none_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Expected a torch\.nn\.Module or a learning"):
        repsim.record(len, torch.ones(2))


def test_a_loss_among_the_children_is_no_layer(x: Tensor) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(4, 2)
            self.criterion = nn.CrossEntropyLoss()

        def forward(self, x: Tensor) -> Any:
            return self.body(x)

    assert repsim.layers(repsim.record(Net(), x)) == ["body"]
    with pytest.warns(UserWarning, match="Nothing was recorded of criterion"):
        repsim.record(Net(), x, layers=["body", "criterion"])


class Twice(nn.Module):
    """One ReLU used twice, one Linear known by two names."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 6)
        self.b = nn.Linear(6, 5)
        self.relu = nn.ReLU(inplace=True)
        self.alias = self.a

    def forward(self, x: Tensor) -> Any:
        return self.relu(self.b(self.relu(self.a(x))))


def test_a_module_called_twice_gives_call2(x: Tensor) -> None:
    run = repsim.record(Twice(), x)
    assert repsim.layers(run) == ["a", "b", "relu", "relu@call2"]
    assert run["relu"].shape == (10, 6)
    assert run["relu@call2"].dims == ("example", "relu@call2_unit")
    only = repsim.record(Twice(), x, layers=["relu@call2"])
    assert repsim.layers(only) == ["relu@call2"]
    with repsim.tap(model := Twice(), "relu") as seen:
        for _ in range(3):
            model(x)
    assert list(seen) == ["relu", "relu@call2"]


def test_a_second_name_of_a_module_points_to_the_first(x: Tensor) -> None:
    with pytest.raises(ValueError, match="'alias' is the same module as 'a'"):
        repsim.record(Twice(), x, layers=["alias"])


# outputs of several tensors

Pair = namedtuple("Pair", ["first", "second"])


class Outputs(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Any:
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        match self.kind:
            case "tuple":
                return x, (x + 1, x + 2)
            case "dict":
                return {"none": None, "first": x, "other": x + 1}
            case "namedtuple":
                return Pair(x, x + 1)
            case _:
                return BaseModelOutputWithPooling(
                    last_hidden_state=x, pooler_output=x + 1
                )


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("tuple", "1.0"),
        ("dict", "other"),
        ("namedtuple", "1"),
        ("output", "pooler_output"),
    ],
)
def test_the_first_tensor_has_the_layers_name(kind: str, key: str, x: Tensor) -> None:
    net = nn.Sequential(OrderedDict(layer=Outputs(kind)))
    run = repsim.record(net, x)
    assert repsim.layers(run) == ["layer"]
    np.testing.assert_array_equal(run["layer"], x)
    run = repsim.record(net, x, layers=["layer", f"layer@{key}"])
    assert repsim.layers(run) == ["layer", f"layer@{key}"]
    np.testing.assert_array_equal(run[f"layer@{key}"], x + 1)
    with pytest.raises(ValueError, match="got 'layer@no'"):
        repsim.record(net, x, layers=["layer@no"])


# shapes and types


def test_maps_and_tokens_keep_named_dims(rng: np.random.Generator) -> None:
    images = torch.randn(5, 1, 8, 8)
    net = nn.Sequential(OrderedDict(conv=nn.Conv2d(1, 3, 3), relu=nn.ReLU(True)))
    run = repsim.record(net, images)
    assert run["conv"].dims == ("example", "conv_channel", "conv_y", "conv_x")
    assert run.attrs["reduce"] == "none"
    words = nn.Sequential(OrderedDict(embed=nn.Embedding(7, 4)))
    run = repsim.record(words, torch.zeros(5, 6).long())
    assert run["embed"].dims == ("example", "embed_token", "embed_unit")
    volume = nn.Sequential(OrderedDict(conv=nn.Conv3d(1, 2, 2)))
    run = repsim.record(volume, torch.randn(5, 1, 3, 3, 3))
    assert run["conv"].dims[2:] == ("conv_z", "conv_y", "conv_x")


@pytest.mark.parametrize("how", ["mean", "flatten"])
def test_reduced_as_asked(how: Any) -> None:
    images = torch.randn(5, 1, 8, 8)
    net = nn.Sequential(OrderedDict(conv=nn.Conv2d(1, 3, 3), flat=nn.Flatten()))
    run = repsim.record(net, images, reduce=how)
    expected = net.conv(images)
    expected = expected.mean((2, 3)) if how == "mean" else expected.flatten(1)
    torch.testing.assert_close(torch.from_numpy(run["conv"].values), expected.detach())
    assert run["conv"].dims == ("example", "conv_unit")
    assert run["flat"].shape == (5, 108)
    assert run.attrs["reduce"] == how


def test_a_callable_reduces_every_layer_and_must_give_units(
    net: nn.Module, x: Tensor
) -> None:
    run = repsim.record(net, x, reduce=lambda t: t[:, :2])
    assert {run[n].shape for n in repsim.layers(run)} == {(10, 2)}
    assert "lambda" in run.attrs["reduce"]
    with pytest.raises(ValueError, match="Expected `reduce` to map layer 'hidden_1'"):
        repsim.record(net, x, reduce=lambda t: t[0])
    with pytest.raises(IndexError) as caught:
        repsim.record(net, x, reduce=lambda t: t.mean((2, 3)))
    assert "layer 'hidden_1', (10, 8)" in caught.value.__notes__[0]
    with pytest.raises(ValueError, match="Expected `reduce` to be None, 'flatten'"):
        repsim.record(net, x, reduce="max")  # type: ignore[arg-type]


def test_half_types_keep_every_bit(x: Tensor) -> None:
    net = nn.Sequential(nn.Linear(4, 3)).bfloat16()
    run = repsim.record(net, x.bfloat16())
    assert run["0"].dtype == np.float32
    assert run["0"].attrs["torch_dtype"] == "bfloat16"
    expected = net(x.bfloat16()).detach()
    assert torch.equal(torch.from_numpy(run["0"].values).bfloat16(), expected)
    half = repsim.record(nn.Sequential(nn.Linear(4, 3)).half(), x.half())
    assert half["0"].dtype == np.float16
    double = repsim.record(nn.Sequential(nn.Linear(4, 3)).double(), x.double())
    assert double["0"].dtype == np.float64


def test_integers_and_scalars_become_units() -> None:
    class Argmax(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.argmax(1)

    run = repsim.record(nn.Sequential(OrderedDict(top=Argmax())), torch.eye(4))
    assert run["top"].dims == ("example", "top_unit")
    assert run["top"].dtype == np.float64
    assert run["top"].attrs["torch_dtype"] == "int64"
    np.testing.assert_array_equal(run["top"][:, 0], range(4))


def test_a_layer_whose_rows_are_no_examples_is_refused(x: Tensor) -> None:
    class Halved(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[::2]

    with pytest.raises(ValueError, match="'0' to give one row for each of 10 examples"):
        repsim.record(nn.Sequential(Halved()), x)
    with pytest.warns(UserWarning, match="Layer '0' was not recorded.*axes={'0':"):
        run = repsim.record(
            net := nn.Sequential(Halved(), nn.Linear(4, 2)), x, on_error="skip"
        )
    assert repsim.layers(run) == ["1"]  # its rows are found among the inputs'
    np.testing.assert_array_equal(run["1"][::2], net(x).detach())
    assert np.isnan(run["1"][1::2]).all()
    assert run["1"].attrs == {"partial": 1}


def test_a_sparse_output_is_refused(x: Tensor) -> None:
    class Sparse(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.to_sparse()

    with pytest.raises(ValueError, match="Expected layer '0' to give a dense tensor"):
        repsim.record(nn.Sequential(Sparse()), x)


def test_a_shape_that_changes_between_batches_is_refused() -> None:
    net = nn.Sequential(nn.Embedding(5, 2))
    batches = [torch.zeros(3, 4).long(), torch.zeros(3, 6).long()]
    with pytest.raises(ValueError, match="'0' to give .* pad inputs to one length"):
        repsim.record(net, batches)


def test_an_output_that_does_not_fit_in_memory_is_one_clear_error(x: Tensor) -> None:
    class Huge(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :1].expand(len(x), 10**12)

    net = nn.Sequential(Huge())
    with pytest.raises(ValueError, match=r"Expected layer '0'.*40.0 TB.*`reduce`"):
        repsim.record(net, x)
    run = repsim.record(net, x, reduce=lambda t: t[:, :3])
    assert run["0"].shape == (10, 3)


# batches


def test_every_form_of_batches_gives_the_same(net: nn.Module, x: Tensor) -> None:
    y = torch.arange(10)
    one = repsim.record(net, x, labels=y)
    forms = [
        [(x, y)],
        [(x[:7], y[:7]), (x[7:], y[7:])],
        DataLoader(TensorDataset(x, y), batch_size=4),
        ((x[i : i + 1], y[i : i + 1]) for i in range(10)),
        [[x.numpy(), y.numpy()]],
    ]
    for form in forms:
        run = repsim.record(net, form)
        xr.testing.assert_allclose(one, run, rtol=1e-5, atol=1e-6)
        assert run.attrs["inputs_sha256"] == one.attrs["inputs_sha256"]
    other = repsim.record(net, x + 1)
    assert other.attrs["inputs_sha256"] != one.attrs["inputs_sha256"]
    assert repsim.record(net, [x]).sizes["example"] == 10
    assert repsim.record(net, [x, x]).sizes["example"] == 20
    np.testing.assert_array_equal(
        repsim.record(net, x.numpy())["output"], one["output"]
    )


def test_a_bare_tuple_is_refused_with_advice(net: nn.Module, x: Tensor) -> None:
    with pytest.raises(ValueError, match=r"bare tuple.*write \[\(x, y\)\]"):
        repsim.record(net, (x, torch.arange(10)))
    with pytest.raises(ValueError, match="bare tuple"):
        repsim.Recorder(net, (x, x))


def test_other_batches_are_refused(net: nn.Module, x: Tensor) -> None:
    with pytest.raises(TypeError, match="Expected a tensor, a dict of tensors"):
        repsim.record(net, 3)
    with pytest.raises(TypeError, match="to_tensors"):
        repsim.record(net, xr.Dataset({"image": ("example", np.ones(3))}))
    with pytest.raises(ValueError, match="tuple of length 3; pass `forward`"):
        repsim.record(net, [(x, x, x)])
    with pytest.raises(ValueError, match="at least one example .*, but got no batches"):
        repsim.record(net, [])
    for empty in (x[:0], [x[:0], x[:0]], [(x[:0], x[:0, 0])]):
        with pytest.raises(ValueError, match="example to record, but got only empty"):
            repsim.record(net, empty)
        with pytest.raises(ValueError, match="example to record, but got only empty"):
            repsim.Recorder(net, empty).__enter__()


def test_labels_and_examples_must_fit(net: nn.Module, x: Tensor) -> None:
    run = repsim.record(net, x, labels=["a"] * 10, examples=range(5, 15))
    assert run["label"].values.tolist() == ["a"] * 10
    assert run["example"].values.tolist() == list(range(5, 15))
    with pytest.raises(ValueError, match=r"Expected `labels` to have one value"):
        repsim.record(net, x, labels=[1, 2])
    with pytest.raises(ValueError, match=r"Expected `examples` to have one value"):
        repsim.record(net, x, examples=[1, 2])
    for ids in (np.arange(10) + 0.5, list("abcdefghij")):
        with pytest.raises(TypeError, match="Expected `examples` to hold integers"):
            repsim.record(net, x, examples=ids)


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 3)

    def forward(self, a: Tensor, b: Tensor, labels: Tensor | None = None) -> Any:
        return self.body(a + b)


def test_several_arguments(x: Tensor) -> None:
    net = TwoInputs()
    expected = net.body(x + x).detach()
    y = torch.arange(10)
    for batches, forward in (
        ({"a": x, "b": x, "labels": y}, None),
        ([{"a": x, "b": x, "labels": y}], None),
        ([((x, x), y)], None),
        ([({"a": x, "b": x}, y)], None),
        ([(x, y)], lambda m, batch: m(batch[0], batch[0])),
        ([{"z": x, "labels": y}], lambda m, batch: m(batch["z"], batch["z"])),
    ):
        run = repsim.record(net, batches, forward=forward)
        np.testing.assert_array_equal(run["body"], expected)
        np.testing.assert_array_equal(run["label"], y)


def test_forward_takes_any_kind_of_batch_whole(x: Tensor) -> None:
    class Item:
        def __init__(self, x: Tensor) -> None:
            self.x = x

    net = TwoInputs()
    run = repsim.record(net, [Item(x), Item(x)], forward=lambda m, b: m(b.x, b.x))
    assert run.sizes["example"] == 20
    assert run.attrs["inputs_sha256"] == ""


# wrappers


def test_wrappers_leave_no_prefix(net: nn.Module, x: Tensor) -> None:
    plain = repsim.record(net, x, layers="**")
    wrapped = [
        nn.DataParallel(net),
        torch.compile(net, backend="eager"),
        torch.optim.swa_utils.AveragedModel(net),
        nn.DataParallel(torch.compile(net, backend="eager")),
    ]
    for model in wrapped:
        assert isinstance(model, nn.Module)
        run = repsim.record(model, x, layers="**")
        xr.testing.assert_equal(run, plain)
        with repsim.tap(model) as seen:
            model(x)
        assert list(seen) == ["hidden_1", "hidden_2", "output"]


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # dynamo's own
def test_a_compiled_part_is_seen_as_if_it_were_not(x: Tensor) -> None:
    part = torch.compile(nn.Sequential(nn.Linear(4, 4)), backend="eager")
    net = nn.Sequential(OrderedDict(a=nn.Linear(4, 4), b=part))
    net(x)
    run = repsim.record(net, x, layers="**")
    assert repsim.layers(run) == ["a", "b", "b.0"]


def test_a_distributed_wrapper_leaves_no_prefix(
    net: nn.Module, x: Tensor, tmp_path: Path
) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1
    )
    try:
        model = nn.parallel.DistributedDataParallel(net)
        assert repsim.layers(repsim.record(model, x)) == [
            "hidden_1",
            "hidden_2",
            "output",
        ]
    finally:
        torch.distributed.destroy_process_group()


# tap


def test_tap_gives_copies_of_the_last_pass_and_takes_its_hooks_off(x: Tensor) -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True))
    with repsim.tap(net) as seen:
        net(x)
        first = seen["0"]
        net(x + 1)
    assert (seen["0"] < 0).any()  # before the ReLU that works in place
    assert not torch.equal(first, seen["0"])
    assert not seen["0"].requires_grad
    assert _hooks(net) == 0
    with repsim.tap(net, detach=False) as seen:
        net(x)
    seen["0"].sum().backward()
    assert net[0].weight.grad is not None


def test_tap_forgets_layers_that_the_last_pass_did_not_reach(x: Tensor) -> None:
    class Sometimes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor, deep: bool) -> Any:
            return self.b(self.a(x)) if deep else self.a(x)

    net = Sometimes()
    with repsim.tap(net) as seen:
        net(x, True)
        assert list(seen) == ["a", "b"]
        net(x, False)
        assert list(seen) == ["a"]


def test_no_hook_is_left_after_an_exception(net: nn.Module, x: Tensor) -> None:
    with pytest.raises(RuntimeError, match="stop"), repsim.tap(net):
        raise RuntimeError("stop")
    assert _hooks(net) == 0
    with pytest.raises(RuntimeError, match="mat1"):
        repsim.record(net, torch.ones(2, 9))
    assert _hooks(net) == 0
    assert all(m.training for m in net.modules())


def test_a_recording_inside_a_tap_is_not_seen_by_it(net: nn.Module, x: Tensor) -> None:
    with repsim.tap(net) as seen:
        net(x)
        repsim.record(net, x[:2])
        assert len(seen["output"]) == 10


# record


def test_record_uses_eval_mode_and_leaves_no_trace(x: Tensor) -> None:
    net = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5), nn.ReLU(inplace=True))
    net[1].eval()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    given, state = x.clone(), torch.get_rng_state()
    run = repsim.record(net, DataLoader(TensorDataset(x), batch_size=5, shuffle=True))
    expected = F.batch_norm(x, torch.zeros(4), torch.ones(4))
    assert run.sizes["example"] == 10
    fixed = repsim.record(net, x)
    torch.testing.assert_close(torch.from_numpy(fixed["1"].values), expected)
    assert torch.equal(torch.get_rng_state(), state)
    assert [m.training for m in net] == [True, False, True]
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert torch.equal(x, given)


def test_an_operation_in_place_on_the_input_leaves_it_alone(x: Tensor) -> None:
    given = x.clone()
    repsim.record(nn.Sequential(nn.ReLU(inplace=True)), x)
    assert torch.equal(x, given)


def test_checkpoints_join_along_step(net: nn.Module, x: Tensor) -> None:
    runs = [repsim.record(net, x, step=k) for k in (0, 5)]
    joined = xr.concat(runs, "step")
    assert joined["step"].values.tolist() == [0, 5]
    assert joined["output"].dims == ("step", "example", "output_unit")
    assert repsim.layers(joined) == ["hidden_1", "hidden_2", "output"]
    assert repsim.record(net, x, step=np.int64(4))["step"].values.tolist() == [4]
    with pytest.raises(ValueError, match="Expected `step` to be at least 0"):
        repsim.record(net, x, step=-1)
    for bad in (1.5, "last"):
        with pytest.raises(TypeError, match="Expected `step` to be a whole number"):
            repsim.record(net, x, step=bad)  # type: ignore[arg-type]


def test_stored_checkpoints_join_and_are_saved_as_one(
    net: nn.Module, x: Tensor, tmp_path: Path
) -> None:
    for k in (0, 5, 9):
        net.output.bias.data += 1
        repsim.record(net, x, step=k, store=tmp_path / f"{k}.zarr")
    runs = [repsim.open_recording(tmp_path / f"{k}.zarr") for k in (0, 5, 9)]
    joined = xr.concat(runs, "step")
    repsim.save_recording(joined, tmp_path / "all.zarr")
    run = repsim.open_recording(tmp_path / "all.zarr")
    assert run["step"].values.tolist() == [0, 5, 9]
    xr.testing.assert_identical(run.load(), joined.load())
    np.testing.assert_array_equal(run["output"][2], runs[2]["output"][0])


def test_recorded_to_a_store_it_is_the_same(
    net: nn.Module, x: Tensor, tmp_path: Path
) -> None:
    memory = repsim.record(net, [(x, torch.arange(10))], attrs={"seed": 3})
    stored = repsim.record(
        net,
        ((x[i : i + 3], torch.arange(10)[i : i + 3]) for i in range(0, 10, 3)),
        store=tmp_path / "s.zarr",
        group="bp/0",
        attrs={"seed": 3, "created": memory.attrs["created"]},
    )
    xr.testing.assert_allclose(memory, stored, rtol=1e-5, atol=1e-6)
    assert stored.attrs == memory.attrs
    with pytest.raises(ValueError, match="Expected `store` along with `group`"):
        repsim.record(net, x, group="bp/0")


def test_uninitialised_weights_are_refused(x: Tensor) -> None:
    with pytest.raises(ValueError, match="'0.weight' is still uninitialised"):
        repsim.record(nn.Sequential(nn.LazyLinear(3)), x)


def test_attributes_are_kept_or_refused(net: nn.Module, x: Tensor) -> None:
    given = {"seed": np.int64(3), "flag": True, "nested": {"a": [1]}, "names": ["b"]}
    attrs = repsim.record(net, x, attrs=given).attrs
    assert attrs["seed"] == 3
    assert attrs["flag"] == 1
    assert attrs["nested"] == '{"a": [1]}'
    assert attrs["names"] == ["b"]
    with pytest.raises(TypeError, match="Expected the attribute 'f' to be text"):
        repsim.record(net, x, attrs={"f": len})


class Listed(nn.Module):
    """A network as many write it: its blocks in a list."""

    def __init__(self, *, head: bool = True) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
        if head:
            self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(x) if hasattr(self, "head") else x


def test_lists_of_modules_are_not_left_out_unsaid(x: Tensor) -> None:
    model = Listed()
    with pytest.warns(UserWarning, match="nothing of blocks is recorded") as caught:
        assert repsim.layers(repsim.record(model, x)) == ["head"]
    assert "layers=['*', 'blocks.*'] takes" in str(caught[0].message)
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="nothing of blocks is recorded") as caught:
        repsim.Recorder(model, x)
    assert caught[0].filename == __file__
    everything = ["blocks.0", "blocks.1", "head"]
    for patterns in ("**", ["*", "blocks.*"]):
        assert repsim.layers(repsim.record(model, x, layers=patterns)) == everything
    for patterns in ("head", ["*", "!blocks"], ["**", "!blocks.*"]):
        assert repsim.layers(repsim.record(model, x, layers=patterns)) == ["head"]
    with pytest.raises(ValueError, match=r"only lists .*in layers=\['blocks\.\*'\]\."):
        repsim.record(Listed(head=False), x)


def test_a_module_without_modules_inside_is_told_to_be_wrapped() -> None:
    with pytest.raises(ValueError, match=r"a Linear without; record it as nn\.Seq"):
        repsim.record(nn.Linear(3, 2), torch.ones(4, 3))
    wrapped = repsim.record(nn.Sequential(nn.Linear(3, 2)), torch.ones(4, 3))
    assert repsim.layers(wrapped) == ["0"]
