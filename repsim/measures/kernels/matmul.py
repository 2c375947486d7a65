"""Products of float32 rows by the fastest routine that torch brings."""

import torch

_WORTH = 1 << 22
"""Multiplications from which another routine repays preparing its left side."""


class Rows:
    """The left side of products x yᵀ, prepared once for several right sides."""

    def __init__(self, x: torch.Tensor) -> None:
        self._x = x
        there = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        self._able = x.device.type == "cpu" and x.dtype == torch.float32 and there
        self._prepared: torch.Tensor | None = None

    def times(
        self,
        y: torch.Tensor,
        offsets: torch.Tensor | None = None,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return x yᵀ + offsets."""
        if self._able and self._x.numel() * len(y) >= _WORTH:
            if self._prepared is None:
                self._prepared = self._x.to_mkldnn()
            found = torch.nn.functional.linear(self._prepared, y, offsets).to_dense()
            return found if out is None else out.copy_(found)
        if offsets is None:
            return torch.mm(self._x, y.T, out=out)
        return torch.addmm(offsets, self._x, y.T, out=out)
