"""Small networks of kinds that people have, and their rows computed by hand.

Each maker gives a network, what it is recorded on, the options, and the rows, as
(layer, dims beside the examples, values); the values come from calling the parts.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence, pack_sequence

Rows = Iterable[tuple[str, str, Tensor]]


@dataclass
class Animal:
    """A network, its inputs, and what its layers say of them."""

    network: nn.Module
    inputs: Any
    rows: Callable[[], Rows]
    layers: Any = "*"
    options: Mapping[str, Any] = field(default_factory=dict)
    coords: Mapping[str, Any] = field(default_factory=dict)

    def run(self) -> Any:
        """Call the network on the inputs, as a training would."""
        inputs = self.inputs[0] if isinstance(self.inputs, list) else self.inputs
        if isinstance(inputs, dict):
            return self.network(**inputs)
        return self.network(inputs)


ZOO: dict[str, Callable[[], Animal]] = {}


def animal(maker: Callable[[], Animal]) -> Callable[[], Animal]:
    """Put a maker into the zoo, under its name."""
    ZOO[maker.__name__] = maker
    return maker


def masked(lengths: Iterable[int], count: int) -> Tensor:
    """Return a mask (example, token) of sequences of these lengths."""
    return torch.arange(count) < torch.tensor(list(lengths))[:, None]


class Reader(nn.Module):
    """An LSTM or GRU that reads a sequence, and a head on its last output."""

    def __init__(self, rnn: nn.RNNBase, width: int) -> None:
        super().__init__()
        self.rnn, self.head = rnn, nn.Linear(width, 3)

    def forward(self, x: Any) -> Tensor:
        out, _ = self.rnn(x)
        if isinstance(out, PackedSequence):
            return self.head(out.data)
        return self.head(out[:, -1] if self.rnn.batch_first else out[-1])


@animal
def lstm_sequence_first_two_layers_two_directions() -> Animal:
    net = Reader(nn.LSTM(4, 6, num_layers=2, bidirectional=True), 12)
    x = torch.randn(5, 3, 4)  # tokens, examples, units

    def rows() -> Rows:
        out, (hidden, cell) = net.rnn(x)
        yield "rnn", "token unit", out.transpose(0, 1)
        yield "rnn@1.0", "layer unit", hidden.transpose(0, 1)
        yield "rnn@1.1", "layer unit", cell.transpose(0, 1)
        yield "head", "unit", net.head(out[-1])

    return Animal(net, x, rows, ["rnn", "rnn@1.0", "rnn@1.1", "head"])


@animal
def lstm_of_packed_sequences() -> Animal:
    net = Reader(nn.LSTM(4, 6), 6)
    words = [torch.randn(n, 4) for n in (2, 5, 3)]
    packed = pack_sequence(words, enforce_sorted=False)

    def rows() -> Rows:
        out = torch.zeros(3, 5, 6)
        for i, word in enumerate(words):
            out[i, : len(word)] = net.rnn(word)[0]
        yield "rnn", "token unit", out

    return Animal(net, [packed], rows, "rnn", coords={"rnn_mask": masked((2, 5, 3), 5)})


@animal
def gru_as_many_tokens_as_examples() -> Animal:
    net = Reader(nn.GRU(4, 6, batch_first=False), 6)
    x = torch.randn(4, 4, 4)

    def rows() -> Rows:
        out, hidden = net.rnn(x)
        yield "rnn", "token unit", out.transpose(0, 1)
        yield "rnn@1", "layer unit", hidden.transpose(0, 1)
        yield "head", "unit", net.head(out[-1])

    return Animal(net, x, rows, ["rnn", "rnn@1", "head"])


@animal
def transformer_sequence_first() -> Animal:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(3, 8)
            layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0)
            self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
            self.head = nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(self.embed(x)).mean(0))

    net, x = Net(), torch.randn(4, 4, 3)  # T = N

    def rows() -> Rows:
        hidden = net.embed(x)
        yield "embed", "token unit", hidden.transpose(0, 1)
        for i, layer in enumerate(net.body.layers):
            hidden = layer(hidden)
            yield f"body.layers.{i}", "token unit", hidden.transpose(0, 1)
        yield "head", "unit", net.head(hidden.mean(0))

    return Animal(net, x, rows, ["embed", "body.layers.*", "head"])


@animal
def attention_weights() -> Animal:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attn = nn.MultiheadAttention(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.attn(x, x, x, average_attn_weights=False)[0]

    net, x = Net(), torch.randn(5, 3, 8)

    def rows() -> Rows:
        out, weights = net.attn(x, x, x, average_attn_weights=False)
        yield "attn", "token unit", out.transpose(0, 1)
        yield "attn@1", "head query key", weights
        yield "attn@input", "token unit", x.transpose(0, 1)

    return Animal(net, x, rows, ["attn", "attn@1", "attn@input"])


@animal
def swin_stages_with_channels_last() -> Animal:
    class Stage(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.mix = nn.LayerNorm(6), nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            return x + F.gelu(self.mix(self.norm(x)))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(1, 6, 2, stride=2)
            self.stages = nn.Sequential(Stage(), Stage())
            self.head = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.patches(x).permute(0, 2, 3, 1)
            return self.head(self.stages(x).mean((1, 2)))

    net, x = Net(), torch.randn(5, 1, 8, 10)

    def rows() -> Rows:
        hidden = net.patches(x)
        yield "patches", "channel y x", hidden
        hidden = hidden.permute(0, 2, 3, 1)
        for i, stage in enumerate(net.stages):
            hidden = stage(hidden)
            yield f"stages.{i}", "y x channel", hidden
        yield "head", "unit", net.head(hidden.mean((1, 2)))

    return Animal(net, x, rows, ["patches", "stages.*", "head"])


@animal
def convolutions_along_time() -> Animal:
    body = OrderedDict(conv=nn.Conv1d(2, 5, 3), relu=nn.ReLU(), flat=nn.Flatten())
    net = nn.Sequential(body | OrderedDict(head=nn.Linear(40, 3)))
    x = torch.randn(6, 2, 10)

    def rows() -> Rows:
        hidden = net.conv(x)
        yield "conv", "channel x", hidden
        yield "relu", "channel x", hidden.relu()
        yield "flat", "unit", hidden.relu().reshape(6, 40)

    return Animal(net, x, rows, "!head")


@animal
def vit_with_a_class_token() -> Animal:
    models = pytest.importorskip("torchvision.models")
    net = models.VisionTransformer(8, 4, 2, 2, 8, 16, num_classes=3)
    nn.init.normal_(net.heads.head.weight)
    x = torch.randn(5, 3, 8, 8)

    def rows() -> Rows:
        patches = net.conv_proj(x)
        yield "conv_proj", "channel y x", patches
        hidden = patches.flatten(2).transpose(1, 2)
        hidden = torch.cat([net.class_token.expand(5, -1, -1), hidden], 1)
        hidden = hidden + net.encoder.pos_embedding
        for i, layer in enumerate(net.encoder.layers):
            hidden = layer(hidden)
            yield f"encoder.layers.encoder_layer_{i}", "token unit", hidden
        yield "heads", "unit", net.heads(net.encoder.ln(hidden)[:, 0])

    return Animal(net, x, rows, ["conv_proj", "encoder.layers.*", "heads"])


class Experts(nn.Module):
    """Top-2 of four experts for each token, as Mixtral's."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(6, 4, bias=False)
        self.experts = nn.ModuleList(nn.Linear(6, 6) for _ in range(4))

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        chosen = self.gate(x).softmax(-1).topk(2, -1)
        return chosen.values, chosen.indices

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        weights, indices = self.route(flat)
        out = torch.zeros_like(flat)
        for i, expert in enumerate(self.experts):
            token, slot = torch.where(indices == i)
            if len(token):
                scaled = expert(flat[token]) * weights[token, slot, None]
                out.index_add_(0, token, scaled.to(out.dtype))
        return out.reshape(x.shape)


