"""Layers side by side: centred, scaled and wide enough for a fast product."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from repsim.core.devices import to_tf32
from repsim.core.threads import shared
from repsim.measures.magnitudes import MODEST, near_one
from repsim.measures.matrices import DTYPES, Matrix, check_finite, is_constant, read

WIDE = 2048
"""Columns that are multiplied at once in feature space."""

STRIP = 256
"""Columns that one thread multiplies with all others at once."""

CACHED = 1 << 18
"""Numbers that are centred at once, so that they stay in the cache."""

FEW = 128
"""Up to so many examples float64 is free, and the estimators cancel most."""

MANY = 256
"""Examples and units from which bfloat16 products are rounded without harm."""


@dataclass(frozen=True)
class Group:
    """Some layers beside each other."""

    x: torch.Tensor
    layers: slice
    ends: list[int]

    @property
    def numbers(self) -> range:
        """Return the layers' numbers."""
        return range(self.layers.start, self.layers.stop)

    def cut(self, start: int, stop: int) -> "Group":
        """Return some of its layers, from one number to before another."""
        edges, first = [0, *self.ends], self.layers.start
        begin, *ends = edges[start - first : stop - first + 1]
        columns = self.x[:, begin : ends[-1]]
        return Group(columns, slice(start, stop), [end - begin for end in ends])

    def strips(self) -> list["Group"]:
        """Return runs of its layers, so many that threads can share their products."""
        if self.x.device.type != "cpu":
            return [self]
        widths, first = np.diff([0, *self.ends]).tolist(), self.layers.start
        runs = grouped(widths, None, STRIP)
        return [self.cut(first + run.start, first + run.stop) for run in runs]

    def parts(self) -> list[torch.Tensor]:
        """Return each layer's columns."""
        starts = [0, *self.ends]
        return [self.x[:, a:b] for a, b in zip(starts, self.ends, strict=False)]


@dataclass(frozen=True)
class Centred:
    """All layers of a comparison, both sides in a row."""

    groups: list[Group]
    norms: torch.Tensor
    exponents: np.ndarray
    """k of each layer, which was multiplied by 2ᵏ to come near 1."""
    constant: np.ndarray

    @property
    def count(self) -> int:
        """Return the number of layers."""
        return len(self.exponents)

    @property
    def layers(self) -> list[torch.Tensor]:
        """Return each layer, (examples, units)."""
        return [part for group in self.groups for part in group.parts()]

    @classmethod
    def of(
        cls,
        sources: Sequence[Matrix],
        split: int | None,
        precision: str,
        device: str,
        space: str = "feature",
    ) -> "Centred":
        """Read layers and centre them."""
        n = int(sources[0].shape[0])
        precision = at_least(precision, n)
        widths = [int(source.shape[1]) for source in sources]
        kind = torch.float64 if precision == "float64" else torch.float32
        dtype = working_dtype(precision, device, n, widths)
        norms = torch.empty(len(sources), n, dtype=torch.float64, device=device)
        exponents = np.zeros(len(sources), dtype=int)
        constant = np.zeros(len(sources), dtype=bool)
        groups, by_unit = [], space == "feature"
        jobs: list[tuple[int, torch.Tensor]] = []
        for layers in grouped(widths, split, WIDE if by_unit else 1):
            ends = np.cumsum(widths[layers]).tolist()
            shape = (ends[-1], n) if by_unit else (n, ends[-1])
            memory = torch.empty(shape, dtype=dtype, device=device)
            group = Group(memory.T if by_unit else memory, layers, ends)
            jobs += zip(group.numbers, group.parts(), strict=True)
            groups.append(group)
        failed: dict[int, ValueError] = {}

        def fill(job: tuple[int, torch.Tensor]) -> None:
            i, out = job
            try:
                exponents[i], constant[i] = _fill(
                    out, norms[i], sources[i], kind, precision
                )
            except ValueError as error:
                failed[i] = error

        here = norms.device.type == "cpu"
        here &= not any(getattr(source, "stored", False) for source in sources)
        shared(fill, jobs, n * sum(widths) if here else 0)
        if failed:  # The first one, whichever thread came first.
            raise failed[min(failed)]
        return cls(groups, norms, exponents, constant)


def at_least(precision: str, n: int) -> str:
    """Return the precision, float64 for few examples."""
    return "float64" if n <= FEW else precision


def rounded(x: torch.Tensor, precision: str) -> torch.Tensor:
    """Return the numbers that a precision keeps, in their own dtype.

    What a device would round anyway, here to the nearest, so that norms are those of
    the numbers that are multiplied.
    """
    if precision == "bfloat16":
        return x.bfloat16().to(x.dtype)
    return to_tf32(x) if precision == "tf32" else x


def working_dtype(
    precision: str, device: str, n: int, widths: Sequence[int]
) -> torch.dtype:
    """Return the dtype of the products: bfloat16 only where it is multiplied as such.

    torch rounds such a product to bfloat16 again; over few numbers that does not
    average out, so small problems multiply the rounded values in float32.
    """
    few = n < MANY or min(widths) < MANY
    if precision == "bfloat16" and (few or not multiplies_bfloat16(device)):
        return torch.float32
    return DTYPES[precision]


