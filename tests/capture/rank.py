"""One of two processes that train and record together: python rank.py KIND RANK DIR."""

import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

import repsim
from repsim.capture import distributed


def main(kind: str, rank: int, folder: Path) -> None:
    """Train a network of this kind, with a recorder where `kind` asks for one."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    fixed = torch.randn(10, 6)
    model = net
    if kind == "ddp":
        model = nn.parallel.DistributedDataParallel(net)
    elif kind == "fsdp1":
        from torch.distributed.fsdp import FullyShardedDataParallel

        model = FullyShardedDataParallel(net, device_id=torch.device("cpu"))
    else:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh("cpu", (2,))
        fully_shard(net[0], mesh=mesh)
        fully_shard(net, mesh=mesh)
    if kind in ("alone", "fsdp1"):
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
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
        return
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    store = folder / "run.zarr"
    recorder = None
    if not (folder / "plain").exists():
        recorder = repsim.Recorder(
            model, fixed, every=2, store=store, batch_size=4
        ).start()
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
        assert run.sizes["example"] == 10
        run = repsim.record(model, fixed)
        assert run.sizes["example"] == 10
    weights = [
        p.full_tensor() if hasattr(p, "full_tensor") else p for p in net.parameters()
    ]
    if rank == 0:
        name = "plain.pt" if recorder is None else "recorded.pt"
        torch.save([w.detach() for w in weights], folder / name)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
