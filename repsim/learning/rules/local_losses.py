"""Local losses: every block learns from a classifier of its own.

From the papers: a small head reads each block's output, its loss trains the head and
the block, and nothing goes further down (decoupled greedy learning); a second loss
compares the similarities of examples with those of their labels. Ours: maps are
averaged to 2 × 2 and tokens to one before they are read; heads have the rule's rate.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor, nn

from repsim.core.messages import number
from repsim.learning.closed_form import add_grad
from repsim.learning.optimisers import make_optimizer
from repsim.learning.passes import Cut
from repsim.learning.randomness import seeded
from repsim.learning.rule import Rule
from repsim.learning.rule_info import Common, Info
from repsim.learning.rules.predictors import layer_sizes


class LocalLosses(Rule):
    r"""Give every hidden block a loss of its own (`local`).

    .. math::
        \epsilon_i = \frac{\partial}{\partial h_i} \Big[ (1 - \beta) L(c_i(h_i), y)
        + \beta \, \tfrac{1}{n} \| S(g_i(h_i)) - S(y) \|_F^2 \Big]

    with the head :math:`c_i`, a linear map :math:`g_i`, and :math:`S` the matrix of
    cosines between the centred examples of a batch. :math:`\beta = 0` is decoupled
    greedy learning, :math:`\beta = 0.99` "predsim". With :math:`\beta > 0` an
    example's error depends on the others of its batch.

    Parameters
    ----------
    network, **options
        As in `Rule`.
    head : int or sequence of int
        Hidden sizes of the heads; none are linear classifiers.
    similarity : float
        β, between 0 and 1.

    Attributes
    ----------
    heads, maps : dict
        Hidden block → its c, and its g where β is not zero.

    Raises
    ------
    TypeError
        If an option has a wrong type.
    ValueError
        If `similarity` does not lie between 0 and 1, a size is not positive, or the
        network's output is no vector.

    References
    ----------
    Nøkland and Eidnes 2019, arXiv:1901.06656; Belilovsky, Eickenberg and Oyallon
    2019, arXiv:1812.11446.

    Examples
    --------
    >>> import repsim
    >>> net = repsim.networks.mlp(4, hidden=[3, 3], classes=2, seed=0)
    >>> rule = repsim.learning.make("local", net)
    >>> sorted(rule.step(torch.rand(8, 4), torch.arange(8) % 2))
    ['local_loss', 'loss']
    """

    name: ClassVar[str] = "local"
    needs_incoming: ClassVar[bool] = False
    info: ClassVar[Info] = Info(
        method="Local losses",
        error="dL(c_i(h_i), y)/dh_i",
        learned="c, a classifier at every block",
        update_locked=False,
        backward_locked=False,
        sees_error=False,
        source="Nøkland and Eidnes 2019; Belilovsky et al. 2019",
    )

    def __init__(
        self,
        network: nn.Module,
        *,
        head: int | Sequence[int] = (),
        similarity: float = 0.0,
        **options: Unpack[Common],
    ) -> None:
        super().__init__(network, **options)
        self.head = layer_sizes(head, "head")
        self.similarity = number(similarity, "similarity")
        if not 0 <= self.similarity <= 1:
            msg = f"Expected `similarity` between 0 and 1, but got {similarity}."
            raise ValueError(msg)
        self.options |= {"head": list(self.head), "similarity": self.similarity}

    @property
    def cuts(self) -> list[str]:
        """Every hidden block."""
        return self.hidden

    def build(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Make the heads, and where they are asked for the maps."""
        self.batch_checks.need_vectors("the heads of rule 'local'")
        like = next(self.network.parameters())
        outputs = shapes[self.last][-1]
        self.heads: dict[str, nn.Module] = {}
        self.maps: dict[str, nn.Module] = {}
        with seeded(self.seed):
            for name in self.hidden:
                self.heads[name] = _head(shapes[name], self.head, outputs).to(like)
                if self.similarity:
                    units = _read_size(shapes[name])
                    layers = [*_reader(shapes[name]), nn.Linear(units, units)]
                    self.maps[name] = nn.Sequential(*layers).to(like)
        self.found: dict[str, tuple[list[Tensor], Tensor]] = {}
        self.optimizers["heads"] = make_optimizer(
            [p for name in self.hidden for p in self.learned(name)],
            self.lr,
            self.factory,
        )

    def learned(self, name: str) -> list[nn.Parameter]:
        """Return what is learned beside a block."""
        modules = (d[name] for d in (self.heads, self.maps) if name in d)
        return [p for module in modules for p in module.parameters()]

    def error(self, cut: Cut) -> Tensor:
        """Return the derivative of the block's loss, and keep that of its head."""
        parameters = self.learned(cut.name)
        with torch.enable_grad():
            h = cut.h.detach().requires_grad_()
            loss = self._loss(cut.name, h, cut.y, cut.labels) * len(h)
            to_h, *rest = torch.autograd.grad(
                loss, [h, *parameters], materialize_grads=True
            )
        self.found[cut.name] = (rest, loss.detach() / len(h))
        return to_h

    def _loss(self, name: str, h: Tensor, y: Tensor, labels: Tensor) -> Tensor:
        """Return one block's loss, the mean over examples."""
        beta = self.similarity
        loss = (1 - beta) * self.loss(self.heads[name](h), y)
        if beta:
            gap = cosines(self.maps[name](h)) - cosines(labels.to(h.dtype))
            loss = loss + beta * gap.square().sum() / len(h)
        return loss

    def learn(self, cut: Cut, count: int) -> dict[str, Tensor]:
        """Add the gradients of the head."""
        grads, loss = self.found.pop(cut.name)
        for parameter, grad in zip(self.learned(cut.name), grads, strict=True):
            add_grad(parameter, grad / count)
        return {"local_loss": loss}

    def extra_state(self) -> dict[str, Any]:
        """Return heads and maps."""
        return {
            kind: {name: module.state_dict() for name, module in modules.items()}
            for kind, modules in (("heads", self.heads), ("maps", self.maps))
        }

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Take heads and maps back."""
        for kind, modules in (("heads", self.heads), ("maps", self.maps)):
            for name, module in modules.items():
                module.load_state_dict(state[kind][name])


def cosines(rows: Tensor) -> Tensor:
    """Return the cosines between centred rows, (n, n); zero where a row is constant."""
    rows = rows - rows.mean(1, keepdim=True)
    rows = nn.functional.normalize(rows)
    return rows @ rows.T


def _reader(shape: Sequence[int]) -> list[nn.Module]:
    """Return the layers that make one vector of a block's output."""
    if len(shape) == 3:
        return [nn.AdaptiveAvgPool2d(tuple(min(2, n) for n in shape[1:])), nn.Flatten()]
    return (
        [nn.AdaptiveAvgPool2d((1, shape[1])), nn.Flatten()] if len(shape) == 2 else []
    )


def _read_size(shape: Sequence[int]) -> int:
    if len(shape) == 3:
        return int(shape[0] * min(2, shape[1]) * min(2, shape[2]))
    return int(shape[-1])


def _head(shape: Sequence[int], hidden: Sequence[int], outputs: int) -> nn.Module:
    """Return a classifier of a block's output."""
    sizes = [_read_size(shape), *hidden, outputs]
    layers = _reader(shape)
    for a, b in zip(sizes[:-1], sizes[1:], strict=True):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
