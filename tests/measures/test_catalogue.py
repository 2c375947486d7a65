"""Names, metadata and a user's own measure."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import repsim
from repsim import measures

PAGE = Path(__file__).parents[2] / "docs" / "measures.md"


def test_the_names_that_are_promised() -> None:
    promised = "hsic cka cca svcca pwcca procrustes_distance mutual_knn rsa"
    assert set(promised.split()) <= set(measures.names())


def test_every_measure_says_what_it_is() -> None:
    for name in measures.names():
        measure = measures.get(name)
        assert measure.name == name
        assert isinstance(measure.larger_is_more_similar, bool)
        assert isinstance(measure.symmetric, bool)
        assert measure.bounds is None or measure.bounds[0] < measure.bounds[1]
        if measure.function.__module__.startswith("repsim."):
            assert set(measure.invariances) <= set(measures.INVARIANCES)


def test_a_measure_is_callable(rng: np.random.Generator) -> None:
    x = rng.normal(size=(20, 3))
    assert measures.get("cka")(x, x) == pytest.approx(1)
    assert measures.get("svcca")(x, x, variance=0.5) == pytest.approx(1)


def test_a_misspelt_name_gets_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"`measure` .*'proc'|Did you mean"):
        measures.get("procrustes_distanc")


def test_a_users_own_measure_goes_through_the_same_door(
    rng: np.random.Generator,
) -> None:
    def means(x: np.ndarray, y: np.ndarray, *, power: float = 1.0) -> float:
        return float(abs(x.mean() - y.mean()) ** power)

    measures.register("means_of_test", means, larger_is_more_similar=False)
    try:
        run = xr.Dataset(
            {n: (("example", f"{n}_unit"), rng.normal(size=(9, 2))) for n in "ab"}
        )
        got = repsim.compare(run, measure="means_of_test", power=2.0)
        expected = float((run.a.mean() - run.b.mean()) ** 2)
        assert got.values[0, 1] == pytest.approx(expected)
        assert got.attrs["options"] == '{"power": 2.0}'
        # The same cell of a notebook run again.
        again = measures.register("means_of_test", means, larger_is_more_similar=True)
        assert measures.get("means_of_test") is again
        with pytest.raises(TypeError, match="Did you mean 'power'"):
            repsim.compare(run, measure="means_of_test", pover=2.0)
    finally:
        measures.unregister("means_of_test")


def test_names_that_are_taken() -> None:
    with pytest.raises(ValueError, match="`name` to be free, but got 'cka'"):
        measures.register("cka", lambda x, y: 0.0, larger_is_more_similar=True)


def test_what_cannot_be_called() -> None:
    with pytest.raises(TypeError, match="`function` to be callable"):
        measures.register("none", 3, larger_is_more_similar=True)  # type: ignore[arg-type]


@pytest.mark.skipif(not PAGE.exists(), reason="runs beside docs/")
def test_the_page_holds_the_table() -> None:
    page = PAGE.read_text(encoding="utf-8").splitlines()
    built_in = [
        line
        for line in measures.table().splitlines()
        if line.split("|")[1].strip(" `") in (*_own(), "measure", "---")
    ]
    missing = [line for line in built_in if line not in page]
    assert missing == [], "run the command beside the table"


def _own() -> list[str]:
    """The names that come with the package, not those that other tests add."""
    return [
        name
        for name in measures.names()
        if measures.get(name).function.__module__.startswith("repsim.")
    ]
