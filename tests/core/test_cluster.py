"""A cluster's workers do the work on stored recordings, and give the same numbers."""

import os
import signal
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray as xr

import repsim
from repsim.comparison import rows_of_pairs
from repsim.comparison.dimensions import effective_dimension
from repsim.core import cluster
from repsim.datasets.store import reader, zarr_format
from repsim.measures.catalogue import Measure
from repsim.measures.kernels.streamed import spans_of
from repsim.probes import codelength_layers, probe_layers

distributed = pytest.importorskip("distributed")

N = 160


def _run(seed: int, n: int = N) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2, n, 6)) + 3
    layers = {}
    for i, units in enumerate((5, 7, 7)):
        values = np.tanh(x @ rng.normal(size=(6, units))) * 10.0 ** (4 * i)
        layers[f"l{i}"] = (("step", "example", f"l{i}_unit"), values)
    coords = {
        "step": [0, 5],
        "example": np.arange(n),
        "label": ("example", np.arange(n) % 3),
        "of": ("example", np.arange(n) // 8),
    }
    return xr.Dataset(layers, coords, {"layers": list(layers)})


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Any], list[Any]]:
    """Return two recordings in memory, and the same ones from a store in chunks."""
    folder = tmp_path_factory.mktemp("stored")
    before, zarr_format.CHUNK_BYTES = zarr_format.CHUNK_BYTES, 7 * 8 * 20
    try:
        memory = [_run(0), _run(1)]
        stored = []
        for name, run in zip("ab", memory, strict=True):
            repsim.save_recording(run, folder / f"{name}.zarr")
            stored.append(repsim.open_recording(folder / f"{name}.zarr"))
    finally:
        zarr_format.CHUNK_BYTES = before
    return memory, stored


@pytest.fixture
def workers() -> Iterator[Callable[[int], Any]]:
    opened = []

    def make(number: int) -> Any:
        # No port: other tests may hold the usual ones at the same time.
        local = distributed.LocalCluster(
            n_workers=number,
            threads_per_worker=1,
            processes=False,
            dashboard_address=":0",
            worker_dashboard_address=None,
        )
        client = distributed.Client(local)
        opened.append((client, local))
        return client

    yield make
    for client, local in reversed(opened):  # each restores dask's settings
        client.close()
        local.close()


