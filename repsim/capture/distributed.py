"""Which process of a distributed training records, and which must run along."""

import sys
from datetime import timedelta
from itertools import count
from typing import Any, Literal

import torch
from torch import nn

from repsim.capture.selection import wrappers

Part = Literal["writes", "follows", "rests"]

PATIENCE = 60.0
"""Seconds that one rank waits for the others to make their recorders."""

_meetings = count()


def part_of(model: Any, network: nn.Module, *, passes: bool = True) -> Part:
    """Return what this process does: write, run the passes along, or nothing.

    A network in shards (FSDP2) gathers its weights in every pass, so all ranks run it
    and the first writes. Under DDP each rank has the weights, and the first is enough,
    as it is where no passes are made (`passes=False`): it sees its own batches.
    """
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return "writes"
    if distributed.get_world_size() == 1:
        return "writes"
    first = distributed.get_rank() == 0
    kinds = {type(m).__name__ for m in (*wrappers(model), *network.modules())}
    shared = {"FullyShardedDataParallel", "DistributedDataParallel"} & kinds
    if not passes and (shared or is_sharded(network)):
        return "writes" if first else "rests"
    if "FullyShardedDataParallel" in kinds:
        msg = (
            "Expected a network that every rank can run alone or that is sharded by "
            "fully_shard (FSDP2), but got FullyShardedDataParallel (FSDP1), whose "
            "passes cannot be recorded; shard it with fully_shard, or record saved "
            "checkpoints with repsim.record."
        )
        raise ValueError(msg)
    if is_sharded(network):
        meet()
        return "writes" if first else "follows"
    if "DistributedDataParallel" in kinds:
        return "writes" if first else "rests"
    return "writes"


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


def meet() -> None:
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
            f"Expected all {world} ranks to record a sharded network (FSDP2) together, "
            f"as every pass gathers the weights of all, but only {here} came within "
            f"{PATIENCE:.0f} s; call it on every rank, with the same inputs."
        )
        raise ValueError(msg) from None
