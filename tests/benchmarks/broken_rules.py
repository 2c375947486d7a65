"""What each claim says of the right rule, and of four broken on purpose.

    python tests/benchmarks/broken_rules.py --out broken [--claims C1,C4] [--page PAGE]

The broken rules are synthetic gradients with one mistake each. No claim with a
threshold may hold for one, unless it says why it must. `--page` puts the table between
the markers `broken rules` of a Markdown page. Exit status 1 where a claim holds that
may not.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from repsim import learning
from repsim.claims import registered, reproduce
from repsim.claims.experiments.linear_systems import STARTS, STRAYS
from repsim.claims.render import replaced
from repsim.learning import Cut
from repsim.learning.rules.synthetic import SyntheticGradient


class NotDetached(SyntheticGradient):
    """The regression's target is not detached: its error reaches the network."""

    name: ClassVar[str] = "sg_leaky"

    def accumulate(
        self, x: Tensor, y: Tensor, count: int | None = None
    ) -> dict[str, Tensor]:
        losses = super().accumulate(x, y, count)
        with torch.enable_grad():
            h = x
            for name, block in self.blocks.items():
                h = block(h)
                if name == self.splits[-1]:
                    split = h
            loss = self.loss(h, y) * len(x)
            (target,) = torch.autograd.grad(loss, split, create_graph=True)
            with torch.no_grad():
                seen = self.label_vectors(y)
                predicted = self.predictors[self.splits[-1]](split, seen)
            leak = (predicted - target).square().sum() / len(x)
        if leak.requires_grad:
            trained = [p for p in self.network.parameters() if p.requires_grad]
            grads = torch.autograd.grad(leak, trained, allow_unused=True)
            for p, g in zip(trained, grads, strict=True):
                if g is not None:
                    p.grad = g if p.grad is None else p.grad + g
        return losses


class StartsAway(SyntheticGradient):
    """The predictor does not start at zero."""

    name: ClassVar[str] = "sg_away"

    def build(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        super().build(shapes)
        with torch.no_grad():
            for predictor in self.predictors.values():
                for parameter in predictor.parameters():
                    parameter.fill_(0.01)


class RandomErrors(SyntheticGradient):
    """Noise of the predicted error's kind is put at the split; predictors learn."""

    name: ClassVar[str] = "sg_random"

    def error(self, cut: Cut) -> Tensor:
        predicted = super().error(cut)
        drawn = torch.randn(predicted.shape, generator=self.generator)
        return drawn.to(predicted)


class TrueErrors(SyntheticGradient):
    """Backpropagation under the name of a synthetic gradient; predictors learn."""

    name: ClassVar[str] = "sg_bp"

    def error(self, cut: Cut) -> Tensor:
        super().error(cut)
        return cut.incoming


BROKEN: dict[str, tuple[str, type[SyntheticGradient]]] = {
    "leaky": ("error target not detached", NotDetached),
    "away": ("predictor not zeroed", StartsAway),
    "random": ("random errors", RandomErrors),
    "bp": ("bp under the name sg", TrueErrors),
}
"""Way of being broken, as `Claim.holds_for` names it -> what the table calls it."""


def main() -> int:
    """Run the command of the module's docstring."""
    parser = argparse.ArgumentParser(description="Claims against broken rules.")
    parser.add_argument("--out", default="broken", help="folder, resumable")
    parser.add_argument("--claims", help="ids, separated by commas; all without")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--page", type=Path, help="a Markdown page to put the table in")
    given = parser.parse_args()
    ids = given.claims.split(",") if given.claims else None
    verdicts: dict[str, dict[str, Any]] = {}
    for way, name in {
        "right": "sg",
        **{k: v[1].name for k, v in BROKEN.items()},
    }.items():
        if way != "right":
            learning.register(name, BROKEN[way][1])
        found = reproduce(
            ids, quick=True, seeds=given.seeds, rule=name, out=Path(given.out) / way
        )
        for result in found.results:
            verdicts.setdefault(result["id"], {})[way] = result
    text = table(verdicts)
    print(text)
    if given.page:
        page = given.page.read_text() if given.page.is_file() else ""
        given.page.write_text(replaced(page, "broken rules", text))
    wrong = [
        f"{name} holds for {way}"
        for name, row in verdicts.items()
        for way in BROKEN
        if row[way]["verdict"] == "holds" and way not in registered()[name].holds_for
    ]
    print("\n".join(wrong), file=sys.stderr)
    return int(bool(wrong))


def table(verdicts: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the verdicts as a Markdown table, with the reasons beneath."""
    titles = ["right rule", *(title for title, _ in BROKEN.values())]
    lines = [f"| claim | {' | '.join(titles)} |", "| --- |" + " --- |" * len(titles)]
    reasons = []
    for name, row in verdicts.items():
        cells = [_short(row["right"])]
        for way in BROKEN:
            reason = registered()[name].holds_for.get(way)
            holds = row[way]["verdict"] == "holds"
            cells.append(_short(row[way]) + ("*" if holds and reason else ""))
            if holds and reason:
                reasons.append(f"- {name}, {BROKEN[way][0]}: {reason}.")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", "\\* It must, because:", "", *reasons])


def _short(result: Mapping[str, Any]) -> str:
    """Return a verdict, and whether more than the definition's gate is not kept."""
    if result["verdict"] != "does not hold":
        return str(result["verdict"])
    shared = (STRAYS, STARTS)
    own = [b for b in result["broken"] if not any(word in b for word in shared)]
    gates = len(result["gates"])
    return f"fails ({len(result['broken'])} of {gates}; {len(own)} its own)"


if __name__ == "__main__":
    sys.exit(main())
