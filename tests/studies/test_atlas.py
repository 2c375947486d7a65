"""The atlas: its cost, what is left out and why, its page, and going on."""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from torch import Tensor

import repsim
from repsim.analyses import sources
from repsim.cli.commands import main
from repsim.datasets.recordings import networks
from repsim.inference import seed_test
from repsim.learning.rules.backpropagation import Backpropagation
from repsim.studies import atlas_page, fingerprints
from repsim.studies.atlas import plan_atlas, run_atlas
from repsim.studies.atlas_page import STORE

# Networks this small have constant layers now and then.
pytestmark = pytest.mark.filterwarnings("ignore:.* pairs are NaN", "ignore:.*constant")

SMALL: dict[str, Any] = {
    "networks": ["mlp", "cnn"], "datasets": ["digits"], "seeds": 2, "depth": 2,
    "width": 8, "steps": 20, "lr": 1e-2, "record": [0, 10, 20], "examples": 40,
}  # fmt: skip


def refuses(network: Any, **options: Any) -> repsim.learning.Rule:
    """Return no rule: a stranger's, for networks of another kind."""
    msg = "Expected another network."
    raise ValueError(msg)


class Doomed(Backpropagation):
    """A rule whose loss stops being finite after a while."""

    def gradients(self, x: Tensor, y: Tensor, count: int) -> dict[str, Tensor]:
        """Do as backpropagation, until it diverges."""
        if self.steps >= 10:
            msg = "Expected a finite loss, but it is doomed."
            raise repsim.learning.Diverged(msg)
        return super().gradients(x, y, count)


@pytest.fixture(scope="module")
def small_reports(
    blank_figures: Callable[[], AbstractContextManager[None]],
) -> Iterator[None]:
    """Draw two sections of each report, and know a rule that takes no network."""
    few = {name: sources()[name] for name in ("learning_curves", "seeds")}
    repsim.learning.register("refuses", refuses)
    repsim.learning.register("doomed", Doomed)
    with pytest.MonkeyPatch.context() as patch, blank_figures():
        patch.setattr(fingerprints, "sources", lambda: few)
        yield
    for name in ("refuses", "doomed"):
        repsim.learning.unregister(name)


@pytest.fixture(scope="module")
def made(small_reports: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("atlas")
    plan = plan_atlas(out, rules=["bp", "sg", "doomed", "refuses"], **SMALL)
    assert [place.name for place in plan.places] == ["mlp_digits", "cnn_digits"]
    assert [(p.to_tune, p.to_train) for p in plan.places] == [(0, 6), (0, 6)]
    assert all(p.left_out == {"refuses": "Expected another network."}
               for p in plan.places)  # fmt: skip
    said = plan.lines(2)
    assert said[0].startswith("Atlas: 12 networks to train and 0 to choose rates by")
    assert "    without refuses: Expected another network." in said
    run_atlas(plan, jobs=1, progress=False)
    return out


def test_what_diverges_is_left_out_with_its_reason(made: Path) -> None:
    spec = json.loads((made / "mlp_digits" / "study.json").read_text())["spec"]
    assert spec["conditions"] == ["bp", "sg"]
    page = (made / "report.html").read_text()
    assert (
        "mlp_digits without doomed: Expected a finite loss, but it is doomed." in page
    )
    assert "cnn_digits without refuses: Expected another network." in page
    assert 'href="cnn_digits/report.html"' in page
    # Two networks a rule can be told apart by no test.
    assert "no conclusion, too few networks" in page and "none found" not in page
    assert "mlp_digits has too few networks a rule to tell any apart" in page
    for stem in ("differs", "where", "when", "map_digits"):
        assert (made / "figures" / f"{stem}.png").is_file()


def test_numbers_are_those_of_the_studies(made: Path) -> None:
    result = xr.open_zarr(made / STORE, group="mlp_digits", consolidated=False).load()
    study = repsim.open_study(made / "mlp_digits" / "runs.zarr")
    with pytest.warns(UserWarning, match="smallest attainable"):
        alone = seed_test(study, "bp", "sg", step="all")
    cells = result.sel(rule="sg")
    np.testing.assert_allclose(cells["place_p"], alone["omnibus_place_p"])
    last = alone["difference"].isel(step=-1)
    np.testing.assert_allclose(cells["difference"].sel(moment="equal steps"), last)
    # Two networks a rule cannot find anything.
    assert not cells["place"].any() and bool(np.isnan(cells["since"]))
    logs = [study[f"sg/{seed}/training"]["test_accuracy"][-1] for seed in (0, 1)]
    assert float(result["score"].sel(scored="sg")) == pytest.approx(np.mean(logs))


def test_all_networks_are_on_the_map(made: Path) -> None:
    group = "atlas_map_digits"
    points = xr.open_zarr(made / STORE, group=group, consolidated=False).load()
    assert points["point"].shape == (8, 2)
    assert sorted(set(points["kind"].values.tolist())) == ["cnn", "mlp"]


def test_it_goes_on_and_says_what_is_left(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = networks(repsim.open_study(made / "mlp_digits" / "runs.zarr"))
    before = {key: run.attrs["created"] for key, run in study.items()}
    rules = ["bp", "sg", "doomed", "refuses"]
    plan = plan_atlas(made, rules=rules, **{**SMALL, "networks": ["mlp"]})
    assert [p.to_train for p in plan.places] == [0]
    assert "doomed" in plan.places[0].left_out
    (made / "report.html").unlink()
    monkeypatch.setattr(atlas_page, "seed_test", None)  # what is tested is kept
    run_atlas(plan, jobs=1, progress=False)
    # What an earlier call has made stays on the page, with what it lacks.
    page = (made / "report.html").read_text()
    assert 'href="cnn_digits/report.html"' in page
    assert "cnn_digits without refuses: Expected another network." in page
    study = networks(repsim.open_study(made / "mlp_digits" / "runs.zarr"))
    assert {key: run.attrs["created"] for key, run in study.items()} == before
    words = "repsim study --preset atlas --cost --rules bp,sg --network mlp --dataset"
    words += " digits --seeds 3 --steps 5 --depth 1 --width 4 --out"
    out = made / "other"
    monkeypatch.setattr("sys.argv", [*words.split(), str(out)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0 and not out.exists()
    # Four rates, two networks each, and two rules.
    expected = "Atlas: 6 networks to train and 16 to choose rates by"
    assert capsys.readouterr().out.startswith(expected)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--preset atlsa", "Did you mean 'atlas'"),
        ("--preset atlas --depth 1,2", "Expected one --depth with --preset"),
        ("--cost", "Expected --cost with --preset"),
        ("--preset atlas --rules nope", "Did you mean"),
    ],
)
def test_what_cannot_be_is_refused(
    words: str, message: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["repsim", "study", *words.split()])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_the_first_rule_must_train(small_reports: None, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="first rule, which others are compared with"):
        plan_atlas(tmp_path / "a", rules=["refuses", "bp"], **SMALL)
    (tmp_path / "study.json").write_text("{}")
    with pytest.raises(ValueError, match="an atlas, but it holds one study"):
        plan_atlas(tmp_path, rules=["bp"], **SMALL)
