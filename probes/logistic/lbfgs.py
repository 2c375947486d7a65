"""What L-BFGS remembers: the last moves and how the gradient changed along them."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

SIZE = 12


class LBFGSMemory:
    r"""The inverse Hessian's estimate from the last moves, in compact form.

    With S the moves, Y the gradients' changes, H₀ the inverse metric,
    γ = s·y / y·H₀y of the newest pair, R the upper triangle of SᵀY and D its diagonal,

    .. math::
        H = \gamma H_0 + \begin{pmatrix} S & \gamma H_0 Y \end{pmatrix}
        \begin{pmatrix} R^{-T} (D + \gamma Y^T H_0 Y) R^{-1} & -R^{-T} \\
        -R^{-1} & 0 \end{pmatrix}
        \begin{pmatrix} S^T \\ \gamma Y^T H_0 \end{pmatrix}

    which takes two products with matrices in place of the usual two loops. H₀Y costs
    nothing: it is the difference of two preconditioned gradients.
    """

    def __init__(self) -> None:
        self._pairs: Tensor | None = None
        self._changes: Tensor | None = None
        self._shape = torch.Size([])
        self._products: np.ndarray = np.zeros((0, 0))
        self._metric: np.ndarray = np.zeros((0, 0))
        self._inverse: np.ndarray = np.zeros((0, 0))

    def add(self, move: Tensor, change: Tensor, image: Tensor) -> None:
        """Keep a pair, unless it shows no curvature."""
        self._shape = change.shape
        moved, changed = move.reshape(1, -1), change.reshape(1, -1)
        if not float(torch.dot(moved[0], changed[0])) > 0:
            return
        both = torch.stack([moved, image.reshape(1, -1)])
        if self._pairs is None or self._changes is None:
            self._pairs, self._changes = both, changed
        else:
            first = int(len(self._changes) == SIZE)
            self._pairs = torch.cat([self._pairs[:, first:], both], 1)
            self._changes = torch.cat([self._changes[first:], changed])
        self._tabulate()

    def change_metric(self, precondition: Callable[[Tensor], Tensor]) -> None:
        """Keep the pairs, seen in another metric."""
        if self._pairs is not None and self._changes is not None:
            images = [
                precondition(change.view(self._shape)).reshape(-1)
                for change in self._changes
            ]
            self._pairs = torch.stack([self._pairs[0], torch.stack(images)])
            self._tabulate()

    def _tabulate(self) -> None:
        """Compute the small tables: SᵀY, YᵀH₀Y and the inverse of R."""
        assert self._pairs is not None and self._changes is not None
        tables = (self._pairs @ self._changes.T).cpu().numpy()
        self._products, self._metric = tables[0], tables[1]
        upper = np.triu(self._products)
        self._inverse = np.linalg.inv(upper)

    def direction(self, slope: Tensor, steep: Tensor) -> Tensor:
        """Return minus the estimate times a gradient."""
        if self._pairs is None:
            return steep.neg()
        flat = slope.reshape(-1)
        along, across = (self._pairs @ flat).cpu().numpy()
        scale = self._products[-1, -1] / self._metric[-1, -1]
        inner = self._inverse @ along
        middle = np.diag(self._products) * inner + scale * (self._metric @ inner)
        outer = self._inverse.T @ (middle - scale * across)
        weights = torch.from_numpy(np.concatenate([-outer, scale * inner])).to(flat)
        step = torch.addmv(
            steep.reshape(-1), self._pairs.flatten(0, 1).T, weights, beta=-scale
        )
        return step.view(slope.shape)
