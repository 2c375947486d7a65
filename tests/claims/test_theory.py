"""The theory with numbers, and rules broken on purpose that must not pass."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from repsim import learning
from repsim.claims.base import registered
from repsim.claims.convergence import _regression
from repsim.claims.lab import Lab
from repsim.claims.loss_reconstruction import curl_ratio, implied_loss
from repsim.claims.settings import Settings
from repsim.learning import Cut
from repsim.learning.synthetic import SyntheticGradient

EXACT = ["C1", "C2", "C3", "T5", "T10", "T11", "M1", "M2"]


class StartsAway(SyntheticGradient):
    """A mistake: the predictor does not start at zero."""

    name: ClassVar[str] = "sg_away"

    def build(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        super().build(shapes)
        with torch.no_grad():
            for predictor in self.predictors.values():
                for parameter in predictor.parameters():
                    parameter.fill_(0.01)


class LeakyTarget(SyntheticGradient):
    """A mistake: the regression's target is not detached."""

    name: ClassVar[str] = "sg_leaky"

    def learn(self, cuts: Sequence[Cut], count: int) -> dict[str, torch.Tensor]:
        (cut,) = cuts
        above = list(self.blocks)[list(self.blocks).index(cut.name) + 1 :]
        with torch.enable_grad():
            h = output = cut.h.detach().requires_grad_()
            for name in above:
                output = self.blocks[name](output)
            loss = self.loss(output, cut.labels.argmax(1)) * len(h)
            (target,) = torch.autograd.grad(loss, h, create_graph=True)
            predicted = self.predictors[cut.name](cut.h, cut.labels)
            regression = (predicted - target).square().sum() / count
            regression.backward()
        return {"sg_loss": regression.detach()}


@pytest.fixture
def broken() -> Iterator[None]:
    learning.register("sg_away", StartsAway)
    learning.register("sg_leaky", LeakyTarget)
    yield
    learning.unregister("sg_away")
    learning.unregister("sg_leaky")


def verdict(claim: str, folder: Path, **settings: Any) -> str:
    lab = Lab(Settings(quick=True, **{"seeds": 2, **settings}), folder)
    found = registered()[claim]
    return found.judge(found.run(lab).measured)


@pytest.mark.parametrize("claim", EXACT)
def test_theory_holds(claim: str, tmp_path: Path) -> None:
    assert verdict(claim, tmp_path, seeds=1) == "holds"


def test_a_predictor_that_starts_away_from_zero_is_found(
    broken: None, tmp_path: Path
) -> None:
    assert verdict("M1", tmp_path, rule="sg_away", seeds=1) == "does not hold"
    assert verdict("M2", tmp_path, rule="sg_away", seeds=1) == "holds"


def test_a_target_that_is_not_detached_is_found(broken: None, tmp_path: Path) -> None:
    assert verdict("M2", tmp_path, rule="sg_leaky", seeds=1) == "does not hold"


def test_linear_regression_reaches_the_optimum_by_line_search() -> None:
    gaps, potential = _regression(0, (0.1, 1.8), 600)
    assert gaps[-1].max() < 1e-8
    assert np.all(np.diff(potential[:, 0]) <= 1e-12 * potential[0, 0])


def test_linear_regression_diverges_beyond_the_stable_rate() -> None:
    gaps, _ = _regression(0, (2.4,), 300)
    assert not gaps[-1, 0] < 1


def test_implied_loss_has_the_predictor_as_its_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    a, h = (
        torch.randn(*s, generator=generator, dtype=torch.float64)
        for s in ((4, 4), (5, 4))
    )
    a = a + a.T
    b, c = torch.randn(3, 4).double(), torch.randn(4).double()
    y = torch.eye(3, dtype=torch.float64)[[0, 1, 2, 0, 1]]
    h.requires_grad_()
    (gradient,) = torch.autograd.grad(implied_loss(a, b, c, h, y).sum(), h)
    torch.testing.assert_close(gradient, h.detach() @ a + y @ b + c)
    assert curl_ratio(a) == 0
    assert curl_ratio(torch.tensor([[0.0, 1.0], [-1.0, 0.0]]) + torch.eye(2)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("claim", ["C5", "C6", "C7", "T9", "C8"])
def test_convergence_and_surfaces(claim: str, tmp_path: Path) -> None:
    assert verdict(claim, tmp_path, seeds=5) == "holds"
