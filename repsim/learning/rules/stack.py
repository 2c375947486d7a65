"""Linear predictors of equal size as one: two products for all of them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from repsim.learning.grads import add_product
from repsim.learning.rules.predictors import LinearPredictor
from repsim.learning.segments import Cut


class LinearStack(nn.Module):
    r"""Linear predictors behind several blocks of one width.

    .. math:: S_i(h_i, y) = [h_i, 1, y] W_i, \qquad i = 1 \dots m

    One product predicts for all of them, and one more is the gradient of all their
    regressions.

    Parameters
    ----------
    names : sequence of str
        The blocks, from the input up.
    units : int
        Size of every h.
    classes : int
        Size of y; 0 without conditioning.

    Attributes
    ----------
    weight : Parameter, shape (m, units + 1 + classes, units)
        The predictors' matrices.
    """

    def __init__(self, names: Sequence[str], units: int, classes: int) -> None:
        super().__init__()
        self.places = {name: i for i, name in enumerate(names)}
        self.units, self.classes = units, classes
        rows = units + 1 + classes
        self.weight = nn.Parameter(torch.zeros(len(self.places), rows, units))
        self._seen = self._predicted = self._residual = torch.empty(0)

    def __getitem__(self, name: str) -> LinearPredictor:
        """Return one block's predictor; its numbers are the stack's own."""
        i, grad = self.places[name], self.weight.grad
        one = LinearPredictor(self.units, self.classes)
        one.weight = nn.Parameter(self.weight.data[i])
        one.weight.grad = None if grad is None else grad[i]
        return one

    def foresee(self, cuts: Sequence[Cut]) -> None:
        """Predict at all cuts, given from the output down."""
        blocks, rows, units = self.weight.shape
        examples = len(cuts[0].h)
        if self._seen.shape != (blocks, examples, rows):
            self._seen = self.weight.new_ones(blocks, examples, rows)
        for cut, place in zip(cuts[::-1], self._seen[..., :units], strict=True):
            place.copy_(cut.h)
        if self.classes:
            self._seen[..., units + 1 :] = cuts[0].labels
        self._predicted = torch.bmm(self._seen, self.weight.detach())
        for cut, predicted in zip(cuts[::-1], self._predicted, strict=True):
            cut.predicted = predicted

    def learn(self, cut: Cut, count: int) -> Tensor | None:
        """Keep one residual; at the lowest cut, add all gradients."""
        if cut.above is None:
            self._residual = torch.empty_like(self._predicted)
        place = self.places[cut.name]
        residual = self._residual[place]
        torch.sub(held(cut.predicted), held(cut.target), out=residual)
        if place:
            return None
        add_product(self.weight, self._seen, self._residual, 2 / count)
        distance: Tensor = torch.linalg.vector_norm(self._residual).square()
        return distance / len(cut.h)


def held(value: Tensor | None) -> Tensor:
    """Return what an earlier call has left at a cut."""
    if value is None:
        msg = "Expected errors to be formed from the output down, but one is missing."
        raise TypeError(msg)
    return value
