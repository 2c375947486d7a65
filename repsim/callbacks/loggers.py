"""What a recorder tells while training goes on: a line, TensorBoard, Weights & Biases.

A logger is called with the number of updates and the moment that was recorded.
"""

import sys
import warnings
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from repsim.comparison.all_pairs import compare
from repsim.datasets.recordings import layers
from repsim.datasets.reduction import reduce
from repsim.plot import heatmap
from repsim.probes.layers import probe_layers


class Log:
    """What is told of each moment; subclasses say where.

    Of every layer: how alike it is to itself at the first moment; where examples have
    labels and `probe` is True, what a linear probe reads; and the heat map of all
    layers against each other. A moment that cannot be told is a warning: training goes
    on.

    Parameters
    ----------
    measure : str
        Of similarity; maps and tokens are flattened for it.
    probe : bool
        Whether to fit a linear probe to every layer; costs more than the rest.
    name : str
        What all names begin with.

    Examples
    --------
    >>> class Kept(Log):
    ...     def tell(self, step, values, picture):
    ...         print(step, {k: round(v, 3) for k, v in values.items()})
    >>> values = np.random.default_rng(0).normal(size=(1, 6, 3))
    >>> moment = xr.Dataset({"h": (("step", "example", "unit"), values)})
    >>> Kept()(0, moment)
    0 {'cka with the start/h': 1.0}
    """

    def __init__(
        self, *, measure: str = "cka", probe: bool = False, name: str = "repsim"
    ) -> None:
        self.measure, self.probe, self.name = measure, probe, name
        self._start: xr.Dataset | None = None

    def __call__(self, step: int, moment: xr.Dataset) -> None:
        """Tell of a moment."""
        try:
            self.tell(step, *self._measured(moment))
        except Exception as error:
            # A logger must not end a training.
            warnings.warn(
                f"The moment after {step} updates was recorded but not logged by "
                f"{type(self).__name__} ({type(error).__name__}: {error}).",
                stacklevel=2,
            )

    def tell(self, step: int, values: dict[str, float], picture: np.ndarray) -> None:
        """Pass on numbers by name, and a picture.

        Parameters
        ----------
        step : int
            Updates made.
        values : dict
            Numbers by name.
        picture : array, shape (y, x, 3), uint8
            The heat map.
        """
        raise NotImplementedError

    def _measured(self, moment: xr.Dataset) -> tuple[dict[str, float], np.ndarray]:
        one = moment.isel(step=-1) if "step" in moment.dims else moment
        one = reduce(one, "flatten")
        self._start = one if self._start is None else self._start
        names = [name for name in layers(one) if name in self._start]
        same = compare(one, self._start, self.measure, layers=names, layers_b=names)
        values = {
            f"{self.measure} with the start/{name}": float(value)
            for name, value in zip(names, np.diagonal(same.values), strict=True)
        }
        if self.probe and "label" in one.coords:
            read = probe_layers(one)
            kind = "accuracy" if "accuracy" in read else "r2"
            values |= {
                f"probe {kind}/{name}": float(read[kind].sel(layer=name))
                for name in names
            }
        return values, self._drawn(compare(one, None, self.measure))

    def _drawn(self, cells: xr.DataArray) -> np.ndarray:
        """Return a heat map as pixels; pyplot's current figure is left alone."""
        figure = Figure(figsize=(5, 4), layout="constrained")
        canvas = FigureCanvasAgg(figure)
        heatmap(cells, ax=figure.subplots())
        canvas.draw()  # type: ignore[no-untyped-call]
        pixels = canvas.buffer_rgba()  # type: ignore[no-untyped-call]
        return np.asarray(pixels)[..., :3]


