"""
Tokens of padded sequences
==========================

In a language model every token is an example of its own. Here sequences of different
length go through a small transformer; a linear probe asks each layer which *word* a
token is and at which *position* it stands. Tokens of a sequence are kept together, or
the probe would meet the same sentence in training and test.
"""

import matplotlib.pyplot as plt
import torch
from torch import nn

import repsim

torch.manual_seed(0)
words, longest = 12, 10


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.word = nn.Embedding(words, 24)
        self.place = nn.Parameter(0.5 * torch.randn(longest, 24))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(24, 3, 48, batch_first=True, dropout=0.0)
            for _ in range(4)
        )

    def forward(self, input_ids, attention_mask):
        h = self.word(input_ids) + self.place
        for block in self.blocks:
            h = block(h, src_key_padding_mask=attention_mask == 0)
        return h


lengths = torch.randint(4, longest + 1, (60,))
batch = {
    "input_ids": torch.randint(0, words, (60, longest)),
    "attention_mask": (torch.arange(longest) < lengths[:, None]).long(),
}
model = Model()
run = repsim.record(model, [batch], layers=["word", "blocks.*"], reduce="tokens")
print(run.sizes["example"], "tokens of 60 sequences;", sorted(run.coords))

# %%
word_of = batch["input_ids"][run["sequence"].values, run["position"].values]
word = repsim.probes.probe_layers(run, word_of.numpy(), groups="sequence")
place = repsim.probes.probe_layers(
    run, "position", groups="sequence", task="classification"
)

figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
for ax, scores, title in zip(axes, (word, place), ("which word?", "which position?")):
    chance = {"most frequent": scores["chance"]}
    repsim.plot.layer_curve(scores["accuracy"], ax=ax, baselines=chance)
    ax.set(title=title, ylim=(0, 1.02))
    ax.legend(loc="center right", fontsize="small", frameon=False)
