"""The measures that exist, by name, each with what is known about it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from inspect import Parameter, signature
from typing import Any, TypeAlias

import numpy as np

from repsim.core.bars import progress_bar
from repsim.core.messages import unknown
from repsim.core.registry import Registry
from repsim.measures.matrices import (
    Matrix,
    check_nan,
    is_constant,
    note_constant,
    raw_pair,
    read,
    without_nan,
)

INVARIANCES = {
    "permutation": "reordering the units of either side",
    "orthogonal": "rotating or reflecting either side, x → xQ",
    "isotropic_scaling": "multiplying a whole side by one positive number",
    "invertible_linear": "any invertible linear map of either side, x → xA",
    "translation": "adding one vector to all examples of a side, x → x + 1bᵀ",
}
"""Maps that may leave a measure as it is, in words; see `Measure.invariances`."""
"""The maps of a representation that a measure may ignore, in the words of the table."""


AllPairs: TypeAlias = Callable[..., np.ndarray]
"""f(xs, ys, *, precision, device, progress, **options) -> float64 (len(xs), len(ys)).

`ys=None` means `xs` again; the rest is as in `Measure.all_pairs`.
"""

Describe: TypeAlias = Callable[..., dict[str, Any]]
"""f(xs, ys, **options) -> attributes that say how the pairs are computed."""


@dataclass(frozen=True)
class Measure:
    """A measure of similarity or distance between two representations.

    Call it as the function it names, `measure(x, y, **options) -> float`.

    Attributes
    ----------
    name : str
        Its name in `compare`.
    function : callable
        `f(x, y, **options) -> float`, x and y (examples, units).
    larger_is_more_similar : bool
        True for similarities, False for distances.
    symmetric : bool
        Whether f(x, y) = f(y, x).
    bounds : tuple of (float, float) or None
        Least and largest value; None where there is none.
    invariances : tuple of str
        Maps of a side that leave the value as it is; see `INVARIANCES`.
    precisions : tuple of str
        What `compare(precision=)` may ask for.
    default_precision : str or None
        What `compare` takes unless asked; None is the recording's own.
    pairs : callable or None
        The family's own form over many representations, which computes each one's
        part once; None calls `function` for every pair.
    describe : callable or None
        What a result's attributes say of how the pairs were computed.

    Examples
    --------
    >>> import repsim
    >>> cka = repsim.measures.get("cka")
    >>> cka.larger_is_more_similar, cka.bounds
    (True, (-1.0, 1.0))
    """

    name: str
    function: Callable[..., float]
    larger_is_more_similar: bool
    symmetric: bool = True
    bounds: tuple[float, float] | None = None
    invariances: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ("float64", "float32")
    default_precision: str | None = None
    pairs: AllPairs | None = field(default=None, repr=False)
    describe: Describe | None = field(default=None, repr=False)

    def __call__(self, x: Matrix, y: Matrix, **options: Any) -> float:
        """Return the value of one pair; `nan="omit"` is an option of every measure."""
        if "nan" in options and "nan" not in signature(self.function).parameters:
            x, y = raw_pair(x, y, nan=options.pop("nan"))
        return self._number(self.function(x, y, **options))

    def defaults(self) -> dict[str, Any]:
        """Return the options with their defaults, those of the pair and of all pairs.

        Returns
        -------
        dict
            Name -> default.
        """
        return dict(self._defaults)

    @cached_property
    def _defaults(self) -> dict[str, Any]:
        shared = {"ys", "precision", "device", "progress", "nan"}
        defaults = {}
        for function in (self.function, self.pairs):
            if function is None:
                continue
            for name, parameter in signature(function).parameters.items():
                if parameter.default is not Parameter.empty and name not in shared:
                    defaults[name] = parameter.default
        return defaults

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Raise if the measure has no such option.

        Parameters
        ----------
        options : mapping of str to value
            What the user gave.

        Raises
        ------
        TypeError
            If a name is unknown.
        """
        known = {**self.defaults(), "nan": "raise"}
        for name in options:
            if name not in known and not self.takes_any_option():
                raise TypeError(unknown(f"options of {self.name}", name, known))

    def takes_any_option(self) -> bool:
        """Return whether the function ends in `**options`.

        Returns
        -------
        bool
            True where a misspelt option cannot be told.
        """
        parameters = signature(self.function).parameters.values()
        return any(p.kind is Parameter.VAR_KEYWORD for p in parameters)

    def all_pairs(
        self,
        xs: Sequence[Matrix],
        ys: Sequence[Matrix] | None = None,
        *,
        precision: str = "float64",
        device: str = "cpu",
        progress: bool = False,
        **options: Any,
    ) -> np.ndarray:
        """Return the measure between every x and every y.

        Parameters
        ----------
        xs : sequence of matrices, each (examples, units)
            Arrays, tensors, or anything with `shape`, `dtype` and row slices.
        ys : sequence of matrices or None
            The other side; None compares `xs` with itself and uses symmetry.
        precision : str
            "float64", "float32" or, where the measure takes it, "bfloat16".
        device : str
            Where to compute: "cpu", "cuda", …
        progress : bool
            Show a bar.
        **options
            The measure's own; `nan="omit"` leaves out the examples that hold NaN in
            any of the representations.

        Returns
        -------
        ndarray of float64, shape (len(xs), len(ys))
            NaN where a side is constant over the examples.
        """
        options = self.defaults() | options
        if check_nan(options.pop("nan", "raise")) == "omit":
            whole = without_nan([*xs, *(ys or [])])
            xs, ys = whole[: len(xs)], None if ys is None else whole[len(xs) :]
        if self.pairs is not None:
            return self.pairs(
                xs, ys, precision=precision, device=device, progress=progress, **options
            )
        return self._every_pair(xs, ys, precision, progress, options)

    def _every_pair(
        self,
        xs: Sequence[Matrix],
        ys: Sequence[Matrix] | None,
        precision: str,
        progress: bool,
        options: dict[str, Any],
    ) -> np.ndarray:
        def matrix(source: Matrix) -> tuple[np.ndarray, bool]:
            x = read(source).numpy().astype(precision)
            return x, note_constant(source, is_constant(x))

        left = [matrix(x) for x in xs]
        right = left if ys is None else [matrix(y) for y in ys]
        half = ys is None and self.symmetric
        values = np.full((len(left), len(right)), np.nan)
        cells = [
            (i, j)
            for i in range(len(left))
            for j in range(i if half else 0, len(right))
            if not (left[i][1] or right[j][1])
        ]
        for i, j in progress_bar(cells, desc=self.name, progress=progress):
            values[i, j] = self._number(
                self.function(left[i][0], right[j][0], **options)
            )
            if half:
                values[j, i] = values[i, j]
        return values

    def _number(self, value: Any) -> float:
        """Return what the function gave as a number, or say that it is none."""
        try:
            return float(value)
        except (TypeError, ValueError) as error:
            msg = (
                f"Expected measure {self.name!r} to return one number, but got "
                f"{type(value).__name__}; a measure is f(x, y) -> float."
            )
            raise TypeError(msg) from error


