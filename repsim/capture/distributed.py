"""Which process of a distributed training records what, and how they agree on it."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import count
from typing import Any, Literal

import torch
from torch import nn

from repsim.capture.selection import wrappers
from repsim.datasets.store.agreement import Apart

Part = Literal["writes", "shares", "follows", "rests"]

PATIENCE = 60.0
"""Seconds that one rank waits for the others to make their recorders."""

MOMENT = 1800.0
"""Seconds that a rank waits for the others' pass: as long as torch for a gradient."""

WRITTEN = 120.0
"""Seconds that the background waits for what the others have passed to be written."""

_meetings = count()


def part_of(
    model: Any, network: nn.Module, *, passes: bool = True, stored: bool = False
) -> Part:
    """Return what this process does with a recording.

    Of a network in shards (FSDP2) or under DDP each rank writes its share of the
    examples where there is a store. In memory one rank holds all: the first one under
    DDP, and in shards every one, as each pass gathers the weights of all. Where no
    passes are made (`passes=False`), the first rank records its own batches.
    """
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return "writes"
    if distributed.get_world_size() == 1:
        return "writes"
    first = distributed.get_rank() == 0
    kinds = {type(m).__name__ for m in (*wrappers(model), *network.modules())}
    several = "DistributedDataParallel" in kinds
    sharded = is_sharded(network)
    if not passes and (several or sharded or "FullyShardedDataParallel" in kinds):
        return "writes" if first else "rests"
    if "FullyShardedDataParallel" in kinds:
        msg = (
            "Expected a network that every rank can run alone or that is sharded by "
            "fully_shard (FSDP2), but got FullyShardedDataParallel (FSDP1), whose "
            "passes cannot be recorded; shard it with fully_shard, or record saved "
            "checkpoints with repsim.record."
        )
        raise ValueError(msg)
    if sharded:
        meet("a sharded network (FSDP2)", "every pass gathers the weights of all")
    elif several and stored:
        meet(
            "a network under DDP",
            "each writes its examples",
            ", or give one rank the network itself (model.module)",
        )
    if stored and (sharded or several):
        return "shares"
    if sharded:
        return "writes" if first else "follows"
    return "rests" if several and not first else "writes"


def is_sharded(network: nn.Module) -> bool:
    """Whether a network is in shards (FSDP2); nothing is imported to find out."""
    module = sys.modules.get("torch.distributed.fsdp")
    kind = getattr(module, "FSDPModule", None)
    return kind is not None and any(isinstance(m, kind) for m in network.modules())


def shard_again(network: nn.Module) -> None:
    """Give back the weights that a pass without a backward one left gathered."""
    if is_sharded(network):
        for module in network.modules():
            reshard: Any = getattr(module, "reshard", None)
            if callable(reshard):
                reshard()


def meet(what: str, reason: str, besides: str = "") -> None:
    """Wait until every rank has come here, and say so where one does not."""
    distributed = torch.distributed
    world, rank = distributed.get_world_size(), distributed.get_rank()
    store = distributed.distributed_c10d._get_default_store()
    name = f"repsim/{next(_meetings)}"
    store.set(f"{name}/{rank}", "here")
    try:
        keys = [f"{name}/{other}" for other in range(world)]
        store.wait(keys, timedelta(seconds=PATIENCE))
    except RuntimeError:
        here = [r for r in range(world) if store.check([f"{name}/{r}"])]
        msg = (
            f"Expected all {world} ranks to record {what} together, as {reason}, but "
            f"only {here} came within {PATIENCE:.0f} s; call it on every rank, with "
            f"the same inputs{besides}."
        )
        raise ValueError(msg) from None


class StoreRanks:
    """Ranks that hear of each other through the store of torch.distributed.

    By looking and not by waiting: whoever waits in that store keeps other threads of
    its process out of it. Collectives would mix with those of the training.
    """

    def __init__(self) -> None:
        distributed = torch.distributed
        self.rank, self.world = distributed.get_rank(), distributed.get_world_size()
        self._store = distributed.distributed_c10d._get_default_store()
        self._name = f"repsim/{next(_meetings)}"
        self._round = 0

    def exchange(self, said: str, *, opening: bool = False) -> list[str]:
        """Return what every rank said, once all did."""
        keys = [f"{self._name}/{self._round}/{rank}" for rank in range(self.world)]
        self.say(said)

        def silent() -> list[int]:
            return [r for r, key in enumerate(keys) if not self._store.check([key])]

        patience = PATIENCE if opening else MOMENT
        with _reached():
            _until(silent, patience, "said nothing of this moment")
            return [self._store.get(key).decode() for key in keys]

    def say(self, said: str) -> None:
        """Say what the others hear in their `exchange`."""
        with _reached():
            self._store.set(f"{self._name}/{self._round}/{self.rank}", said)
        self._round += 1

    def wrote(self) -> None:
        """Count one more moment of this rank as written."""
        with _reached():
            self._store.add(f"{self._name}/wrote/{self.rank}", 1)

    def lost(self) -> None:
        """Let the first rank know that this rank writes no more."""
        with _reached():
            self._store.add(f"{self._name}/lost/{self.rank}", 1)

    def await_written(self, moments: int) -> None:
        """Wait until all ranks have written so many moments."""

        def behind() -> list[int]:
            late = [r for r in range(self.world) if self._of("wrote", r) < moments]
            lost = [r for r in late if self._of("lost", r)]
            if lost:
                raise Apart(f"rank {lost[0]} could not write its part")
            return late

        with _reached():
            _until(behind, WRITTEN, "did not write its part")

    def _of(self, what: str, rank: int) -> int:
        return int(self._store.add(f"{self._name}/{what}/{rank}", 0))


@contextmanager
def _reached() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # the process that held the store has ended
        reason = str(error).splitlines()[0][:80]
        raise Apart(f"the store of torch.distributed is gone ({reason})") from error


def _until(late: Callable[[], list[int]], patience: float, what: str) -> None:
    begin, pause = time.monotonic(), 0.0005
    while ranks := late():
        if time.monotonic() - begin > patience:
            names = ", ".join(map(str, ranks))
            raise Apart(f"rank {names} {what} within {patience:.0f} s")
        time.sleep(pause)
        pause = min(2 * pause, 0.05)
