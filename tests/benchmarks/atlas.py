"""The atlas in small: which rules represent differently, where, and since when.

    python -P tests/benchmarks/atlas.py --out atlas --page docs/atlas.md
    python -P tests/benchmarks/atlas.py --out atlas --networks mlp --rules all

Runs `repsim study --preset atlas` at a size that one evening's spare minutes allow,
writes its page, and puts the numbers and maps of all studies of the folder into a page
of the docs, with what is left of all rules, networks and data and what that would take.
What is finished is kept: it may be stopped and run again, and a second command adds
networks, data or rules.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import xarray as xr

from repsim import learning
from repsim.claims.render import replaced
from repsim.core.files import SUMMARY
from repsim.studies.atlas import SIZES, plan_atlas, run_atlas
from repsim.studies.atlas_page import STORE

RULES = ["bp", "sg", "fa", "dfa", "local", "none"]
GRID = (1e-3, 3e-3)


def rows(name: str, result: xr.Dataset) -> list[str]:
    """Return a study's rows: a rule, how well it does, and what differs."""
    reference = result.attrs["reference"]
    lines = []
    for rule in result["scored"].values:
        score = f"{float(result['score'].sel(scored=rule)):.3f}"
        score += f" ± {float(result['score_sd'].sel(scored=rule)):.3f}"
        cells = ["–"] * 4
        if rule != reference:
            one = result.sel(rule=rule)
            cells = [
                f"{int(place.sum())} of {place.size}" for place in one["place"].values
            ]
            last = one["difference"].isel(moment=-1)
            k = int(np.nanargmax(np.abs(last.values)))
            cells.append(f"{last['layer'].values[k]} ({float(last[k]):.3f})")
            since = float(one["since"])
            cells.append("–" if np.isnan(since) else f"{since:.0f}")
        lines.append(f"| {name} | {rule} | {score} | {' | '.join(cells)} |")
    return lines


def found(kept: dict[str, xr.Dataset]) -> str:
    """Return the atlas' numbers as Markdown."""
    first = next(iter(kept.values()))
    moments = " | ".join(f"place, {moment}" for moment in first["moment"].values)
    head = [
        f"| study | rule | test {first.attrs['metric_words']} | {moments} | largest "
        "difference | since update |",
        "| --- | --- | ---: | ---: | ---: | --- | ---: |",
    ]
    return "\n".join([*head, *(r for n, k in kept.items() for r in rows(n, k))])


def apart(kept: dict[str, xr.Dataset]) -> str:
    """Return in how many layers each rule is told apart, a column a study."""
    head = " | ".join(
        f"{name.replace('_', ' ')}, of {result.sizes['layer']}"
        for name, result in kept.items()
    )
    lines = [f"| rule | {head} |", f"| --- {'| ---: ' * len(kept)}|"]
    for rule in learning.names():
        if any(rule in result["rule"].values for result in kept.values()):
            cells = [
                " / ".join(str(int(k)) for k in of["place"].sel(rule=rule).sum("layer"))
                if rule in of["rule"].values
                else "–"
                for of in kept.values()
            ]
            lines.append(f"| {rule} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _scored(result: xr.Dataset) -> list[str]:
    return [str(rule) for rule in result["scored"].values]


def made(out: Path, kept: dict[str, xr.Dataset]) -> str:
    """Return what was trained, and what was not, in words."""
    lines = []
    for name, result in kept.items():
        spec = json.loads((out / name / SUMMARY).read_text())["spec"]
        networks = result.sizes["scored"] * len(spec["seeds"])
        rates = ", ".join(f"{rate:g}" for rate in spec["grid"])
        left_out = json.loads(result.attrs["left_out"])
        rest = [r for r in learning.names() if r not in {*_scored(result), *left_out}]
        lines.append(
            f"- {name}: {networks} networks ({spec['depth']} × {spec['width']}), "
            f"{len(spec['seeds'])} seeds a rule, {spec['steps']} updates, rates from "
            f"{rates}."
            + "".join(f" Without `{rule}`: {why}" for rule, why in left_out.items())
            + (f" Not run: {', '.join(rest)}." if rest else "")
        )
    return "\n".join(lines)


def left(given: argparse.Namespace) -> str:
    """Return what all rules would still take, in the words of the command itself."""
    plan = plan_atlas(
        given.out, networks=list(SIZES), datasets=["digits", "mnist"],
        seeds=given.seeds, steps=given.steps, root=given.root, grid=GRID,
    )  # fmt: skip
    said = plan.lines(1)
    places = [line.strip() for line in said[1:] if not line.startswith("   ")]
    costs = [place.split("; ")[0] for place in places]
    of = "; ".join(cost for cost in costs if not cost.endswith(": 0 s"))
    total = said[0].split(", about ")[1].split(" of one core")[0]
    return (
        f"Not run: all rules on {', '.join(SIZES)}, digits and MNIST at this size "
        f"would take about {total} of one core more ({of}), and the reports."
    )


def main() -> None:
    """Run the command of the module's docstring."""
    parser = argparse.ArgumentParser(description="The atlas in small.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--page", type=Path, help="a Markdown page to put it in")
    parser.add_argument("--networks", nargs="+", default=["mlp", "cnn"])
    parser.add_argument("--datasets", nargs="+", default=["digits"])
    parser.add_argument("--root", help="where MNIST lies")
    parser.add_argument("--rules", nargs="+", default=RULES, help="or: all")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--cost", action="store_true", help="say it, and end")
    given = parser.parse_args()
    plan = plan_atlas(
        given.out, rules=None if given.rules == ["all"] else given.rules,
        networks=given.networks, datasets=given.datasets, seeds=given.seeds,
        steps=given.steps, root=given.root, grid=GRID,
    )  # fmt: skip
    print("\n".join(plan.lines(given.jobs)), file=sys.stderr)
    if given.cost:
        return
    page = run_atlas(plan, jobs=given.jobs, progress=sys.stderr.isatty())
    kept = {
        name: xr.open_zarr(given.out / STORE, group=name, consolidated=False).load()
        for name in sorted(path.parent.name for path in given.out.glob(f"*/{SUMMARY}"))
        if (given.out / STORE / name).is_dir()
    }
    text = f"{made(given.out, kept)}\n\n{left(given)}\n\n{found(kept)}"
    print(text, f"\nreport: {page}")
    if given.page:
        whole = replaced(given.page.read_text(), "apart", apart(kept))
        whole = replaced(whole, "atlas", text)
        given.page.write_text(whole)
        for picture in sorted((given.out / "figures").glob("map_*.png")):
            shown = given.page.with_name(f"atlas_{picture.stem}.png")
            shown.write_bytes(picture.read_bytes())


if __name__ == "__main__":
    main()
