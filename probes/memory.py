"""What L-BFGS remembers: the last moves and how the gradient changed along them."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

SIZE = 12


class Memory:
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

    References
    ----------
    .. [1] R. Byrd, J. Nocedal, R. Schnabel, "Representations of quasi-Newton matrices
       and their use in limited memory methods", Mathematical Programming 63, 1994.
       https://doi.org/10.1007/BF01582063
    """

    def __init__(self) -> None:
        self.moves: list[Tensor] = []
        self.changes: list[Tensor] = []
        self.images: list[Tensor] = []
        self._stacked: tuple[Tensor, Tensor] | None = None
        self._products = np.zeros((0, 0))
        self._metric = np.zeros((0, 0))

    def add(self, move: Tensor, change: Tensor, image: Tensor) -> None:
        """Keep a pair, unless it shows no curvature.

        Parameters
        ----------
        move : Tensor
            Difference of coefficients.
        change : Tensor
            Difference of gradients.
        image : Tensor
            The inverse metric times `change`.
        """
        if not float((move * change).sum()) > 0:
            return
        for kept, new in (
            (self.moves, move),
            (self.changes, change),
            (self.images, image),
        ):
            kept.append(new)
            del kept[:-SIZE]
        self._restack()

    def change_metric(self, precondition: Callable[[Tensor], Tensor]) -> None:
        """Keep the pairs, seen in another metric.

        Parameters
        ----------
        precondition : callable
            The new inverse metric.
        """
        self.images = [precondition(change) for change in self.changes]
        self._restack()

    def _restack(self) -> None:
        if not self.moves:
            return
        moves, changes, images = (
            torch.stack(kept).flatten(1)
            for kept in (self.moves, self.changes, self.images)
        )
        self._stacked = moves, images
        self._products = (moves @ changes.T).cpu().numpy()
        self._metric = (changes @ images.T).cpu().numpy()

    def direction(self, slope: Tensor, steep: Tensor) -> Tensor:
        """Return minus the estimate times a gradient.

        Parameters
        ----------
        slope : Tensor
            The gradient.
        steep : Tensor
            The inverse metric times the gradient.

        Returns
        -------
        Tensor
            In the gradient's shape.
        """
        if self._stacked is None:
            return steep.neg()
        moves, images = self._stacked
        flat = slope.reshape(-1)
        along, across = (moves @ flat).cpu().numpy(), (images @ flat).cpu().numpy()
        scale = self._products[-1, -1] / self._metric[-1, -1]
        upper = np.triu(self._products)
        inner = np.linalg.solve(upper, along)
        middle = np.diag(self._products) * inner + scale * (self._metric @ inner)
        outer = np.linalg.solve(upper.T, middle - scale * across)
        step: Tensor = (
            steep.reshape(-1) * -scale
            - torch.from_numpy(outer).to(flat) @ moves
            + torch.from_numpy(scale * inner).to(flat) @ images
        )
        return step.reshape(slope.shape)
