"""Images or arrays that lie in a folder, as input data."""

from pathlib import Path

import numpy as np
import xarray as xr

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
HELD_OUT = 0.2
"""Share of each class that is test data where the folder does not part them."""


def from_folder(folder: str | Path, split: str = "train") -> xr.Dataset:
    """Return input data from a folder.

    Images lie in a folder a class, ``train/<class>/*.png`` and ``test/<class>/*.png``
    or ``<class>/*.png``; arrays in ``train.npz`` and ``test.npz`` or one ``*.npz``,
    each with `x` (example, …) and `y` (example,), where floating-point `y`, also
    (example, output), are numbers to predict. Where train and test are not parted, a
    fifth (of each class), drawn with a fixed seed, is test data.

    Parameters
    ----------
    folder : path
        The folder.
    split : {"train", "test"}
        Which part.

    Returns
    -------
    Dataset
        As `repsim.datasets.load` returns it; bytes become numbers in [0, 1].

    Raises
    ------
    FileNotFoundError
        If the folder holds neither.
    ValueError
        If images differ in size or some are grey, an array lacks `x` or `y`, or
        a class that is to be parted has one example.
    """
    folder = Path(folder)
    parted = folder / split if (folder / "train").is_dir() else folder
    files = {split: folder / f"{split}.npz"}
    if files[split].is_file():
        values, labels = _arrays(files[split])
        return _dataset(values, labels, _of_both(folder, labels), folder, split)
    single = sorted(folder.glob("*.npz"))
    if len(single) == 1:
        values, labels = _arrays(single[0])
        classes = np.unique(labels)
    elif parted.is_dir() and (images := _classes(parted)):
        # A class that one part lacks must not give its number to another one.
        both = {**images, **_classes(folder / "train"), **_classes(folder / "test")}
        classes = np.array(sorted(both if parted is not folder else images))
        values, labels = _images(images)
    else:
        msg = (
            f"Expected {folder} to hold images at <class>/*.png (or train/<class>/, "
            "test/<class>/), or x and y in train.npz and test.npz, but found neither."
        )
        raise FileNotFoundError(msg)
    if parted is folder:
        _check_two(labels, folder)
        kept = _part(labels, split)
        data = _dataset(values[kept], labels[kept], classes, folder, split)
        return data.assign_coords(example=kept)
    return _dataset(values, labels, classes, folder, split)


def _classes(folder: Path) -> dict[str, list[Path]]:
    """Return the image files by class, both in order."""
    if not folder.is_dir():
        return {}
    images = {
        one.name: sorted(p for p in one.iterdir() if p.suffix.lower() in IMAGES)
        for one in sorted(folder.iterdir())
        if one.is_dir()
    }
    return {name: files for name, files in images.items() if files}


def _images(found: dict[str, list[Path]]) -> tuple[np.ndarray, np.ndarray]:
    """Return images (example, y, x[, channel]) and the names of their classes."""
    from PIL import Image

    values, labels = [], []
    for name, files in found.items():
        for path in files:
            with Image.open(path) as image:
                grey = image.mode in ("1", "L", "I", "I;16", "F")
                values.append(np.asarray(image.convert("L" if grey else "RGB")))
            labels.append(name)
            if values[-1].ndim != values[0].ndim:
                kinds = {2: "grey", 3: "in colour"}
                msg = (
                    f"Expected images that are all grey or all in colour, but {path} "
                    f"is {kinds[values[-1].ndim]} and the first "
                    f"{kinds[values[0].ndim]}; convert them to one kind first."
                )
                raise ValueError(msg)
            if values[-1].shape != values[0].shape:
                msg = (
                    f"Expected images of one size, but {path} has {values[-1].shape} "
                    f"and the first {values[0].shape}; resize them first."
                )
                raise ValueError(msg)
    return np.stack(values), np.array(labels)


def _of_both(folder: Path, labels: np.ndarray) -> np.ndarray:
    """Return the classes of both parts, of which each may lack some."""
    every = [labels]
    for path in (folder / "train.npz", folder / "test.npz"):
        if path.is_file():
            with np.load(path) as held:
                every += [held["y"]] if "y" in held else []
    return np.unique(np.concatenate([one.reshape(-1) for one in every]))


def _check_two(labels: np.ndarray, folder: Path) -> None:
    """Refuse a class of one example: it would be tested without being learned."""
    if _numbers(labels):
        return
    classes, counts = np.unique(labels, return_counts=True)
    if counts.min() < 2:
        msg = (
            f"Expected two examples or more of each class in {folder}, one of them to "
            f"test, but got one of {classes[counts.argmin()]!s}; leave the class out, "
            "or part train and test yourself."
        )
        raise ValueError(msg)


def _arrays(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y of an .npz file."""
    with np.load(path) as held:
        if not {"x", "y"} <= set(held):
            there = ", ".join(held) or "nothing"
            msg = f"Expected {path} to hold `x` and `y`, but got {there}."
            raise ValueError(msg)
        x, y = held["x"], held["y"]
    if len(x) != len(y) or x.ndim < 2 or y.ndim != 1 + (y.ndim > 1 and _numbers(y)):
        msg = (
            f"Expected `x` (example, …) and `y` (example,) in {path}, but got "
            f"{x.shape} and {y.shape}."
        )
        raise ValueError(msg)
    return x, y


def _numbers(y: np.ndarray) -> bool:
    """Return whether targets are numbers to predict, no classes."""
    return bool(y.dtype.kind == "f")


def _part(labels: np.ndarray, split: str) -> np.ndarray:
    """Return the positions of one part, each class parted in the same ratio."""
    rng = np.random.default_rng(0)
    held = np.zeros(len(labels), dtype=bool)
    codes = np.zeros(len(labels)) if _numbers(labels) else labels
    for value in np.unique(codes):
        at = rng.permutation(np.flatnonzero(codes == value))
        held[at[: max(1, round(HELD_OUT * len(at)))]] = True
    return np.flatnonzero(held == (split == "test"))


def _dataset(
    x: np.ndarray, y: np.ndarray, classes: np.ndarray, folder: Path, split: str
) -> xr.Dataset:
    scale = 255.0 if x.dtype == np.uint8 else 1.0
    dims = {2: ("example", "feature"), 3: ("example", "y", "x")}
    wanted = dims.get(x.ndim, ("example", "y", "x", "channel"))
    if x.ndim not in (2, 3, 4):
        msg = f"Expected `x` with two to four dims in {folder}, but got {x.shape}."
        raise ValueError(msg)
    attrs: dict[str, str | list[str]] = {
        "name": folder.name, "split": split, "source": str(folder),
        "licence": "unknown",
    }  # fmt: skip
    labels: np.ndarray = y
    if _numbers(y):
        labels = y.astype(np.float32)
    else:
        attrs["classes"] = [str(v) for v in classes]
        # Labels count the classes, whatever numbers stand in the file.
        labels = np.searchsorted(classes, y).astype(np.int64)
    return xr.Dataset(
        {
            "features" if x.ndim == 2 else "image": (
                wanted,
                x.astype(np.float32) / np.float32(scale),
            ),
            "label": (("example", "output")[: labels.ndim], labels),
        },
        coords={"example": np.arange(len(x), dtype=np.int64)},
        attrs=attrs,
    )
