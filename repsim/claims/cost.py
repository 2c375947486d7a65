"""What a reproduction will take, stated before it starts."""

import time
from collections.abc import Sequence

import torch

from repsim import learning
from repsim.claims.base import Claim
from repsim.claims.experiments.optimisation import FEED_DEPTHS
from repsim.claims.lab import Lab
from repsim.claims.settings import IN_DETAIL, Settings
from repsim.core.threads import one_thread
from repsim.networks import mlp

RULES_PER_BP = 1.5
"""Time of an update, mean over the rules, in units of backpropagation's."""

LOOKING = 5.0
"""Seconds that it takes to measure the layers of a network 20 deep."""

OWN, FEEDS = "curves", "feeds"
"""In a claim's `uses`: networks of other depths, which only it needs."""

BESIDE = {"C10b": 2, "C10c": 2, "C12": 1, "C14": 1}
"""Claims that train conditions once more, at another rate or for fewer updates."""


def estimate(lab: Lab, claims: Sequence[Claim]) -> tuple[int, float]:
    """Return how many networks claims train, and how long everything takes."""
    scale, seeds = lab.settings.scale, len(lab.seeds)
    uses = {label for claim in claims for label in claim.uses}
    trained = uses - {"untrained", OWN, FEEDS}
    tuned = {"sg" if label == "sg_shared" else label for label in trained}
    networks = len(tuned) * len(scale.grid) + len(trained) * seeds
    networks += seeds * sum(BESIDE.get(claim.id, 0) for claim in claims)
    feeds = 4 * (seeds + len(scale.grid)) if FEEDS in uses else 0
    seconds = sum(claim.seconds(lab.settings) for claim in claims)
    curves = 4 * (seeds + len(scale.grid)) if OWN in uses else 0
    if networks or curves or feeds:
        update = _update(lab.settings) * RULES_PER_BP
        seconds += networks * scale.steps * update
        seconds += len(uses & {*IN_DETAIL}) * seeds * LOOKING * scale.depth / 20
        deep = curves * sum(scale.depths) / scale.depth
        seconds += deep * scale.curve_steps * update
        seconds += feeds * sum(FEED_DEPTHS) / scale.depth * scale.steps * update
        long = scale.long_steps * any(claim.id == "C12" for claim in claims)
        seconds += long * update
    others = curves * len(scale.depths) + feeds * len(FEED_DEPTHS)
    return networks + others, seconds


def sentence(networks: int, seconds: float, jobs: int) -> str:
    """Return the cost as a sentence."""
    minutes = max(round(seconds / jobs / 60), 1)
    many = f"{networks} networks" if networks else "no networks"
    long = f"{minutes} minute{'s' * (minutes > 1)}"
    if minutes > 120:
        long = f"{minutes / 60:.0f} hours"
    return (
        f"To do: {many}, about {long} on {jobs} core{'s' * (jobs > 1)}; what is "
        "finished is kept, and the same command goes on where it stopped."
    )


def _update(settings: Settings) -> float:
    """Return the seconds of one update of backpropagation at the shared size."""
    scale = settings.scale
    features = 64 if settings.dataset == "digits" else 784
    net = mlp(features, [scale.width] * scale.depth, seed=0)
    rule = learning.make("bp", net)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(scale.batch_size, features, generator=generator)
    y = torch.arange(scale.batch_size) % 10
    times = []
    with one_thread():
        for _ in range(8):
            began = time.perf_counter()
            rule.step(x, y)
            times.append(time.perf_counter() - began)
    return sorted(times)[len(times) // 2]
