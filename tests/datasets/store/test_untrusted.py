"""What strangers' files cannot do: run code, write elsewhere, take all memory.

    REPSIM_FUZZ=10000 pytest -s --basetemp /dev/shm/fuzz \
        tests/datasets/store/test_untrusted.py -k mutated

mutates so many stores (100 where nothing is said) and prints how each kind ended;
REPSIM_FUZZ_FIRST is the number of the first one, so that a long run can go in pieces.
On a disk removing folders takes most of the time, in memory none.
"""

import collections
import contextlib
import copy
import json
import os
import resource
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
import zarr
from torch import nn

import repsim
from repsim.datasets.store.untrusted import array_fault
from repsim.datasets.store.zarr_format import checksum

Tree = dict[str, bytes]

TRIALS = int(os.environ.get("REPSIM_FUZZ", "100"))
FIRST = int(os.environ.get("REPSIM_FUZZ_FIRST", "0"))
INPUTS = torch.linspace(-1, 1, 30).reshape(6, 5)


# neighbours of a recording


def _run() -> xr.Dataset:
    rng = np.random.default_rng(0)
    layers = {
        name: (("step", "example", f"{name}_unit"), rng.normal(size=(3, 6, units)))
        for name, units in (("a", 4), ("b", 2))
    }
    labels = np.array([*"uvwxyz"], dtype=object)
    coords = {"step": [0, 1, 2], "example": np.arange(6), "label": ("example", labels)}
    return xr.Dataset(layers, coords, {"layers": ["a", "b"]})


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "run.zarr"
    repsim.save_recording(_run(), path)
    return path


def _edit(path: Path, **changes: Any) -> Path:
    document = json.loads(path.read_text())
    document.update(changes)
    path.write_text(json.dumps(document))
    return path


def _foreign(path: Path) -> Path:
    group = zarr.open_group(path, mode="w")
    group.create_array("x", shape=(3, 4), dtype="f4")
    return path


NEIGHBOURS: dict[str, tuple[Callable[[Path], object], type[Exception], str]] = {
    "an array": (
        lambda p: zarr.create_array(p, shape=(3,), dtype="f4"),
        ValueError,
        "but found a single array of one",
    ),
    "another group": (
        _foreign,
        ValueError,
        "x/zarr.json to describe an array of a recording, .* names None .*; if it is",
    ),
    "an empty group": (
        lambda p: zarr.open_group(p, mode="w"),
        ValueError,
        "to be a recording, but no variable has an `example` dim",
    ),
    "an empty folder": (Path.mkdir, FileNotFoundError, "but found none"),
    "nothing": (lambda p: None, FileNotFoundError, "but found none"),
    "a group of zarr v2": (
        lambda p: zarr.open_group(p, mode="w", zarr_format=2),
        FileNotFoundError,
        "it is zarr v2: open it with xarray",
    ),
    "a file": (
        lambda p: p.write_text("hello"),
        FileNotFoundError,
        "a file of another kind",
    ),
    "a document that is a folder": (
        lambda p: (
            _foreign(p),
            (p / "x/zarr.json").rename(p / "z"),
            (p / "x/zarr.json").mkdir(),
        ),
        ValueError,
        "x/zarr.json to be a zarr v3 document",
    ),
    "an array of objects": (
        lambda p: (
            _foreign(p),
            _edit(p / "x/zarr.json", codecs=["pickle"], dimension_names=["a", "b"]),
        ),
        ValueError,
        "the codec 'pickle', none of blosc, bytes",
    ),
    "an index beyond memory": (
        lambda p: (
            xr.Dataset({"x": ("example", [1.0])}, {"example": [0]}).to_zarr(
                p, consolidated=False
            ),
            _edit(p / "example/zarr.json", shape=[2**50]),
        ),
        ValueError,
        "example to fit into memory.* more than half",
    ),
}


@pytest.mark.parametrize("kind", NEIGHBOURS)
def test_what_is_no_recording_is_one_sentence(kind: str, tmp_path: Path) -> None:
    make, error, message = NEIGHBOURS[kind]
    path = tmp_path / "s.zarr"
    make(path)
    with pytest.raises(error, match=f"^Expected .*{message}"):
        repsim.open_recording(path)
    with pytest.raises((ValueError, FileNotFoundError), match="^Expected "):
        repsim.open_study(path)


