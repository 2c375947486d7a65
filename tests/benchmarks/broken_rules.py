"""What each claim says of the right rule, and of four broken on purpose.

    python tests/benchmarks/broken_rules.py digits/claims.json --out broken --page PAGE

The first column is that of a run of `repsim reproduce`. The broken rules are synthetic
gradients with one mistake each; they are judged at the smallest size that still judges:
one network a condition, and a small one, because each must fail by its steps or its
start already. A predictor that starts away from zero is to be told apart where a
claim is about training, and nowhere else; it gets the quick size wherever
the claim is to hold for it. No claim may hold for a broken rule, unless
it says why it must. `--ways` judges some of the rules alone, so that two processes can
share the work; what is judged is kept, and a run without it makes the table. `--page`
puts the table between the markers `broken rules` of a Markdown page. Exit status 1
where a claim holds that may not, or does not where it says that it must.
"""

import argparse
import json
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


SMALL: dict[str, Any] = {
    "depth": 4,
    "width": 16,
    "steps": 40,
    "grid": (1e-3,),
    "depths": (3,),
    "curve_steps": 20,
    "feed_steps": 20,
    "toy_steps": (60, 20, 20),
    "surface_steps": 60,
    "learned_steps": 60,
}
"""What the broken rules are judged at."""


def main() -> int:
    """Run the command of the module's docstring."""
    parser = argparse.ArgumentParser(description="Claims against broken rules.")
    parser.add_argument("right", type=Path, help="claims.json of the right rule")
    parser.add_argument("--out", default="broken", help="folder, resumable")
    parser.add_argument("--claims", help="ids, separated by commas; all without")
    parser.add_argument("--ways", help="of leaky,away,random,bp; all without")
    parser.add_argument("--page", type=Path, help="a Markdown page to put the table in")
    given = parser.parse_args()
    right = {r["id"]: r for r in json.loads(given.right.read_text())}
    ids = given.claims.split(",") if given.claims else list(right)
    verdicts: dict[str, dict[str, Any]] = {
        name: {"right": right.get(name)} for name in ids
    }
    for way, (_, kind) in BROKEN.items():
        if given.ways and way not in given.ways.split(","):
            continue
        learning.register(kind.name, kind)
        must = [name for name in ids if way in registered()[name].holds_for]
        others = [name for name in ids if name not in must]
        # Two seeds where a claim is to hold: some gates take an interval over seeds.
        for chosen, seeds, size in ((must, 2, {}), (others, 1, SMALL)):
            options: dict[str, Any] = {"size": size, "rule": kind.name, "quick": True}
            out = Path(given.out) / way
            if chosen:
                found = reproduce(chosen, seeds=seeds, out=out, **options)
                for result in found.results:
                    verdicts[result["id"]][way] = result
    if given.ways:
        return 0
    text = table(verdicts)
    print(text)
    if given.page:
        page = given.page.read_text() if given.page.is_file() else ""
        given.page.write_text(replaced(page, "broken rules", text))
    wrong = []
    for name, row in verdicts.items():
        for way in BROKEN:
            holds, must_hold = row[way]["verdict"] == "holds", holds_for(name, way)
            if holds != must_hold and row[way]["verdict"] != "reported":
                wrong.append(f"{name}, {way}: {row[way]['verdict']}")
    print("\n".join(wrong), file=sys.stderr)
    return int(bool(wrong))


def holds_for(name: str, way: str) -> bool:
    """Return whether a claim says that it must hold for a way of being broken."""
    return way in registered()[name].holds_for


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
    if reasons:
        lines += ["", "\\* It must, because:", "", *reasons]
    return "\n".join(lines)


def _short(result: Mapping[str, Any] | None) -> str:
    """Return a verdict, and whether more than the definition's gate is not kept."""
    if result is None:
        return "not run"
    if result["verdict"] != "does not hold":
        return str(result["verdict"])
    shared = (STRAYS, STARTS)
    own = [b for b in result["broken"] if not any(word in b for word in shared)]
    gates = len(result["gates"])
    return f"fails ({len(result['broken'])} of {gates}; {len(own)} its own)"


if __name__ == "__main__":
    sys.exit(main())
