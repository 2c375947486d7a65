"""Input data by name, and as tensors."""

import os
from collections.abc import Callable

import numpy as np
import torch
import xarray as xr

from repsim.core.messages import unknown
from repsim.core.registry import Registry
from repsim.datasets.inputs import images, tables, toy
from repsim.datasets.inputs.fetching import registry
from repsim.datasets.inputs.folder import from_folder

LAYOUTS = ("flat", "image")
Loader = Callable[[str, str | os.PathLike[str] | None], xr.Dataset]

_own: Registry[Loader] = Registry("dataset")


def names() -> list[str]:
    """Return the names that `load` takes.

    Returns
    -------
    list of str
        `digits` (needs no network), the fetched image sets, the artificial sets,
        `diabetes` (numbers to predict; needs no network), and what was registered.

    Examples
    --------
    >>> names()[:2]
    ['digits', 'mnist']
    """
    return ["digits", *registry(), *toy.names(), *tables.NAMES, *_own]


def register(name: str, loader: Loader) -> None:
    """Give data of one's own a name, for `load` and every study.

    Parameters
    ----------
    name : str
        The name.
    loader : callable
        f(split, root) -> Dataset with `image` or `features`, and `label`, as `load`
        returns it; split is "train" or "test".

    Raises
    ------
    TypeError
        If the loader is not callable, or the name no string.
    ValueError
        If the name is taken, empty, or holds one of the signs ``: , = /``.

    Examples
    --------
    >>> def two(split, root):
    ...     rows = np.eye(2, dtype="float32")
    ...     return xr.Dataset({"features": (("example", "feature"), rows),
    ...                        "label": ("example", [0, 1])})
    >>> register("two", two)
    >>> load("two").sizes["example"]
    2
    >>> unregister("two")
    """
    if name not in _own and name in names():
        msg = (
            f"Expected `name` to be free, but got {name!r}, which is a data set that "
            "ships with repsim; choose another name."
        )
        raise ValueError(msg)
    _own.register(name, loader, expected="`loader` to be a function f(split, root)")


def unregister(name: str) -> None:
    """Forget data that were registered.

    Parameters
    ----------
    name : str
        Their name.

    Raises
    ------
    ValueError
        If nothing is registered under it.

    Examples
    --------
    >>> unregister("nothing")
    Traceback (most recent call last):
    ValueError: Expected `dataset` to be one of (none exist), but got 'nothing'.
    """
    _own.unregister(name)


def own_names() -> list[str]:
    """Return the names that were registered."""
    return _own.names()


def own_loader(name: str) -> Loader:
    """Return what was registered under a name."""
    return _own.get(name)


def load(
    name: str,
    split: str = "train",
    root: str | os.PathLike[str] | None = None,
    limit: int | None = None,
) -> xr.Dataset:
    """Return input data with labels.

    Parameters
    ----------
    name : str
        A name in `names()`, or the path of a folder of images or arrays: images at
        ``<class>/*.png`` or ``train/<class>/*.png`` and ``test/…``, or `x` and `y` in
        ``train.npz`` and ``test.npz``.
    split : {"train", "test"}
        The source's own split; for digits a fixed stratified one (seed 0, 360
        test examples), for diabetes a fixed one (seed 0, 110), for the artificial
        sets two separate draws.
    root : path or None
        Folder of the fetched sets in torchvision's layout, as in
        `root/MNIST/raw/train-images-idx3-ubyte` (also with `.gz`); None means the
        environment variable REPSIM_DATA, else the user's cache. What is missing
        is fetched into it.
    limit : int or None
        At most this many examples, the first ones; None means all.

    Returns
    -------
    Dataset
        `image` (example, y, x[, channel]) float32 in [0, 1] or `features`
        (example, feature) float32; `label` (example) int64, or floating-point numbers
        to predict; `example` int64 ids, the index in the source (of that split);
        attrs name, split, classes, source, licence.

    Raises
    ------
    ValueError
        If the name or split is unknown, `limit` is not positive, or a file's
        sha256 is not the expected one.
    FileNotFoundError
        If a file is missing and cannot be fetched.

    Examples
    --------
    >>> load("digits", limit=3)["image"].shape
    (3, 8, 8)
    """
    folder = name not in names() and os.path.isdir(name)
    if not folder and name not in names():
        raise ValueError(unknown("dataset", name, names()))
    if split not in ("train", "test"):
        raise ValueError(unknown("split", split, ("train", "test")))
    if limit is not None and limit < 1:
        msg = f"Expected `limit` to be at least 1 or None, but got {limit}."
        raise ValueError(msg)
    if folder:
        data = from_folder(name, split)
    elif name in _own:
        data = _own.get(name)(split, root)
    elif name in toy.names():
        kind, dims = name.split("_")
        data = toy.make(kind, int(dims), split)
    elif name == "digits":
        data = images.digits(split)
    elif name in tables.NAMES:
        data = tables.diabetes(split)
    else:
        data = images.fetched(name, split, root)
    return data if limit is None else data.isel(example=slice(limit))


def to_tensors(
    data: xr.Dataset, layout: str = "flat"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the inputs and labels of a data set as tensors.

    Parameters
    ----------
    data : Dataset
        As `load` returns it, or made by hand: `image` or `features`, and `label`.
    layout : {"flat", "image"}
        "flat" gives (example, feature), pixels row by row; "image" gives
        (example, channel, y, x).

    Returns
    -------
    x : Tensor, shape (example, feature) or (example, channel, y, x)
        Inputs in float32.
    y : Tensor, shape (example,) or (example, output)
        Labels in int64, or numbers to predict in float32, a column an output.

    Raises
    ------
    TypeError
        If `data` is not a Dataset.
    ValueError
        If the layout is unknown, a variable is missing, or features are asked
        for as images.

    Examples
    --------
    >>> x, y = to_tensors(load("digits", limit=3), "image")
    >>> x.shape, y.dtype
    (torch.Size([3, 1, 8, 8]), torch.int64)
    """
    _check(data, layout)
    if "features" in data:
        values = data["features"].transpose("example", ...).values
    else:
        values = _channels_first(data["image"])
    if layout == "flat":
        values = values.reshape(len(values), -1)
    # A copy: the tensors must not write into the data set, nor it into them.
    x = torch.from_numpy(np.array(values, dtype=np.float32, order="C"))
    label = data["label"].values
    if label.dtype.kind == "f":  # numbers to predict, no classes
        columns = np.array(label, dtype=np.float32).reshape(len(label), -1)
        return x, torch.from_numpy(columns)
    return x, torch.from_numpy(np.array(label, dtype=np.int64))


def _channels_first(image: xr.DataArray) -> np.ndarray:
    if "channel" not in image.dims:
        image = image.expand_dims("channel")
    return image.transpose("example", "channel", "y", "x").values


def _check(data: object, layout: str) -> None:
    if not isinstance(data, xr.Dataset):
        msg = (
            f"Expected `data` to be an xarray.Dataset, but got {type(data).__name__}; "
            "load one with repsim.datasets.load."
        )
        raise TypeError(msg)
    if layout not in LAYOUTS:
        raise ValueError(unknown("layout", layout, LAYOUTS))
    if not {"image", "features"} & set(data) or "label" not in data:
        msg = (
            "Expected `data` to hold `image` or `features`, and `label`, but got "
            f"{', '.join(str(v) for v in data.variables) or 'nothing'}."
        )
        raise ValueError(msg)
    if layout == "image" and "image" not in data:
        msg = (
            'Expected `data` to hold `image` for layout "image", but got `features`; '
            'use layout "flat".'
        )
        raise ValueError(msg)
