"""Continue the runs whose states lie in a folder, in a process of its own.

python -P tests/learning/continue_runs.py FOLDER
"""

import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from repsim import learning, networks

MADE, LEFT = 3, 3
"""Updates before a state is saved, and after it."""

OPTIMISERS: dict[str, Any] = {
    "adam": None,
    "momentum": partial(torch.optim.SGD, momentum=0.9),
}
RULES: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in learning.names()},
    "noise": ("noise", {"sigma": 0.5}),
    "predsim": ("local", {"head": 4, "similarity": 0.5}),
    "pathwise": ("dtp", {"reconstruction": "difference"}),
    "every": ("sg", {"at": "every"}),
    "mixed": ("sg", {"at": "every", "targets": 0.5, "prop": 0.1}),
    "deep": ("sg", {"predictor": "mlp", "predictor_hidden": 4}),
    "bounded": ("sg", {"predictor": "sigmoid", "at": [1, 2]}),
}


def _dropped() -> nn.Sequential:
    blocks = [
        nn.Sequential(nn.Linear(a, 6), nn.BatchNorm1d(6), nn.Dropout(0.3), nn.ReLU())
        for a in (16, 6, 6)
    ]
    return nn.Sequential(*blocks, nn.Linear(6, 3))


def _maps() -> nn.Sequential:
    return networks.cnn((1, 4, 4), [3, 4, 4], 3, pool=1)


NETWORKS = {"dropped": _dropped, "maps": _maps}
CASES = [
    f"{rule} {network} {optimiser}"
    for rule in RULES
    for network, optimiser in zip(NETWORKS, OPTIMISERS, strict=True)
]


def rule_of(case: str, seed: int) -> learning.Rule:
    """Return a rule whose network's initial weights depend on `seed`."""
    rule, network, optimiser = case.split()
    name, options = RULES[rule]
    torch.manual_seed(seed)
    factory = OPTIMISERS[optimiser]
    net = NETWORKS[network]()
    return learning.make(name, net, lr=1e-2, optimizer=factory, seed=5, **options)


def run(rule: learning.Rule, case: str, first: int, last: int) -> None:
    """Make the updates first + 1 … last."""
    for step in range(first, last):
        g = torch.Generator().manual_seed(step)
        x = torch.randn(8, 16, generator=g)
        y: Tensor = torch.randint(0, 3, (8,), generator=g)
        rule.step(x.reshape(8, 1, 4, 4) if "maps" in case else x, y)


def main(folder: Path) -> None:
    """Load every state, continue it and save where it ends."""
    ends = {}
    states = torch.load(folder / "states.pt", weights_only=True)
    for case, state in states.items():
        rule = rule_of(case, seed=99)
        rule.load_state_dict(state)
        run(rule, case, MADE, MADE + LEFT)
        ends[case] = rule.state_dict()
    torch.save(ends, folder / "ends.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
