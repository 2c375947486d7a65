"""One of two processes that train and record together: python rank.py KIND RANK DIR."""

import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

import repsim
from repsim.capture import distributed


def main(kind: str, rank: int, folder: Path) -> None:
    """Do what `kind` asks for in a process of two."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    if kind == "killed":
        _killed(rank, *_networks(kind), folder)
    elif kind in ("alone", "fsdp1"):
        _refused(rank, *_networks(kind), folder)
    else:
        for recorded in (True, False):
            _trained(kind, rank, folder, recorded)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def _networks(kind: str) -> tuple[nn.Module, nn.Sequential, torch.Tensor]:
    """Return a network as wrapped for this kind, the one inside, and fixed inputs."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    fixed = torch.randn(11, 6)
    if kind in ("ddp", "killed"):
        return nn.parallel.DistributedDataParallel(net), net, fixed
    if kind == "fsdp1":
        from torch.distributed.fsdp import FullyShardedDataParallel

        whole = FullyShardedDataParallel(net, device_id=torch.device("cpu"))
        return whole, net, fixed
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (2,))
    fully_shard(net[0], mesh=mesh)
    fully_shard(net, mesh=mesh)
    return net, net, fixed


def _refused(
    rank: int, model: nn.Module, net: nn.Sequential, fixed: torch.Tensor, folder: Path
) -> None:
    """Call on one rank what all must call, and keep what it says."""
    distributed.PATIENCE = 1.0
    sentences = []
    for call in (
        lambda: repsim.Recorder(model, fixed),
        lambda: repsim.record(model, fixed),
        lambda: repsim.compare_models(model, batches=fixed, progress=False),
    ):
        if rank == 0:  # the other one knows nothing of it
            try:
                call()
            except ValueError as error:
                sentences.append(str(error))
    if rank == 0:
        (folder / "sentence").write_text("\n".join(sentences))


def _trained(kind: str, rank: int, folder: Path, recorded: bool) -> None:
    """Train, with a recorder or without one, and keep the weights."""
    model, net, fixed = _networks(kind)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    store = folder / "run.zarr"
    recorder = None
    if recorded:
        passed: list[int] = []
        net[0].register_forward_pre_hook(
            lambda module, args: (
                None if module.training else passed.append(len(args[0]))
            )
        )
        recorder = repsim.Recorder(
            model,
            fixed,
            every=2,
            store=store,
            batch_size=4,
            labels=[f"label {i % 3}" for i in range(11)],
            examples=range(100, 111),
        ).start()
        assert passed[-2:] == [4, 2], passed  # its share: 6 of 11, in batches
        learnt = repsim.Recorder(model, "training", every=2, errors="mean").start()
    for update in range(4):
        generator = torch.Generator().manual_seed(10 * update + rank)
        x = torch.randn(5, 6, generator=generator)
        optimiser.zero_grad()
        F.cross_entropy(model(x), torch.arange(5) % 3).backward()
        optimiser.step()
        if recorder is not None:
            recorder.step()
            learnt.step()
    if recorder is not None:
        recorder.close()
        learnt.close()
        if rank == 0:  # its own batches
            own = learnt.dataset()
            assert own["0@error"].shape == (2, 5, 8)
            assert own["step"].values.tolist() == [0, 2]
        torch.distributed.barrier()
        assert recorder.dataset().sizes["step"] == 3
    whole = folder / f"whole{recorder is None}.zarr"
    if kind == "sharded":
        run = repsim.record(model, fixed, store=whole)
        assert run.sizes["example"] == 11
        run = repsim.record(model, fixed)
        assert run.sizes["example"] == 11
    weights = [
        p.full_tensor() if hasattr(p, "full_tensor") else p for p in net.parameters()
    ]
    if rank == 0:
        name = "recorded.pt" if recorded else "plain.pt"
        torch.save([w.detach() for w in weights], folder / name)


def _killed(
    rank: int, model: nn.Module, net: nn.Sequential, fixed: torch.Tensor, folder: Path
) -> None:
    """Train until the second rank is killed in its pass of the third moment."""
    distributed.MOMENT = distributed.WRITTEN = 3.0
    recorder = repsim.Recorder(model, fixed, every=2, store=folder / "run.zarr").start()
    moments = 1

    def pass_away(module: nn.Module, _: Any) -> None:
        nonlocal moments
        if not module.training:
            moments += 1
            if moments == 3 and rank == 1:
                os.kill(os.getpid(), signal.SIGKILL)

    net[0].register_forward_pre_hook(pass_away)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(4):
            F.cross_entropy(model(torch.randn(5, 6)), torch.arange(5) % 3).backward()
            recorder.step()
        recorder.close()
    text = [str(w.message) for w in said if "recorded" in str(w.message)]
    (folder / "sentence").write_text("\n".join(text))
    os._exit(0)  # torch's own farewell would wait for the other


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
