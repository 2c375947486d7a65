"""How often a study finds a difference between a rule and itself.

    python -P tests/benchmarks/rule_against_itself.py [--studies 20] [--seeds 5]

Backpropagation is registered under a second name, and each study compares the two as
`repsim study` does: rates tuned, one network a condition and seed, the tests of the
report. No difference is real, so a study that names one is wrong; of a test at the
5 % level about one in twenty may. Prints a Markdown table: how many studies claim
anything at all, by finding, and which rates were chosen.
"""

import argparse
import json
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

from scipy.stats import binomtest

import repsim
from repsim import learning
from repsim.analyses import depth_profiles, seeds
from repsim.learning.rules.backpropagation import Backpropagation

SMALL = {"depth": 3, "width": 24, "steps": 80, "examples": 120, "batch_size": 64}


def claims(folder: Path, first: int, networks: int) -> tuple[dict[str, bool], str]:
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
    profiles = depth_profiles.compute(study)
    said["depth profiles"] = bool((profiles["q_value"] <= seeds.LEVEL).any())
    rates = json.loads((folder / "study.json").read_text())["learning_rates"]
    return said, " and ".join(f"{rates[name]:g}" for name in ("bp", "twin"))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    learning.register("twin", Backpropagation)
    wrong: Counter[str] = Counter()
    rates: Counter[str] = Counter()
    began = time.process_time()
    for number in range(options.studies):
        with tempfile.TemporaryDirectory() as folder:
            first = 1000 * (options.first + number)
            said, chosen = claims(Path(folder), first, options.seeds)
        rates[chosen] += 1
        wrong.update({name: int(one) for name, one in said.items()})
        alike = [one for name, one in said.items() if name != "depth profiles"]
        wrong["matching layers, any of the four"] += any(alike)
        print(f"study {number + 1}: {[k for k, v in said.items() if v]}", flush=True)
    print(f"\n{options.studies} studies of {options.seeds} + {options.seeds} networks")
    print(f"CPU {time.process_time() - began:.0f} s; {SMALL}\n")
    print("| claim | studies that make it | 95 % interval |\n| --- | ---: | --- |")
    for name, count in wrong.items():
        low, high = binomtest(count, options.studies).proportion_ci()
        print(f"| {name} | {count} | {low:.0%}–{high:.0%} |")
    print(f"\nRates of the two: {dict(rates)}")


if __name__ == "__main__":
    main()
