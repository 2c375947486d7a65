"""Stores elsewhere: an object store in memory, and servers on this machine."""

import logging
import re
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
import zarr
from torch import nn

import repsim
from repsim.datasets.store import (
    compaction,
    elsewhere,
    is_complete,
    objects,
    remove_recording,
    zarr_format,
)
from repsim.datasets.store.places import locate, place_of

pytest.importorskip("upath")

X = torch.linspace(-1, 1, 60).reshape(12, 5)


@pytest.fixture(scope="module")
def gs() -> Iterator[dict[str, Any]]:
    """Return what fsspec needs for a bucket on an emulator of Google's on this machine.

    gcsfs asks by gRPC first what kind of bucket it is, which emulators do not answer;
    this one does not know the last bytes of an object (RFC 9110, 14.1.2), which zarr
    asks for.
    """
    server = pytest.importorskip("gcp_storage_emulator.server")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        gcsfs = pytest.importorskip("gcsfs")
    if gcsfs.GCSFileSystem is not gcsfs.core.GCSFileSystem:
        pytest.skip("gcsfs was imported before, and asks by gRPC")
    running = server.create_server("127.0.0.1", 0, in_memory=True)
    plain = server.Request.get_header

    def get_header(request: Any, key: str, default: Any = None) -> Any:
        value = plain(request, key, default)
        if key == "range" and str(value).startswith("bytes=-"):
            place = request.params["bucket_name"], request.params["object_id"]
            size = len(running._storage.get_file(*place))
            return f"bytes={max(0, size - int(value[7:]))}-"
        return value

    logging.getLogger("gcp_storage_emulator").setLevel(logging.CRITICAL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server.Request, "get_header", get_header)
        running.start()
        port = running._api._httpd.server_address[1]
        options = {"token": "anon", "endpoint_url": f"http://127.0.0.1:{port}"}
        place_of("gs://bucket", options).fs.mkdir("bucket")  # type: ignore[attr-defined]
        yield options
        running.stop()