@animal
def mixture_of_experts() -> Animal:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.moe = nn.Embedding(30, 6), Experts()
            self.head = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head((h := self.embed(x)) + self.moe(h))[:, -1]

    net = Net()
    x = torch.stack([torch.arange(4), torch.arange(4, 8), torch.arange(8, 12)])

    def rows() -> Rows:
        hidden = net.embed(x)
        yield "embed", "token unit", hidden
        yield "moe.gate", "token unit", net.moe.gate(hidden)
        _, indices = net.moe.route(hidden)
        for i, expert in enumerate(net.moe.experts):
            there = (indices == i).any(-1)
            nowhere = torch.full_like(hidden, torch.nan)
            seen = torch.where(there[..., None], expert(hidden), nowhere)
            if there.any():
                yield f"moe.experts.{i}", "token unit", seen
        yield "moe", "token unit", net.moe(hidden)

    return Animal(net, x, rows, ["**", "!head"])


@animal
def detection_head_with_queries() -> Animal:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = nn.Conv2d(1, 8, 2, stride=2)
            self.queries = nn.Embedding(7, 8)
            self.decoder = nn.TransformerDecoderLayer(8, 2, 16, dropout=0.0)
            self.boxes = nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            memory = self.backbone(x).flatten(2).permute(2, 0, 1)
            queries = self.queries.weight[:, None].expand(-1, len(x), -1)
            return self.boxes(self.decoder(queries, memory).transpose(0, 1)).sigmoid()

    net, x = Net(), torch.randn(5, 1, 6, 6)

    def rows() -> Rows:
        memory = net.backbone(x).flatten(2).permute(2, 0, 1)
        queries = net.queries.weight[:, None].expand(-1, 5, -1)
        out = net.decoder(queries, memory).transpose(0, 1)
        yield "backbone", "channel y x", net.backbone(x)
        yield "decoder", "token unit", out
        yield "boxes", "token unit", net.boxes(out)

    return Animal(net, x, rows, ["*", "!queries"])


