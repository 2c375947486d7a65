"""Networks and data of one's own: by name, by import, as they are; and recordings."""

import importlib
import json
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from joblib.externals.loky import get_reusable_executor
from torch import nn

import repsim
from repsim import run_study
from repsim.analyses import probe
from repsim.datasets.recordings import networks
from repsim.studies.joining import join_recordings
from repsim.studies.report import write_report

SMALL: dict[str, Any] = {
    "seeds": 1, "steps": 4, "lr": 1e-2, "depth": 1, "width": 4, "examples": 12,
    "progress": False,
}  # fmt: skip


def tiny(
    shape: tuple[int, ...], classes: int, *, depth: int, width: int, activation: str,
    seed: int,
) -> nn.Module:  # fmt: skip
    """Return a stranger's network: one convolution, and a linear output."""
    generator = torch.get_rng_state()
    torch.manual_seed(seed)
    blocks = nn.Sequential()
    blocks.add_module("maps", nn.Sequential(nn.Conv2d(shape[0], width, 3), nn.ReLU()))
    flat = width * (shape[1] - 2) * (shape[2] - 2)
    blocks.add_module("out", nn.Sequential(nn.Flatten(), nn.Linear(flat, classes)))
    torch.set_rng_state(generator)
    return blocks


def listed(shape: tuple[int, ...], classes: int, **options: Any) -> nn.Module:
    """Return a network whose own forward calls what lies in a list."""
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ModuleList([nn.Conv2d(2, 2, 3)]))


def recurrent(shape: tuple[int, ...], classes: int, **options: Any) -> nn.Module:
    """Return a network with a block that returns its states, too."""
    rows = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Flatten(2))
    return nn.Sequential(rows, nn.GRU(64, 4, batch_first=True), nn.Flatten())


def paired(shape: tuple[int, ...], classes: int, **options: Any) -> nn.Module:
    """Return a network that returns what it computed on the way, too."""

    class Pair(nn.Sequential):
        def forward(self, x: torch.Tensor) -> Any:
            return super().forward(x), x

    return Pair(nn.Flatten(), nn.Linear(64, 4), nn.Linear(4, classes))


def stripes(split: str, root: object) -> xr.Dataset:
    """Return images of horizontal and vertical stripes."""
    rng = np.random.default_rng(split == "train")
    label = np.arange(24) % 2
    image = rng.random((24, 6, 6)) * 0.3
    image[label == 0, ::2] += 0.7
    image[label == 1, :, ::2] += 0.7
    return xr.Dataset(
        {"image": (("example", "y", "x"), image.astype("float32")),
         "label": ("example", label)},
        {"example": np.arange(24)},
    )  # fmt: skip


def test_a_stranger_s_network_and_data_is_the_same_in_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A module of the user's own: workers begin anew and find it on the path.
    (tmp_path / "strangers.py").write_text(Path(__file__).read_text())
    monkeypatch.syspath_prepend(tmp_path)
    get_reusable_executor().shutdown()
    mine = importlib.import_module("strangers")
    study, there = (
        run_study(["bp", "sg"], mine.stripes, out=tmp_path / f"{jobs}", jobs=jobs,
                  network=mine.tiny, **SMALL)
        for jobs in (1, 2)
    )  # fmt: skip
    monkeypatch.delitem(sys.modules, "strangers")
    for path in ("bp/0", "sg/0", "bp/0/training", "sg/0/training"):
        xr.testing.assert_equal(
            study[path].to_dataset().load(), there[path].to_dataset().load()
        )
    run = networks(study)["bp", "0"]
    assert repsim.layers(run) == ["maps", "out"]
    assert run["maps"].dims == ("step", "example", "maps_unit")  # the mean over space
    assert run.attrs["reduce"] == "mean"
    spec = json.loads((tmp_path / "2" / "study.json").read_text())["spec"]
    assert spec["network"].endswith(":tiny") and spec["dataset"].endswith(":stripes")
    assert study["input"].shape == (12, 36)


def test_names_import_and_registry_give_the_same_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(Path(__file__).read_text())
    monkeypatch.chdir(tmp_path)
    repsim.networks.register("tiny", tiny)
    repsim.datasets.register("stripes", stripes)
    try:
        made = [
            networks(run_study(["bp"], data, out=tmp_path / out, network=net, jobs=1,
                               **SMALL))["bp", "0"]
            for out, net, data in (
                ("a", "tiny", "stripes"), ("b", "mine:tiny", "mine:stripes"),
                ("c", tiny, (stripes("train", None), stripes("test", None))),
            )
        ]  # fmt: skip
    finally:
        repsim.networks.unregister("tiny")
        repsim.datasets.unregister("stripes")
    for other in made[1:]:
        np.testing.assert_array_equal(made[0]["maps"], other["maps"])