TEXTS = {
    "data_type": "string",
    "codecs": [{"name": "vlen-utf8"}, {"name": "zstd", "configuration": {"level": 0}}],
}


@pytest.mark.parametrize(
    ("array", "changes", "message"),
    [
        ("step", {}, "3 axes of commit marks"),
        ("step", {"data_type": "float64"}, "commit marks of data type float64"),
        ("step", {"data_type": "bool", "fill_value": False}, "data type bool"),
        ("step", {**TEXTS, "fill_value": ""}, "commit marks of data type"),
        ("label", {"shape": [0]}, "do not fit together .*'example': length 0 on"),
        ("a", {"shape": [3, -6, 4]}, "got the shape"),
        ("a", {"shape": [3, 6, 2**62]}, "got the shape"),
        ("a", {"dimension_names": ["step", "example", "example"]}, "dimension names"),
        ("a", {"dimension_names": None}, "dimension names None for 3 axes"),
        ("a", {"data_type": 3}, "the data type 3"),
        ("a", {"codecs": []}, "the codecs"),
        ("a", {"codecs": [{"name": "numcodecs.pickle"}]}, "the codec 'numcodecs"),
        (
            "example",
            {
                "shape": [2**30],
                "chunk_grid": {
                    "name": "regular",
                    "configuration": {"chunk_shape": [2**30]},
                },
            },
            "got objects of 8589934592 bytes",
        ),
        ("example", {"shape": "abc"}, "claims the shape 'abc'"),
        ("example", {"shape": [2**31 - 1]}, "fit into memory|is missing"),
    ],
)
def test_documents_that_claim_what_cannot_be(
    array: str, changes: dict[str, Any], message: str, store: Path
) -> None:
    if not changes:
        shutil.copy(store / "a" / "zarr.json", store / array / "zarr.json")
    _edit(store / array / "zarr.json", **changes)
    with pytest.raises(ValueError, match=f"^Expected .*({message})"):
        repsim.open_recording(store)


def test_going_on_reads_no_more_marks_than_lie_there(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(5, 4))
    path = tmp_path / "s.zarr"
    with repsim.Recorder(net, INPUTS, every=1, store=path) as recorder:
        recorder.step()
    _edit(path / "step/zarr.json", shape=[2**40])  # more than any memory holds
    with repsim.Recorder(
        net, INPUTS, every=1, store=path, resume=True, start=1
    ) as recorder:
        recorder.step()
    assert repsim.open_recording(path)["step"].values.tolist() == [0, 1, 2]


def test_a_layer_of_a_trillion_units_is_told_when_it_is_read(store: Path) -> None:
    _edit(store / "a/zarr.json", shape=[3, 6, 10**12])
    run = repsim.open_recording(store)
    with pytest.raises(ValueError, match="c/0/0/1 is missing"):
        run["a"].load()


def test_shards_within_shards_and_endless_indices_are_refused(store: Path) -> None:
    document = json.loads((store / "a/zarr.json").read_text())
    assert array_fault(document) is None
    shard = document["codecs"][0]
    shard["configuration"]["chunk_shape"] = [1, 6, 3]
    assert "shards of [3, 6, 4] in objects of [1, 6, 3]" in str(array_fault(document))
    shard["configuration"]["chunk_shape"] = [1, 1, 1]
    document["chunk_grid"]["configuration"]["chunk_shape"] = [2**21, 1, 1]
    assert array_fault(document) == "shards of more than 1048576 objects"
    shard["configuration"] |= {"chunk_shape": [2**21, 1, 1], "codecs": [shard.copy()]}
    assert "shards of" in str(array_fault(document))


def test_an_object_that_would_unpack_into_more_is_not_unpacked(store: Path) -> None:
    """A bomb: two gigabytes of zeros in a few kilobytes, its check sum right."""
    path = store / "example" / "c.0"
    data = bytearray(path.read_bytes()[:-4])
    data[4:8] = (2**31 - 1).to_bytes(4, "little")
    path.write_bytes(bytes(data) + checksum(bytes(data)))
    with pytest.raises(ValueError, match="c.0 claims 2147483647 bytes where 48 belong"):
        repsim.open_recording(store)


