"""The atlas in small: which rules represent differently, where, and since when.

    python -P tests/benchmarks/atlas.py --out atlas --page docs/atlas.md

Runs `repsim study --preset atlas` at a size that one evening's spare minutes allow
(what is finished in the folder is kept, so it may be stopped and run again), writes its
page, and puts its numbers and the map of all networks into a page of the docs.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import xarray as xr

from repsim.claims.render import replaced
from repsim.studies.atlas import plan_atlas, run_atlas
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


def found(out: Path, places: list[str]) -> str:
    """Return the atlas' numbers as Markdown."""
    kept = {
        name: xr.open_zarr(out / STORE, group=name, consolidated=False).load()
        for name in places
    }
    first = next(iter(kept.values()))
    moments = " | ".join(f"place, {moment}" for moment in first["moment"].values)
    head = [
        f"| study | rule | test {first.attrs['metric_words']} | {moments} | largest "
        "difference | since update |",
        "| --- | --- | ---: | ---: | ---: | --- | ---: |",
    ]
    return "\n".join([*head, *(r for n, k in kept.items() for r in rows(n, k))])


def main() -> None:
    """Run the command of the module's docstring."""
    parser = argparse.ArgumentParser(description="The atlas in small.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--page", type=Path, help="a Markdown page to put it in")
    parser.add_argument("--networks", nargs="+", default=["mlp", "cnn"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=1)
    given = parser.parse_args()
    plan = plan_atlas(
        given.out, rules=RULES, networks=given.networks, datasets=["digits"],
        seeds=given.seeds, steps=given.steps, grid=GRID,
    )  # fmt: skip
    said = plan.lines(given.jobs)
    print("\n".join(said), file=sys.stderr)
    page = run_atlas(plan, jobs=given.jobs, progress=sys.stderr.isatty())
    places = [place.name for place in plan.places]
    networks = sum(len(p.spec.conditions) * len(p.spec.seeds) for p in plan.places)
    left = [line.strip() for line in said if line.startswith("    without")]
    sizes = ", ".join(
        f"{p.spec.network} {p.spec.depth} × {p.spec.width}" for p in plan.places
    )
    text = (
        f"{networks} networks ({sizes}), {given.steps} updates, {given.seeds} seeds "
        f"a rule, rates from {', '.join(f'{r:g}' for r in GRID)}."
        + "".join(f" {one}." for one in left)
        + f"\n\n{found(given.out, places)}"
    )
    print(text, f"\nreport: {page}")
    if given.page:
        whole = replaced(given.page.read_text(), "atlas", text)
        given.page.write_text(whole)
        picture = given.out / "figures" / "map_digits.png"
        given.page.with_suffix(".png").write_bytes(picture.read_bytes())


if __name__ == "__main__":
    main()
