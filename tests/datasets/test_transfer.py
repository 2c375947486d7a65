"""Files of other tools, there and back; what a stranger's file cannot do."""

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch
import xarray as xr

import repsim
from repsim.cli import main
from repsim.datasets import read_activations, write_activations


def _run(*words: str) -> int:
    before = sys.argv
    sys.argv = ["repsim", *words]
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        sys.argv = before
    return 0


@pytest.mark.parametrize("ending", [".npz", ".mat"])
def test_there_and_back(ending: str, tmp_path: Path, rng: np.random.Generator) -> None:
    run = repsim.from_arrays(
        {"fc": rng.normal(size=(6, 3)), "conv": rng.normal(size=(6, 2, 4, 4))},
        labels=[0, 0, 1, 1, 2, 2], examples=[5, 4, 3, 2, 1, 0],
    )  # fmt: skip
    write_activations(run, tmp_path / f"acts{ending}")
    again = read_activations(tmp_path / f"acts{ending}", rule="bp")
    for name in ("fc", "conv"):
        np.testing.assert_array_equal(again[name].values, run[name].values)
        assert again[name].dims == run[name].dims
    np.testing.assert_array_equal(again["example"].values, run["example"].values)
    np.testing.assert_array_equal(again["label"].values, run["label"].values)
    assert again.attrs["rule"] == "bp"


@pytest.mark.parametrize("steps", [None, 7, [7], [0, 7, 20]])
@pytest.mark.parametrize("ending", [".npz", ".mat", ".nc"])
def test_moments_and_masks_come_back(
    ending: str, steps: Any, tmp_path: Path, rng: np.random.Generator
) -> None:
    lead = (len(steps),) if isinstance(steps, list) else ()
    run = repsim.from_arrays(
        {"fc": rng.normal(size=(*lead, 6, 3)), "t": rng.normal(size=(*lead, 6, 2, 4))},
        labels=[0, 0, 1, 1, 2, 2], mask=rng.random((6, 2)) < 0.5, steps=steps,
    )  # fmt: skip
    write_activations(run, tmp_path / f"acts{ending}")
    again = read_activations(tmp_path / f"acts{ending}")
    xr.testing.assert_equal(again.load(), run)


def test_three_axes_are_asked_for(tmp_path: Path, rng: np.random.Generator) -> None:
    x = rng.normal(size=(4, 10, 6))
    np.save(tmp_path / "V1.npy", x)
    np.savez(tmp_path / "acts.npz", V1=x)
    scipy.io.savemat(tmp_path / "acts.mat", {"V1": x})
    torch.save({"V1": torch.from_numpy(x).bfloat16()}, tmp_path / "acts.pt")
    (tmp_path / "folder" / "V1").mkdir(parents=True)
    np.save(tmp_path / "folder" / "V1" / "features.npy", x)
    for name in ("V1.npy", "acts.npz", "acts.mat", "acts.pt", "folder"):
        message = (
            r"the 3 axes of 'V1' mean, as its shape \(4, 10, 6\) may be of tok.*say"
        )
        with pytest.raises(ValueError, match=message):
            read_activations(tmp_path / name)
        run = read_activations(tmp_path / name, axes="example token unit")
        assert run["V1"].dims == ("example", "V1_token", "V1_unit")
    np.savez(tmp_path / "masked.npz", h=x, mask=np.ones((4, 10)))  # that says it
    assert read_activations(tmp_path / "masked.npz")["h"].dims[1] == "h_token"
    np.savez(tmp_path / "odd.npz", h=x, repsim_axes=np.frombuffer(b"[1", np.uint8))
    with pytest.raises(ValueError, match="Expected 'repsim_axes' to name axes as JSON"):
        read_activations(tmp_path / "odd.npz")
    np.savez(tmp_path / "steps.npz", h=rng.normal(size=(2, 4, 5, 6)), steps=[0, 9])
    with pytest.raises(ValueError, match="say them in order: --axes 'step example tok"):
        read_activations(tmp_path / "steps.npz")