def test_a_netcdf_file_that_claims_more_than_memory_is_refused(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    pytest.importorskip("h5netcdf")
    with h5py.File(tmp_path / "k.nc", "w") as file:
        ids = file.create_dataset("example", (2**40,), "i8", chunks=(1024,))
        ids.make_scale("example")
        file.create_dataset("a", (2**40,), "f4", chunks=(1024,)).dims[0].attach_scale(
            ids
        )
    with pytest.raises(ValueError, match="k.nc to fit .*' claims .* more than half"):
        repsim.open_recording(tmp_path / "k.nc")


def test_a_fill_value_that_is_no_number_is_told(tmp_path: Path) -> None:
    """xarray raises struct.error, which is none of Python's own kinds of error."""
    _run().to_zarr(tmp_path / "s.zarr", consolidated=False)
    _edit(tmp_path / "s.zarr/a/zarr.json", attributes={"_FillValue": "AAAA"})
    with pytest.raises(ValueError, match=r"xarray cannot open it \(error: unpack"):
        repsim.open_recording(tmp_path / "s.zarr")


def test_steps_of_a_training_that_are_none_are_told(tmp_path: Path) -> None:
    root = tmp_path / "study.zarr"
    repsim.save_recording(_run(), root / "bp/0")
    training = xr.Dataset({"loss": ("step", [1.0, 2.0])}, {"step": [1, 2]})
    training.to_zarr(root, group="bp/0/training", consolidated=False)
    _edit(root / "bp/0/training/step/zarr.json", dimension_names=["example"])
    with pytest.raises(ValueError, match="training to have steps, each once"):
        repsim.open_study(root)


# links


def test_a_layer_that_is_a_link_is_refused(store: Path, tmp_path: Path) -> None:
    shutil.move(store / "b", tmp_path / "elsewhere")
    (store / "b").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="b to be a part .* but it is a link"):
        repsim.open_recording(store)


def test_resuming_writes_through_no_link(tmp_path: Path) -> None:
    path, outside = tmp_path / "s.zarr", tmp_path / "precious"
    net = nn.Sequential(nn.Linear(5, 4))
    with repsim.Recorder(net, INPUTS, every=1, store=path) as recorder:
        recorder.step()
    outside.write_text("mine")
    (path / "0" / "c.2.0.0").symlink_to(outside)
    with (
        pytest.raises(ValueError, match="c.2.0.0 to be a part .* but it is a link"),
        repsim.Recorder(net, INPUTS, every=1, store=path, resume=True, start=1),
    ):
        pass
    assert outside.read_text() == "mine"


# mutations

NASTY: list[Any] = [
    *(None, True, -1, 0, 1, 7, 10**12, 2**62, 2**63, 2**200, 1.5, 1e308, float("nan")),
    *("", "x", "../x", "/etc/passwd", "step", "example", "NaN", "\0", "é" * 999),
    *([], {}, [[]], [0], [None], [10**12], {"name": "blosc"}, ["../x"], ["a", "a"]),
]


