"""Each network of the zoo: right values, names and dims; training untouched."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import repsim


def _keepers(name: str) -> Any:
    """Import a file of this folder, which is no package."""
    place = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"zoo_{name}", place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[f"zoo_{name}"] = module
    spec.loader.exec_module(module)
    return module


networks = _keepers("networks")
_keepers("foreign")  # into the same zoo

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Nothing was recorded after [24] updates"),
    pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor"),
    pytest.mark.filterwarnings("ignore:No error was recorded at"),
]


def _state(animal: Any) -> list[Tensor]:
    return [t.clone() for t in animal.network.state_dict().values()]


@pytest.mark.parametrize("name", networks.ZOO)
def test_values_names_and_dims(name: str) -> None:
    animal = networks.ZOO[name]()
    run = repsim.record(
        animal.network, animal.inputs, layers=animal.layers, **animal.options
    )
    animal.network.eval()
    with torch.no_grad():
        expected = list(animal.rows())
    wanted = [layer for layer, _, _ in expected]
    assert sorted(repsim.layers(run)) == sorted(wanted)
    for layer, dims, values in expected:
        names = tuple(f"{layer}_{dim}" for dim in dims.split())
        assert run[layer].dims == ("example", *names), layer
        np.testing.assert_allclose(
            run[layer], values.numpy(), rtol=1e-4, atol=1e-5, err_msg=layer
        )
    for coordinate, values in animal.coords.items():
        np.testing.assert_array_equal(run[coordinate], values)


def _length(rows: Tensor) -> Tensor:
    return rows.flatten(1).float().norm(dim=1, keepdim=True)


graphs: list[torch.fx.GraphModule] = []


def _as_it_is(graph: torch.fx.GraphModule, _: Any) -> Any:
    """Compile to the operations themselves, as backend="eager" does; keep count."""
    graphs.append(graph)
    return graph.forward


def _train(name: str, recorded: str, *, compiled: bool) -> list[Any]:
    """Train five updates, each in another of the ways people train."""
    torch.manual_seed(0)
    animal = networks.ZOO[name]()
    network = animal.network.train()
    optimiser = torch.optim.AdamW(
        [p for p in network.parameters() if p.requires_grad], lr=1e-2
    )
    recorder = None
    if recorded == "training":
        recorder = repsim.Recorder(
            network, "training", animal.layers, every=1, errors="sum", reduce=_length
        ).start()
    elif recorded:
        recorder = repsim.Recorder(
            network, animal.inputs, animal.layers, every=1, **animal.options
        ).start()
    losses = []
    for kind in ("plain", "autocast", "accumulate", "checkpoint", "compile"):
        optimiser.zero_grad()
        for _ in range(2 if kind == "accumulate" else 1):
            call = animal.run
            if kind == "checkpoint":
                call = lambda: checkpoint(animal.run, use_reentrant=False)  # noqa: E731
            if kind == "compile" and compiled:
                torch.compiler.reset()  # the limit of recompilations is the process's
                graphs.clear()
                animal.network = torch.compile(network, backend=_as_it_is)
            with torch.autocast("cpu", torch.bfloat16, enabled=kind == "autocast"):
                out = call()
            first = out if isinstance(out, Tensor) else next(iter(out.values()))
            loss = first.float().square().mean()
            loss.backward()
            losses.append(loss.item())
        optimiser.step()
        if recorder is not None:
            recorder.step()
    assert len(graphs) > 0 or not compiled
    if recorder is not None:
        recorder.close()
        steps = recorder.dataset()["step"].values.tolist()
        # Two batches for one update are twice the examples: a gap, as is what a
        # compiler runs past the hooks.
        seen = [0, 1, 3] if compiled else [0, 1, 3, 4]
        assert steps == (list(range(6)) if recorded == "fixed" else seen)
    attributes = [
        {k: v for k, v in vars(m).items() if k in ("calls", "seen")}
        for m in network.modules()
    ]
    state = [v for v in network.state_dict().values() if isinstance(v, Tensor)]
    return [losses, state, attributes]


COMPILED = {  # of those that torch traces as one graph, the ones that it traces fast
    "attention_weights",
    "convolutions_along_time",
    "detection_head_with_queries",
    "diffusion_unet",
    "graph_network_with_a_cache",
    "lora_adapters",
    "lora_of_peft",
    "quantised_linear",
    "swin_stages_with_channels_last",
    "tied_weights",
    "transformer_sequence_first",
    "two_towers_as_in_clip",
    "weight_norm",
}


WATCHED = {  # in their own training's passes, too
    "graph_network_with_a_cache",
    "gpt2_padded_on_the_left",
    "lora_adapters",
    "lstm_of_packed_sequences",
    "mixture_of_experts",
    "weight_norm",
}


@pytest.mark.parametrize("name", networks.ZOO)
def test_training_is_the_same_bit_for_bit(name: str) -> None:
    plain = _train(name, "", compiled=name in COMPILED)
    for way in ("fixed", "training")[: 1 + (name in WATCHED)]:
        recorded = _train(name, way, compiled=name in COMPILED)
        assert plain[0] == recorded[0], way
        assert plain[2] == recorded[2], way
        for a, b in zip(plain[1], recorded[1], strict=True):
            assert torch.equal(a, b), way


def test_an_unregistered_state_is_given_back_or_named() -> None:
    import itertools

    class Stateful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 3)
            self.hidden = torch.zeros(3)
            self.table = {"seen": [1]}
            self.noise = torch.Generator().manual_seed(3)
            self.numbers = itertools.count()

        def forward(self, x: Tensor) -> Tensor:
            self.hidden += 1
            self.table["seen"].append(len(x))
            self.late = x
            next(self.numbers)
            return self.linear(x) + torch.rand(3, generator=self.noise)

    net, x = Stateful(), torch.randn(5, 4)
    state = net.noise.get_state()
    with pytest.warns(UserWarning, match=r"Recording changed Stateful\.numbers, which"):
        repsim.record(net, x)
    assert net.hidden.tolist() == [0, 0, 0]
    assert net.table == {"seen": [1]}
    assert torch.equal(net.noise.get_state(), state)
    assert not hasattr(net, "late")


def test_containers_of_a_users_own_class_are_kept_or_named() -> None:
    class Ledger(dict[str, int]):
        def __init__(self, owner: object) -> None:
            super().__init__()

        def copy(self) -> Any:
            raise TypeError("no copies")

    class Sealed(Ledger):
        def clear(self) -> None:
            raise RuntimeError("sealed")

    class Counting(nn.Module):
        def __init__(self, kind: type[Ledger]) -> None:
            super().__init__()
            self.linear, self.ledger = nn.Linear(4, 3), kind(self)

        def forward(self, x: Tensor) -> Any:
            self.ledger["calls"] = self.ledger.get("calls", 0) + 1
            return self.linear(x)

    net = Counting(Ledger)
    repsim.record(net, torch.randn(5, 4))
    assert net.ledger == {}
    with pytest.warns(UserWarning, match="an attribute .RuntimeError: sealed"):
        run = repsim.record(Counting(Sealed), torch.randn(5, 4))
    assert run.sizes["example"] == 5
