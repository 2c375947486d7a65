"""Segments that do not wait for each other: what changes? A study of two ways.

    python -P tests/benchmarks/asynchronous_study.py --out asynchronous
    python -P tests/benchmarks/asynchronous_study.py --out asynchronous --page PAGE

Trains `sg` (one synthetic gradient in the middle) on digits, in one process and in two
that do not wait for each other, each network with weights and an order of data of its
own, records them on test examples, joins the recordings into a study (as
`repsim study --from` does) and writes its report. Prints what the study finds: the
final test accuracies, and whether the layers of the two differ by more than two
networks of one way of training do. Networks that are trained are kept.
"""

import argparse
from collections import Counter
from pathlib import Path

import numpy as np

import repsim
from repsim.analyses import seeds
from repsim.claims.base import difference
from repsim.claims.render import replaced
from repsim.datasets.results import storable
from repsim.studies.completeness import TRAINING
from repsim.studies.joining import join_recordings
from repsim.studies.report import write_report

WAYS = {"sg, one process": None, "sg, two processes": 2}
DEPTH, WIDTH, STEPS, RATE = 8, 64, 400, 3e-3


def trained(store: Path, number: int, workers: int | None, way: str) -> None:
    """Train one network, and leave its recording and its training record."""
    data, test = (repsim.datasets.load("digits", split) for split in ("train", "test"))
    net = repsim.networks.mlp(64, hidden=[WIDTH] * DEPTH, seed=number)
    rule = repsim.learning.make("sg", net, lr=RATE, seed=number)
    x, y = repsim.datasets.to_tensors(test, "flat")
    group = f"{way}/{number}"
    attrs = {"condition": way, "rule": "sg", "seed": number, "dataset": "digits"}
    with repsim.Recorder(
        net, x, steps=[0, STEPS], labels=y.numpy(), store=store, group=group,
        attrs=attrs,
    ) as recorder:  # fmt: skip
        log = repsim.train(
            rule, data, steps=STEPS, seed=number, test=test, eval_every=[0, STEPS],
            callbacks=[recorder], workers=workers, progress=False,
        )  # fmt: skip
    storable(log).to_zarr(
        store, group=f"{group}/{TRAINING}", mode="w", consolidated=False, zarr_format=3
    )


def found(out: Path, networks: int) -> str:
    """Return what the joined study finds, as Markdown."""
    folder = join_recordings([out / "made.zarr"], out / "study")
    study = repsim.open_study(folder)
    write_report(folder)
    accuracy: dict[str, list[float]] = {}
    late: Counter[int] = Counter()
    for way in WAYS:
        for number in range(networks):
            log = study[f"{way}/{number}/{TRAINING}"].to_dataset()
            accuracy.setdefault(way, []).append(float(log["test_accuracy"][-1]))
            if "staleness" in log:
                late.update(log["staleness"].values[0].tolist())
    one, two = accuracy.values()
    apart = difference(two, one)
    whole = sum(late.values())
    shares = ", ".join(f"{k}: {n / whole:.2f}" for k, n in sorted(late.items()))
    lines = [
        f"{networks} + {networks} networks of {DEPTH} × {WIDTH} on digits, {STEPS} "
        f"updates at {RATE:g}. Test accuracy {np.mean(one):.4f} in one process and "
        f"{np.mean(two):.4f} in two; difference {apart.estimate:+.4f} "
        f"[{apart.low:+.4f}, {apart.high:+.4f}], 90 % (Welch). Batches that a message "
        f"came late, by share: {shares}. Of the layers the study says:",
        "",
        *(f"- {sentence}" for sentence in seeds.compute(study).attrs["sentences"]),
    ]
    return "\n".join(lines)


def main() -> None:
    """Run the command of the module's docstring."""
    parser = argparse.ArgumentParser(description="Waiting or not, as a study.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--networks", type=int, default=5)
    parser.add_argument("--page", type=Path, help="a Markdown page to put it in")
    given = parser.parse_args()
    store = given.out / "made.zarr"
    for number in range(given.networks):
        for offset, (way, workers) in enumerate(WAYS.items()):
            own = number + offset * 1000
            place = store / way / str(own)
            if not (place / TRAINING).is_dir():
                trained(store, own, workers, way)
    text = found(given.out, given.networks)
    print(text)
    if given.page:
        given.page.write_text(replaced(given.page.read_text(), "asynchronous", text))


if __name__ == "__main__":
    main()
