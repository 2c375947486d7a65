"""Networks of the zoo as the libraries that people take them from make them."""

import warnings

import pytest
import torch
from torch import nn
from zoo_networks import Animal, Rows, animal, masked


@animal
def mixtral_of_transformers() -> Animal:
    from transformers import MixtralConfig, MixtralModel

    config = MixtralConfig(  # type: ignore[call-arg]
        vocab_size=20, hidden_size=8, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, intermediate_size=16, num_local_experts=4,
        max_position_embeddings=8, use_cache=False,
    )  # fmt: skip
    net, mask = MixtralModel(config).eval(), masked((2, 6, 4, 5), 6)
    words = torch.randint(3, 20, (4, 6))
    inputs = {"input_ids": words, "attention_mask": mask.long()}

    def rows() -> Rows:
        states = net(**inputs, output_hidden_states=True).hidden_states
        yield "layers.0", "token unit", states[1]
        yield "norm", "token unit", states[2]
        block = net.layers[0]
        places = torch.arange(6).expand(4, 6)
        keep = mask[:, None, None, :] & torch.ones(6, 6).tril().bool()
        bias = torch.zeros(4, 1, 6, 6).masked_fill(~keep, -1e30)
        heard, _ = block.self_attn(
            hidden_states=block.input_layernorm(states[0]),
            position_embeddings=net.rotary_emb(states[0], places),
            attention_mask=bias,
        )
        yield "layers.0.self_attn", "token unit", heard
        given = block.post_attention_layernorm(states[0] + heard).flatten(0, 1)
        yield "layers.0.mlp", "token unit", (states[1] - states[0] - heard)
        # Rows of tokens, not of examples: found by their values.
        _, weights, indices = block.mlp.gate(given)
        mixed = block.mlp.experts(given, indices, weights)
        yield "layers.0.mlp.experts", "token unit", mixed.unflatten(0, (4, 6))

    layers = ["layers.0", "layers.0.self_attn", "layers.0.mlp", "layers.0.mlp.experts"]
    return Animal(net, inputs, rows, [*layers, "norm"], coords={"mask": mask})


@animal
def lora_of_peft() -> Animal:
    peft = pytest.importorskip("peft")

    class Body(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.last(self.first(x).tanh())
            return out

    config = peft.LoraConfig(r=2, lora_alpha=4, target_modules=["first"])
    net = peft.get_peft_model(Body(), config)
    adapted = net.base_model.model.first
    nn.init.normal_(adapted.lora_B["default"].weight)
    x = torch.randn(5, 4)
    path = "base_model.model"

    def rows() -> Rows:
        low = x @ adapted.lora_A["default"].weight.T
        base = nn.functional.linear(
            x, adapted.base_layer.weight, adapted.base_layer.bias
        )
        yield f"{path}.first.lora_A.default", "unit", low
        yield f"{path}.first.base_layer", "unit", base
        out = base + 2 * low @ adapted.lora_B["default"].weight.T
        yield f"{path}.first", "unit", out
        last = net.base_model.model.last
        yield f"{path}.last", "unit", last(out.tanh())

    layers = [f"{path}.*", "**.base_layer", "**.lora_A.default"]
    return Animal(net, x, rows, layers)


@animal
def quantised_by_torch() -> Animal:
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    with warnings.catch_warnings():  # torchao is to take its place
        warnings.simplefilter("ignore", DeprecationWarning)
        quantised = torch.ao.quantization.quantize_dynamic(net[:1], {nn.Linear})
    body = nn.Sequential(quantised[0], net[1], net[2])
    x = torch.randn(5, 4)

    def rows() -> Rows:
        weight, bias = quantised[0].weight().dequantize(), quantised[0].bias()
        scale = (x.max() - x.min()) / 255  # of the inputs, quantised as they come
        assert (quantised[0](x) - (x @ weight.T + bias)).abs().max() < 3 * scale
        yield "0", "unit", quantised[0](x)
        yield "2", "unit", net[2](quantised[0](x).tanh())

    return Animal(body, x, rows, ["0", "2"])
