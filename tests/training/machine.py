"""One of two processes that train one network apart: python machine.py RANK DIR."""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Timer
from typing import Any

import torch

import repsim
from repsim.training.order import as_tensors


def rule_of(name: str, seed: int = 0, **options: Any) -> repsim.learning.Rule:
    """Return the rule that all processes make."""
    net = repsim.networks.mlp(64, [32] * 4, seed=seed)
    return repsim.learning.make(name, net, **{"lr": 3e-3, **options})


def sentence(rule: repsim.learning.Rule, **options: Any) -> str:
    """Return what training says when it is refused or ends early."""
    given = {"workers": 2, "progress": False, "diagnostics": False, "eval_every": 60}
    try:
        repsim.train(rule, repsim.datasets.load("digits"), 120, **{**given, **options})
    except ValueError as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def interrupted(rank: int, folder: Path) -> list[Any]:
    """Train until Ctrl-C, go on from the checkpoint until it comes to one alone."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background, too
    rule, told = rule_of("sg"), []
    presses = [
        (0, lambda: os.killpg(os.getpgrp(), signal.SIGINT)),  # as a terminal does
        (1, lambda: os.kill(os.getpid(), signal.SIGINT)),
    ]
    for who, press in presses:
        timers: list[Timer] = []

        def soon(
            step: int,
            losses: Any,
            who: int = who,
            press: Callable[[], None] = press,
            timers: list[Timer] = timers,
        ) -> None:
            if rank == who and not timers:
                timers.append(Timer(0.1, press))
                timers[0].start()

        try:
            repsim.train(
                rule, repsim.datasets.load("digits"), 10**6, workers=2,
                start=rule.steps, progress=False, diagnostics=False,
                eval_every=range(0, 10**6, 20), callbacks=[soon],
            )  # fmt: skip
        except (KeyboardInterrupt, ValueError) as stop:
            told.append([type(stop).__name__, str(stop), rule.steps])
    torch.save(rule.state_dict(), folder / f"interrupted-{rank}.pt")
    return told


def main(rank: int, folder: Path) -> None:
    """Train in several ways, and keep what came of it."""
    torch.set_num_threads(2)  # as most machines have, whatever the suite was given
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    data = repsim.datasets.load("digits")
    said: dict[str, Any] = {}
    for name in ("sg", "local", "dfa"):
        rule = rule_of(name)
        inputs, _ = as_tensors(repsim.datasets.load("digits", limit=20), rule.network)
        recorder = repsim.Recorder(rule.network, inputs, every=25)
        with recorder:
            log = repsim.train(
                rule, data, 120, workers=2, eval_every=60, progress=False,
                diagnostics=False, callbacks=[recorder] if rank == 0 else [],
            )  # fmt: skip
        told = {"state": rule.network.state_dict(), "late": log["staleness"].values}
        told = {**told, "accuracy": float(log.accuracy[-1])}
        told["steps"] = recorder.dataset()["step"].values if rank == 0 else None
        torch.save(told, folder / f"{name}-{rank}.pt")
    said["many"] = sentence(rule_of("sg"), workers=3)
    said["locked"] = sentence(rule_of("bp"))
    said["other"] = sentence(rule_of("sg", seed=rank))
    wild = rule_of("sg", optimizer=torch.optim.SGD, lr=1e30)
    said["nan"] = [sentence(wild), wild.steps]
    said["interrupted"] = interrupted(rank, folder)
    dying = rule_of("sg")

    def kill(step: int, losses: Any) -> None:
        if rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    (folder / f"said-{rank}.json").write_text(json.dumps(said))
    said["killed"] = [sentence(dying, callbacks=[kill]), dying.steps]
    torch.save(dying.network.state_dict(), folder / "killed.pt")
    (folder / "said.json").write_text(json.dumps(said))
    os._exit(0)  # its group is broken, and would wait for the other


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
