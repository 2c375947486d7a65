"""Studies: resumable, independent of the number of workers, honest about settings."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from zarr.storage import LocalStore

from repsim import run_study
from repsim.datasets.recordings import networks
from repsim.datasets.store import opened
from repsim.datasets.studies import open_study
from repsim.studies.completeness import is_complete
from repsim.studies.run import _write_root
from repsim.studies.spec import make_spec

SMALL = {"depth": 2, "width": 8, "steps": 12, "examples": 40, "progress": False}


def _same(a: xr.DataTree, b: xr.DataTree) -> None:
    first, second = networks(a), networks(b)
    assert list(first) == list(second)
    for key, run in first.items():
        xr.testing.assert_equal(run.load(), second[key].load())
        path = "/".join(key) + "/training"
        xr.testing.assert_equal(
            a[path].to_dataset().load(), b[path].to_dataset().load()
        )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("study") / "s"
    run_study(["bp", "sg"], seeds=2, out=out, lr=1e-3, jobs=1, **SMALL)
    return out


def test_a_study_is_a_tree_of_recordings(undisturbed: Path) -> None:
    study = open_study(undisturbed / "runs.zarr")
    assert list(networks(study)) == [("bp", "0"), ("bp", "1"), ("sg", "0"), ("sg", "1")]
    run = networks(study)["sg", "1"]
    assert run.attrs["rule"] == "sg"
    assert run.attrs["splits"] == ["hidden_1"]
    assert int(run["step"].values[0]) == 0
    assert int(run["step"].values[-1]) == 12
    label = run["label"].values
    assert (np.diff(label) >= 0).all()
    assert study["sg/1/training"]["test_accuracy"].dims == ("step",)
    assert study["input"].dims == ("example", "feature")


def test_every_network_has_its_own_initialisation(undisturbed: Path) -> None:
    study = networks(open_study(undisturbed / "runs.zarr"))
    assert len({run.attrs["init_seed"] for run in study.values()}) == 4


def test_a_shared_initialisation_is_the_same_network(tmp_path: Path) -> None:
    study = run_study(
        ["bp", "sg:init=bp"], seeds=1, out=tmp_path, lr=1e-3, jobs=1, **SMALL
    )
    bp, sg = networks(study).values()
    np.testing.assert_array_equal(
        bp["hidden_2"].isel(step=0).values, sg["hidden_2"].isel(step=0).values
    )
    assert not np.array_equal(bp["hidden_2"][-1].values, sg["hidden_2"][-1].values)


def test_a_finished_study_repeats_nothing(undisturbed: Path) -> None:
    before = {
        key: run.attrs["created"]
        for key, run in networks(open_study(undisturbed / "runs.zarr")).items()
    }
    for number, path in enumerate(sorted(undisturbed.rglob("*"))):
        os.utime(path, (number, number))  # whatever the clock says
    trained: list[str] = []
    study = run_study(
        ["bp", "sg"],
        seeds=2,
        out=undisturbed,
        lr=1e-3,
        jobs=1,
        after_cell=lambda out, label, seed: trained.append(label),
        **SMALL,
    )
    assert trained == []
    assert {k: r.attrs["created"] for k, r in networks(study).items()} == before


def test_seeds_and_conditions_may_grow(undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "s"
    shutil.copytree(undisturbed, out)
    trained: list[tuple[str, int]] = []
    study = run_study(
        ["bp", "sg", "sg:at=every"],
        seeds=[0, 1, 2],
        out=out,
        lr=1e-3,
        jobs=1,
        after_cell=lambda out, label, seed: trained.append((label, seed)),
        **SMALL,
    )
    assert set(trained) == {
        ("bp", 2),
        ("sg", 2),
        ("sg_every", 0),
        ("sg_every", 1),
        ("sg_every", 2),
    }
    assert len(networks(study)) == 9


def test_other_settings_are_refused(undisturbed: Path) -> None:
    with pytest.raises(ValueError, match=r"depth = 2.*got depth = 3"):
        run_study(
            ["bp"], seeds=1, out=undisturbed, lr=1e-3, jobs=1, **{**SMALL, "depth": 3}
        )


def test_a_file_in_the_folder_s_place_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "taken"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match="is a file"):
        run_study(["bp"], seeds=1, out=path, lr=1e-3, jobs=1, **SMALL)
    assert path.read_text() == "mine"
    with pytest.raises(OSError, match=r"can be made, but .*taken/in.* Not a directory"):
        run_study(["bp"], seeds=1, out=path / "in", lr=1e-3, jobs=1, **SMALL)


@pytest.mark.parametrize(
    ("conditions", "dataset", "message"),
    [
        (["bpp"], "digits", "Did you mean 'bp'"),
        (["bp"], "digts", "Did you mean 'digits'"),
        (["sg:at=99"], "digits", "99"),
        (["sg:colour=red"], "digits", "colour"),
    ],
)
def test_nothing_is_written_for_what_cannot_run(
    tmp_path: Path, conditions: list[str], dataset: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run_study(conditions, dataset, seeds=1, out=tmp_path / "s", jobs=1, **SMALL)
    assert not (tmp_path / "s").exists()


def test_jobs_below_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`jobs` to be at least 1"):
        run_study(["bp"], seeds=1, out=tmp_path, lr=1e-3, jobs=0, **SMALL)


def test_learning_rates_are_tuned_on_one_grid(tmp_path: Path) -> None:
    options = {**SMALL, "steps": 30}
    run_study(
        ["bp", "sg:lr=0.002", "sg", "sg:init=bp"],
        seeds=1,
        out=tmp_path,
        jobs=1,
        grid=[1e-5, 1e-2],
        **options,
    )
    content = json.loads((tmp_path / "study.json").read_text())
    assert content["learning_rates"]["sg_lr0.002"] == 0.002
    assert content["learning_rates"]["bp"] == 1e-2
    scores = json.loads((tmp_path / "tuning.json").read_text())["scores"]
    # bp and sg are tuned; the pinned rate and the shared initialisation are not.
    assert len(scores) == 2
    assert all(set(of) == {"1e-05", "0.01"} for of in scores.values())


def test_a_killed_study_continues_to_the_same_numbers(
    undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "s"
    code = (
        "from repsim import run_study\n"
        f"run_study(['bp', 'sg'], seeds=2, out={str(out)!r}, lr=1e-3, jobs=1, "
        f"**{SMALL!r})\n"
    )
    with subprocess.Popen([sys.executable, "-P", "-c", code]) as process:
        deadline = time.monotonic() + 600
        while time.monotonic() < deadline and process.poll() is None:
            if (out / "runs.zarr" / "sg" / "0").exists():
                break
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    done = [is_complete(out / "runs.zarr", c, s) for c in ("bp", "sg") for s in (0, 1)]
    assert not all(done)
    study = run_study(["bp", "sg"], seeds=2, out=out, lr=1e-3, jobs=1, **SMALL)
    _same(open_study(undisturbed / "runs.zarr"), study)


def test_a_root_that_was_cut_short_anywhere_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec(["bp"], "digits", [0], depth=2, width=8, examples=20, lr=1e-3)
    _write_root(tmp_path / "whole", spec)
    whole = opened(tmp_path / "whole", None).load()
    assert "label" in whole.coords
    whole_set, left = LocalStore.set, 0

    async def dying(self: LocalStore, *given: Any, **named: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise InterruptedError
        await whole_set(self, *given, **named)

    for number in range(99):
        left, runs = number, tmp_path / str(number)
        with monkeypatch.context() as patch:
            patch.setattr(LocalStore, "set", dying)
            with suppress(InterruptedError):
                _write_root(runs, spec)
        if left >= 0:
            break
        _write_root(runs, spec)
        xr.testing.assert_identical(opened(runs, None).load(), whole)
    assert 5 < number < 99