@animal
def two_towers_as_in_clip() -> Animal:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.text_embed = nn.Embedding(20, 8)
            self.text_model = nn.TransformerEncoderLayer(
                8, 2, 16, dropout=0.0, batch_first=True
            )
            self.vision_patches = nn.Conv2d(3, 8, 4, stride=4)
            self.vision_model = nn.TransformerEncoderLayer(
                8, 2, 16, dropout=0.0, batch_first=True
            )

        def forward(
            self, input_ids: Tensor, attention_mask: Tensor, pixel_values: Tensor
        ) -> Tensor:
            words = self.text_model(
                self.text_embed(input_ids), src_key_padding_mask=attention_mask == 0
            )
            patches = self.vision_patches(pixel_values).flatten(2).transpose(1, 2)
            return words[:, 0] @ self.vision_model(patches).mean(1).T

    net = Net()
    mask = masked((2, 4, 3), 4)
    inputs = {
        "input_ids": torch.randint(0, 20, (3, 4)),
        "attention_mask": mask.long(),
        "pixel_values": torch.randn(3, 3, 8, 8),  # 4 patches: as many as words
    }

    def rows() -> Rows:
        words = net.text_embed(inputs["input_ids"])
        words = net.text_model(words, src_key_padding_mask=~mask)
        there = mask[..., None]
        yield "text_model", "unit", (words * there).sum(1) / there.sum(1)
        patches = net.vision_patches(inputs["pixel_values"])
        yield "vision_patches", "unit", patches.mean((2, 3))
        tokens = patches.flatten(2).transpose(1, 2)
        yield "vision_model", "unit", net.vision_model(tokens).mean(1)

    return Animal(net, inputs, rows, "!text_embed", {"reduce": "mean"})


