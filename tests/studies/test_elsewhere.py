"""Studies whose recordings lie elsewhere: in memory, behind an address, on a server."""

import json
import os
import signal
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

import repsim
from repsim import run_study
from repsim.analyses import sources
from repsim.cli.commands import main
from repsim.datasets.recordings import networks
from repsim.datasets.store import elsewhere
from repsim.datasets.store.places import place_of
from repsim.studies import (
    add_rdms,
    fingerprints,
    join_recordings,
    report,
    run,
    write_report,
)
from repsim.studies.completeness import is_complete, runs_of
from repsim.studies.facts import study_facts

pytest.importorskip("upath")


def _same(a: xr.DataTree, b: xr.DataTree) -> None:
    first, second = networks(a), networks(b)
    assert list(first) == list(second)
    for key, one in first.items():
        xr.testing.assert_equal(one.load(), second[key].load())
        path = "/".join(key) + "/training"
        xr.testing.assert_equal(
            a[path].to_dataset().load(), b[path].to_dataset().load()
        )


@pytest.fixture(params=["memory", "file", "path", "s3"])
def there(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, dict[str, Any]]:
    """Return a store's address, and what fsspec needs for it."""
    name = f"{uuid.uuid4().hex}/runs.zarr"
    if request.param == "file":
        return f"file://{tmp_path}/far/{name}", {}
    if request.param == "path":
        return tmp_path / "far" / name, {}
    if request.param == "memory":
        return f"memory://{name}", {}
    return f"s3://bucket/{name}", request.getfixturevalue("s3")


@pytest.mark.filterwarnings("ignore::UserWarning")  # of small networks
@pytest.mark.usefixtures("undrawn")
def test_a_study_elsewhere_is_the_study_here(
    there: tuple[Any, dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny: dict[str, Any],
    alone: xr.DataTree,
) -> None:
    out, (store, options) = tmp_path / "s", there
    told: list[tuple[Path, str, int]] = []

    def study(seeds: int = 1, **more: Any) -> xr.DataTree:
        return run_study(
            out=out,
            store=store,
            storage_options=options or None,
            jobs=1,
            after_cell=lambda *cell: told.append(cell),
            **{**tiny, "seeds": seeds, **more},
        )

    _same(study(), alone)
    assert told == [(out, "bp", 0), (out, "sg", 0)]
    assert not (out / "runs.zarr").exists()
    content = json.loads((out / "study.json").read_text())
    assert content["finished"] and content["store"].endswith("/runs.zarr")
    assert str(options.get("endpoint_url")) not in json.dumps(content)
    for place in (out, content["store"], store):
        _same(repsim.open_study(place, storage_options=options or None), alone)

    told.clear()
    before = study_facts(runs_of(out, options or None)).cells
    _same(study(), alone)
    study(seeds=2)  # adds to what is there
    assert told == [(out, "bp", 1), (out, "sg", 1)]
    after = study_facts(runs_of(out, options or None)).cells
    assert [c for c in after if c.seed == "0"] == before

    few = {name: sources()[name] for name in ("learning_curves", "measured_geometry")}
    monkeypatch.setattr(fingerprints, "sources", lambda: few)
    where = {"storage_options": options or None}
    page = write_report(out, jobs=1, progress=False, **where)
    assert page == out / "report.html"
    monkeypatch.setattr(report, "_section", None)
    assert write_report(out, jobs=1, progress=False, **where) == page
    rows = np.arange(20 * 19 / 2)
    np.save(tmp_path / "brain.npy", rows)
    for _ in range(2):
        add_rdms([tmp_path / "brain.npy"], out, store=store, **where)
    np.save(tmp_path / "brain.npy", rows + 1)
    add_rdms([tmp_path / "brain.npy"], out, store=store, **where)
    kept = repsim.open_study(out, **where)["measured_rdm"].values
    np.testing.assert_array_equal(kept, [rows + 1])


def test_two_processes_on_a_server(
    s3: dict[str, Any], tmp_path: Path, tiny: dict[str, Any], alone: xr.DataTree
) -> None:
    where = {"store": f"s3://bucket/{uuid.uuid4().hex}", "storage_options": s3}
    _same(run_study(out=tmp_path / "s", jobs=2, **where, **tiny), alone)


def test_workers_of_a_scheduler_write_elsewhere(
    tmp_path: Path, tiny: dict[str, Any], alone: xr.DataTree
) -> None:
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        processes=False,
        dashboard_address=":0",
        worker_dashboard_address=None,
    ) as local:
        where = {"store": tmp_path / "far", "scheduler": local.scheduler_address}
        _same(run_study(out=tmp_path / "s", **where, **tiny), alone)
    assert not (tmp_path / "s" / "runs.zarr").exists()


