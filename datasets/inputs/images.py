"""Images as labelled data: the digits that ship with scikit-learn, and fetched sets."""

import io
import os
import tarfile
from typing import Any

import numpy as np
import xarray as xr

from repsim.datasets.inputs.fetching import data_root, read, registry

DIGITS_TEST = 360
"""Test examples of digits, a fifth; drawn with seed 0, stratified by label."""


def digits(split: str) -> xr.Dataset:
    """Return scikit-learn's 1,797 digits of 8 × 8 pixels; no network needed."""
    from sklearn.datasets import load_digits  # recorders start without scikit-learn
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    train, test = train_test_split(
        np.arange(len(bunch.target)),
        test_size=DIGITS_TEST,
        random_state=0,
        stratify=bunch.target,
    )
    chosen = np.sort(train if split == "train" else test)
    return _dataset(
        (bunch.images[chosen] / 16).astype(np.float32),
        bunch.target[chosen],
        chosen,
        {
            "name": "digits",
            "split": split,
            "classes": [str(c) for c in range(10)],
            "source": "sklearn.datasets.load_digits (UCI, Alpaydin and Kaynak 1998)",
            "licence": "CC BY 4.0",
        },
    )


def fetched(
    name: str, split: str, root: str | os.PathLike[str] | None = None
) -> xr.Dataset:
    """Return a data set of the registry, from disk or fetched, checked by hash."""
    entry = registry()[name]
    folder = data_root(root)
    reader = _read_cifar if entry["format"] == "cifar" else _read_idx
    image, label = reader(name, split, folder, entry)
    attrs = {
        "name": name,
        "split": split,
        "classes": list(entry["classes"]),
        "source": f"{entry['title']}, {entry['source']}",
        "licence": entry["licence"],
    }
    # Divided in place: one float32 copy of 60,000 images is 188 MB already.
    scaled = image.astype(np.float32)
    scaled /= 255
    return _dataset(scaled, label, np.arange(len(label)), attrs)


def parse_idx(content: bytes, what: str = "file") -> np.ndarray:
    """Return the array in an IDX file of unsigned bytes."""
    start = 4 + 4 * content[3] if content[:3] == b"\x00\x00\x08" else None
    sizes = np.frombuffer(content[4:start], ">u4") if start else np.array([-1])
    if start is None or len(content) - start != int(np.prod(sizes)):
        msg = (
            f"Expected {what} to be an IDX file of bytes with the size that its header "
            f"states, but got {len(content)} bytes starting {content[:4].hex()}."
        )
        raise ValueError(msg)
    return np.frombuffer(content, np.uint8, offset=start).reshape(sizes.astype(int))


def _read_idx(
    name: str, split: str, root: Any, entry: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    prefix = "train" if split == "train" else "t10k"
    image, label = (
        parse_idx(read(name, file, root, entry), file)
        for file in (f"{prefix}-images-idx3-ubyte.gz", f"{prefix}-labels-idx1-ubyte.gz")
    )
    return image, label


def _read_cifar(
    name: str, split: str, root: Any, entry: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Read batches from the archive itself: a byte of label, then 3 × 32 × 32."""
    content = read(name, "cifar-10-binary.tar.gz", root, entry)
    wanted = "data_batch_" if split == "train" else "test_batch"
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
        members = sorted(
            (m for m in archive.getmembers() if wanted in m.name), key=lambda m: m.name
        )
        parts = [archive.extractfile(member) for member in members]
        rows = np.concatenate(
            [np.frombuffer(p.read(), np.uint8).reshape(-1, 3073) for p in parts if p]
        )
    image = rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return image, rows[:, 0]


def _dataset(
    image: np.ndarray, label: np.ndarray, ids: np.ndarray, attrs: dict[str, Any]
) -> xr.Dataset:
    dims = ("example", "y", "x", "channel")[: image.ndim]
    return xr.Dataset(
        {"image": (dims, image), "label": ("example", label.astype(np.int64))},
        coords={"example": ids.astype(np.int64)},
        attrs=attrs,
    )
