"""Input data: what is in it, where it is looked for, what is said when it is not."""

import gzip
import hashlib
import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pooch
import pytest
import torch
import xarray as xr

from repsim import datasets
from repsim.datasets.inputs import fetching, images

MNIST_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2"
    "fc25776db",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48"
    "f7ec33f2",
}


def idx(array: np.ndarray) -> bytes:
    sizes = b"".join(int(n).to_bytes(4, "big") for n in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


def offline(*args: object, **kwargs: object) -> None:
    raise OSError("no network")


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with a small "mnist" of 12 and 4 images, and its registry."""
    generator = np.random.default_rng(0)
    entry = {**fetching.registry()["mnist"], "files": {}}
    entry["mirrors"] = ["http://nowhere.invalid/"]
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for prefix, n in (("train", 12), ("t10k", 4)):
        for kind, shape in (("images-idx3", (n, 28, 28)), ("labels-idx1", (n,))):
            content = idx(generator.integers(0, 10, shape))
            name = f"{prefix}-{kind}-ubyte"
            packed = gzip.compress(content, mtime=0)
            entry["files"][name + ".gz"] = {
                "size": len(packed),
                "sha256": hashlib.sha256(packed).hexdigest(),
                "unpacked_sha256": hashlib.sha256(content).hexdigest(),
            }
            (folder / name).write_bytes(content)
    monkeypatch.setattr(images, "registry", lambda: {"mnist": entry})
    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", offline)
    monkeypatch.delenv("REPSIM_DATA", raising=False)
    return tmp_path


def test_digits_by_the_contract() -> None:
    train, test = datasets.load("digits"), datasets.load("digits", "test")
    assert train["image"].dims == ("example", "y", "x")
    assert train["image"].dtype == np.float32
    assert float(train["image"].min()) == 0 and float(train["image"].max()) == 1
    assert train["label"].dtype == np.int64 and train["example"].dtype == np.int64
    ids = np.concatenate([train["example"], test["example"]])
    assert sorted(ids) == list(range(1797))
    for attribute in ("name", "split", "classes", "source", "licence"):
        assert train.attrs[attribute]
    assert len(train.attrs["classes"]) == 10


def test_digits_split_is_stratified_and_always_the_same() -> None:
    train, test = datasets.load("digits"), datasets.load("digits", "test")
    share = np.bincount(test["label"]) / np.bincount(
        np.concatenate([train["label"], test["label"]])
    )
    assert np.all(abs(share - 0.2) < 0.01)
    assert test.identical(datasets.load("digits", "test"))


def test_digits_are_scikit_learns_own() -> None:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    train = datasets.load("digits")
    ids = train["example"].values
    np.testing.assert_allclose(train["image"].values * 16, bunch.images[ids])
    np.testing.assert_array_equal(train["label"].values, bunch.target[ids])


def test_limit_takes_the_first() -> None:
    whole, part = datasets.load("digits"), datasets.load("digits", limit=7)
    assert part.identical(whole.isel(example=slice(7)))


def test_torchvisions_folder_is_read_unpacked(small: Path) -> None:
    data = datasets.load("mnist", root=small)
    assert data["image"].shape == (12, 28, 28)
    raw = (small / "MNIST/raw/train-images-idx3-ubyte").read_bytes()[16:]
    expected = np.frombuffer(raw, np.uint8).reshape(12, 28, 28) / 255
    np.testing.assert_allclose(data["image"].values, expected, rtol=1e-6)
    assert datasets.load("mnist", "test", root=small).sizes["example"] == 4
    assert list(data["example"].values) == list(range(12))


def test_packed_files_are_read_too(small: Path) -> None:
    before = datasets.load("mnist", root=small)
    for path in (small / "MNIST/raw").iterdir():
        path.with_suffix(".gz").write_bytes(gzip.compress(path.read_bytes(), mtime=0))
        path.unlink()
    assert datasets.load("mnist", root=small).identical(before)


def test_the_variable_names_the_folder(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPSIM_DATA", str(small))
    assert datasets.load("mnist").sizes["example"] == 12


def test_damaged_file_names_both_hashes(small: Path) -> None:
    path = small / "MNIST/raw/train-images-idx3-ubyte"
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(ValueError, match="train-images-idx3-ubyte") as caught:
        datasets.load("mnist", root=small)
    assert expected in str(caught.value) and found in str(caught.value)


def test_missing_file_says_where_to_put_it(small: Path) -> None:
    path = small / "MNIST/raw/t10k-labels-idx1-ubyte"
    path.unlink()
    with pytest.raises(FileNotFoundError) as caught:
        datasets.load("mnist", "test", root=small)
    assert str(path) + ".gz" in str(caught.value)
    assert "REPSIM_DATA" in str(caught.value) and "\n" not in str(caught.value)


def test_without_a_network_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", offline)
    with pytest.raises(FileNotFoundError, match="put it there by hand"):
        datasets.load("kmnist", root=tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().err == ""


def test_a_fetched_file_is_kept_and_checked(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = small / "MNIST/raw"
    contents = {p.name + ".gz": p.read_bytes() for p in folder.iterdir()}
    for path in folder.iterdir():
        path.unlink()

    def fetch(self: object, url: str, output: str, pup: object) -> None:
        packed = gzip.compress(contents[url.rsplit("/", 1)[1]], mtime=0)
        Path(output).write_bytes(packed)

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", fetch)
    assert datasets.load("mnist", root=small).sizes["example"] == 12
    assert (folder / "train-images-idx3-ubyte.gz").is_file()


def test_a_misspelt_root_is_not_filled(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="data folder .*nowhere.* to exist"):
        datasets.load("mnist", root=tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_cifar_is_read_from_the_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.random.default_rng(0).integers(0, 10, (4, 3073)).astype(np.uint8)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, part in (("data_batch_1", rows[:2]), ("data_batch_2", rows[2:])):
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            info.size = part.nbytes
            archive.addfile(info, io.BytesIO(part.tobytes()))
    content = buffer.getvalue()
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(content)
    entry = {**fetching.registry()["cifar10"]}
    entry["files"] = {
        "cifar-10-binary.tar.gz": {"sha256": hashlib.sha256(content).hexdigest()}
    }
    monkeypatch.setattr(images, "registry", lambda: {"cifar10": entry})
    data = datasets.load("cifar10", root=tmp_path)
    assert data["image"].dims == ("example", "y", "x", "channel")
    np.testing.assert_array_equal(data["label"].values, rows[:, 0])
    red = data["image"].isel(channel=0).values.reshape(4, -1) * 255
    np.testing.assert_allclose(red, rows[:, 1:1025], rtol=1e-6)
    x, _ = datasets.to_tensors(data, "image")
    assert x.shape == (4, 3, 32, 32)


@pytest.mark.parametrize("content", [b"", b"\x00\x00\x09\x01", idx(np.ones(3))[:-1]])
def test_what_is_not_idx_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="Expected x to be an IDX file"):
        images.parse_idx(content, "x")


@pytest.mark.skipif(
    not (Path(os.environ.get("REPSIM_DATA", "/nonexistent")) / "MNIST").is_dir(),
    reason="name the folder that holds MNIST/raw with REPSIM_DATA",
)
def test_the_real_mnist() -> None:
    for split, n in (("train", 60_000), ("test", 10_000)):
        data = datasets.load("mnist", split)
        assert data["image"].shape == (n, 28, 28)
        assert len(np.unique(data["label"])) == 10
    assert data["label"].values[:5].tolist() == [7, 2, 1, 0, 4]


def test_registry_knows_the_hashes_of_the_published_files() -> None:
    known = fetching.registry()["mnist"]["files"]
    for name, sha256 in MNIST_SHA256.items():
        assert known[name + ".gz"]["unpacked_sha256"] == sha256
    for entry in fetching.registry().values():
        for file in entry["files"].values():
            assert len(file["sha256"]) == 64 and file["size"] > 0


def test_names_and_their_errors() -> None:
    assert {"digits", "mnist", "lin_2", "xor_100"} <= set(datasets.names())
    with pytest.raises(ValueError, match="Did you mean 'mnist'"):
        datasets.load("mnits")
    with pytest.raises(ValueError, match="`split` to be one of train, test"):
        datasets.load("digits", "validation")
    with pytest.raises(ValueError, match="`limit` to be at least 1"):
        datasets.load("digits", limit=0)


def test_tensors_in_both_layouts() -> None:
    data = datasets.load("digits", limit=5)
    flat, label = datasets.to_tensors(data, "flat")
    image, _ = datasets.to_tensors(data, "image")
    assert flat.shape == (5, 64) and image.shape == (5, 1, 8, 8)
    assert flat.dtype == torch.float32 and label.dtype == torch.int64
    torch.testing.assert_close(image.reshape(5, 64), flat)
    flat.zero_()
    assert float(data["image"].max()) > 0


def test_tensor_errors() -> None:
    data = datasets.load("lin_2", limit=3)
    with pytest.raises(TypeError, match="to be an xarray.Dataset, but got list"):
        datasets.to_tensors([1, 2])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`layout` to be one of flat, image"):
        datasets.to_tensors(data, "rows")
    with pytest.raises(ValueError, match='use layout "flat"'):
        datasets.to_tensors(data, "image")
    with pytest.raises(ValueError, match="hold `image` or `features`, and `label`"):
        datasets.to_tensors(xr.Dataset({"a": ("example", [1.0])}), "flat")
