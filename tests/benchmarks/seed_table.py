"""Effect and q-value per layer of every rule against the first, from a study.

    python -P tests/benchmarks/seed_table.py STUDY_DIR [--measure cka] [--layers …]

Prints Markdown and the conclusion in words that follows from the numbers, at equal
steps and at equal accuracy, of matching layers and of depth profiles.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
import xarray as xr

import repsim
from repsim import inference
from repsim.analyses import depth_profiles
from repsim.datasets.recordings import networks


def table(results: dict[str, xr.Dataset]) -> str:
    """Return one Markdown table, layers in rows, rules in columns."""
    first = next(iter(results.values()))
    lines = [
        "| layer | "
        + " | ".join(f"{rule}: effect, q, finding" for rule in results)
        + " |",
        "| --- |" + " ---: |" * len(results),
    ]
    for layer in first["layer"].values:
        cells = []
        for result in results.values():
            one = result.sel(layer=layer)
            if not np.isfinite(float(one["p_value"])):
                cells.append("–")
                continue
            if result.attrs["smallest_p"] > result.attrs["level"]:
                # This test can find nothing; the sentence beneath says why.
                cells.append(f"{float(one['effect']):+.2f}, –")
                continue
            what = str(inference.findings(one, 0.05).item()) or "–"
            cells.append(
                f"{float(one['effect']):+.2f}, {float(one['q_value']):.4f}, {what}"
            )
        lines.append(f"| {layer} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("--measure", nargs="+", default=["cka"])
    parser.add_argument("--layers", nargs="+")
    options = parser.parse_args()
    path = options.study
    inner = path / "runs.zarr"
    study = repsim.open_study(inner if inner.exists() else path).load()
    conditions = list(dict.fromkeys(condition for condition, _ in networks(study)))
    reference, *others = conditions
    warnings.simplefilter("ignore", UserWarning)
    moments = {"equal steps": study, "equal accuracy": None}
    for moment in moments:
        for measure in options.measure:
            results, words = {}, []
            for rule in others:
                pair = study
                if moment == "equal accuracy":
                    pair = inference.at_accuracy(
                        study.filter(
                            lambda node, keep=(reference, rule): _of(node, keep)
                        )
                    )
                found = inference.seed_test(
                    pair, reference, rule, measure, layers=options.layers
                )
                results[rule] = found
                words.append(f"- {inference.describe(found)}")
                if moment == "equal accuracy":
                    words[-1] += f" {_taken(pair, reference, rule)}"
            print(f"\n### {measure} of matching layers, {moment}\n")
            print(table(results), "\n", *words, sep="\n")
    profiles = depth_profiles.profiles(study)
    for name, profile in profiles.data_vars.items():
        results = {
            rule: inference.profile_test(profile, reference, rule) for rule in others
        }
        print(f"\n### {name}, equal steps\n")
        print(table(results), "\n", sep="\n")
        print(*(f"- {inference.describe(one)}" for one in results.values()), sep="\n")


def _of(node: xr.DataTree, keep: tuple[str, str]) -> bool:
    parts = node.path.strip("/").split("/")
    return parts[0] in keep and bool(node.data_vars)


def _taken(study: xr.DataTree, *rules: str) -> str:
    said = []
    for rule in rules:
        attrs = [run.attrs for (c, _), run in networks(study).items() if c == rule]
        accuracy = np.mean([one["matched_accuracy"] for one in attrs])
        step = np.mean([one["matched_step"] for one in attrs])
        said.append(f"{rule} {accuracy:.3f} at step {step:.0f}")
    return f"Test accuracy {', '.join(said)} (means)."


if __name__ == "__main__":
    main()