@animal
def diffusion_unet() -> Animal:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.time = nn.Linear(8, 4)
            self.down = nn.Conv2d(1, 4, 3, stride=2, padding=1)
            self.mid = nn.Sequential(nn.GroupNorm(2, 4), nn.Conv2d(4, 4, 3, padding=1))
            self.up = nn.ConvTranspose2d(8, 1, 2, stride=2)

        def when(self, t: Tensor) -> Tensor:
            rates = torch.exp(-math.log(100) * torch.arange(4) / 4)
            return torch.cat([torch.sin(t[:, None] * rates), torch.cos(t[:, None])], 1)

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            rates = F.pad(self.when(t), (0, 3))
            down = self.down(x) + self.time(rates)[:, :, None, None]
            return self.up(torch.cat([down, self.mid(down)], 1))

    net = Net()
    inputs = {"x": torch.randn(3, 1, 8, 8), "t": torch.tensor([1.0, 5.0, 9.0])}

    def rows() -> Rows:
        when = net.time(F.pad(net.when(inputs["t"]), (0, 3)))
        yield "time", "unit", when
        yield "down", "channel y x", net.down(inputs["x"])
        down = net.down(inputs["x"]) + when[:, :, None, None]
        yield "mid", "channel y x", net.mid(down)
        yield "up", "channel y x", net.up(torch.cat([down, net.mid(down)], 1))

    return Animal(net, inputs, rows)


@animal
def graph_network_with_a_cache() -> Animal:
    class Convolution(nn.Module):
        def __init__(self, ins: int, outs: int) -> None:
            super().__init__()
            self.linear = nn.Linear(ins, outs)
            self._c: Tensor | None = None
            self.calls = 0
            self.seen: list[int] = []

        def normed(self, edges: Tensor) -> Tensor:
            full = edges + torch.eye(len(edges))
            return full / full.sum(1, keepdim=True)

        def forward(self, x: Tensor, edges: Tensor) -> Tensor:
            self.calls += 1
            self.seen.append(len(x))
            if self._c is None:
                self._c = self.normed(edges)
            return self._c @ self.linear(x) + 0.01 * self.calls

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = Convolution(4, 5), Convolution(5, 3)

        def forward(self, x: Tensor, edges: Tensor) -> Tensor:
            return self.second(self.first(x, edges).relu(), edges)

    net = Net()
    edges = (torch.rand(6, 6) > 0.5).float()
    inputs = {"x": torch.randn(6, 4), "edges": edges}

    def rows() -> Rows:
        normed = net.first.normed(edges)
        first = normed @ net.first.linear(inputs["x"]) + 0.01
        yield "first", "unit", first
        yield "second", "unit", normed @ net.second.linear(first.relu()) + 0.01

    return Animal(net, inputs, rows)


@animal
def tied_weights() -> Animal:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.body = nn.Embedding(11, 6), nn.Linear(6, 6)
            self.unembed = nn.Linear(6, 11, bias=False)
            self.unembed.weight = self.embed.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.unembed(self.body(self.embed(x)))

    net, x = Net(), torch.randint(0, 11, (5, 3))

    def rows() -> Rows:
        hidden = net.embed(x)
        yield "embed", "token unit", hidden
        yield "body", "token unit", net.body(hidden)
        yield "unembed", "token unit", net.body(hidden) @ net.embed.weight.T

    return Animal(net, x, rows)


@animal
def weight_norm() -> Animal:
    linear = nn.utils.parametrizations.weight_norm(nn.Linear(4, 6))
    net = nn.Sequential(OrderedDict(linear=linear, head=nn.Linear(6, 2)))
    x = torch.randn(5, 4)

    def rows() -> Rows:
        weights = linear.parametrizations.weight
        size = weights.original0 / weights.original1.norm(dim=1, keepdim=True)
        hidden = F.linear(x, weights.original1 * size, linear.bias)
        yield "linear", "unit", hidden
        yield "head", "unit", net.head(hidden)

    return Animal(net, x, rows, "**")


@animal
def lora_adapters() -> Animal:
    class Adapted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base = nn.Linear(4, 6).requires_grad_(False)
            self.lora_A = nn.ModuleDict({"default": nn.Linear(4, 2, bias=False)})
            self.lora_B = nn.ModuleDict({"default": nn.Linear(2, 6, bias=False)})

        def forward(self, x: Tensor) -> Tensor:
            low = self.lora_A["default"](x)
            return self.base(x) + 2 * self.lora_B["default"](low)

    net = nn.Sequential(OrderedDict(adapted=Adapted(), head=nn.Linear(6, 2)))
    x = torch.randn(5, 4)

    def rows() -> Rows:
        low = x @ net.adapted.lora_A["default"].weight.T
        yield "adapted.base", "unit", net.adapted.base(x)
        yield "adapted.lora_A.default", "unit", low
        out = net.adapted.base(x) + 2 * net.adapted.lora_B["default"](low)
        yield "adapted", "unit", out
        yield "head", "unit", net.head(out)

    return Animal(net, x, rows, ["**", "!**.lora_B.*"])


