"""Linear predictors of equal size as one: three products for all of them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from repsim.learning.frame import Cut
from repsim.learning.lean import add_grad
from repsim.learning.predictors import LinearPredictor


class LinearStack(nn.Module):
    r"""Linear predictors behind several blocks of one width.

    .. math:: S_i(h_i, y) = h_i A_i + y B_i + C_i, \qquad i = 1 \dots m

    Parameters
    ----------
    names : sequence of str
        The blocks, from the input up.
    units : int
        Size of every h.
    classes : int
        Size of y; 0 without conditioning.
    """

    def __init__(self, names: Sequence[str], units: int, classes: int) -> None:
        super().__init__()
        self.places = {name: i for i, name in enumerate(names)}
        m = len(self.places)
        self.A = nn.Parameter(torch.zeros(m, units, units))
        self.B = nn.Parameter(torch.zeros(m, classes, units)) if classes else None
        self.C = nn.Parameter(torch.zeros(m, 1, units))

    def __getitem__(self, name: str) -> LinearPredictor:
        """Return one block's predictor; its numbers are the stack's own."""
        i, units = self.places[name], self.A.shape[-1]
        one = LinearPredictor(units, 0).to(self.A)
        one.A, one.C = nn.Parameter(self.A.data[i]), nn.Parameter(self.C.data[i, 0])
        one.B = None if self.B is None else nn.Parameter(self.B.data[i])
        return one

    def foresee(self, cuts: Sequence[Cut]) -> None:
        """Predict at all cuts, given from the output down."""
        self._h = torch.stack([cut.h for cut in cuts[::-1]])
        shift = self.C.detach()
        if self.B is not None:
            self._labels = cuts[0].labels.to(self._h.dtype)
            shift = shift + self._labels @ self.B.detach()
        self._predicted = torch.baddbmm(shift, self._h, self.A.detach())
        for cut, predicted in zip(cuts[::-1], self._predicted, strict=True):
            cut.predicted = predicted

    def learn(self, cuts: Sequence[Cut], count: int) -> Tensor:
        """Add the gradients of all regressions; return their summed mean distance."""
        targets = torch.stack([held(cut.target) for cut in cuts[::-1]])
        residual = self._predicted - targets
        distance = residual.square().sum() / residual.shape[1]
        residual *= 2 / count
        add_grad(self.A, self._h.transpose(1, 2) @ residual)
        add_grad(self.C, residual.sum(1, keepdim=True))
        if self.B is not None:
            add_grad(self.B, self._labels.t() @ residual)
        del self._h, self._predicted
        return distance


def held(value: Tensor | None) -> Tensor:
    """Return what an earlier call has left at a cut.

    Parameters
    ----------
    value : Tensor or None
        A field of a cut.

    Returns
    -------
    Tensor
        The value.

    Raises
    ------
    TypeError
        If it is not there yet: errors are formed from the output down.
    """
    if value is None:
        msg = "Expected errors to be formed from the output down, but one is missing."
        raise TypeError(msg)
    return value
