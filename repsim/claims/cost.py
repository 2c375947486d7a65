"""What a reproduction will take, stated before it starts."""

import time
from collections.abc import Callable, Sequence

import torch

from repsim import learning
from repsim.claims.base import Claim
from repsim.claims.lab import Lab
from repsim.claims.settings import FEED_DEPTHS, IN_DETAIL, Settings
from repsim.core.threads import one_thread
from repsim.networks import mlp

RULES_PER_BP = 1.5
"""Time of an update, mean over the rules, in units of backpropagation's."""

EVALUATIONS = 21
"""Times that a network is evaluated on 1,000 training and all test examples."""

LOOKING = 3.0
"""Seconds that it takes to measure the layers of a network 20 deep."""

OWN, FEEDS = "curves", "feeds"
"""In a claim's `uses`: networks of other depths, which only it needs."""

BESIDE = {"C10b": 2, "C10c": 2, "C12": 2, "C14": 2}
"""Times that claims train a condition more, at another rate or for fewer updates."""


def estimate(lab: Lab, claims: Sequence[Claim]) -> tuple[int, float]:
    """Return how many networks claims train, and how long everything takes."""
    scale, seeds, few = lab.settings.scale, len(lab.seeds), len(lab.few_seeds)
    rates = len(scale.grid) + (len(scale.grid) > 2)  # One beyond an end, as it happens.
    uses = {label for claim in claims for label in claim.uses}
    trained = uses - {"untrained", OWN, FEEDS}
    tuned = {"sg" if label == "sg_shared" else label for label in trained}
    often = {label for claim in claims if claim.id != "E7" for label in claim.uses}
    shared = len(tuned) * rates + len(trained & often) * seeds
    shared += len(trained - often) * few
    shared += seeds * sum(BESIDE.get(claim.id, 0) for claim in claims)
    rounds = [(shared, scale.depth, scale.steps)]
    if any(claim.id == "C12" for claim in claims) and scale.long_steps:
        rounds.append((1, scale.depth, scale.long_steps))
    if OWN in uses:
        each = 4 * (rates + few)
        rounds += [(each, depth, scale.curve_steps) for depth in scale.depths]
    if FEEDS in uses:
        each = 4 * (rates + few) + few
        rounds += [(each, depth, scale.feed_steps) for depth in FEED_DEPTHS]
    networks = sum(number for number, _, _ in rounds)
    seconds = sum(claim.seconds(lab.settings) for claim in claims)
    if networks:
        update, evaluations = _times(lab.settings)
        for number, depth, steps in rounds:
            one = steps * update * RULES_PER_BP + evaluations
            seconds += number * one * depth / scale.depth
        seconds += len(uses & {*IN_DETAIL}) * seeds * LOOKING * scale.depth / 20
    return networks, seconds


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


def _times(settings: Settings) -> tuple[float, float]:
    """Return seconds of one update of backpropagation, and of a run's evaluations."""
    scale = settings.scale
    features, tested = (64, 360) if settings.dataset == "digits" else (784, 10_000)
    net = mlp(features, [scale.width] * scale.depth, seed=0)
    rule = learning.make("bp", net)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1000, features, generator=generator)
    y = torch.arange(scale.batch_size) % 10
    with one_thread():
        update = _median(lambda: rule.step(x[: scale.batch_size], y))
        with torch.no_grad():
            thousand = _median(lambda: net(x))
    return update, EVALUATIONS * thousand * (1 + tested / 1000)


def _median(call: Callable[[], object]) -> float:
    times = []
    for _ in range(8):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return sorted(times)[len(times) // 2]