def multiplies_bfloat16(device: str) -> bool:
    """Return whether the device has products of bfloat16."""
    if torch.device(device).type != "cpu":
        return True
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, name, bool)()) for name in names)


def grouped(widths: Sequence[int], split: int | None, widest: int) -> list[slice]:
    """Return which layers go side by side."""
    runs, start, width = [], 0, 0
    for i, units in enumerate(widths):
        if i > start and (i == split or width + units > widest):
            runs.append(slice(start, i))
            start, width = i, 0
        width += units
    return [*runs, slice(start, len(widths))]


def membership(ends: Sequence[int], like: torch.Tensor) -> torch.Tensor:
    """Return the indicator (units, layers) of which unit belongs to which layer."""
    inside = torch.zeros(ends[-1], len(ends), dtype=like.dtype, device=like.device)
    for j, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
        inside[start:end, j] = 1
    return inside


def cached_rows(x: torch.Tensor, numbers: int = CACHED) -> list[slice]:
    """Return runs of rows that stay in a processor's cache; elsewhere all of them."""
    step = max(1, numbers // x.shape[1]) if x.device.type == "cpu" else len(x)
    return [slice(at, at + step) for at in range(0, len(x), step)]


def by_blocks(x: torch.Tensor) -> bool:
    """Whether temporaries stay in a cache; elsewhere each is a copy of a layer."""
    return x.device.type == "cpu"


def _centre(
    out: torch.Tensor,
    norms: torch.Tensor,
    raw: torch.Tensor,
    kind: torch.dtype,
    precision: str,
) -> None:
    """Write a layer, centred, and its rows' squared norms, a run of rows at a time."""
    # The first row comes off before the mean: differences of near numbers are exact,
    # sums of them are not, and a constant layer becomes exactly 0.
    units = out.T
    if raw.dtype == out.dtype and raw.numel() <= CACHED and units.is_contiguous():
        # A narrow layer is turned once: no other pass then goes across memory.
        units.copy_(raw.T)
        units.sub_(units[:, :1].clone())
        units.sub_(units.sum(dim=1, keepdim=True).double().div_(len(raw)).to(kind))
        if precision not in DTYPES or DTYPES[precision] != kind:
            units.copy_(rounded(units, precision))
        torch.sum(units.double().square(), dim=0, out=norms)
        return
    first = raw[:1]
    spans = cached_rows(raw)
    sums = [(raw[span] - first).sum(dim=0, keepdim=True).double() for span in spans]
    mean = (torch.cat(sums).sum(dim=0, keepdim=True) / len(raw)).to(kind)
    for span in spans:
        part = (raw[span] - first).sub_(mean)
        part = rounded(part, precision)
        torch.linalg.vector_norm(part, dim=1, dtype=torch.float64, out=norms[span])
        out[span] = part
    norms.square_()


def _centre_there(
    out: torch.Tensor, raw: torch.Tensor, kind: torch.dtype, precision: str
) -> None:
    """Write a layer, centred as above, where it will be, without another copy of it."""
    if out.dtype != kind or raw.dtype != kind:  # bfloat16, or wider than is multiplied
        wide = raw - raw[:1]
        wide -= wide.mean(dim=0, keepdim=True)
        out.copy_(rounded(wide, precision))
        return
    torch.sub(raw, raw[:1], out=out)
    out.sub_((out.sum(dim=0, keepdim=True).double() / len(raw)).to(kind))
    if precision == "tf32":
        out.copy_(rounded(out, precision))


def _fill(
    out: torch.Tensor,
    norms: torch.Tensor,
    source: Matrix,
    kind: torch.dtype,
    precision: str,
) -> tuple[int, bool]:
    """Write one layer, centred, into its columns; return k of its 2ᵏ and flatness."""
    raw = read(source, check=False).to(out.device)
    if raw.dtype.itemsize < kind.itemsize:
        raw = raw.to(kind)
    if by_blocks(raw):
        _centre(out, norms, raw, kind, precision)
    else:
        _centre_there(out, raw, kind, precision)
        torch.linalg.vector_norm(out, dim=1, dtype=torch.float64, out=norms).square_()
    total = float(norms.sum())
    if not np.isfinite(total):
        check_finite(raw, getattr(source, "what", "the representation"))
    flat = total == 0 and is_constant(raw)
    size = (total / out.numel()) ** 0.5
    if flat or (np.isfinite(total) and 1 / MODEST < size < MODEST):
        return 0, flat
    # Twice: so that differences fit into float64, and then by what is left of them.
    wide, first_by = near_one(raw.double(), torch.float64)
    wide = wide - wide[:1]
    wide, by = near_one(wide - wide.mean(dim=0, keepdim=True), torch.float64)
    out.copy_(rounded(wide.to(kind), precision))
    torch.linalg.vector_norm(out, dim=1, dtype=torch.float64, out=norms).square_()
    return first_by + by, False
