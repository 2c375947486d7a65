"""A rule of one's own in one small class, and the table that the rules make."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

import repsim
from repsim import learning, networks
from repsim.learning.unification import markdown, rows


class SignOnly(learning.Rule):
    """The sign of what comes from above, at every hidden block."""

    name: ClassVar[str] = "sign"
    info: ClassVar[learning.Info] = learning.Info(
        "Sign", "sign(J' e)", "nothing", True, True, False, "this test"
    )

    @property
    def cuts(self) -> list[str]:
        return self.hidden

    def error(self, cut: learning.Cut) -> Tensor:
        return cut.incoming.sign()


@pytest.fixture
def _own() -> Iterator[None]:
    learning.register("sign", SignOnly)
    yield
    learning.unregister("sign")


@pytest.mark.usefixtures("_own")
def test_a_rule_of_ones_own_trains_and_stands_in_the_table() -> None:
    assert learning.names()[-1] == "sign"
    rule = learning.make("sign", networks.mlp(64, [16], seed=0), lr=1e-2)
    data = repsim.datasets.load("digits")
    log = repsim.train(rule, data, steps=80, progress=False)
    assert float(log.accuracy[-1]) > 0.9
    used = rule.errors(torch.rand(3, 64), torch.arange(3))["hidden_1"][0]
    assert set(used.unique().tolist()) <= {-1.0, 0.0, 1.0}
    assert "Sign" in set(learning.table()["method"])


def test_a_factory_must_give_a_rule() -> None:
    learning.register("nothing", lambda network: None)  # type: ignore[arg-type,return-value]
    try:
        with pytest.raises(TypeError, match="factory of rule 'nothing' to give a Rule"):
            learning.make("nothing", networks.mlp(4, [3], seed=0))
    finally:
        learning.unregister("nothing")


def test_the_table_is_the_papers() -> None:
    table = learning.table().set_index("method")
    assert list(table.index) == [
        "BP", "cDNI", "SG+prop", "DNI", "FA", "DFA", "Kickback", "Noise",
        "Local losses", "Sign symmetry", "Kolen–Pollack", "Weight mirrors", "DRTP",
        "DTP", "PEPITA", "Forward-forward", "Predictive coding",
        "Equilibrium propagation", "No backpropagation", "BP(lambda), recurrent",
    ]  # fmt: skip
    locks = table[["update_locked", "backward_locked", "sees_error"]]
    assert locks.loc["BP"].tolist() == [True, True, False]
    assert locks.loc["FA"].tolist() == [True, True, False]
    assert locks.loc["DFA"].tolist() == [True, False, True]
    assert locks.loc["Kickback"].tolist() == [True, False, True]
    for method in ("DNI", "cDNI", "Noise"):
        assert locks.loc[method].tolist() == [False, False, False]
    assert len(markdown().splitlines()) == 2 + len(rows())


def test_every_rule_says_what_it_is() -> None:
    for name in learning.names():
        rule = learning.make(name, networks.mlp(4, [3, 3], seed=0))
        assert rule.name == name and isinstance(rule.info, learning.Info)
        assert rule.splits == (["hidden_1"] if name in ("sg", "dni") else [])
        assert learning.options_of(name)


def test_the_documentation_shows_the_table() -> None:
    page = Path(__file__).parents[2] / "docs" / "learning.md"
    if not page.exists():
        pytest.skip("runs beside the documentation")
    assert markdown() in page.read_text()


def test_the_documentations_own_rule_trains() -> None:
    page = Path(__file__).parents[2] / "docs" / "learning.md"
    if not page.exists():
        pytest.skip("runs beside the documentation")
    blocks = page.read_text().split("```python\n")[1:]
    (code,) = [b.split("```")[0] for b in blocks if "own_local" in b]
    exec(code, {"__name__": "own"})
    try:
        rule = learning.make("own_local", networks.mlp(64, [32, 32], seed=0), lr=5e-3)
        log = repsim.train(
            rule, repsim.datasets.load("digits"), steps=80, progress=False
        )
    finally:
        learning.unregister("own_local")
    assert float(log.accuracy[-1]) > 0.9
    assert np.isfinite(log.error_cosine.values[-1]).all()


def test_the_command_writes_the_table() -> None:
    command = [sys.executable, "-P", "-W", "error", "-m", "repsim.learning"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == markdown() + "\n"