def test_responses_are_a_recording_a_subject(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    x = {"V1": rng.normal(size=(2, 10, 6)), "IT": rng.normal(size=(2, 10, 3))}
    np.savez(tmp_path / "brain.npz", **x, examples=np.arange(10)[::-1])
    study = read_activations(tmp_path / "brain.npz", axes="subject example unit")
    for area, values in x.items():
        got = study[f"{area}/subject_2"]
        np.testing.assert_array_equal(got[area].values, values[1])
        np.testing.assert_array_equal(got["example"].values, np.arange(10)[::-1])
    run = read_activations(tmp_path / "brain.npz", axes="repeat condition channel")
    assert repsim.layers(run) == ["V1", "IT"]
    np.testing.assert_allclose(run["IT"].values, x["IT"].mean(0))
    assert run["V1@repeats"].shape == (10, 2, 6)


@pytest.mark.parametrize("lead", [(), (3,)])
def test_rdms_are_no_activations(
    lead: tuple[int, ...], tmp_path: Path, rng: np.random.Generator
) -> None:
    x = rng.random((*lead, 5, 5))
    np.save(tmp_path / "brain.npy", (x + x.swapaxes(-1, -2)) * (1 - np.eye(5)))
    with pytest.raises(
        ValueError, match="'brain' of shape .* looks like RDMs .* --rdm"
    ):
        read_activations(tmp_path / "brain.npy")
    axes = "example token unit" if lead else "example unit"
    assert read_activations(tmp_path / "brain.npy", axes=axes).sizes["example"]


@pytest.mark.parametrize(
    ("steps", "axes", "message"),
    [
        ([3, 1], None, "whole numbers that ascend, but got int64"),
        ([0.5], None, "whole numbers that ascend, but got float64"),
        ([0, 1], None, "'fc' to have 2 `steps` along its axis step, but got 6"),
        ([0, 1], "example unit unit2", "but got no such axis in layer 'fc'"),
        (3, "step example unit", "but got no `steps` in layer 'fc'"),
    ],
)
def test_steps_that_do_not_fit(steps: Any, axes: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        repsim.from_arrays({"fc": np.ones((6, 2, 3))}, steps=steps, axes=axes)


def test_csv_and_an_unknown_ending(tmp_path: Path) -> None:
    run = repsim.from_arrays({"fc": np.eye(3)})
    write_activations(run, tmp_path / "acts.csv")
    assert (tmp_path / "acts.csv").read_text().startswith("variable,example,unit,value")
    np.testing.assert_array_equal(read_activations(tmp_path / "acts.csv")["fc"], run.fc)
    with pytest.raises(FileExistsError, match=r"acts\.csv exists"):
        write_activations(run, tmp_path / "acts.csv")
    with pytest.raises(ValueError, match="Did you mean '.npz'"):
        write_activations(run, tmp_path / "acts.npy")


def test_a_folder_is_read_in_network_order(tmp_path: Path) -> None:
    for i in (10, 2, 1):
        np.save(tmp_path / f"layer{i}.npy", np.full((4, 2), float(i)))
    (tmp_path / "blocks.3").mkdir()
    np.save(tmp_path / "blocks.3" / "features.npy", np.zeros((4, 5)))
    np.save(tmp_path / "labels.npy", np.array([0, 1, 0, 1]))
    run = read_activations(tmp_path)
    assert repsim.layers(run) == ["blocks.3", "layer1", "layer2", "layer10"]
    assert float(run["layer10"].mean()) == 10.0
    assert run["label"].values.tolist() == [0, 1, 0, 1]


def test_torch_files(tmp_path: Path) -> None:
    torch.save(
        {"a": torch.eye(3), "labels": torch.tensor([1, 2, 3])}, tmp_path / "x.pt"
    )
    run = read_activations(tmp_path / "x.pt")
    assert repsim.layers(run) == ["a"]
    assert run["label"].values.tolist() == [1, 2, 3]
    torch.save(torch.eye(3), tmp_path / "fc.pt")
    assert repsim.layers(read_activations(tmp_path / "fc.pt")) == ["fc"]


def test_matlab_7_3(tmp_path: Path, rng: np.random.Generator) -> None:
    h5py = pytest.importorskip("h5py")
    x = rng.normal(size=(6, 3))
    scipy.io.savemat(tmp_path / "old.mat", {"fc": x})
    with h5py.File(tmp_path / "new.mat", "w", userblock_size=512) as file:
        file["fc"] = x.T
    with open(tmp_path / "new.mat", "r+b") as raw:
        head = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"
        raw.write(head)
    for name in ("old", "new"):
        got = read_activations(tmp_path / f"{name}.mat")
        np.testing.assert_array_equal(got["fc"].values, x)


class _Bomb:
    def __reduce__(self) -> Any:
        return (Path.write_text, (Path("exploded"), "code ran"))


@pytest.mark.parametrize("ending", [".npy", ".npz", ".pt", ".pth", ".mat"])
def test_a_strangers_file_runs_no_code(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / f"bomb{ending}"
    held = np.array([_Bomb()], dtype=object)
    if ending == ".npy":
        np.save(file, held, allow_pickle=True)
    elif ending == ".npz":
        np.savez(file, a=held)
    else:
        file.write_bytes(pickle.dumps(_Bomb()))
    with pytest.raises(ValueError, match="cannot be read"):
        read_activations(file)
    assert not (tmp_path / "exploded").exists()


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is nothing"):
        read_activations(tmp_path / "none.npz")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ValueError, match="file's ending"):
        read_activations(tmp_path / "notes.txt")
    np.savez(tmp_path / "only.npz", labels=[1, 2])
    with pytest.raises(ValueError, match="but found none"):
        read_activations(tmp_path / "only.npz")
    (tmp_path / "cut.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(ValueError, match="cannot be read"):
        read_activations(tmp_path / "cut.npy")


def test_unknown_addresses_and_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    run = repsim.from_arrays({"fc": np.eye(3)})
    for place in ("ftp://host/run.zarr", "https://b/x", "zip://x"):
        with pytest.raises(ValueError, match="Expected a path, or an addr"):
            repsim.save_recording(run, place)
        with pytest.raises(ValueError, match="Expected a path, or an addr"):
            repsim.open_recording(place)
        with pytest.raises(ValueError, match="Expected a path, or an addr"):
            repsim.open_study(place)
    for name in ("run.csv", "run.npz"):
        with pytest.raises(ValueError, match="Expected a place for a zarr folder"):
            repsim.save_recording(run, tmp_path / name)
    repsim.save_recording(run, f"file://{tmp_path}/run.zarr")
    assert repsim.layers(repsim.open_recording(tmp_path / "run.zarr")) == ["fc"]
    np.save(tmp_path / "brain.npy", np.eye(3))
    with pytest.raises(
        FileNotFoundError, match="got a file of another kind; `repsim imp"
    ):
        repsim.open_recording(tmp_path / "brain.npy")
    with pytest.raises(ValueError, match="zarr already; open it as it is"):
        read_activations(tmp_path / "run.zarr")


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "acts.npz", fc=np.eye(4), labels=[0, 1, 0, 1])
    store = str(tmp_path / "run.zarr")
    words = ["--attribute", "rule=bp", "--out", store]
    assert _run("import", str(tmp_path / "acts.npz"), *words) == 0
    assert "fc (example 4, unit 4)" in capsys.readouterr().out
    assert _run("show", store, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["layers"] == {"fc": {"example": 4, "fc_unit": 4}}
    assert told["attrs"]["rule"] == "bp"
    assert _run("export", store, "--out", str(tmp_path / "back.npz")) == 0
    with np.load(tmp_path / "back.npz") as back:
        np.testing.assert_array_equal(back["fc"], np.eye(4))
    capsys.readouterr()
    assert _run("doctor", "--json") == 0
    assert "digits" in json.loads(capsys.readouterr().out)["data sets at hand"]
    assert _run("import", str(tmp_path / "none.npz"), "--out", store) == 1
    assert "there is nothing" in capsys.readouterr().err
    np.savez(tmp_path / "brain.npz", V1=np.ones((2, 4, 3)))
    words = ["--axes", "subject condition channel", "--out", str(tmp_path / "s.zarr")]
    assert _run("import", str(tmp_path / "brain.npz"), *words, "--json") == 0
    place = tmp_path / "s.zarr" / "V1" / "subject_2"
    told = json.loads(capsys.readouterr().out)["recordings"]
    assert told[str(place)] == {"V1": [4, 3]} and len(told) == 2
    assert repsim.open_recording(place).sizes["example"] == 4
    assert _run("import", "x.npz", "--out", store, "--attribute", "rule") == 2
    assert "Expected --attribute NAME=VALUE" in capsys.readouterr().err
