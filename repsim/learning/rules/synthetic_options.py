"""What the options of synthetic gradients mean: places, sizes and targets."""

from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any, Literal, TypeGuard

from torch import Tensor

from repsim.core.messages import unknown
from repsim.learning.checks import number, require

At = Literal["middle", "every"] | int | Sequence[int]
Targets = Literal["bootstrapped", "true"] | float


def places(at: At, depth: int) -> list[int]:
    """Return the numbers of hidden blocks that `at` means, in order."""
    if isinstance(at, str):
        if at == "middle":
            return [max(depth // 2, 1)]
        if at == "every":
            return list(range(1, depth + 1))
        if not all(part.strip().isdigit() for part in at.split("+")):
            raise ValueError(unknown("at", at, ["middle", "every", "hidden numbers"]))
        at = [int(part) for part in at.split("+")]
    listed: Any = [at] if _is_whole(at) else at
    wanted = "`at` to be 'middle', 'every' or a list of hidden-layer numbers"
    require(isinstance(listed, Iterable) and not isinstance(at, Tensor), at, wanted)
    for place in listed:
        require(_is_whole(place), place, f"{wanted}, which are whole")
    numbers = sorted(int(place) for place in listed)
    wrong = [n for n in numbers if not 1 <= n <= depth]
    if wrong or not numbers or len(set(numbers)) < len(numbers):
        msg = (
            f"Expected `at` to hold different numbers of hidden layers, 1 to {depth}, "
            f"but got {numbers}."
        )
        raise ValueError(msg)
    return numbers


def _is_whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, Integral) and not isinstance(value, bool)


def hidden_sizes(predictor: str, sizes: int | Sequence[int] | None) -> tuple[int, ...]:
    """Return the hidden sizes of the predictors, none but for "mlp"."""
    if predictor != "mlp":
        if sizes is None:
            return ()
        msg = (
            "Expected `predictor_hidden` only with predictor='mlp', but got it with "
            f"{predictor!r}."
        )
        raise ValueError(msg)
    found = (1024, 1024) if sizes is None else sizes
    listed: Any = (found,) if _is_whole(found) else found
    right = isinstance(listed, Sequence) and all(map(_is_whole, listed))
    require(right, sizes, "`predictor_hidden` to be a list of whole numbers")
    if not all(size > 0 for size in listed):
        msg = f"Expected `predictor_hidden` to hold positive sizes, but got {sizes}."
        raise ValueError(msg)
    return tuple(int(size) for size in listed)


def trace_of(targets: Targets) -> float:
    """Return λ of BP(λ) for the argument `targets`."""
    named = {"bootstrapped": 0.0, "true": 1.0}
    if targets is True:
        return 1.0
    if isinstance(targets, str):
        if targets not in named:
            raise ValueError(unknown("targets", targets, [*named, "a number 0 to 1"]))
        return named[targets]
    found = number(targets, "targets")
    if not 0 <= found <= 1:
        msg = f"Expected `targets` between 0 and 1, but got {targets}."
        raise ValueError(msg)
    return found
