"""How often a study finds a difference between a rule and itself.

    python -P tests/benchmarks/rule_against_itself.py --studies 20 --minutes 8
    python -P tests/benchmarks/rule_against_itself.py --studies 0 --into docs/studies.md

Backpropagation is registered under a second name, and each study compares the two as
`repsim study` does: rates tuned, one network a condition and seed, the tests of the
report; only networks and data are small. No difference is real, so a study that names
one is wrong; of a test at the 5 % level about one in twenty may. Studies are kept in a
file (`--out`) one by one, so that it can be stopped and continued. Prints a Markdown
table, or writes it into a page: how many studies claim anything, by finding, and which
rates were chosen.
"""

import argparse
import json
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

import repsim
from repsim import learning
from repsim.analyses import depth_profiles, seeds
from repsim.claims.render import replaced
from repsim.learning.rules.backpropagation import Backpropagation

SMALL = {"depth": 3, "width": 24, "steps": 80, "examples": 120, "batch_size": 64}


def claims(folder: Path, first: int, networks: int) -> dict[str, Any]:
    """Run one study and return what it claims, and the two rates."""
    study = repsim.run_study(
        ["bp", "twin"], seeds=networks, seed=first, out=folder, jobs=1, progress=False,
        **SMALL,
    )  # fmt: skip
    found = seeds.compute(study)
    said = {
        f"{kind}, {moment}": bool(seeds.found(found, "twin", moment)[kind].any())
        for kind in ("place", "spread")
        for moment in found["moment"].values.tolist()
    }
    any_of_both = any(said.values())
    profiles = depth_profiles.compute(study)
    said["matching layers, any of these"] = any_of_both
    said["depth profiles"] = bool((profiles["q_value"] <= seeds.LEVEL).any())
    rates = json.loads((folder / "study.json").read_text())["learning_rates"]
    return {"said": said, "rates": [rates[name] for name in ("bp", "twin")]}


def table(studies: list[dict[str, Any]], networks: int) -> str:
    """Return how many studies make each claim, in Markdown."""
    many = len(studies)
    wrong = Counter({name: 0 for name in studies[0]["said"]})
    for study in studies:
        wrong.update({name: int(one) for name, one in study["said"].items()})
    settings = ", ".join(f"{name} {value}" for name, value in SMALL.items())
    lines = [
        f"{many} studies of {networks} + {networks} networks ({settings}):\n",
        "| claim | studies that make it | 95 % interval of that share |",
        "| --- | ---: | --- |",
    ]
    for name, count in wrong.items():
        low, high = binomtest(count, many).proportion_ci()
        lines.append(f"| {name} | {count} | {low:.0%}–{high:.0%} |")
    alike = sum(a == b for a, b in (study["rates"] for study in studies))
    chosen = Counter(f"{r:g}" for study in studies for r in study["rates"])
    rates = ", ".join(f"{rate} ({count})" for rate, count in chosen.most_common())
    lines.append(f"\nThe two have one rate in {alike} of them; rates chosen: {rates}.")
    return "\n".join(lines)


def main() -> None:
    """Run studies, and print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=1e9, help="of CPU time")
    parser.add_argument("--out", type=Path, default=Path("rule_against_itself.json"))
    parser.add_argument("--into", type=Path, help="the page to write into")
    options = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    learning.register("twin", Backpropagation)
    done = json.loads(options.out.read_text()) if options.out.exists() else []
    for number in range(len(done), options.studies):
        if time.process_time() > 60 * options.minutes:
            break
        with tempfile.TemporaryDirectory() as folder:
            done.append(claims(Path(folder), 1000 * number, options.seeds))
        options.out.write_text(json.dumps(done, indent=1))
    found = table(done, options.seeds)
    if options.into is None:
        print(found)
    else:
        page = options.into.read_text()
        options.into.write_text(replaced(page, "itself", found))


if __name__ == "__main__":
    main()
