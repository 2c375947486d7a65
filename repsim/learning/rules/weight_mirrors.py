"""Weight mirrors: feedback weights that learn the forward weights from noise.

From the paper: noise is sent through a layer, and the product of what came out and what
went in, averaged, is the forward weight; a Hebbian rule moves the feedback towards it.
Ours: mirroring runs beside every update instead of in phases of its own, responses are
taken before the activation, and the decay is the mirror's rate, so that the feedback
becomes the weight itself and no multiple of it.
"""

from typing import ClassVar, Unpack

import torch
from torch import Tensor, nn

from repsim.core.messages import number, whole
from repsim.learning.rule_info import Common, Info
from repsim.learning.rules.feedback import Convolution, FeedbackAlignment, Weighted


class WeightMirrors(FeedbackAlignment):
    r"""Let the feedback weights learn from noise (`weight_mirrors`).

    .. math::
        \epsilon_i = (\epsilon_{i+1} \odot \phi'(a_{i+1})) B_{i+1}, \qquad
        B \leftarrow (1 - \rho) B + \rho \, \tfrac{1}{m} \sum_{k=1}^m (W z_k) z_k^\top

    with standard normal :math:`z`, drawn anew before every update, so that B follows W
    with a lag of about 1/ρ updates. On maps the sum runs over positions, too.

    Parameters
    ----------
    network, **options
        As in `Rule`.
    mirror_rate : float
        ρ, above 0 and at most 1.
    samples : int
        m, at least 1.

    Attributes
    ----------
    feedback : dict
        Module path → B.

    Raises
    ------
    TypeError
        If an option has a wrong type.
    ValueError
        If an option is out of range.

    References
    ----------
    Akrout et al. 2019, arXiv:1904.05391.

    Examples
    --------
    >>> import repsim
    >>> net = repsim.networks.mlp(4, hidden=[3], classes=2, seed=0)
    >>> rule = repsim.learning.make("weight_mirrors", net, mirror_rate=0.5, samples=999)
    >>> for _ in range(9):
    ...     _ = rule.step(torch.rand(8, 4), torch.arange(8) % 2)
    >>> gap = (net.output.weight - rule.feedback["output"]).norm()
    >>> bool(gap < 0.2 * net.output.weight.norm())
    True
    """

    name: ClassVar[str] = "weight_mirrors"
    in_parts: ClassVar[bool] = False
    info: ClassVar[Info] = Info(
        method="Weight mirrors",
        error="(e_{i+1} * f'(a_{i+1})) B_{i+1}",
        learned="B, from what noise becomes in a layer",
        update_locked=True,
        backward_locked=True,
        sees_error=False,
        source="Akrout et al. 2019; no phases and the decay ours",
    )

    def __init__(
        self,
        network: nn.Module,
        *,
        mirror_rate: float = 0.1,
        samples: int = 128,
        **options: Unpack[Common],
    ) -> None:
        super().__init__(network, **options)
        self.mirror_rate = number(mirror_rate, "mirror_rate")
        if not 0 < self.mirror_rate <= 1:
            msg = (
                "Expected `mirror_rate` to be above 0 and at most 1, but got "
                f"{mirror_rate}."
            )
            raise ValueError(msg)
        self.samples = whole(samples, "samples", 1)
        self.options |= {"mirror_rate": self.mirror_rate, "samples": self.samples}

    def gradients(self, x: Tensor, y: Tensor, count: int) -> dict[str, Tensor]:
        """Let the feedback look into the mirror, and add the gradients under it."""
        for modules in self.weighted.values():
            for path, module in modules.items():
                seen = self._mirrored(module)
                self.feedback[path].lerp_(seen, self.mirror_rate)
        return super().gradients(x, y, count)

    def _mirrored(self, module: Weighted) -> Tensor:
        """Return the weight as noise shows it, without bias."""
        weight = module.weight.detach()
        if isinstance(module, nn.Linear):
            z = self._noise(weight, self.samples, module.in_features)
            return (z @ weight.T).T @ z / self.samples
        # Large enough that every tap meets noise, whatever padding and stride are.
        size = [
            dilation * (kernel - 1) + 1 + stride
            for dilation, kernel, stride in zip(
                module.dilation, module.kernel_size, module.stride, strict=True
            )
        ]
        z = self._noise(weight, self.samples, module.in_channels, *size)
        response = module._conv_forward(z, weight, None)
        ones = torch.ones_like(z), torch.ones_like(response)
        return _products(module, z, response) / _products(module, *ones)

    def _noise(self, like: Tensor, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator).to(like)


def _products(module: Convolution, z: Tensor, response: Tensor) -> Tensor:
    """Return a kernel's sums of response times input over examples and positions."""
    kernel = torch.zeros_like(module.weight).requires_grad_()
    with torch.enable_grad():
        sent = module._conv_forward(z, kernel, None)
    return torch.autograd.grad(sent, kernel, response)[0]