@pytest.fixture(scope="module")
def az(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Return what fsspec needs for a container on an emulator of Azure's here.

    Azurite comes with `npm install -g azurite`; the account is the one it is known for.
    """
    pytest.importorskip("adlfs")
    azurite = shutil.which("azurite-blob") or pytest.skip("azurite is not on the path")
    log = tmp_path_factory.mktemp("azurite") / "log"
    words = "--blobHost 127.0.0.1 --blobPort 0 --inMemoryPersistence"
    with log.open("w") as told:
        running = subprocess.Popen(
            [azurite, *words.split(), "--skipApiVersionCheck", "--disableTelemetry"],
            stdin=subprocess.DEVNULL,
            stdout=told,
            stderr=told,
        )
    try:
        address = None
        while address is None:
            assert running.poll() is None, log.read_text()
            time.sleep(0.1)
            address = re.search(r"listens on (http://\S+)\n", log.read_text())
        account = "devstoreaccount1"
        fields = {
            "DefaultEndpointsProtocol": "http",
            "AccountName": account,
            "AccountKey": (
                "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/"
                "K1SZFPTOtr/KBHBeksoGMGw=="
            ),
            "BlobEndpoint": f"{address[1]}/{account}",
        }
        joined = ";".join(f"{key}={value}" for key, value in fields.items())
        options = {"connection_string": joined}
        place_of("az://bucket", options).fs.mkdir("bucket")  # type: ignore[attr-defined]
        yield options
    finally:
        running.kill()
        running.wait()


@pytest.fixture(params=["memory", "s3", "gs", "az"])
def there(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    name = uuid.uuid4().hex
    if request.param == "memory":
        return f"memory://{name}/s.zarr", {}
    options = request.getfixturevalue(request.param)
    return f"{request.param}://bucket/{name}/s.zarr", options


def _train(
    store: Any, updates: int, start: int = 0, stop: bool = True, **options: Any
) -> xr.Dataset:
    """Record a network whose weights are a function of the number of updates."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 4), nn.Tanh())
    net[0].weight.data += 0.1 * start
    recorder = repsim.Recorder(
        net, X, labels=range(12), every=1, store=store, start=start, **options
    )
    with recorder:
        for _ in range(updates):
            net[0].weight.data += 0.1
            recorder.step()
    return recorder.dataset()


def test_a_recording_elsewhere_is_the_one_here(
    there: tuple[str, dict[str, Any]], tmp_path: Path
) -> None:
    url, options = there
    group = {"group": "bp/0", "storage_options": options}
    here = _train(tmp_path / "s.zarr", 2, group="bp/0").load()
    xr.testing.assert_equal(_train(url, 2, **group).load(), here)
    run = repsim.open_recording(f"{url}/bp/0", storage_options=options)
    assert not run["0"].variable._in_memory
    xr.testing.assert_equal(run.load(), here)
    assert run.attrs["complete"] == 1
    if not url.startswith("az:"):  # of Azure zarr alone asks what it does not answer
        plain = xr.open_zarr(
            f"{url}/bp/0", storage_options=options or None, consolidated=False
        )
        xr.testing.assert_equal(plain.load(), here)

    with pytest.raises(FileExistsError, match=r"but .*s\.zarr/bp/0 is occupied"):
        _train(url, 1, **group)
    _train(url, 2, start=1, resume=True, **group)
    longer = _train(tmp_path / "longer.zarr", 3).load()
    run = repsim.open_recording(f"{url}/bp/0", chunks={}, storage_options=options)
    assert run["step"].values.tolist() == list(range(4))
    np.testing.assert_allclose(run["1"].values, longer["1"].values, atol=1e-6)

    repsim.save_recording(here, f"{url}/bp/1", storage_options=options)
    tree = repsim.open_study(url, storage_options=options)
    assert list(tree["bp"].children) == ["0", "1"]
    cells = repsim.compare(
        tree["bp/0"].to_dataset().isel(step=[0]), here.isel(step=[0])
    )
    assert cells.shape == (1, 2, 2)
    place = place_of(f"{url}/bp/1", options)
    assert is_complete(place)
    remove_recording(place)
    assert not place.exists()
    assert place.parent.exists()


def test_record_writes_elsewhere(there: tuple[str, dict[str, Any]]) -> None:
    url, options = there
    net = nn.Sequential(nn.Linear(5, 4))
    batches = [X[:7], X[7:]]
    run = repsim.record(net, batches, store=url, storage_options=options)
    expected = torch.cat([net(batch) for batch in batches])
    np.testing.assert_array_equal(run["0"], expected.detach().numpy())


def test_text_and_large_layers_elsewhere(
    there: tuple[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zarr_format, "CHUNK_BYTES", 64)
    monkeypatch.setattr(compaction, "SHARD_BYTES", 4 + 5 * (64 + 32))
    url, options = there
    rng = np.random.default_rng(0)
    run = xr.Dataset(
        {"a": (("step", "example", "a_unit"), rng.normal(size=(2, 9, 4)))},
        {"step": range(2), "example": range(9), "label": ("example", [*"abcdefghi"])},
    )
    repsim.save_recording(run, url, storage_options=options)
    back = repsim.open_recording(url, storage_options=options).load()
    xr.testing.assert_equal(back.drop_vars("label"), run.drop_vars("label"))
    assert back["label"].values.tolist() == [*"abcdefghi"]
    some = back.isel(example=[7, 1], step=slice(1, 2))
    again = repsim.open_recording(url, storage_options=options)
    xr.testing.assert_equal(again.isel(example=[7, 1], step=slice(1, 2)).load(), some)


class Died(BaseException):
    """A process that ends here."""


def test_dying_at_any_moment_leaves_exactly_the_complete_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The commit mark is the last object of a step, also where nothing is renamed."""
    whole = _train("memory://whole/s.zarr", 2).load()
    plain, left = elsewhere.put, [0]

    def put(path: Path, data: bytes) -> None:
        if left[0] == 0:
            raise Died
        left[0] -= 1
        plain(path, data)

    for module in (elsewhere, objects, compaction):
        monkeypatch.setattr(module, "put", put)
    shown = []
    for death in range(1, 40):
        url, left[0] = f"memory://dying{death}/s.zarr", death
        try:
            _train(url, 2)
        except Died:
            pass
        else:
            break
        left[0] = 10**9
        try:
            run = repsim.open_recording(url)
        except FileNotFoundError:
            shown.append(0)
        else:
            assert run.attrs["complete"] == 0
            shown.append(run.sizes["step"])
            xr.testing.assert_equal(run.load(), whole.isel(step=slice(shown[-1])))
        start = max(0, shown[-1] - 1)
        _train(url, 2 - start, start=start, resume=True)
        again = repsim.open_recording(url).load()
        assert again["step"].values.tolist() == [0, 1, 2]
    assert shown == sorted(shown)
    assert set(shown) == {0, 1, 2, 3}


def test_stores_of_zarr_name_a_place(tmp_path: Path) -> None:
    store = zarr.storage.LocalStore(tmp_path / "s.zarr")
    run = _train(store, 1)
    xr.testing.assert_equal(repsim.open_recording(store).load(), run.load())
    url = "memory://objects/s.zarr"
    _train(url, 1)
    remote = zarr.storage.FsspecStore.from_url(url)
    xr.testing.assert_equal(repsim.open_recording(remote).load(), run.load())
    with pytest.raises(ValueError, match="behind fsspec .*, but got a MemoryStore"):
        repsim.open_recording(zarr.storage.MemoryStore())


def test_a_store_that_is_read_only_is_not_written(tmp_path: Path) -> None:
    store = zarr.storage.LocalStore(tmp_path / "s.zarr", read_only=True)
    with pytest.raises(ValueError, match="may be written, but got .*s.zarr"):
        _train(store, 1)
    with pytest.raises(ValueError, match="may be written, but got .*s.zarr"):
        repsim.run_study(["bp"], out=tmp_path / "study", store=store)
    assert not any(tmp_path.iterdir())
    run = _train(tmp_path / "s.zarr", 1)
    xr.testing.assert_equal(repsim.open_recording(store).load(), run.load())


def test_options_beside_a_store_of_zarr_are_refused(tmp_path: Path) -> None:
    store = zarr.storage.LocalStore(tmp_path / "s.zarr")
    with pytest.raises(ValueError, match="along with an address .*, but got .*s.zarr"):
        place_of(store, {"key": "a"})


def test_what_is_no_place_is_told(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"^Expected a path, .*, but got a dict\."):
        repsim.Recorder(nn.Sequential(nn.Linear(5, 4)), X, store={})  # type: ignore[arg-type]


def test_an_option_that_a_file_system_hands_on_is_told() -> None:
    place = place_of("memory://s.zarr")
    with (
        pytest.raises(ValueError, match="^Expected `storage_options` .*'endpoint'"),
        elsewhere.reaching(place),
    ):
        (lambda: None)(endpoint="x")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="^ours"), elsewhere.reaching(place):
        raise TypeError("ours")


def test_a_file_address_is_a_path(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/a%20b.zarr"
    run = _train(url, 1)
    assert (tmp_path / "a b.zarr" / "zarr.json").is_file()
    xr.testing.assert_equal(repsim.open_recording(url).load(), run.load())
    from upath import UPath

    assert place_of(UPath(tmp_path / "a b.zarr")) == tmp_path / "a b.zarr"
    assert locate(UPath("memory://x/s.zarr"), "a/b")[0].name == "b"


@pytest.mark.parametrize(
    ("store", "options", "error", "message"),
    [
        ("ftp://x/s.zarr", {}, ValueError, "begins with one of memory://, s3://"),
        ("https://x/s.zarr", {}, ValueError, "but got 'https://x/s.zarr'"),
        ("s3:/bucket/s.zarr", {}, ValueError, "two slashes in an address"),
        ("s3:bucket/s.zarr", {}, ValueError, "two slashes in an address"),
        ("file://s.zarr", {}, ValueError, "three slashes in the address of a file"),
        ("s.zarr", {"key": "k"}, ValueError, "`storage_options` along with an address"),
        ("memory://x/none.zarr", {}, FileNotFoundError, "a recording at memory://"),
    ],
)
def test_other_places_are_refused(
    store: str, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^Expected .*{message}"):
        repsim.open_recording(store, storage_options=options)


def test_a_table_elsewhere_is_refused() -> None:
    run = _train(None, 1)
    with pytest.raises(ValueError, match="a path of this machine for a netCDF file"):
        repsim.save_recording(run, "memory://x/run.nc")


def test_an_object_that_was_lost_elsewhere_is_named() -> None:
    url = "memory://lost/s.zarr"
    _train(url, 2)
    (place_of(url) / "0" / "c" / "0" / "0" / "0").unlink()
    with pytest.raises(ValueError, match="s.zarr/0 to be readable, .*c/0/0/0 is missi"):
        repsim.open_recording(url)["0"].load()


def test_what_a_server_refuses_is_told(s3: dict[str, Any]) -> None:
    with pytest.raises(OSError, match="Expected to write the recording at s3://none"):
        _train("s3://none/s.zarr", 1, storage_options=s3)
    with pytest.raises(FileNotFoundError, match="Expected a recording at s3://none"):
        repsim.open_recording("s3://none/s.zarr", storage_options=s3)


def test_a_server_that_is_not_there_is_told() -> None:
    pytest.importorskip("s3fs")
    options = {
        "key": "k",
        "secret": "s",
        "endpoint_url": "http://127.0.0.1:9",
        "config_kwargs": {"retries": {"max_attempts": 0}, "connect_timeout": 1},
    }
    for use in (lambda **o: _train(**o, updates=1), repsim.open_recording):
        name = "path" if use is repsim.open_recording else "store"
        with pytest.raises(OSError, match="^Expected .*s3://bucket/s.zarr"):
            use(**{name: "s3://bucket/s.zarr", "storage_options": options})
