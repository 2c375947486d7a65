"""Modules that predict the error at a block's output: S(h, y), alone or stacked."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from repsim.core.messages import is_whole, require, unknown
from repsim.learning.closed_form import add_product
from repsim.learning.passes import Cut


class Predictor(nn.Module):
    """A synthetic gradient S(h, y), zero before its first update.

    Parameters
    ----------
    body : Module
        From [h, y], joined along the feature axis, to the size of h.
    axis : int
        The feature axis: 1 for maps (n, channels, …), −1 for units and tokens.
    """

    def __init__(self, body: nn.Module, axis: int) -> None:
        super().__init__()
        self.body, self.axis = body, axis

    def forward(self, h: Tensor, labels: Tensor | None) -> Tensor:
        """Return the predicted per-sample error, of the shape of `h`."""
        output: Tensor = self.body(self.joined(h, labels))
        return output

    def joined(self, h: Tensor, labels: Tensor | None) -> Tensor:
        """Return h with the labels appended, constant over space or tokens."""
        if labels is None:
            return h
        rows = labels.to(h.dtype)
        if self.axis == 1:
            rows = rows.reshape(*rows.shape, *[1] * (h.ndim - 2))
            rows = rows.expand(-1, -1, *h.shape[2:])
        else:
            rows = rows.reshape(len(rows), *[1] * (h.ndim - 2), rows.shape[-1])
            rows = rows.expand(*h.shape[:-1], -1)
        return torch.cat([h, rows], self.axis)

    def jacobians(self, h: Tensor, labels: Tensor | None) -> list[Tensor]:
        """Return the derivative of S by h for every example, (units, units) each."""
        h, jacobians = h.detach(), []
        for i, row in enumerate(h):

            def alone(x: Tensor, i: int = i) -> Tensor:
                # Among the others: batch normalisation needs company.
                rows = torch.cat([h[:i], x[None], h[i + 1 :]])
                output: Tensor = self(rows, labels)[i]
                return output

            jacobian = torch.func.jacrev(alone)(row)
            jacobians.append(jacobian.reshape(row.numel(), row.numel()))
        return jacobians

    def learn(
        self,
        h: Tensor,
        labels: Tensor | None,
        predicted: Tensor,
        target: Tensor,
        count: int,
    ) -> Tensor:
        r"""Add the gradient of :math:`\sum_n \|S(h_n, y_n) - t_n\|^2` / count."""
        with torch.enable_grad():
            loss = (self(h, labels) - target).square().sum()
            torch.autograd.backward(loss / count, inputs=list(self.parameters()))
        distance: Tensor = loss.detach() / len(h)
        return distance


class LinearPredictor(Predictor):
    r"""The paper's default, :math:`S(h, y) = hA + yB + C`, all zero at first.

    A, C and B lie in one matrix, one below the other, so that
    :math:`S = [h, 1, y] W` is one product and its regression's gradient one more.

    Parameters
    ----------
    units : int
        Size of h.
    classes : int
        Size of y; 0 without conditioning.

    Attributes
    ----------
    weight : Parameter, shape (units + 1 + classes, units)
        W.
    A, B, C : Tensor
        Views of W: (units, units), (classes, units) or None, (units,).
    """

    def __init__(self, units: int, classes: int) -> None:
        nn.Module.__init__(self)
        self.axis, self.units, self.classes = -1, units, classes
        self.weight = nn.Parameter(torch.zeros(units + 1 + classes, units))

    @property
    def A(self) -> Tensor:  # noqa: N802
        """What h is multiplied by."""
        return self.weight[: self.units]

    @property
    def B(self) -> Tensor | None:  # noqa: N802
        """What the labels are multiplied by."""
        return self.weight[self.units + 1 :] if self.classes else None

    @property
    def C(self) -> Tensor:  # noqa: N802
        """What is added."""
        return self.weight[self.units]

    def forward(self, h: Tensor, labels: Tensor | None) -> Tensor:
        """Return hA + yB + C."""
        return (self.joined(h, labels) @ self.weight).reshape(h.shape)

    def joined(self, h: Tensor, labels: Tensor | None) -> Tensor:
        """Return [h, 1, y], a row for each example or token."""
        rows = h.reshape(-1, self.units)
        seen = rows.new_ones(len(rows), len(self.weight))
        seen[:, : self.units] = rows
        if self.classes:
            labels = h.new_zeros(len(h), self.classes) if labels is None else labels
            each = len(rows) // len(h)
            seen[:, self.units + 1 :] = labels.repeat_interleave(each, 0)
        return seen

    def jacobians(self, h: Tensor, labels: Tensor | None) -> list[Tensor]:
        """Return Aᵀ, the same for every example."""
        return [self.A.detach().T]

    def learn(
        self,
        h: Tensor,
        labels: Tensor | None,
        predicted: Tensor,
        target: Tensor,
        count: int,
    ) -> Tensor:
        """Add the gradient in closed form: no graph is built."""
        residual = (predicted - target).reshape(-1, self.units)
        add_product(self.weight, self.joined(h, labels), residual, 2 / count)
        distance: Tensor = torch.linalg.vector_norm(residual).square() / len(h)
        return distance


class SigmoidPredictor(Predictor):
    r"""A bounded one for log losses: :math:`S = d \odot \sigma(hW) + yB + C`.

    The paper recommends a pointwise sigmoid on a linear predictor where the loss is
    the log loss of separable data; this form of it is ours. d, B and C are zero at
    first, W is random.

    Parameters
    ----------
    features : int
        Size of h along the feature axis.
    classes : int
        Size of y; 0 without conditioning.
    axis : int
        The feature axis.
    kernel : int
        Side of the kernels for maps.
    spatial : int
        Number of spatial axes; 0 for units and tokens.
    """

    def __init__(
        self, features: int, classes: int, axis: int, kernel: int, spatial: int
    ) -> None:
        nn.Module.__init__(self)
        self.axis = axis
        self.gate = _affine(features, features, kernel, spatial, bias=False)
        self.d = nn.Parameter(torch.zeros(features, *[1] * spatial))
        self.label = _affine(max(classes, 1), features, 1, spatial)
        _zero(self.label)
        self.conditioned = classes > 0

    def forward(self, h: Tensor, labels: Tensor | None) -> Tensor:
        """Return d·sigmoid(hW) + yB + C."""
        if labels is None or not self.conditioned:
            labels = h.new_zeros(len(h), 1)
        rows = labels.to(h.dtype)
        if self.axis == 1:
            rows = rows.reshape(*rows.shape, *[1] * (h.ndim - 2))
        else:
            rows = rows.reshape(len(rows), *[1] * (h.ndim - 2), rows.shape[-1])
        output: Tensor = self.d * torch.sigmoid(self.gate(h)) + self.label(rows)
        return output


def make_predictor(
    kind: str,
    shape: Sequence[int],
    classes: int,
    *,
    maps: bool,
    hidden: Sequence[int] = (),
    kernel: int = 1,
    batch_norm: bool = False,
) -> Predictor:
    """Return a predictor for one block's output."""
    if kind not in KINDS:
        raise ValueError(unknown("predictor", kind, KINDS))
    spatial = len(shape) - 1 if maps else 0
    axis = 1 if maps else -1
    features = shape[0] if maps else shape[-1]
    if kind == "sigmoid":
        return SigmoidPredictor(features, classes, axis, kernel, spatial)
    if kind == "linear" and not maps:
        return LinearPredictor(features, classes)
    sizes = [features + classes, *(hidden if kind == "mlp" else ()), features]
    layers: list[nn.Module] = []
    for a, b in zip(sizes[:-1], sizes[1:], strict=True):
        layers.append(_affine(a, b, kernel, spatial))
        layers += [BatchNormalised(b, axis)] * batch_norm + [nn.ReLU()]
    layers = layers[: -2 if batch_norm else -1]
    _zero(layers[-1])
    return Predictor(nn.Sequential(*layers), axis)