USES: dict[str, Callable[..., Any]] = {
    "cka": lambda a, b: repsim.compare(a, b),
    "cka of itself": lambda a, b: repsim.compare(a),
    "some layers": lambda a, b: repsim.compare(a, b, layers="l1", layers_b=["l2"]),
    "hsic": lambda a, b: repsim.compare(a, b, "hsic"),
    "rbf": lambda a, b: repsim.compare(a, b, kernel="rbf"),
    "procrustes": lambda a, b: repsim.compare(a, b, "procrustes_distance"),
    "procrustes of itself": lambda a, b: repsim.compare(a, None, "procrustes_distance"),
    "not symmetric": lambda a, b: repsim.compare(a, None, "pwcca"),
    "nan": lambda a, b: repsim.compare(a, b, "procrustes_distance", nan="omit"),
    "dimension": lambda a, b: effective_dimension(a),
    "dimension of one": lambda a, b: effective_dimension(a.isel(step=0), layers="l1"),
    "rdms": lambda a, b: repsim.rdms(a.isel(example=slice(40)), metric="euclidean"),
    "rdms of one": lambda a, b: repsim.rdms(a.isel(example=slice(40), step=1)),
    "probes": lambda a, b: probe_layers(a, control=True, repeats=2),
    "intervals": lambda a, b: repsim.inference.confidence(a, b, layers=["l0", "l2"]),
    "groups": lambda a, b: repsim.inference.confidence(
        a.isel(step=0), b.isel(step=0), layers=["l0"], over="of"
    ),
}


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what is read of layers outside a task, coordinates and marks aside."""
    outside: list[str] = []
    plain = reader.StoredArray._read

    def read(self: Any, key: tuple[Any, ...]) -> Any:
        if self._folder.name.startswith("l") and self._folder.name != "label":
            if not cluster.working():
                outside.append(self._folder.name)
        return plain(self, key)

    monkeypatch.setattr(reader.StoredArray, "_read", read)
    return outside


@pytest.mark.parametrize("name", USES)
def test_workers_give_the_numbers_of_memory_and_the_client_reads_nothing(
    name: str,
    pair: tuple[list[Any], list[Any]],
    workers: Callable[[int], Any],
    reads: list[str],
) -> None:
    memory, stored = pair
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of small samples; compared below
        expected = USES[name](*memory)
        workers(2)
        measured = USES[name](*stored)
    assert not reads
    assert type(measured) is type(expected)
    xr.testing.assert_allclose(measured, expected, rtol=1e-10, atol=1e-10)
    assert list(measured.coords) == list(expected.coords)
    if isinstance(expected, xr.Dataset):
        # Stores have a name, which memory has not.
        stores = {"recording_a", "recording_b"}
        attrs = {key: v for key, v in measured.attrs.items() if key not in stores}
        assert attrs == expected.attrs


WHERE: dict[str, Callable[..., Any]] = {
    "compare": lambda a, **where: repsim.compare(a, **where),
    "rdms": lambda a, **where: repsim.rdms(a.isel(example=slice(40)), **where),
    "dimension": lambda a, **where: effective_dimension(a, **where),
    "probes": lambda a, **where: probe_layers(a, **where),
    "intervals": lambda a, **where: repsim.inference.confidence(
        a, layers="l[02]", **where
    ),
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # of small samples
@pytest.mark.parametrize("name", WHERE)
def test_a_scheduler_is_given_as_client_as_address_or_as_none(
    name: str,
    pair: tuple[list[Any], list[Any]],
    workers: Callable[[int], Any],
    reads: list[str],
) -> None:
    memory, stored = pair
    expected = WHERE[name](memory[0])
    client = workers(1)
    first = WHERE[name](stored[0], scheduler=client.scheduler.address)
    default = distributed.default_client()
    assert default is client and not reads
    for where in cluster.HERE:
        here = WHERE[name](stored[0], scheduler=where)
        assert reads, where
        reads.clear()
        xr.testing.assert_allclose(here, expected, rtol=1e-10, atol=1e-10)
    second = workers(1)  # the default from here
    asked: list[Any] = []
    submit = client.submit
    client.submit = lambda *args, **named: asked.append(1) or submit(*args, **named)
    given = WHERE[name](stored[0], scheduler=client)
    assert asked and not reads and distributed.default_client() is second
    for found in (first, given):
        xr.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", WHERE)
def test_what_is_no_scheduler_is_refused(
    name: str, pair: tuple[list[Any], list[Any]]
) -> None:
    with pytest.raises(ValueError, match="Expected `scheduler` to be .* got 'fast'"):
        WHERE[name](pair[1][0], scheduler="fast")


def test_one_two_and_four_workers_agree_to_the_last_bit(
    pair: tuple[list[Any], list[Any]], workers: Callable[[int], Any]
) -> None:
    memory, stored = pair
    expected = repsim.compare(*memory, precision="float32")
    values = []
    for number in (1, 2, 4):
        workers(number)
        values.append(repsim.compare(*stored, precision="float32").values)
    np.testing.assert_allclose(values[0], expected, atol=2e-6)
    assert (values[1] == values[0]).all()
    assert (values[2] == values[0]).all()


def test_workers_read_each_example_once_and_the_first_one_once_more(
    pair: tuple[list[Any], list[Any]],
    workers: Callable[[int], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows: Counter[int] = Counter()
    plain = reader.StoredArray._read

    def read(self: Any, key: tuple[Any, ...]) -> Any:
        if self._folder.name == "l1":
            _, examples, _ = key
            rows.update(range(*examples.indices(N)))
        return plain(self, key)

    workers(2)
    monkeypatch.setattr(reader.StoredArray, "_read", read)
    repsim.compare(pair[1][0].isel(step=0))
    assert rows == Counter(range(N)) + Counter([0])


@pytest.fixture
def wide(tmp_path: Path) -> tuple[Any, Any]:
    """Layers wider than examples are many, two of them narrow, in memory and stored."""
    rng = np.random.default_rng(2)
    widths = {"l0": 1500, "l1": 20, "l2": 1200, "l3": 10}
    run = xr.Dataset(
        {n: (("example", f"{n}_unit"), rng.random((N, w))) for n, w in widths.items()}
    )
    repsim.save_recording(run, tmp_path / "wide.zarr")
    return run, repsim.open_recording(tmp_path / "wide.zarr")


@pytest.mark.parametrize("number", [1, 2])
def test_gram_matrices_beyond_the_budget_are_made_by_workers(
    wide: tuple[Any, Any],
    number: int,
    workers: Callable[[int], Any],
    reads: list[str],
) -> None:
    run, stored = wide
    expected = repsim.compare(run)
    workers(number)
    measured = repsim.compare(stored, memory=2**20)
    assert measured.attrs["space"] == "sample"
    assert measured.attrs["streamed"] == 1
    assert not reads
    xr.testing.assert_allclose(measured, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("sides", [{}, {"layers": ["l0", "l2"], "layers_b": "l[13]"}])
@pytest.mark.parametrize("held", [2**28, 8 * 20 * N])
def test_rows_of_pairs_say_what_they_read(
    wide: tuple[Any, Any],
    sides: dict[str, Any],
    held: int,
    workers: Callable[[int], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows: Counter[str] = Counter()
    plain = reader.StoredArray._read

    def read(self: Any, key: tuple[Any, ...]) -> Any:
        values = plain(self, key)
        rows[self._folder.name] += len(values)
        return values

    workers(1)
    monkeypatch.setattr(reader.StoredArray, "_read", read)
    monkeypatch.setattr(rows_of_pairs, "HELD_BYTES", held)
    run, stored = wide
    told = repsim.compare(stored, kernel="rbf", **sides).attrs
    layers = {name: rows[name] for name in run.data_vars}
    assert told["space"] == "rows of pairs"
    assert told["reads"] == max(layers.values()) / N
    assert told["bytes"] == sum(8 * run[n].shape[1] * rows[n] for n in layers)


def test_a_row_of_pairs_holds_no_more_layers_than_it_may(
    pair: tuple[list[Any], list[Any]],
    workers: Callable[[int], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held: list[int] = []
    plain = Measure.all_pairs

    def all_pairs(self: Any, xs: Any, ys: Any = None, **options: Any) -> Any:
        held.append(sum(8 * y.shape[0] * y.shape[1] for y in ys))
        return plain(self, xs, ys, **options)

    workers(1)
    memory, stored = ([one.isel(step=0) for one in two] for two in pair)
    expected = repsim.compare(*memory, "pwcca")
    monkeypatch.setattr(Measure, "all_pairs", all_pairs)
    monkeypatch.setattr(rows_of_pairs, "HELD_BYTES", 12 * 8 * N)
    measured = repsim.compare(*stored, "pwcca")
    assert held == [12 * 8 * N, 7 * 8 * N] * 3
    xr.testing.assert_allclose(measured, expected, rtol=1e-10, atol=1e-10)


def test_a_recording_of_dask_arrays_is_read_within_its_task(
    pair: tuple[list[Any], list[Any]], workers: Callable[[int], Any]
) -> None:
    memory, stored = pair
    chunked = [run.chunk(example=50) for run in stored]
    workers(1)  # a task that waited for another one would wait for ever
    measured = repsim.compare(*chunked)
    xr.testing.assert_allclose(measured, repsim.compare(*memory), rtol=1e-10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("dimension",):
            measured = USES[name](*chunked)
            xr.testing.assert_allclose(measured, USES[name](*memory), rtol=1e-10)


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    """Dask's settings are as before, whatever was left at work."""
    import dask

    before = dask.config.get("scheduler", None)
    yield
    assert dask.config.get("scheduler", None) == before