@pytest.mark.slow
def test_processes_on_a_server_one_of_them_killed(
    s3: dict[str, Any], tmp_path: Path, tiny: dict[str, Any]
) -> None:
    distributed = pytest.importorskip("distributed")
    options = {**tiny, "seeds": 2}
    store = f"s3://bucket/{uuid.uuid4().hex}"
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=":0"
    ) as local:
        told: list[tuple[str, int]] = []

        def kill(_: Path, label: str, seed: int) -> None:
            if not told:
                for worker in local.scheduler.workers.values():
                    if worker.processing:
                        os.kill(local.workers[worker.name].pid, signal.SIGKILL)
                        break
            told.append((label, seed))

        there = run_study(
            out=tmp_path / "there",
            store=store,
            storage_options=s3,
            scheduler=local.scheduler_address,
            after_cell=kill,
            **options,
        )
    assert sorted(told) == [(label, seed) for label in ("bp", "sg") for seed in (0, 1)]
    _same(there, run_study(out=tmp_path / "here", jobs=1, **options))


def test_a_study_elsewhere_that_ended_early_goes_on(
    tmp_path: Path, tiny: dict[str, Any], alone: xr.DataTree
) -> None:
    where = {"out": tmp_path / "s", "store": "memory://early/runs.zarr", "jobs": 1}

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_study(**where, **tiny, after_cell=end)
    runs = runs_of(tmp_path / "s")
    assert [is_complete(runs, c, 0) for c in ("bp", "sg")] == [True, False]
    (before,) = study_facts(runs).cells
    _same(run_study(**where, **tiny), alone)
    assert study_facts(runs).cells[0] == before


class Died(BaseException):
    """A process that ends here."""


def test_a_study_that_died_at_any_object_goes_on(
    tmp_path: Path,
    tiny: dict[str, Any],
    alone: xr.DataTree,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever the last object was that was written of a network's two records."""
    MemoryFileSystem = type(place_of("memory://x").fs)  # type: ignore[attr-defined]
    plain, left = MemoryFileSystem.pipe_file, [0]

    def pipe_file(self: Any, path: str, value: bytes, **options: Any) -> None:
        if left[0] == 0:
            raise Died
        left[0] -= 1
        plain(self, path, value, **options)

    def at(death: int) -> tuple[Path, str]:
        return tmp_path / f"s{death}", f"memory://died{death}/runs.zarr"

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", pipe_file)
    # How many objects a study writes so hangs on zarr's version.
    left[0], (out, store) = 10**6, at(0)
    run_study(out=out, store=store, jobs=1, **tiny)
    every = 10**6 - left[0]
    for death in (3, every // 3, 2 * every // 3, every - 1):
        out, store = at(death)
        left[0] = death
        with pytest.raises(Died):
            run_study(out=out, store=store, jobs=1, **tiny)
        left[0] = -1
        _same(run_study(out=out, store=store, jobs=1, **tiny), alone)


def _command(*words: str) -> int:
    before = sys.argv
    sys.argv = ["repsim", *words]
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        sys.argv = before
    return 0


@pytest.mark.filterwarnings("ignore::UserWarning")  # of small networks
@pytest.mark.usefixtures("undrawn")
def test_the_command_line_finds_recordings_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    few = {"learning_curves": sources()["learning_curves"]}
    monkeypatch.setattr(fingerprints, "sources", lambda: few)
    store = f"memory://{uuid.uuid4().hex}/runs.zarr"
    words = (
        "study --rules bp --seeds 2 --depth 1 --width 4 --steps 4 --lr 0.01 "
        f"--examples 20 --quiet --store {store}"
    ).split()
    assert _command(*words) == 0
    assert not (tmp_path / "study" / "runs.zarr").exists()
    written = (tmp_path / "study" / "report.html").stat().st_mtime_ns
    monkeypatch.setattr(run, "train_cell", None)
    assert _command(*words) == 0
    assert (tmp_path / "study" / "report.html").stat().st_mtime_ns == written
    for place in ("study", store):
        capsys.readouterr()
        assert _command("show", place, "--json") == 0
        assert list(json.loads(capsys.readouterr().out)) == [
            f"{store}/bp/{seed}" for seed in (0, 1)
        ]
        assert _command("compare", place) == 1
        assert f"name one of {store}/bp/0" in capsys.readouterr().err
    assert _command("report", "study", "--quiet") == 0
    assert _command("report", store, "--out", "far", "--quiet") == 0
    assert (tmp_path / "far" / "report.html").is_file()
    capsys.readouterr()
    assert _command("report", store) == 1
    assert "Expected `out`, a folder of this mach" in capsys.readouterr().err
    for more in (["--from", store], ["--preset", "atlas"]):
        assert _command(*words, *more) == 2
        assert f"Expected --store without {more[0]}" in capsys.readouterr().err
    # Without the address again nothing is written there, or anywhere else.
    assert _command(*words[:-2]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"Expected the store of the study in study ({store}), but got study/" in said
    assert _command("study", "--from", "study", "--out", "joined") == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"but got '{store}'; copy what lies there to this machine first" in said
    assert not (tmp_path / "joined").exists()


@pytest.mark.filterwarnings("ignore::UserWarning")  # of small networks
@pytest.mark.usefixtures("undrawn")
def test_depths_have_a_store_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = f"memory://{uuid.uuid4().hex}"
    few = {"learning_curves": sources()["learning_curves"]}
    monkeypatch.setattr(fingerprints, "sources", lambda: few)
    words = (
        "study --rules bp --seeds 2 --depth 1,2 --width 4 --steps 4 --lr 0.01 "
        f"--examples 20 --quiet --store {store} --out {tmp_path}"
    ).split()
    assert _command(*words) == 0
    study = repsim.open_study(f"{store}/depth_2.zarr")
    assert "hidden_2" in study["bp/0"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"store": "memory://other/runs.zarr"}, "choose another `out`, or repeat `sto"),
        ({"store": None}, r"\(memory://{name}\), but got .*s/runs.zarr; choose anothe"),
        ({"jobs": 2, "seeds": 2}, "this process alone sees, but got jobs=2; give a st"),
        ({"scheduler": "tcp://127.0.0.1:9", "seeds": 2}, "but got workers elsewhere"),
        ({"out": "new"}, "memory://{name} is occupied, and .*new has no study.json"),
        ({"out": "new", "store": "ftp://x/runs.zarr"}, "begins with one of memory://"),
        ({"out": "new", "store": "runs.csv"}, "a place for a zarr folder, .* runs.csv"),
        ({"out": "new", "store": "x", "storage_options": {"key": "k"}}, "an address"),
        ({"out": "s3://bucket/s"}, r"give the address as `store` \(--store\)"),
    ],
)
def test_what_cannot_be_is_refused(
    given: dict[str, Any],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny: dict[str, Any],
) -> None:
    monkeypatch.chdir(tmp_path)
    name = uuid.uuid4().hex
    where = {"out": "s", "store": f"memory://{name}", "conditions": ["bp"]}
    run_study(**{**tiny, **where})
    message = message.replace("{name}", name)
    with pytest.raises(ValueError, match=f"^Expected .*{message}"):
        run_study(**{**tiny, **where, **given})
    assert not (tmp_path / "new").exists()
    if "out" not in given:
        with pytest.raises(ValueError, match=f"the store of the study in s .*{name}"):
            join_recordings([], "s")