def _values(document: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every place of a document: the container and the key in it."""
    pairs = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in list(pairs):
        yield document, key
        if isinstance(value, dict | list):
            yield from _values(value)


def _pick(rng: np.random.Generator, options: Any) -> Any:
    options = list(options)
    return options[int(rng.integers(len(options)))]


def _mutate_document(tree: Tree, rng: np.random.Generator) -> None:
    name = _pick(rng, [n for n in tree if n.endswith("zarr.json")])
    document = json.loads(tree[name])
    for _ in range(int(rng.integers(1, 4))):
        place, key = _pick(rng, _values(document))
        if rng.random() < 0.2:
            del place[key]
            if not document:
                break
        else:
            # A copy: what one trial puts into a list, no other finds there.
            place[key] = copy.deepcopy(_pick(rng, NASTY))
    tree[name] = json.dumps(document).encode()


def _mutate_bytes(tree: Tree, rng: np.random.Generator) -> None:
    """Change, cut, lengthen or swap what a file holds."""
    name = _pick(rng, tree)
    data = bytearray(tree[name])
    kind = int(rng.integers(4))
    if kind == 0 and data:
        for _ in range(int(rng.integers(1, 5))):
            data[int(rng.integers(len(data)))] ^= int(rng.integers(1, 256))
    elif kind == 1:
        data = data[: int(rng.integers(len(data) + 1))]
    elif kind == 2:
        data += rng.bytes(int(rng.integers(1, 40)))
    else:
        data = bytearray(tree[_pick(rng, tree)])
    tree[name] = bytes(data)


def _mutate_object(tree: Tree, rng: np.random.Generator) -> None:
    """Change what an object holds, and make its check sum right again."""
    objects = [n for n in tree if not n.endswith("zarr.json") and len(tree[n]) > 4]
    name = _pick(rng, objects)
    data = bytearray(tree[name][:-4])
    near = 20 if rng.random() < 0.7 else len(data)
    for _ in range(int(rng.integers(1, 4))):
        data[int(rng.integers(min(near, len(data))))] = int(rng.integers(256))
    tree[name] = bytes(data) + checksum(bytes(data))


def _mutate_files(tree: Tree, rng: np.random.Generator) -> None:
    """Lose, move or add a file."""
    name = _pick(rng, tree)
    kind = int(rng.integers(4))
    if kind == 0:
        del tree[name]
    elif kind == 1:
        tree[name + _pick(rng, ["x", ".9", "/c", "~"])] = tree.pop(name)
    elif kind == 2:
        folder = name.rpartition("/")[0]
        other = ["c.99", "c.999999999999", "c/7/0", ".zgroup", "..x/zarr.json", "c.-1"]
        tree[f"{folder}/{_pick(rng, other)}".lstrip("/")] = tree[name]
    else:
        folder = name.partition("/")[0] + "/"
        for lost in [n for n in tree if n.startswith(folder)]:
            del tree[lost]


MUTATIONS = (_mutate_document, _mutate_bytes, _mutate_object, _mutate_files)


def _tree(folder: Path) -> Tree:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def _plant(tree: Tree, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, data in tree.items():
        path = folder / name
        with contextlib.suppress(FileExistsError, NotADirectoryError):
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.is_dir():
                path.write_bytes(data)


def _bases(folder: Path) -> dict[str, Tree]:
    """Return a closed, a growing, a single-moment and a foreign recording, a study."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 4), nn.Tanh())
    for name in ("closed", "growing"):
        recorder = repsim.Recorder(
            net, INPUTS, labels=range(6), every=1, store=folder / name
        )
        recorder.__enter__()
        for _ in range(3):
            recorder.step()
        recorder.close(complete=name == "closed")
    repsim.save_recording(_run().isel(step=0), folder / "moment")
    _run().to_zarr(folder / "foreign", consolidated=False)
    for seed in "01":
        repsim.save_recording(_run(), folder / "study.zarr" / "bp" / seed)
        training = xr.Dataset({"loss": ("step", [1.0, 2.0])}, {"step": [1, 2]})
        training.to_zarr(
            folder / "study.zarr", group=f"bp/{seed}/training", consolidated=False
        )
    names = ("closed", "growing", "moment", "foreign", "study.zarr")
    return {name: _tree(folder / name) for name in names}


class Watch:
    """Notes what is written outside a folder, and every run of other code."""

    allowed: Path | None = None
    noted: list[str] = []

    @classmethod
    def hook(cls, event: str, args: tuple[Any, ...]) -> None:
        """Take an event of Python's audit hooks."""
        if cls.allowed is None:
            return
        if event in ("exec", "os.system", "subprocess.Popen", "pickle.find_class"):
            if event != "exec":
                cls.noted.append(f"{event} {args}")
            return
        writes = event == "open" and isinstance(args[1], str) and args[1].strip("rbt")
        flags = event == "open" and isinstance(args[2], int) and args[2] & 0o1103
        changes = event in ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link")
        if not (writes or flags or changes or event == "shutil.rmtree"):
            return
        path = str(args[0])
        if not path.startswith((str(cls.allowed), "/dev/")) and os.path.isabs(path):
            cls.noted.append(f"{event} {path}")


@contextlib.contextmanager
def _watched(folder: Path) -> Iterator[None]:
    def late(*_: Any) -> None:
        raise TimeoutError("it hangs")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)  # far beyond: it is a hang that is looked for, not slowness
    Watch.allowed, Watch.noted = folder.parent, []
    try:
        yield
    finally:
        Watch.allowed = None
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _read(path: Path) -> None:
    if path.name == "study.zarr":
        for node in repsim.open_study(path).subtree:
            node.to_dataset().load()
    else:
        repsim.open_recording(path).load()


