"""What a measure takes: matrices of any origin, checked once, read by rows."""

import warnings
from collections.abc import Sequence
from typing import Any, Literal, Protocol, TypeAlias, cast

import numpy as np
import scipy.sparse
import torch
import xarray as xr

from repsim.core.messages import unknown
from repsim.measures.alignment import aligned
from repsim.measures.magnitudes import MANTISSA


class RowSource(Protocol):
    """Anything with a shape, a dtype and row slices: an array that may live on disk."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (examples, units)."""

    @property
    def dtype(self) -> Any:
        """Return the dtype of the rows."""

    def __getitem__(self, rows: slice, /) -> Any:
        """Return some rows, in memory."""


Matrix: TypeAlias = np.ndarray | torch.Tensor | xr.DataArray | RowSource
"""A representation, (examples, units)."""

Nan: TypeAlias = Literal["raise", "omit"]
"""What to do about NaN: refuse it, or leave out the examples that hold it."""

DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "tf32": torch.float32,
    "bfloat16": torch.bfloat16,
}
"""The precisions by name."""


def read(
    source: Matrix, start: int = 0, stop: int | None = None, *, check: bool = True
) -> torch.Tensor:
    """Return some rows as a tensor, without a copy where there is no need of one."""
    rows: Any = source[start:stop] if (start, stop) != (0, None) else source[:]
    tensor = as_tensor(rows)
    what = getattr(source, "what", None)
    if check and what is not None:
        check_finite(tensor, what)
    return tensor


def as_tensor(rows: Any) -> torch.Tensor:
    """Return numbers of any origin as a dense tensor of floats, in their own precision.

    Whole numbers and wider floats become float64; masked values NaN.
    """
    if isinstance(rows, xr.DataArray):
        rows = rows.values
    if scipy.sparse.issparse(rows):
        rows = rows.toarray()
    if isinstance(rows, np.ma.MaskedArray):
        narrow = rows.dtype.kind == "f"
        numbers: Any = rows if narrow else rows.astype(np.float64)
        rows = numbers.filled(np.nan)
    if not isinstance(rows, torch.Tensor):
        rows = _from_numpy(np.asarray(rows))
    tensor: torch.Tensor = rows.detach()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    known = tensor.dtype in MANTISSA
    return tensor if known else tensor.double()


def _from_numpy(array: np.ndarray) -> torch.Tensor:
    """Return an array as a tensor; torch takes neither all dtypes nor all layouts."""
    if array.dtype.name == "bfloat16":
        # NumPy knows this dtype only by ml_dtypes, and torch only by its bits.
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    if array.dtype.kind in "iub" or array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    turned = any(stride < 0 for stride in array.strides)
    if turned or not (array.flags.writeable and array.dtype.isnative):
        # torch takes neither, and warns of what it must not write to.
        array = array.astype(array.dtype.newbyteorder("="), order="C")
    return torch.from_numpy(array)


def checked(x: Matrix, name: str, least: int = 2, nan: Nan = "raise") -> torch.Tensor:
    """Return an argument as a matrix in its own precision, or say what is wrong."""
    check_nan(nan)
    if isinstance(x, xr.DataArray) and "example" in x.dims:
        x = x.transpose("example", ...)
    if not (hasattr(x, "shape") and hasattr(x, "dtype")):
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
        if x.is_meta:
            msg = f"Expected `{name}` to hold numbers, but got a tensor on device meta."
            raise ValueError(msg)
        real = not x.is_complex()
    else:
        kind: np.dtype[Any] = np.dtype(cast(Any, x.dtype))
        real = kind.kind in "fiub" or kind.name == "bfloat16"
    if not real:
        msg = f"Expected `{name}` to hold real numbers, but got {x.dtype}."
        raise TypeError(msg)
    if nan == "raise" and isinstance(x, np.ma.MaskedArray) and np.ma.is_masked(x):
        masked = int(np.ma.getmaskarray(x).sum())
        msg = (
            f"Expected `{name}` without masked values, but got {masked} "
            f"of {x.size}; fill them, as in x.filled(0), or leave their examples out "
            'with nan="omit".'
        )
        raise ValueError(msg)
    rows = as_tensor(x)
    if nan == "raise":
        check_finite(rows, f"`{name}`")
    return rows


