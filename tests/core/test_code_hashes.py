"""What a loaded function does: the same in every process, another when it is mended."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from repsim.core.code_hashes import loaded_hash, ships

MODULE = """
import functools
from dataclasses import dataclass
import numpy as np
import torch
from torch import nn
from torch.nn import ReLU as Act
import code_helper as helper

WIDTHS = {"first": [4, 8]}
COUNT = 0
WEIGHTS = np.eye(2)

@dataclass
class Config:
    rate: float = 0.5

CONFIG = Config()
HERE = __file__

class Base(nn.Module):
    def scale(self, x):
        return 2 * x

class Block(Base):
    @property
    def width(self):
        return WIDTHS["first"][0]
    @staticmethod
    def power(x):
        return x ** 2
    def forward(self, x):
        return Act()(helper.shift(self.scale(x))) * CONFIG.rate + WEIGHTS.sum()

def wrapped(function):
    @functools.wraps(function)
    def inner(*given, **named):
        return function(*given, **named)
    return inner

@wrapped
@torch.no_grad()
def made(classes, *, depth=3):
    '''Make one.'''
    global COUNT
    COUNT += 1
    from code_late import late
    def inner():
        return Block()
    return nn.Sequential(inner(), late(), *[lambda x: x + 1 for _ in {1, 2, 3}])

network = functools.partial(made, depth=4)
"""
FILES = {
    "code_mine": MODULE,
    "code_helper": "def shift(x):\n    return x + 1\ndef other(x):\n    return x\n",
    "code_late": "def late():\n    return 5\n",
}
CHILD = """
import importlib, json, sys
from pathlib import Path
from repsim.core.code_hashes import loaded_hash
folder = sys.argv[1]
sys.path.insert(0, folder)
hashes = []
for files in json.load(sys.stdin):
    for name, text in files.items():
        Path(folder, f"{name}.py").write_text(text)
        sys.modules.pop(name, None)
    importlib.invalidate_caches()
    import code_mine
    hashes.append(loaded_hash(code_mine.network))
    code_mine.COUNT = 7
    import code_late
    assert loaded_hash(code_mine.network) == hashes[-1], "called once, and another"
print(json.dumps(hashes))
"""


def in_another_process(variants: list[dict[str, str]], folder: Path) -> list[str]:
    """Return hashes of `network` of files written, imported and written again."""
    folder.mkdir()
    made = subprocess.run(
        [sys.executable, "-B", "-P", "-c", CHILD, str(folder)],
        check=True, stdout=subprocess.PIPE, text=True, input=json.dumps(variants),
    )  # fmt: skip
    return list(json.loads(made.stdout))


def test_of_a_module_what_decides_is_hashed_and_the_rest_is_not(
    tmp_path: Path,
) -> None:
    same = MODULE.replace("'''Make one.'''", "'''Make another one.'''  # so")
    same = same.replace("HERE =", "\n\nUNUSED = 3\nHERE =")
    other = FILES["code_helper"].replace("return x\n", "return 9 * x\n")
    variants = [FILES, FILES | {"code_mine": same, "code_helper": other}]
    for name, old, new in (
        ("code_mine", "2 * x", "3 * x"),  # of a class it inherits from
        ("code_mine", "ReLU as Act", "GELU as Act"),
        ("code_mine", "[4, 8]", "[5, 8]"),
        ("code_mine", "np.eye(2)", "np.eye(3)"),
        ("code_mine", "rate: float = 0.5", "rate: float = 0.6"),
        ("code_mine", "x ** 2", "x ** 3"),
        ("code_mine", '["first"][0]', '["first"][1]'),
        ("code_mine", "depth=3", "depth=2"),
        ("code_mine", "depth=4", "depth=5"),
        ("code_mine", "return function(", "return 1 * function("),
        ("code_mine", "x + 1 for", "x + 2 for"),
        ("code_helper", "x + 1", "x - 1"),
        ("code_late", "5", "6"),
    ):
        assert old in FILES[name]
        variants.append(FILES | {name: FILES[name].replace(old, new)})
    found = in_another_process(variants, tmp_path / "a")
    assert found[0] == found[1]
    assert len(set(found)) == len(variants) - 1
    assert in_another_process(variants, tmp_path / "another") == found


def test_what_has_no_source_is_told_by_what_it_does_and_holds() -> None:
    def made(text: str, **space: Any) -> str:
        exec(f"def f(x):\n    return {text}\n", space)  # noqa: S102
        return loaded_hash(space["f"])

    assert made("x + a", a=1) == made("x + a", a=1)
    assert len({made("x + a", a=1), made("x + a", a=2), made("x - a", a=1)}) == 3
    held = [lambda a=a: a for a in (1, [1], {"b": 1}, {1})]
    assert len({loaded_hash(one) for one in held}) == 3 + 1

    def closed(over: object) -> Callable[[], object]:
        return lambda: over

    import torch
    import xarray as xr

    one, two = torch.zeros(2), torch.zeros(2) + 1
    for kind in (lambda v: v, lambda v: {"v": [v]}, lambda v: xr.DataArray(v.numpy())):
        assert loaded_hash(closed(kind(one))) == loaded_hash(closed(kind(one.clone())))
        assert loaded_hash(closed(kind(one))) != loaded_hash(closed(kind(two)))
    layer = torch.nn.Linear(2, 2)
    first = loaded_hash(closed(layer))
    with torch.no_grad():
        layer.weight.add_(1)
    assert loaded_hash(closed(layer)) != first
    assert loaded_hash(torch.relu) != loaded_hash(torch.tanh)


def test_ours_ships() -> None:
    from repsim.networks import cnn

    assert ships(cnn)
    assert not ships(lambda: cnn)