@pytest.mark.filterwarnings("ignore:Left out by reduce='tokens'.*output")
def test_tokens_are_examples_that_probes_keep_together(tmp_path: Path) -> None:
    made = {
        how: run_study(["bp"], stripes, out=tmp_path / how, network="vit", reduce=how,
                       jobs=1, **SMALL)
        for how in ("last", "tokens")
    }  # fmt: skip
    last, tokens = (networks(study)["bp", "0"] for study in made.values())
    assert repsim.layers(last) == ["hidden_1", "output"]
    assert repsim.layers(tokens) == ["hidden_1"]
    assert "input" in made["last"] and "input" not in made["tokens"]
    assert tokens.sizes["example"] == 9 * last.sizes["example"]
    end = tokens.isel(example=tokens["position"].values == 8)
    np.testing.assert_array_equal(end["sequence"], last["example"])
    np.testing.assert_allclose(end["hidden_1"], last["hidden_1"], rtol=1e-5)
    scores = probe.compute(made["tokens"])
    assert scores.attrs["groups"] == "sequence"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"network": "mpl"}, "`network` to be one of .* Did you mean 'mlp'"),
        ({"network": "no_such:net"}, "`network` as module:function, but got 'no_such"),
        ({"network": lambda shape: None}, r"a function f\(shape, classes, \*, depth"),
        ({"dataset": lambda split, root: xr.Dataset()}, "`label`, but got"),
        ({"network": listed}, "'1' is a ModuleList; put its modules into nn.Seq"),
        ({"network": recurrent}, "Expected block '1' to return one tensor with a row"),
        ({"network": paired}, "the network to return one tensor, .* but got tuple"),
        ({"reduce": "max"}, "`reduce` to be one of flatten, mean, last, first, tokens"),
    ],
)
def test_what_cannot_be_trained_is_refused(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run_study(["bp"], out=tmp_path / "s", jobs=1, **SMALL, **options)
    assert not (tmp_path / "s").exists()
    with pytest.raises(TypeError, match="as a name or a function, but got int"):
        run_study(["bp"], out=tmp_path / "s", network=5, **SMALL)


@pytest.mark.usefixtures("undrawn")
def test_recordings_made_elsewhere_join_into_a_study(tmp_path: Path) -> None:
    x = torch.rand(12, 6, generator=torch.Generator().manual_seed(0))
    for number, rule in enumerate(("mine", "mine", "yours")):
        torch.manual_seed(number)
        model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4))
        repsim.record(model, x, store=tmp_path / f"{number}.zarr", group=f"{rule}/7")
    paths = [tmp_path / f"{number}.zarr" for number in range(3)]
    out = join_recordings(paths, tmp_path / "s")
    joined = networks(repsim.open_study(out))
    assert list(joined) == [("mine", "0"), ("mine", "1"), ("yours", "0")]
    there = repsim.open_recording(tmp_path / "1.zarr" / "mine" / "7")
    xr.testing.assert_identical(joined["mine", "1"].load(), there.load())
    join_recordings(paths, out)
    assert len(networks(repsim.open_study(out))) == 3
    page = write_report(out, jobs=1, progress=False).read_text()
    assert "Do the layers of mine and yours represent the data differently?" in page
    maps = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten())
    store = tmp_path / "maps.zarr"
    image = torch.rand(12, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    repsim.record(maps, image, store=store, group="mine/0")
    xr.Dataset({"loss": ("step", [1.0])}).to_zarr(
        store, group="mine/0/training", zarr_format=3, consolidated=False
    )
    out = join_recordings([store], tmp_path / "pooled", reduce="mean")
    run = networks(repsim.open_study(out))["mine", "0"]
    expected = repsim.reduce(repsim.open_recording(store / "mine" / "0"), "mean")
    np.testing.assert_array_equal(run["0"], expected["0"])
    assert "loss" in repsim.open_study(out)["mine/0/training"]
    with pytest.raises(FileNotFoundError, match="but found none; a store is what"):
        join_recordings([tmp_path / "nothing"], out)


class Inside(nn.Module):
    """A network inside of another module, as Lightning's are."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run it."""
        return self.net(x)  # type: ignore[no-any-return]


def test_a_network_inside_of_a_module_joins_under_the_first_one_s_names(
    tmp_path: Path,
) -> None:
    x, y = torch.rand(12, 1, 5, 5), torch.arange(12) % 3
    for number in range(3):
        torch.manual_seed(number)
        net = nn.Sequential(nn.Conv2d(1, 2, 2), nn.Flatten(), nn.Linear(32, 3))
        model, layers = (net, "*") if number < 2 else (Inside(net), "net.*")
        with repsim.Recorder(
            model, x, layers=layers, labels=y, store=tmp_path / f"{number}.zarr",
            group="one/0", errors=nn.functional.cross_entropy,
            attrs={"condition": f"c{number}"},
        ):  # fmt: skip
            pass
    plain, other, inside = (tmp_path / f"{number}.zarr" for number in range(3))
    out = join_recordings([plain], tmp_path / "s")
    join_recordings([other, inside], out)
    joined = networks(repsim.open_study(out))
    run, there = joined["c2", "0"].load(), repsim.open_recording(inside / "one/0")
    assert repsim.layers(run) == repsim.layers(joined["c0", "0"]) == ["0", "1", "2"]
    assert run["0"].dims == ("step", "example", "0_channel", "0_y", "0_x")
    assert set(run.variables) == set(joined["c0", "0"].variables)
    np.testing.assert_array_equal(run["2@error"], there["net.2@error"])
    np.testing.assert_array_equal(run["0"], there["net.0"])
    flat = join_recordings([inside, plain], tmp_path / "flat", reduce="flatten")
    for one in networks(repsim.open_study(flat)).values():
        assert repsim.layers(one) == ["net.0", "net.1", "net.2"]
    odd = nn.Sequential(OrderedDict(a=nn.Flatten(), b=nn.Linear(25, 3)))
    repsim.record(odd, x, store=tmp_path / "odd.zarr", group="odd/0")
    paths = [plain, tmp_path / "odd.zarr"]
    out = join_recordings(paths, tmp_path / "t", reduce="flatten")
    assert repsim.layers(networks(repsim.open_study(out))["odd", "0"]) == ["a", "b"]
    with pytest.raises(ValueError, match="none is in both, so record them under the s"):
        repsim.compare(repsim.open_study(out))


def test_other_data_under_the_same_name_are_no_longer_the_study_s(
    tmp_path: Path,
) -> None:
    def data(shift: float) -> Callable[..., xr.Dataset]:
        def load(split: str, root: object) -> xr.Dataset:
            rng = np.random.default_rng(split == "test")
            label = np.arange(90) % 3
            rows = np.eye(3)[label] + rng.normal(shift, 0.3, (90, 3))
            return xr.Dataset(
                {
                    "features": (("example", "feature"), rows.astype("float32")),
                    "label": ("example", label),
                }
            )

        return load

    def run(loader: Any, out: str, **options: Any) -> xr.DataTree:
        if not isinstance(loader, tuple):
            repsim.datasets.register("mine", loader)
        try:
            return repsim.run_study(
                ["bp"], "mine" if not isinstance(loader, tuple) else loader,
                seeds=options.pop("seeds", 1), out=tmp_path / out, depth=1, width=4,
                steps=3, examples=20, lr=1e-2, progress=False, **options,
            )  # fmt: skip
        finally:
            if not isinstance(loader, tuple):
                repsim.datasets.unregister("mine")

    def recorded(study: xr.DataTree) -> np.ndarray:
        return np.asarray(study["bp/0/hidden_1"].isel(step=0).values)

    first = recorded(run(data(0.0), "a", jobs=1))
    np.testing.assert_array_equal(recorded(run(data(0.0), "a", jobs=1)), first)
    # Mended in the same process, under the same name: neither what was read nor what
    # was trained is taken for it, in workers that know the old one neither.
    sentence = r"Expected the data of the study in .*a, but 'mine' now gives others"
    for seeds in (1, 2):
        with pytest.raises(ValueError, match=sentence):
            run(data(2.0), "a", jobs=1, seeds=seeds)
    second = recorded(run(data(2.0), "b", jobs=1))
    assert abs(second - first).max() > 0.1
    for shift, expected in ((0.0, first), (2.0, second)):
        found = recorded(run(data(shift), f"workers{shift}", jobs=2))
        np.testing.assert_allclose(found, expected, atol=1e-6)
    pair = tuple(data(0.0)(split, None) for split in ("train", "test"))
    run(pair, "c", jobs=1)
    other = tuple(data(2.0)(split, None) for split in ("train", "test"))
    with pytest.raises(ValueError, match="but 'given' now gives others"):
        run(other, "c", jobs=1)