def test_what_is_in_memory_stays_here(
    pair: tuple[list[Any], list[Any]],
    workers: Callable[[int], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workers(1)
    monkeypatch.setattr(cluster, "reduced", None)
    monkeypatch.setattr(cluster, "spread", None)
    for use in USES.values():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            use(*pair[0])


def test_errors_and_warnings_of_workers_are_told_here(
    tmp_path: Path, workers: Callable[[int], Any], reads: list[str]
) -> None:
    run = _run(0).isel(step=0, drop=True)
    run["l1"] = run["l1"] * 0 + 7
    repsim.save_recording(run, tmp_path / "flat.zarr")
    run["l1"] = run["l1"] * np.nan
    repsim.save_recording(run, tmp_path / "nan.zarr")
    workers(1)
    flat = repsim.open_recording(tmp_path / "flat.zarr")
    for measure in ("cka", "procrustes_distance"):
        with pytest.warns(UserWarning, match="constant over the examples: layer 'l1'"):
            cells = repsim.compare(flat, None, measure)
        assert np.isnan(cells.sel(layer_a="l1")).all()
    with pytest.warns(UserWarning, match="Constant over the examples, .*'l1'"):
        assert np.isnan(effective_dimension(flat).sel(layer="l1"))
    assert not reads
    wrong = repsim.open_recording(tmp_path / "nan.zarr")
    for use in (repsim.compare, effective_dimension, repsim.rdms):
        with pytest.raises(ValueError, match="layer 'l1'.* finite|finite.*layer 'l1'"):
            use(wrong)


def test_a_lost_workers_share_is_done_again(
    pair: tuple[list[Any], list[Any]], workers: Callable[[int], Any]
) -> None:
    client = workers(2)
    expected = repsim.compare(*pair[0])
    slow = threading.Event()

    def lose() -> None:
        slow.wait(30)
        victim = sorted(client.scheduler_info()["workers"])[0]
        client.retire_workers([victim], close_workers=True)

    losing = threading.Thread(target=lose)
    losing.start()
    slow.set()
    for _ in range(3):
        measured = repsim.compare(*pair[1])
    losing.join()
    assert len(client.scheduler_info()["workers"]) == 1
    xr.testing.assert_allclose(measured, expected, rtol=1e-10)


def test_a_scheduler_that_is_lost_in_the_middle_is_told() -> None:
    class Lost(CancelledError):
        reason = "scheduler-connection-lost"

    class Other(CancelledError):
        reason = "user"

    def raising(error: Exception) -> Any:
        def ends(*_: object) -> None:
            raise error

        future = SimpleNamespace(result=ends)
        return SimpleNamespace(
            scheduler=SimpleNamespace(address="tcp://host:8786"),
            submit=lambda *args, **options: future,
            gather=ends,
        )

    def uses(client: Any) -> list[Callable[[], Any]]:
        return [
            lambda: cluster.spread(client, str, [1]),
            lambda: cluster.reduced(client, str, [1, 2], str.__add__, str),
        ]

    for error in (Lost(), distributed.comm.CommClosedError()):
        for use in uses(raising(error)):
            with pytest.raises(
                ValueError, match="^Expected the dask .*8786.* was lost; start one"
            ):
                use()
    for use in uses(raising(Other())):
        with pytest.raises(Other):
            use()


def test_tasks_are_not_spread_again(workers: Callable[[int], Any]) -> None:
    client = workers(1)
    assert cluster.active() is client
    told = cluster.spread(client, _looks, [1, 2], "shared")
    assert told == [(1, "shared", True), (2, "shared", True)]
    assert not cluster.working()


def _looks(item: int, shared: str) -> tuple[int, str, bool]:
    return item, shared, cluster.active() is None and cluster.working()


def test_warnings_come_once(workers: Callable[[int], Any]) -> None:
    client = workers(1)
    with pytest.warns(UserWarning) as caught:
        cluster.spread(client, _warns, [1, 2, 3])
    assert [str(w.message) for w in caught] == ["odd", "even"]


def _warns(item: int) -> None:
    warnings.warn("odd" if item % 2 else "even", UserWarning, stacklevel=1)


def test_without_a_client_there_is_no_cluster() -> None:
    assert cluster.active() is None


@pytest.mark.parametrize(("n", "chunk"), [(1, 1), (10, 3), (1000, 7), (1000, 1000)])
def test_runs_of_examples_cover_each_once(n: int, chunk: int) -> None:
    source: Any = SimpleNamespace(shape=(n, 2), chunk=chunk)
    spans = spans_of([source], None)
    assert [i for start, stop in spans for i in range(start, stop)] == list(range(n))
    assert len(spans) <= 33


def test_code_lengths_do_not_mind(
    pair: tuple[list[Any], list[Any]], workers: Callable[[int], Any]
) -> None:
    workers(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        here, there = (codelength_layers(runs[0].isel(step=0)) for runs in pair)
    xr.testing.assert_allclose(there, here)


KILLED: dict[str, Callable[[xr.Dataset], Any]] = {
    "compare": lambda a: repsim.compare(a),
    "rdms": lambda a: repsim.rdms(a.isel(example=slice(400))),
    "dimension": lambda a: effective_dimension(a),
    "probes": lambda a: probe_layers(a.isel(example=slice(2000)), repeats=2),
    "intervals": lambda a: repsim.inference.confidence(
        a.isel(example=slice(2000)), layers="l[02]"
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "number"),
    [("compare", 1), ("compare", 4), *((name, 2) for name in KILLED)],
)
def test_processes_one_of_them_killed(name: str, number: int, tmp_path: Path) -> None:
    memory = _run(0, 20_000)
    before, zarr_format.CHUNK_BYTES = zarr_format.CHUNK_BYTES, 7 * 8 * 400
    repsim.save_recording(memory, tmp_path / "a.zarr")
    zarr_format.CHUNK_BYTES = before
    stored = repsim.open_recording(tmp_path / "a.zarr")
    expected = KILLED[name](memory)
    with (
        distributed.LocalCluster(
            n_workers=number, threads_per_worker=1, dashboard_address=":0"
        ) as local,
        distributed.Client(local) as client,
    ):
        client.wait_for_workers(number)
        began: list[int] = []

        def kill() -> None:
            while True:
                for worker in list(local.scheduler.workers.values()):
                    if worker.processing:  # at work for the call below
                        began.append(local.workers[worker.name].pid)
                        os.kill(began[0], signal.SIGKILL)
                        return
                time.sleep(0.001)

        killing = threading.Thread(target=kill, daemon=True)
        killing.start()
        measured = KILLED[name](stored)
        assert began
        killing.join()
        xr.testing.assert_allclose(measured, expected, rtol=1e-10, atol=1e-12)
        client.wait_for_workers(number)
        assert began[0] not in {nanny.pid for nanny in local.workers.values()}