def check_nan(nan: str) -> str:
    """Return what to do about NaN, or say what there is to do."""
    if nan not in ("raise", "omit"):
        raise ValueError(unknown("nan", nan, ["raise", "omit"]))
    return nan


class WholeRows:
    """The rows of a source that hold no NaN in it or in any other, in memory."""

    def __init__(self, source: Matrix, rows: torch.Tensor) -> None:
        self._source, self._rows = source, rows
        self.shape, self.dtype = tuple(rows.shape), rows.dtype
        self.what = getattr(source, "what", "the representation")

    def __getitem__(self, rows: slice) -> torch.Tensor:
        """Return some rows."""
        return self._rows[rows]

    @property
    def constant(self) -> bool | None:
        """Return what the source remembers."""
        return getattr(self._source, "constant", None)

    @constant.setter
    def constant(self, flat: bool) -> None:
        note_constant(self._source, flat)


def without_nan(sources: Sequence[Matrix]) -> list[Matrix]:
    """Return the examples of several sources that none of them holds NaN of."""
    rows = [read(source, check=False) for source in sources]
    whole = ~torch.stack([one.isnan().any(dim=1) for one in rows]).any(dim=0)
    kept = [one[whole.to(one.device)] for one in rows]
    return [WholeRows(s, one) for s, one in zip(sources, kept, strict=True)]


def matrix(x: Matrix, name: str, least: int = 2) -> torch.Tensor:
    """Return one argument of a measure as a float64 matrix, or say what is wrong."""
    return checked(x, name, least).double()


def raw_pair(
    x: Matrix, y: Matrix, least: int = 2, nan: Nan = "raise"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return both arguments over the same examples, each in its own precision.

    Examples with ids on both sides are those of `x`, in its order; with nan="omit"
    those that hold NaN on either side are left out.
    """
    y = aligned(x, y)
    a, b = checked(x, "x", nan=nan), checked(y, "y", nan=nan)
    if len(a) != len(b):
        msg = (
            "Expected `x` and `y` to have the same examples, but got "
            f"{len(a)} and {len(b)} rows."
        )
        raise ValueError(msg)
    b = b.to(a.device)
    if nan == "omit":
        whole = ~(a.isnan().any(dim=1) | b.isnan().any(dim=1))
        a, b = a[whole], b[whole]
        check_finite(a, "`x`")
        check_finite(b, "`y`")
    check_examples(len(a), least)
    return a, b


def pair(
    x: Matrix, y: Matrix, least: int = 2, nan: Nan = "raise"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return both arguments of a measure as float64 matrices over the same examples."""
    a, b = raw_pair(x, y, least, nan)
    return a.double(), b.double()


def check_examples(n: int, least: int) -> None:
    """Raise unless there are enough examples for the measure."""
    if n < least:
        msg = f"Expected at least {least} examples, but got {n}."
        raise ValueError(msg)


def check_finite(x: torch.Tensor, what: str) -> None:
    """Raise if a representation holds NaN or infinity."""
    # A sum is one pass without a temporary; it may overflow where no number did.
    if not x.numel() or bool(torch.isfinite(x.sum())):
        return
    bad = int((~torch.isfinite(x)).sum())
    if bad:
        msg = (
            f"Expected {what} to be finite, but got {bad} NaN or infinite values of "
            f"{x.numel()}; look for a diverged run or a missing record."
        )
        raise ValueError(msg)


def is_constant(x: np.ndarray | torch.Tensor) -> bool:
    """Return whether every example has the very same representation."""
    first: Any = x[:1]
    # Most representations differ in the last row already.
    return bool((x[-1:] == first).all()) and bool((x == first).all())


def note_constant(source: Matrix, flat: bool) -> bool:
    """Let a source remember whether it is constant, so that nobody reads it again."""
    if hasattr(source, "constant"):
        source.constant = bool(flat)
    return flat


def warn_constant(x: torch.Tensor, y: torch.Tensor | None = None) -> bool:
    """Warn if an argument is constant, and say whether one is."""
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