class TextLog(Log):
    """A line a moment, for those without a dashboard.

    Parameters
    ----------
    stream : text file or None
        Where to write; standard error by default.
    **options
        Those of `Log`: `measure`, `probe`.

    Examples
    --------
    >>> log = TextLog(sys.stdout)
    >>> values = np.random.default_rng(0).normal(size=(1, 6, 3))
    >>> log(0, xr.Dataset({"h": (("step", "example", "unit"), values)}))
    after 0 updates: cka with the start: h 1.00
    """

    def __init__(self, stream: TextIO | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._stream = stream

    def tell(self, step: int, values: dict[str, float], picture: np.ndarray) -> None:
        """Write one line; a progress bar stays whole.

        Parameters
        ----------
        step : int
            Updates made.
        values : dict
            Numbers by name.
        picture : array
            Not shown.
        """
        from tqdm.auto import tqdm

        groups: dict[str, list[str]] = {}
        for name, value in values.items():
            group, _, layer = name.partition("/")
            groups.setdefault(group, []).append(f"{layer} {value:.2f}")
        told = "; ".join(f"{g}: {', '.join(v)}" for g, v in groups.items())
        stream = sys.stderr if self._stream is None else self._stream
        tqdm.write(f"after {step} updates: {told}", file=stream)

    def _drawn(self, cells: xr.DataArray) -> np.ndarray:
        return np.empty((0, 0, 3), np.uint8)


class TensorBoardLog(Log):
    """Scalars and heat maps for TensorBoard.

    Needs `pip install "repsim-toolkit[tensorboard]"`.

    Parameters
    ----------
    place : path or SummaryWriter
        Folder of the log, or a writer that is open already, as a trainer's.
    **options
        Those of `Log`: `measure`, `probe`, `name`.

    Raises
    ------
    ImportError
        If tensorboard is missing.

    Examples
    --------
    >>> log = TensorBoardLog("runs")  # then Recorder(model, inputs, log=log)
    """

    def __init__(self, place: Any, **options: Any) -> None:
        super().__init__(**options)
        if hasattr(place, "add_scalar"):
            self.writer = place
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError(_missing("tensorboard")) from error
        self.writer = SummaryWriter(str(Path(place)))

    def tell(self, step: int, values: dict[str, float], picture: np.ndarray) -> None:
        """Add scalars and one image.

        Parameters
        ----------
        step : int
            Updates made.
        values : dict
            Numbers by name.
        picture : array, shape (y, x, 3), uint8
            The heat map.
        """
        for name, value in values.items():
            self.writer.add_scalar(f"{self.name}/{name}", value, step)
        image = f"{self.name}/{self.measure} of all layers"
        self.writer.add_image(image, picture, step, dataformats="HWC")
        self.writer.flush()


class WandbLog(Log):
    """Scalars and heat maps for Weights & Biases, also offline.

    Needs `pip install "repsim-toolkit[wandb]"`.

    Parameters
    ----------
    run : wandb.Run or None
        Where to log; the current run by default.
    **options
        Those of `Log`: `measure`, `probe`, `name`.

    Raises
    ------
    ImportError
        If wandb is missing.
    ValueError
        If there is no run.

    Examples
    --------
    >>> import wandb  # doctest: +SKIP
    >>> log = WandbLog(wandb.init(mode="offline"))  # doctest: +SKIP
    >>> recorder = repsim.Recorder(model, inputs, log=log)  # doctest: +SKIP
    """

    def __init__(self, run: Any = None, **options: Any) -> None:
        super().__init__(**options)
        try:
            import wandb
        except ImportError as error:
            raise ImportError(_missing("wandb")) from error
        self._image = wandb.Image
        self.run: Any = wandb.run if run is None else run
        if self.run is None:
            msg = (
                "Expected a run of Weights & Biases, but got none; begin one with "
                'wandb.init(), with mode="offline" where there is no network.'
            )
            raise ValueError(msg)

    def tell(self, step: int, values: dict[str, float], picture: np.ndarray) -> None:
        """Log one dict; the trainer's own step is left alone.

        Parameters
        ----------
        step : int
            Updates made, logged as `repsim/step`.
        values : dict
            Numbers by name.
        picture : array, shape (y, x, 3), uint8
            The heat map.
        """
        said: dict[str, Any] = {f"{self.name}/{k}": v for k, v in values.items()}
        said[f"{self.name}/{self.measure} of all layers"] = self._image(picture)
        said[f"{self.name}/step"] = step
        self.run.log(said)


def _missing(name: str) -> str:
    return (
        f"Expected {name}, but it is not installed; "
        f'`pip install "repsim-toolkit[{name}]"`.'
    )