class BatchNormalised(nn.Module):
    """Normalisation over the batch, and space or tokens, by the batch's own statistics.

    None are kept: a predictor is only ever asked about a batch, and is asked more than
    once about the same one, which running statistics would count twice.

    Parameters
    ----------
    features : int
        Size along the feature axis.
    axis : int
        The feature axis.
    """

    def __init__(self, features: int, axis: int) -> None:
        super().__init__()
        self.axis = axis
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, h: Tensor) -> Tensor:
        """Return h normalised, scaled and shifted, feature by feature."""
        rows = h.movedim(self.axis, 1)
        normed = nn.functional.batch_norm(
            rows, None, None, self.weight, self.bias, training=True
        )
        return normed.movedim(1, self.axis)


KINDS = ("linear", "sigmoid", "mlp")
"""Names that `predictor` takes."""


def _affine(a: int, b: int, kernel: int, spatial: int, bias: bool = True) -> nn.Module:
    """Return an affine map of features that keeps the resolution of maps."""
    if spatial == 0:
        return nn.Linear(a, b, bias=bias)
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[spatial - 1]
    return conv(a, b, kernel, padding=kernel // 2, bias=bias)


def _zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


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

    def predict(self, cuts: Sequence[Cut]) -> None:
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


def layer_sizes(value: int | Sequence[int], name: str) -> tuple[int, ...]:
    """Return hidden sizes; one number is one layer."""
    listed: Any = value if isinstance(value, Sequence) else (value,)
    right = not isinstance(value, str) and all(map(is_whole, listed))
    require(right, value, f"`{name}` to be a list of whole numbers")
    if not all(size > 0 for size in listed):
        msg = f"Expected `{name}` to hold positive sizes, but got {value}."
        raise ValueError(msg)
    return tuple(int(size) for size in listed)
