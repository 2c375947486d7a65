"""One file an analysis: what it computes from a study, its figures, its caption.

An analysis is a module of this package that defines

- ``TITLE`` : str, the heading in the report;
- ``ORDER`` : int, its place in the report (steps of ten leave room);
- ``compute(study)`` : DataTree -> Dataset of labelled results, with `attrs`;
- ``figures(result)`` : Dataset -> mapping of file stem -> matplotlib Figure;
- ``claim(result)`` : Dataset -> str, what was found, as the section's heading;
- ``caption(result)`` : Dataset -> str, one line beneath the figures;
- ``details(result)`` : Dataset -> str, how to read them, for a referee;
- ``summary(result)`` : Dataset -> mapping of name -> number, for `study.json`;
- optionally ``verdicts(result)`` and ``cautions(result)`` : Dataset -> sentences of
  the first screen;
- optionally ``interactive(result)`` : Dataset -> what `_study.explorer` returns, heat
  maps to choose from in the page.

``compute`` raises `NotApplicable` where the study lacks what it needs; the report
says so instead of failing. A new file here is collected by itself.
"""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # `sources` answers without them, as does a study that is finished
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["Analysis", "NotApplicable", "collect", "sources"]


def __dir__() -> list[str]:
    return sorted(__all__)


class NotApplicable(ValueError):
    """The study lacks what this analysis needs; the message says what.

    Examples
    --------
    >>> raise NotApplicable("Expected two conditions, but got one.")
    Traceback (most recent call last):
    repsim.analyses.NotApplicable: Expected two conditions, but got one.
    """


class Analysis(Protocol):
    """What every module of this package defines.

    Examples
    --------
    >>> collect()["probe"].TITLE
    'Linear probes'
    """

    __name__: str
    __file__: str | None
    TITLE: str
    ORDER: int

    def compute(self, study: "xr.DataTree") -> "xr.Dataset":
        """Return labelled results."""

    def figures(self, result: "xr.Dataset") -> "Mapping[str, Figure]":
        """Return figures by file stem."""

    def claim(self, result: "xr.Dataset") -> str:
        """Return what was found, in one sentence."""

    def caption(self, result: "xr.Dataset") -> str:
        """Return one line beneath the figures."""

    def details(self, result: "xr.Dataset") -> str:
        """Return how to read the figures."""

    def summary(self, result: "xr.Dataset") -> Mapping[str, Any]:
        """Return the numbers kept in `study.json`."""


def sources() -> dict[str, Path]:
    """Return the analyses' files by name, without importing them.

    Returns
    -------
    dict
        Name -> path.

    Examples
    --------
    >>> sources()["probe"].name
    'probe.py'
    """
    here = Path(__file__).parent
    return {p.stem: p for p in sorted(here.glob("*.py")) if not p.stem.startswith("_")}


def collect() -> dict[str, Analysis]:
    """Return the analyses by name, in the report's order.

    Returns
    -------
    dict
        Module name -> module.

    Examples
    --------
    >>> isinstance(collect(), dict)
    True
    """
    modules: list[Any] = [import_module(f"{__name__}.{name}") for name in sources()]
    modules.sort(key=lambda module: (module.ORDER, module.__name__))
    return {module.__name__.rpartition(".")[2]: module for module in modules}