@animal
def quantised_linear() -> Animal:
    class Quantised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out_features = 6
            weight = torch.randint(-127, 128, (6, 4), dtype=torch.int8)
            self.register_buffer("weight", weight)
            self.register_buffer("scale", torch.rand(6, 1) / 100)

        def forward(self, x: Tensor) -> Tensor:
            return x @ (self.weight * self.scale).T.to(x.dtype)

    body = nn.Sequential(OrderedDict(q=Quantised(), head=nn.Linear(6, 2)))
    x = torch.randn(5, 4)

    def rows() -> Rows:
        hidden = x @ (body.q.weight.float() * body.q.scale).T
        yield "q", "unit", hidden
        yield "head", "unit", body.head(hidden)

    return Animal(body, x, rows)


def _words(count: int, size: int = 20) -> Tensor:
    return torch.randint(3, size, (count, 6))


@animal
def bert_with_padding() -> Animal:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=8,
    )  # fmt: skip
    net, mask = BertModel(config).eval(), masked((2, 6, 4, 5), 6)
    inputs = {"input_ids": _words(4), "attention_mask": mask.long()}

    def rows() -> Rows:
        states = net(**inputs, output_hidden_states=True).hidden_states
        for i, hidden in enumerate(states[1:]):
            yield f"encoder.layer.{i}", "token unit", hidden
        yield "pooler", "unit", net.pooler.dense(states[-1][:, 0]).tanh()

    layers = ["encoder.layer.*", "pooler"]
    return Animal(net, inputs, rows, layers, coords={"mask": mask})


@animal
def gpt2_padded_on_the_left() -> Animal:
    from transformers import GPT2Config, GPT2Model

    config = GPT2Config(
        vocab_size=20, n_positions=8, n_embd=8, n_layer=2, n_head=2, use_cache=False,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    net, mask = GPT2Model(config).eval(), masked((2, 6, 4, 5), 6).flip(1)
    inputs = {"input_ids": _words(4), "attention_mask": mask.long()}

    def rows() -> Rows:
        hidden = net.wte(inputs["input_ids"]) + net.wpe(torch.arange(6))
        keep = mask[:, None, None, :] & torch.ones(6, 6).tril().bool()
        bias = torch.zeros(4, 1, 6, 6).masked_fill(
            ~keep, torch.finfo(torch.float32).min
        )
        for i, block in enumerate(net.h):
            hidden = block(hidden, attention_mask=bias)
            hidden = hidden[0] if isinstance(hidden, tuple) else hidden
            yield f"h.{i}", "unit", hidden[:, -1]

    return Animal(net, inputs, rows, "h.*", {"reduce": "last"})


@animal
def t5_encoder_and_decoder() -> Animal:
    from transformers import T5Config, T5Model

    config = T5Config(  # type: ignore[call-arg]
        vocab_size=20, d_model=8, d_kv=4, d_ff=16, num_layers=2, num_heads=2,
        use_cache=False, decoder_start_token_id=0,
    )  # fmt: skip
    net, mask = T5Model(config).eval(), masked((2, 6, 4), 6)
    inputs = {
        "input_ids": _words(3),
        "attention_mask": mask.long(),
        "decoder_input_ids": _words(3),  # as many as the encoder's
    }

    def rows() -> Rows:
        out = net(**inputs, output_hidden_states=True)
        there = mask[..., None]
        states = out.encoder_last_hidden_state
        yield "encoder", "unit", (states * there).sum(1) / there.sum(1)
        yield "decoder", "unit", out.last_hidden_state.mean(1)

    return Animal(net, inputs, rows, ["encoder", "decoder"], {"reduce": "mean"})