_MEASURES: Registry[Measure] = Registry("measure")


def names() -> list[str]:
    """Return the names of the measures that exist.

    Returns
    -------
    list of str
        The names `compare` and `get` take, in the order of their registration.

    Examples
    --------
    >>> import repsim
    >>> "cka" in repsim.measures.names()
    True
    """
    return _MEASURES.names()


def get(name: str) -> Measure:
    """Return a measure by its name.

    Parameters
    ----------
    name : str
        One of `names()`.

    Returns
    -------
    Measure
        A callable `f(x, y, **options) -> float` with what is known about it.

    Raises
    ------
    ValueError
        If there is no such measure; the sentence names the nearest one.

    Examples
    --------
    >>> import repsim
    >>> repsim.measures.get("procrustes_distance").larger_is_more_similar
    False
    """
    return _MEASURES.get(name)


def unregister(name: str) -> None:
    """Forget a measure.

    Parameters
    ----------
    name : str
        One of `names()`.

    Raises
    ------
    ValueError
        If there is no such measure.

    Examples
    --------
    >>> import repsim
    >>> name = "first_of_both"
    >>> _ = repsim.measures.register(
    ...     name, lambda x, y: x[0, 0] * y[0, 0], larger_is_more_similar=True
    ... )
    >>> repsim.measures.unregister(name)
    >>> name in repsim.measures.names()
    False
    """
    _MEASURES.unregister(name)


