"""What a measure takes: matrices of any origin, checked once, read by rows."""

import warnings
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
import xarray as xr


class Rows(Protocol):
    """Anything with a shape, a dtype and row slices: an array that may live on disk."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (examples, units)."""

    @property
    def dtype(self) -> Any:
        """Return the dtype of the rows."""

    def __getitem__(self, rows: slice, /) -> Any:
        """Return some rows, in memory."""


Matrix: TypeAlias = np.ndarray | torch.Tensor | xr.DataArray | Rows
"""A representation, (examples, units)."""

DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
}
"""The precisions by name."""


def read(
    source: Matrix, start: int = 0, stop: int | None = None, *, check: bool = True
) -> torch.Tensor:
    """Return some rows as a tensor, without a copy where there is no need of one.

    Parameters
    ----------
    source : array, tensor, DataArray or Rows, shape (examples, units)
        Where the rows are.
    start, stop : int
        The first row, and the one after the last; None means the end.
    check : bool
        Whether to refuse NaN and infinity here, where the source has a name (`what`).

    Returns
    -------
    Tensor, shape (stop − start, units)
        In the source's own dtype (integers and booleans as float64).

    Raises
    ------
    ValueError
        If a number is not finite.
    """
    rows: Any = source[start:stop] if (start, stop) != (0, None) else source[:]
    if isinstance(rows, xr.DataArray):
        rows = rows.values
    if not isinstance(rows, torch.Tensor):
        array = np.asarray(rows)
        if array.dtype.kind in "iub":
            array = array.astype(np.float64)
        turned = any(stride < 0 for stride in array.strides)
        if turned or not (array.flags.writeable and array.dtype.isnative):
            # torch takes neither, and warns of what it must not write to.
            array = array.astype(array.dtype.newbyteorder("="), order="C")
        rows = torch.from_numpy(array)
    tensor: torch.Tensor = rows.detach()
    tensor = tensor if tensor.is_floating_point() else tensor.double()
    what = getattr(source, "what", None)
    if check and what is not None:
        check_finite(tensor, what)
    return tensor


def matrix(x: Matrix, name: str, least: int = 2) -> torch.Tensor:
    """Return one argument of a measure as a float64 matrix, or say what is wrong.

    Parameters
    ----------
    x : array, tensor or DataArray, shape (examples, units)
        What came.
    name : str
        The argument's name, for the error's sentence.
    least : int
        The fewest examples that make sense.

    Returns
    -------
    Tensor of float64, shape (examples, units)
        On the device where it was.

    Raises
    ------
    TypeError
        If it does not hold real numbers.
    ValueError
        If it is not a matrix with enough rows, or not finite.
    """
    if isinstance(x, xr.DataArray) and "example" in x.dims:
        x = x.transpose("example", ...)
    if not isinstance(x, torch.Tensor | np.ndarray | xr.DataArray):
        x = np.asarray(x)
    shape = tuple(x.shape)
    if len(shape) != 2:
        msg = f"Expected `{name}` to have shape (examples, units), but got {shape}"
        more = "; reduce maps and tokens first, as in repsim.reduce."
        raise ValueError(msg + (more if len(shape) > 2 else "."))
    if shape[0] < least or shape[1] < 1:
        msg = (
            f"Expected `{name}` to have at least {least} examples and one unit, but "
            f"got shape {shape}."
        )
        raise ValueError(msg)
    if isinstance(x, torch.Tensor):
        real = not x.is_complex()
    else:
        real = np.dtype(x.dtype).kind in "fiub"
    if not real:
        msg = f"Expected `{name}` to hold real numbers, but got {x.dtype}."
        raise TypeError(msg)
    rows = read(x).double()
    check_finite(rows, f"`{name}`")
    return rows


def pair(x: Matrix, y: Matrix, least: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Return both arguments of a measure as float64 matrices over the same examples.

    Parameters
    ----------
    x, y : array, tensor or DataArray, shape (examples, units)
        What came.
    least : int
        The fewest examples the measure is defined for.

    Returns
    -------
    tuple of Tensor
        Both in float64.

    Raises
    ------
    ValueError
        If the numbers of examples differ or are too few, or see `matrix`.
    """
    a, b = matrix(x, "x"), matrix(y, "y")
    if len(a) != len(b):
        msg = (
            "Expected `x` and `y` to have the same examples, but got "
            f"{len(a)} and {len(b)} rows."
        )
        raise ValueError(msg)
    check_examples(len(a), least)
    return a, b.to(a.device)


def check_examples(n: int, least: int) -> None:
    """Raise unless there are enough examples for the measure.

    Parameters
    ----------
    n : int
        How many there are.
    least : int
        How many are needed.

    Raises
    ------
    ValueError
        If there are fewer.
    """
    if n < least:
        msg = f"Expected at least {least} examples, but got {n}."
        raise ValueError(msg)


def check_finite(x: torch.Tensor, what: str) -> None:
    """Raise if a representation holds NaN or infinity.

    Parameters
    ----------
    x : Tensor
        The numbers.
    what : str
        How the error's sentence calls them.

    Raises
    ------
    ValueError
        If any is not finite.
    """
    # A sum is one pass without a temporary; it may overflow where no number did.
    if bool(torch.isfinite(x.sum())):
        return
    bad = int((~torch.isfinite(x)).sum())
    if bad:
        msg = (
            f"Expected {what} to be finite, but got {bad} NaN or infinite values of "
            f"{x.numel()}; look for a diverged run or a missing record."
        )
        raise ValueError(msg)


def is_constant(x: np.ndarray | torch.Tensor) -> bool:
    """Return whether every example has the very same representation.

    Parameters
    ----------
    x : array or tensor, shape (examples, units)
        A representation.

    Returns
    -------
    bool
        True for dead layers; differences by round-off count as differences.
    """
    first: Any = x[:1]
    # Most representations differ in the last row already.
    return bool((x[-1:] == first).all()) and bool((x == first).all())


def warn_constant(x: torch.Tensor, y: torch.Tensor | None = None) -> bool:
    """Warn if an argument is constant, and say whether one is.

    Parameters
    ----------
    x, y : Tensor, shape (examples, units)
        The arguments of a measure.

    Returns
    -------
    bool
        True where there is nothing to measure.
    """
    sides = (("x", x), ("y", y))
    flat = [
        f"`{name}`" for name, side in sides if side is not None and is_constant(side)
    ]
    if flat:
        warnings.warn(
            "No similarity (NaN) where an argument is constant over the examples: "
            f"{' and '.join(flat)}.",
            UserWarning,
            stacklevel=4,
        )
    return bool(flat)