@pytest.mark.parametrize("store", [7, "somewhere/else", {}])
def test_a_store_that_is_no_address_is_told(store: Any, tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text(json.dumps({"store": store}))
    for use in (repsim.open_study, write_report):
        with pytest.raises(ValueError, match="^Expected `store` in .*study.json to be"):
            use(tmp_path)


def test_a_summary_that_is_none_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "study.json"
    for text in ("[" * 100_000, "[]", "7", "{"):
        path.write_text(text)
        with pytest.raises(FileNotFoundError, match="^Expected a study at "):
            repsim.open_study(tmp_path)
    with path.open("wb") as opened:
        opened.truncate(2**40)
    with pytest.raises(ValueError, match=r"^Expected .*, but got 1099511627776 bytes;"):
        repsim.open_study(tmp_path)


def test_stores_of_zarr_hold_studies(
    tmp_path: Path, tiny: dict[str, Any], alone: xr.DataTree
) -> None:
    for store in (
        zarr.storage.LocalStore(tmp_path / "far.zarr"),
        zarr.storage.FsspecStore.from_url(f"memory://{uuid.uuid4().hex}/s.zarr"),
    ):
        out = tmp_path / type(store).__name__
        for _ in range(2):
            _same(run_study(out=out, store=store, jobs=1, **tiny), alone)


def test_a_store_that_may_not_be_read_is_not_taken_for_empty(
    tmp_path: Path, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or what is complete there would be deleted and trained again."""
    where = {"out": tmp_path, "store": "memory://closed/runs.zarr", "jobs": 1}
    run_study(**{**tiny, "conditions": ["bp"]}, **where)

    def fetch(path: Path, most: int | None = None) -> bytes:
        raise PermissionError("Forbidden")

    monkeypatch.setattr(elsewhere, "fetch", fetch)
    monkeypatch.setattr(run, "train_cell", None)
    for conditions in (["bp"], ["bp", "sg"]):
        with pytest.raises(OSError, match="^Expected to reach memory://closed/runs.za"):
            run_study(**{**tiny, "conditions": conditions}, **where)


def test_a_store_that_cannot_be_made_leaves_the_folder_free(
    s3: dict[str, Any], tmp_path: Path, tiny: dict[str, Any], alone: xr.DataTree
) -> None:
    study: Callable[..., Any] = run_study
    where = {"out": tmp_path, "jobs": 1, "storage_options": s3, **tiny}
    with pytest.raises(OSError, match="^Expected to write .*s3://none.*was trained"):
        study(store="s3://none/runs.zarr", **where)
    assert not os.path.exists(tmp_path / "study.json")
    store = f"s3://bucket/{uuid.uuid4().hex}"
    _same(study(store=store, **where), alone)