def register(
    name: str,
    function: Callable[..., float],
    *,
    larger_is_more_similar: bool,
    symmetric: bool = True,
    bounds: tuple[float, float] | None = None,
    invariances: Iterable[str] = (),
    precisions: Iterable[str] = ("float64", "float32"),
    default_precision: str | None = None,
    pairs: AllPairs | None = None,
    describe: Describe | None = None,
) -> Measure:
    """Give a measure a name, so that `compare`, studies and reports take it.

    Parameters
    ----------
    name : str
        The name; one that is taken by another function is refused.
    function : callable
        `f(x, y, **options) -> float` on arrays (examples, units).
    larger_is_more_similar : bool
        True for a similarity, False for a distance.
    symmetric : bool
        Whether f(x, y) = f(y, x); half of a self comparison is then enough.
    bounds : tuple of (float, float) or None
        Least and largest value.
    invariances : iterable of str
        What the value does not depend on; the words of `INVARIANCES` where they fit.
    precisions : iterable of str
        What `compare(precision=)` may ask for.
    default_precision : str or None
        What `compare` takes unless asked; None is the recording's own.
    pairs : callable or None
        A form over many representations at once, see `AllPairs`.
    describe : callable or None
        What a result's attributes say of how the pairs were computed, see `Describe`.

    Returns
    -------
    Measure
        What `get(name)` returns from now on.

    Raises
    ------
    TypeError
        If `function` cannot be called.
    ValueError
        If the name is taken by another function.

    Examples
    --------
    >>> import numpy as np, repsim
    >>> def width_ratio(x, y):
    ...     return x.shape[1] / y.shape[1]
    >>> measure = repsim.measures.register(
    ...     "width_ratio", width_ratio, larger_is_more_similar=True, symmetric=False
    ... )
    >>> repsim.measures.get("width_ratio")(np.ones((4, 2)), np.ones((4, 4)))
    0.5
    >>> repsim.measures.unregister("width_ratio")
    """
    measure = Measure(
        name=name,
        function=function,
        larger_is_more_similar=larger_is_more_similar,
        symmetric=symmetric,
        bounds=bounds,
        invariances=tuple(invariances),
        precisions=tuple(precisions),
        default_precision=default_precision,
        pairs=pairs,
        describe=describe,
    )
    _MEASURES.register(name, function, measure, "`function` to be callable as f(x, y)")
    return measure


Choice: TypeAlias = str | Measure | Callable[..., float]
"""How a user says which measure."""


def named(measure: Choice) -> Measure:
    """Return a measure from its name, itself, or a function."""
    if isinstance(measure, Measure):
        return measure
    if isinstance(measure, str):
        return get(measure)
    for known in map(get, names()):
        if known.function is measure:
            return known
    if not callable(measure):
        msg = (
            "Expected `measure` to be a name or a function f(x, y), but got "
            f"{type(measure).__name__}."
        )
        raise TypeError(msg)
    name = getattr(measure, "__name__", type(measure).__name__)
    # Nothing is known of a plain function, its symmetry included.
    return Measure(name, measure, larger_is_more_similar=True, symmetric=False)


def table() -> str:
    """Return what is known of every measure, as a Markdown table.

    Returns
    -------
    str
        One row a measure, one column an invariance.

    Examples
    --------
    >>> print(table().splitlines()[0][:22])
    | measure | larger is
    """
    maps = list(INVARIANCES)
    titles = [name.replace("_", " ") for name in maps]
    lines = [
        f"| measure | larger is | symmetric | bounds | {' | '.join(titles)} |",
        "| --- | --- | --- | --- |" + " --- |" * len(maps),
    ]
    for name in names():
        measure = get(name)
        cells = [
            f"`{name}`",
            "more similar" if measure.larger_is_more_similar else "further apart",
            "yes" if measure.symmetric else "no",
            _bounds(measure.bounds),
            *("yes" if one in measure.invariances else "–" for one in maps),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _bounds(bounds: tuple[float, float] | None) -> str:
    """Return bounds in a few characters."""
    if bounds is None:
        return "none"
    low, high = (f"{bound:.4g}".replace("inf", "∞") for bound in bounds)
    return f"{low} to {high}"
