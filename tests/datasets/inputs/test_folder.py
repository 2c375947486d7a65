"""Folders of images and arrays: what is read, how it is parted, what is refused."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from PIL import Image

from repsim import datasets


def images(folder: Path, count: int, size: tuple[int, ...] = (5, 4)) -> None:
    for number, name in enumerate(("cat", "dog")):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = np.full(size, 10 * i + number, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i:02}.png")


def test_classes_are_folders_and_a_fifth_is_test_data(tmp_path: Path) -> None:
    images(tmp_path, 10)
    train, test = (datasets.load(str(tmp_path), s) for s in ("train", "test"))
    assert train["image"].dims == ("example", "y", "x")
    assert train.attrs["classes"] == ["cat", "dog"]
    assert train.sizes["example"] == 16 and test.sizes["example"] == 4
    ids = np.concatenate([train["example"], test["example"]])
    assert sorted(ids.tolist()) == list(range(20))
    assert np.bincount(test["label"]).tolist() == [2, 2]
    picture = test["image"].values[0] * 255
    number = int(test["example"][0])
    np.testing.assert_allclose(picture, 10 * (number % 10) + number // 10, atol=1e-4)
    xr.testing.assert_identical(train, datasets.load(str(tmp_path), "train"))


def test_given_parts_and_colours_are_kept(tmp_path: Path) -> None:
    images(tmp_path / "train", 3, (5, 4, 3))
    images(tmp_path / "test", 1, (5, 4, 3))
    train, test = (datasets.load(str(tmp_path), s) for s in ("train", "test"))
    assert train["image"].shape == (6, 5, 4, 3) and test.sizes["example"] == 2
    assert datasets.to_tensors(train, "image")[0].shape == (6, 3, 5, 4)


def test_arrays_are_features_with_their_labels(tmp_path: Path) -> None:
    x, y = np.arange(20.0).reshape(10, 2), np.array(["a", "b"] * 5)
    for split, part in (("train", slice(8)), ("test", slice(8, 10))):
        np.savez(tmp_path / f"{split}.npz", x=x[part], y=y[part])
    train, test = (datasets.load(str(tmp_path), s) for s in ("train", "test"))
    np.testing.assert_array_equal(train["features"], x[:8])
    assert test["label"].values.tolist() == [0, 1]
    assert train.attrs["classes"] == ["a", "b"]


def test_folders_that_are_no_data_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"images at <class>/\*\.png"):
        datasets.load(str(tmp_path))
    np.savez(tmp_path / "train.npz", x=np.ones((3, 2)), z=np.ones(3))
    with pytest.raises(ValueError, match="to hold `x` and `y`, but got x, z"):
        datasets.load(str(tmp_path))
    np.savez(tmp_path / "train.npz", x=np.ones((3, 2)), y=np.ones(4))
    with pytest.raises(ValueError, match=r"but got \(3, 2\) and \(4,\)"):
        datasets.load(str(tmp_path))
    images(tmp_path / "odd" / "train", 1)
    Image.fromarray(np.zeros((2, 2), dtype=np.uint8)).save(
        tmp_path / "odd" / "train" / "cat" / "zz.png"
    )
    with pytest.raises(ValueError, match="images of one size, but"):
        datasets.load(str(tmp_path / "odd"))


def test_a_class_that_one_part_lacks_keeps_its_number(tmp_path: Path) -> None:
    for name, classes in (("train", "abc"), ("test", "ac")):
        for k in classes:
            (tmp_path / "i" / name / k).mkdir(parents=True)
            Image.new("L", (3, 3)).save(tmp_path / "i" / name / k / "0.png")
        y = np.array(list(classes))
        np.savez(tmp_path / f"{name}.npz", x=np.ones((len(y), 2)), y=y)
    (tmp_path / "i" / "test" / "d").mkdir()  # no image, and so no class
    for folder in (tmp_path, tmp_path / "i"):
        test = datasets.load(str(folder), "test")
        assert test["label"].values.tolist() == [0, 2]
        assert test.attrs["classes"] == ["a", "b", "c"]
        assert datasets.load(str(folder))["label"].values.tolist() == [0, 1, 2]


def test_what_cannot_be_parted_or_stacked_is_refused(tmp_path: Path) -> None:
    images(tmp_path / "one", 1)
    with pytest.raises(ValueError, match="two examples or more of each .* one of cat"):
        datasets.load(str(tmp_path / "one"))
    images(tmp_path / "mixed", 2)
    Image.new("RGB", (4, 5)).save(tmp_path / "mixed" / "dog" / "9.png")
    with pytest.raises(ValueError, match="9.png is in colour and the first grey"):
        datasets.load(str(tmp_path / "mixed"))


def test_names_of_ones_own(tmp_path: Path) -> None:
    def mine(split: str, root: object) -> xr.Dataset:
        rows = np.eye(2, dtype="float32")
        return xr.Dataset(
            {"features": (("example", "feature"), rows), "label": ("example", [0, 1])},
            attrs={"split": split},
        )

    datasets.register("mine", mine)
    try:
        assert "mine" in datasets.names()
        assert datasets.load("mine", "test", limit=1).sizes["example"] == 1
        datasets.register("mine", mine)  # the cell of a notebook, run again
        with pytest.raises(ValueError, match="`name` to be free, but got 'mine'"):
            datasets.register("mine", lambda split, root: mine(split, root))
    finally:
        datasets.unregister("mine")
    with pytest.raises(ValueError, match="'digits', which is a data set that ships"):
        datasets.register("digits", mine)
    with pytest.raises(TypeError, match=r"a function f\(split, root\), but got int"):
        datasets.register("five", 5)  # type: ignore[arg-type]