def _go_on(path: Path) -> None:
    net = nn.Sequential(nn.Linear(5, 4), nn.Tanh())
    with repsim.Recorder(
        net, INPUTS, labels=range(6), every=1, store=path, resume=True, start=2
    ) as recorder:
        recorder.step()


def _outcome(path: Path) -> str:
    """Do with a store what a reader does, and then what a writer does."""
    uses = {"opened": _read}
    if path.name in ("closed", "growing"):
        uses["resumed"] = _go_on
    done = ""
    for name, use in uses.items():
        try:
            use(path)
        except (ValueError, OSError) as error:
            if (getattr(error, "strerror", None) or str(error)).startswith("Expected "):
                return f"{done} told".strip()
            raise
        done = name
    return done


def test_mutated_stores_open_or_are_told(tmp_path: Path) -> None:
    bases = _bases(tmp_path)
    if TRIALS:
        sys.addaudithook(Watch.hook)
    ends: collections.Counter[str] = collections.Counter()
    slowest, failed = 0.0, list[str]()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (tmp_path / "fuzzed").mkdir()
    for trial in range(FIRST, FIRST + TRIALS):
        rng = np.random.default_rng([20, trial])
        base = _pick(rng, bases)
        tree, path = dict(bases[base]), tmp_path / "fuzzed" / base
        kind = _pick(rng, MUTATIONS)
        kind(tree, rng)
        _plant(tree, path)
        began = time.process_time()
        try:
            with warnings.catch_warnings(), _watched(path):
                warnings.simplefilter("ignore")
                end = _outcome(path)
        except Exception as error:
            end = "failed"
            failed.append(f"trial {trial}, {base}, {kind.__name__}: {error!r}")
        if Watch.noted:
            failed.append(f"trial {trial}, {base}, {kind.__name__}: {Watch.noted}")
        taken = time.process_time() - began
        slowest = max(slowest, taken)
        if taken > 1:
            print(f"slow: trial {trial}, {base}, {kind.__name__}: {taken:.1f} s")
        ends[f"{base}, {kind.__name__[8:]}: {end}"] += 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
    print(f"\n{TRIALS} stores, slowest {slowest:.2f} s CPU, {peak / 1024:.0f} MB more")
    for name, number in sorted(ends.items()):
        print(f"  {number:5d} {name}")
    assert not failed, "\n".join(failed)
    assert peak < 2**20  # kilobytes
    if TRIALS >= 100:
        assert {n.rpartition(" ")[2] for n in ends} == {"opened", "resumed", "told"}


def test_nothing_rests_on_the_clock(store: Path) -> None:
    before = repsim.open_recording(store).load()
    for number, path in enumerate(sorted(store.rglob("*"))):
        os.utime(path, (number, 0))
    xr.testing.assert_identical(repsim.open_recording(store).load(), before)


def test_a_condition_that_says_it_is_an_array_is_told(tmp_path: Path) -> None:
    run, store = repsim.from_arrays({"h": np.eye(4)}), tmp_path / "s.zarr"
    for group in ("bp/0", "sg/0"):
        repsim.save_recording(run, store / group)
    array = (store / "bp" / "0" / "h" / "zarr.json").read_text()
    (store / "bp" / "zarr.json").write_text(array)
    with pytest.raises(
        ValueError, match=r"Expected the groups in .* variable named bp"
    ):
        repsim.open_study(store)
