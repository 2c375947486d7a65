"""Losses as means over examples, and the labels they take."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from repsim.core.messages import require, unknown

LossFunction = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(output: Tensor, y: Tensor) -> Tensor:
    r"""Return the mean cross-entropy of a softmax, :math:`e = softmax(z) - y`.

    Labels are integers, or probabilities of the outputs' shape.
    """
    _check_vectors(output, y)
    return nn.functional.cross_entropy(output, y)


def mse(output: Tensor, y: Tensor) -> Tensor:
    r"""Return :math:`\frac{1}{2n}\sum_n \|p_n - y_n\|^2`, so that e = p − y.

    Integer labels are compared as one-hot vectors.
    """
    _check_vectors(output, y)
    target = one_hot(y, output.shape[-1]).to(output.dtype)
    return 0.5 * (output - target).square().sum() / len(output)


def _check_vectors(output: Tensor, y: Tensor) -> None:
    """Refuse labels that are neither integers nor of the outputs' shape."""
    if y.is_floating_point() and y.shape != output.shape:
        msg = (
            f"Expected labels `y` of the shape {tuple(output.shape)} of the outputs, "
            f"or integers, but got {tuple(y.shape)} of {y.dtype}."
        )
        raise ValueError(msg)


LOSSES: dict[str, LossFunction] = {"cross_entropy": cross_entropy, "mse": mse}
"""Names that `loss` takes."""


def resolve(loss: str | LossFunction) -> tuple[str, LossFunction]:
    """Return the name of a loss and the loss as a mean over examples."""
    if isinstance(loss, str):
        if loss not in LOSSES:
            raise ValueError(unknown("loss", loss, LOSSES))
        return loss, LOSSES[loss]
    right = callable(loss) and not isinstance(loss, type)
    wanted = "`loss` to be a name or a function f(output, y), not a class"
    require(right, loss, wanted)
    name = getattr(loss, "__name__", type(loss).__name__)
    return name, _averaged(name, loss)


def _averaged(name: str, loss: LossFunction) -> LossFunction:
    """Return a loss as its mean over examples, whatever its own reduction."""
    reduction = getattr(loss, "reduction", None)
    each = copy.copy(loss)
    if reduction is not None:
        each.reduction = "none"  # type: ignore[attr-defined]

    def mean(output: Tensor, y: Tensor) -> Tensor:
        value = _called(name, each, output, y)
        if reduction == "batchmean":
            return value.sum() / len(output)
        return value if value.ndim == 0 else value.mean()

    return mean


def _called(name: str, loss: LossFunction, output: Tensor, y: Tensor) -> Tensor:
    """Return a loss, or say what it cannot take and what it must return."""
    try:
        value = loss(output, y)
    except (RuntimeError, ValueError, IndexError) as error:
        msg = (
            f"Expected labels that loss {name!r} takes with outputs of the shape "
            f"{tuple(output.shape)}, but with `y` of the shape {tuple(y.shape)} and "
            f"{y.dtype} it raised: {error}"
        )
        raise ValueError(msg) from error
    require(isinstance(value, Tensor), value, f"loss {name!r} to return a tensor")
    if value.ndim and len(value) != len(output):
        msg = (
            f"Expected loss {name!r} to return one number, or one for each of the "
            f"{len(output)} examples, but got the shape {tuple(value.shape)}."
        )
        raise ValueError(msg)
    return value


def one_hot(y: Tensor, classes: int) -> Tensor:
    """Return labels as vectors: integers one-hot, vectors as they are."""
    if y.is_floating_point():
        return y
    rows = torch.zeros(len(y), classes, device=y.device)
    return rows.scatter_(1, y.long()[:, None], 1.0)


def check_labels(y: Tensor, n: int, classes: int, what: str = "y") -> Tensor:
    """Return labels that fit the network, integers as int64."""
    if y.ndim == 0 or len(y) != n:
        msg = f"Expected `{what}` to have {n} labels, one a row of `x`, but got shape "
        raise ValueError(msg + f"{tuple(y.shape)}.")
    if y.is_floating_point():
        if not torch.isfinite(y).all():
            msg = f"Expected `{what}` to be finite, but got NaN or inf."
            raise ValueError(msg)
        return y
    if y.ndim != 1:
        msg = f"Expected integer labels `{what}` of shape ({n},), but got "
        raise ValueError(msg + f"{tuple(y.shape)}.")
    if n:
        low, high = (int(v) for v in torch.aminmax(y.long()))
        if low < 0 or high >= classes:
            msg = (
                f"Expected labels `{what}` between 0 and {classes - 1}, one of the "
                f"network's {classes} outputs, but got {low if low < 0 else high}."
            )
            raise ValueError(msg)
    return y.long()
