"""Losses as means over examples, and the labels they take."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from repsim.core.messages import unknown
from repsim.learning.checks import require

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
    """Return the name of a loss and the loss as a mean over examples.

    Parameters
    ----------
    loss : str or callable
        "cross_entropy", "mse" or f(output, y). A module of PyTorch with a
        `reduction` is averaged over examples whatever that says; a callable that
        returns one number is taken to be the mean over examples, and one that
        returns a value for each example is averaged. The divisor is always the
        number of examples, also where class weights are given, so that an example's
        error does not depend on which others are in its batch.

    Returns
    -------
    name : str
        For provenance.
    function : callable
        (output, y) → 0-d tensor.

    Raises
    ------
    ValueError
        If the name is unknown.
    TypeError
        If `loss` is neither a name nor a function, or a class in place of one.

    Examples
    --------
    >>> name, f = resolve(nn.CrossEntropyLoss(reduction="sum"))
    >>> f(torch.zeros(4, 2), torch.zeros(4, dtype=torch.long)).item()
    0.6931471824645996
    """
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
    """Return labels as vectors: integers one-hot, vectors as they are.

    Parameters
    ----------
    y : Tensor, shape (n,) of integers or (n, classes)
        Labels.
    classes : int
        Number of classes.

    Returns
    -------
    Tensor, shape (n, classes)
        Float for integer labels, else `y` itself.

    Examples
    --------
    >>> one_hot(torch.tensor([1, 0]), 2)
    tensor([[0., 1.],
            [1., 0.]])
    """
    if y.is_floating_point():
        return y
    rows = torch.zeros(len(y), classes, device=y.device)
    return rows.scatter_(1, y.long()[:, None], 1.0)


def check_labels(y: Tensor, n: int, classes: int, what: str = "y") -> Tensor:
    """Return labels that fit the network, integers as int64.

    Parameters
    ----------
    y : Tensor
        Integer labels (n,), or float vectors (n, …).
    n : int
        Number of examples.
    classes : int
        Number of outputs.
    what : str
        The argument's name, for the error's sentence.

    Returns
    -------
    Tensor
        `y`, integers as int64.

    Raises
    ------
    ValueError
        If there are not n labels, integers have a second axis, one lies outside
        0 … classes − 1, or a float label is NaN or infinite.
    """
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
