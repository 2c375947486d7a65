"""Linear CKA of activations that are never kept: exact, in any batches."""

import json
import warnings
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
import xarray as xr

from repsim.core.provenance import repsim_version
from repsim.datasets.recordings import layers, matrix_layers
from repsim.measures.alignment import aligned
from repsim.measures.kernels import ratios
from repsim.measures.kernels.moments import Moments
from repsim.measures.magnitudes import exponent, shifted
from repsim.measures.matrices import check_examples, matrix

Batch: TypeAlias = Mapping[str, Any] | xr.Dataset


class StreamingCKA:
    r"""Linear CKA between all layers of one or two networks, from batches.

    Song et al.'s unbiased HSIC of linear kernels is a function of sums over examples
    (:math:`X^T Y`, and sums of x, y, their squared norms and products of these), kept
    here in float64 about a common origin. The value is that of all examples at once,
    `compare(a, b, "cka", precision="float64")`, for every way of cutting them.

    Parameters
    ----------
    debiased : bool
        Which estimator, as in `cka`.

    See Also
    --------
    repsim.compare : Of activations that were recorded.

    Notes
    -----
    Memory is 8 bytes × (units of a) × (units of b), and does not grow with the
    examples; an update costs 2 × examples × (units of a) × (units of b) operations.

    References
    ----------
    Song et al. (2012), JMLR 13; Kornblith et al. (2019), arXiv:1905.00414.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(20, 3))
    >>> streaming = StreamingCKA()
    >>> for batch in (x[:7], x[7:8], x[8:]):
    ...     streaming.update({"hidden": batch, "output": batch[:, :2]})
    >>> cells = streaming.compute()
    >>> round(cells.sel(layer_a="hidden", layer_b="hidden").item(), 6)
    1.0
    """

    def __init__(self, debiased: bool = True) -> None:
        self.debiased = debiased
        self._names: tuple[list[str], list[str] | None] | None = None
        self._moments: Moments | None = None

    @property
    def examples(self) -> int:
        """Return how many examples were seen."""
        return 0 if self._moments is None else self._moments.examples

    def update(self, batch_a: Batch, batch_b: Batch | None = None) -> None:
        """Add the activations of some examples.

        Parameters
        ----------
        batch_a : mapping of layer to (examples, units), or Dataset
            What one network says of the examples: tensors, arrays, what `repsim.tap`
            has seen, or a slice of a recording at one step.
        batch_b : mapping, Dataset or None
            What another network says of the same examples; None compares the layers
            of `batch_a` with each other. Where both sides carry ids, the examples
            are brought to the order of `batch_a`.

        Raises
        ------
        TypeError
            If a batch is not a mapping.
        ValueError
            If layers, units or examples do not match those before or the other side,
            a layer is not a matrix, or a value is not finite. Nothing is added then.
        """
        left = _matrices(batch_a, "batch_a")
        like = next(iter(batch_a.values()))
        right = None if batch_b is None else _matrices(batch_b, "batch_b", like)
        columns = [*left.values(), *(right or {}).values()]
        sizes = {len(x) for x in columns}
        if len(sizes) > 1:
            msg = (
                "Expected all layers of a batch to have the same examples, but got "
                f"{sorted(sizes)} rows."
            )
            raise ValueError(msg)
        names = (list(left), None if right is None else list(right))
        widths = [int(x.shape[1]) for x in columns]
        if self._moments is None:
            split = None if right is None else len(left)
            self._moments = Moments(widths, split, device=columns[0].device)
            self._names = names
        self._check_same(names, widths)
        self._moments.update(self._near_one(columns))

    def _near_one(self, columns: list[torch.Tensor]) -> torch.Tensor:
        """Return layers side by side, each times a power of two that its sums bear."""
        assert self._moments is not None
        exponents = self._moments.exponents.copy()
        for i, x in enumerate(columns):
            by = exponent(x)
            if not self.examples or by < exponents[i]:
                exponents[i] = by
        self._moments.rescale(exponents)
        scaled = (
            shifted(x.to(columns[0].device), int(by))
            for x, by in zip(columns, exponents, strict=True)
        )
        return torch.cat(list(scaled), dim=1)

    def merge(self, other: "StreamingCKA") -> "StreamingCKA":
        """Add what another one has seen of other examples, as from another process.

        Parameters
        ----------
        other : StreamingCKA
            Of the same layers.

        Returns
        -------
        StreamingCKA
            This one.

        Raises
        ------
        TypeError
            If `other` is not a StreamingCKA.
        ValueError
            If its layers differ.
        """
        if not isinstance(other, StreamingCKA):
            kind = type(other).__name__
            msg = f"Expected `other` to be a StreamingCKA, but got {kind}."
            raise TypeError(msg)
        if other._moments is None or other._names is None:
            return self
        if self._moments is None:
            theirs = other._moments
            self._moments = Moments(theirs.widths, theirs.split, device=theirs.device)
            self._names = other._names
        self._check_same(other._names, other._moments.widths)
        self._moments.merge(other._moments)
        return self

    def compute(self) -> xr.DataArray:
        """Return the CKA of what was seen so far; more may be added afterwards.

        Returns
        -------
        DataArray, dims (layer_a, layer_b)
            As of `compare`; NaN with one warning where a layer is constant.

        Raises
        ------
        ValueError
            If fewer than 4 examples (2 for the biased form) were seen.
        """
        check_examples(self.examples, 4 if self.debiased else 2)
        assert self._moments is not None and self._names is not None
        sums = self._moments.sums()
        flat = sums.totals == 0
        values, own = sums.hsic(self.debiased)
        own[flat] = np.nan
        names_a, names_b = self._names
        if flat.any():
            every = [*names_a, *(names_b or [])]
            which = [repr(n) for n, f in zip(every, flat, strict=True) if f]
            warnings.warn(
                "No similarity (NaN) where a layer is constant over the examples: "
                f"{', '.join(dict.fromkeys(which))}.",
                UserWarning,
                stacklevel=2,
            )
        return xr.DataArray(
            ratios(values, own, None if names_b is None else len(names_a)),
            dims=("layer_a", "layer_b"),
            coords={"layer_a": names_a, "layer_b": names_b or names_a},
            name="cka",
            attrs={
                "measure": "cka",
                "options": json.dumps({"debiased": self.debiased, "kernel": "linear"}),
                "precision": "float64",
                "larger_is_more_similar": 1,
                "bounds": [-1.0, 1.0],
                "examples": self.examples,
                "repsim_version": repsim_version(),
                "torch_version": str(torch.__version__),
            },
        )

    def _check_same(
        self, names: tuple[list[str], list[str] | None], widths: list[int]
    ) -> None:
        """Raise unless layers and units are those of the first batch."""
        assert self._moments is not None
        if names != self._names:
            msg = f"Expected the layers {self._names}, but got {names}."
            raise ValueError(msg)
        if widths != self._moments.widths:
            msg = f"Expected layers of {self._moments.widths} units, but got {widths}."
            raise ValueError(msg)


def _matrices(batch: Batch, what: str, like: Any = None) -> dict[str, torch.Tensor]:
    """Return the layers of a batch as float64 matrices, in one order of examples."""
    if isinstance(batch, xr.Dataset):
        if "step" in batch.dims:
            msg = (
                f"Expected `{what}` to be of one step, but got {batch.sizes['step']}; "
                "take one as in run.isel(step=-1)."
            )
            raise ValueError(msg)
        batch = {
            name: batch[name].transpose("example", ...)
            for name in matrix_layers(batch, layers(batch), what)
        }
    if not isinstance(batch, Mapping):
        msg = (
            f"Expected `{what}` to be a mapping from layer to (examples, units), but "
            f"got {type(batch).__name__}."
        )
        raise TypeError(msg)
    if not batch:
        msg = f"Expected `{what}` to hold at least one layer, but it is empty."
        raise ValueError(msg)
    first = next(iter(batch.values())) if like is None else like

    def in_order(name: Any, values: Any) -> Any:
        return aligned(first, values, ("all layers", f"`{what}[{name!r}]`"))

    return {
        str(name): matrix(in_order(name, values), f"{what}[{name!r}]", least=0)
        for name, values in batch.items()
    }
