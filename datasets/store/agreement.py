"""What processes that write one recording tell each other of each moment."""

import base64
import json
import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np


class Ranks(Protocol):
    """How the processes hear of each other, beside the training that they share."""

    rank: int
    world: int

    def exchange(self, said: str, *, opening: bool = False) -> list[str]:
        """Return what every rank said, once all did; `Apart` where one does not."""

    def say(self, said: str) -> None:
        """Say what the others hear in their `exchange`, and wait for nobody."""

    def wrote(self) -> None:
        """Let the first rank know that one more moment of this rank is written."""

    def lost(self) -> None:
        """Let the first rank know that this rank writes no more."""

    def await_written(self, moments: int) -> None:
        """Wait until all ranks have written so many moments, or raise `Apart`."""


class Apart(OSError):
    """A rank that does not answer, or cannot write its part."""


def share_of(rows: int, world: int, chunks: Sequence[int] = ()) -> int:
    """Return how many consecutive examples one rank writes.

    Objects hold examples of one rank, so that no two write the same object. A multiple
    of a power of two has divisors of every order of magnitude to make objects of, at
    the price of shares that are uneven by an eighth. Objects that lie there already
    are not cut: the first rank writes all where there is one for all.
    """
    share = -(-rows // world)
    grain = 2 ** max(0, share.bit_length() - 4)
    for size in (grain, math.lcm(1, *chunks)):
        share = -(-share // size) * size
    return min(share, rows)


class Talk:
    """The facts of one rank for those of all, moment by moment.

    What has not changed since the moment before is not said again.
    """

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._step: int | None = None
        self._spoken = True
        self._said = ""
        self._heard: dict[int, dict[str, Any]] = {}

    def begin(self, step: int | None) -> None:
        """Start a moment."""
        self._step, self._spoken = step, False

    def give_up(self) -> None:
        """Let the others know that this rank has nothing of the moment."""
        self._said = ""  # who has nothing to record hears nothing, so all is said again
        if not self._spoken:
            self._spoken = True
            self._ranks.say(f"{self._step}|{json.dumps({'error': 'its pass failed'})}")

    def exchange(self, facts: dict[str, Any]) -> list[dict[str, Any]]:
        """Return what each rank has of this moment, by rank.

        `Apart` where one does not answer or cannot write, ValueError where one has
        nothing, or something that does not fit.
        """
        said = json.dumps(facts)
        self._spoken = True
        text = "=" if said == self._said else said
        texts = self._ranks.exchange(f"{self._step}|{text}")
        self._said = said
        steps = []
        for rank, heard in enumerate(texts):
            step, _, body = heard.partition("|")
            steps.append(step)
            if body != "=":
                self._heard[rank] = json.loads(body)
        all_facts = [self._heard[rank] for rank in range(len(texts))]
        self._check(all_facts, steps)
        return all_facts

    def _check(self, all_facts: list[dict[str, Any]], steps: list[str]) -> None:
        for rank, facts in enumerate(all_facts):
            if "lost" in facts:
                raise Apart(f"rank {rank} cannot ({facts['lost']})")
            if "error" in facts:
                self._said = ""
                msg = (
                    f"Expected rank {rank} to record its examples, but its pass "
                    "failed; a warning or an error there says why."
                )
                raise ValueError(msg)
        if len(set(steps)) > 1:
            msg = (
                "Expected all ranks to have made the same number of updates, but got "
                f"{', '.join(steps)}; call step() on every rank after each update."
            )
            raise ValueError(msg)
        layers: dict[str, dict[str, Any]] = {}
        for rank, facts in enumerate(all_facts):
            for name, layer in facts["layers"].items():
                one = layers.setdefault(name, layer)
                if any(one[key] != layer[key] for key in ("tail", "dtype", "dims")):
                    msg = (
                        f"Expected layer {name!r} to give {one['tail']} {one['dtype']} "
                        f"for each example on every rank, but on rank {rank} it gave "
                        f"{layer['tail']} {layer['dtype']}; pad inputs to one length, "
                        "or pass `reduce`."
                    )
                    raise ValueError(msg)


def as_text(values: np.ndarray) -> list[Any]:
    """Return a coordinate as text: dtype, shape, bytes."""
    values = values.astype(str) if values.dtype.kind == "O" else values
    data = base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()
    return [values.dtype.str, list(values.shape), data]


def joined(name: str, heard: list[dict[str, Any]]) -> np.ndarray:
    """Return a coordinate of all examples, from the parts that the ranks hold."""
    parts = []
    for facts in heard:
        dtype, shape, data = facts["coords"][name]
        parts.append(np.frombuffer(base64.b64decode(data), dtype).reshape(shape))
    return np.concatenate(parts)
