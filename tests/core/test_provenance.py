"""What made a result."""

from importlib.metadata import version

from repsim.core.provenance import made_by, repsim_version, versions
from repsim.core.seeding import derived_seed


def test_versions() -> None:
    assert repsim_version() == version("repsim-toolkit") == versions()["repsim"]
    assert versions()["torch"] == version("torch")
    assert made_by("scikit-learn", measure="cka") == {
        "measure": "cka",
        "repsim_version": repsim_version(),
        "scikit_learn_version": version("scikit-learn"),
    }


def test_seeds_depend_on_all_three_and_stay() -> None:
    found = {
        derived_seed(purpose, label, seed)
        for purpose in ("init", "run")
        for label in ("bp", "sg")
        for seed in range(10)
    }
    assert len(found) == 40
    assert all(0 <= seed < 2**31 for seed in found)
    assert derived_seed("init", "bp", 0) == derived_seed("init", "bp", 0)
