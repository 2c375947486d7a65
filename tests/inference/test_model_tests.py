"""Models of RDMs: estimates the long way, error rates, coverage, and refusals."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats
from scipy.spatial.distance import pdist, squareform

import repsim
from repsim.inference import model_test
from repsim.inference.model_tests import holm


def subjects(
    rng: np.random.Generator, count: int, stimuli: np.ndarray, noise: float = 1.0
) -> np.ndarray:
    """Return RDMs of noisy measurements of the same stimuli, one a subject."""
    return np.array(
        [
            pdist(stimuli + noise * rng.normal(size=stimuli.shape), "euclidean")
            for _ in range(count)
        ]
    )


@pytest.mark.parametrize("method", ["spearman", "pearson", "kendall"])
def test_estimates_and_ceiling_are_the_long_ways(
    method: str, rng: np.random.Generator
) -> None:
    stimuli = rng.normal(size=(12, 4))
    data = subjects(rng, 5, stimuli)
    models = {"truth": pdist(stimuli), "other": pdist(rng.normal(size=(12, 4)))}
    found = model_test(data, models, method=method)  # type: ignore[arg-type]
    function = {
        "spearman": stats.spearmanr, "pearson": stats.pearsonr,
        "kendall": stats.kendalltau,
    }[method]  # fmt: skip
    for name, model in models.items():
        expected = np.mean([function(row, model).statistic for row in data])
        assert float(found["estimate"].sel(model=name)) == pytest.approx(expected)
    ceiling = repsim.noise_ceiling(
        xr.DataArray(data, dims=("rdm", "pair")),
        dim="rdm",
        method=method,  # type: ignore[arg-type]
    )
    assert found.attrs["ceiling_low"] == pytest.approx(float(ceiling["lower"]))
    assert found.attrs["ceiling_high"] == pytest.approx(float(ceiling["upper"]))
    assert float(found["difference"].sel(model_a="truth", model_b="other")) > 0
    np.testing.assert_allclose(found["difference"], -found["difference"].values.T)


def test_over_rdms_is_a_t_test(rng: np.random.Generator) -> None:
    stimuli = rng.normal(size=(12, 4))
    data = subjects(rng, 6, stimuli, 2.0)
    models = np.array([pdist(stimuli), pdist(rng.normal(size=(12, 4)))])
    found = model_test(data, models, over="rdm")
    each = np.array([[stats.spearmanr(r, m).statistic for m in models] for r in data])
    single = stats.ttest_1samp(each, 0, alternative="greater").pvalue
    np.testing.assert_allclose(found["p_value"], holm(single))
    paired = stats.ttest_rel(each[:, 0], each[:, 1]).pvalue
    assert float(found["p_difference"][0, 1]) == pytest.approx(paired)
    ends = stats.ttest_1samp(each[:, 0], 0).confidence_interval(0.95)
    assert float(found["low"][0]) == pytest.approx(ends.low)
    rest = [np.delete(data, r, 0) for r in range(6)]
    ranks = [np.sum([stats.rankdata(v) for v in some], 0) for some in rest]
    ceiling = [
        stats.spearmanr(r, c).statistic for r, c in zip(data, ranks, strict=True)
    ]
    below = stats.ttest_rel(each, np.array(ceiling)[:, None], alternative="less").pvalue
    np.testing.assert_allclose(found["p_ceiling"], holm(below))


def test_over_both_factors_is_both_jackknives_less_what_both_hold(
    rng: np.random.Generator,
) -> None:
    # How often it errs and covers is in the docs, by tests/benchmarks/calibration.py.
    n, count = 10, 4
    stimuli = rng.normal(size=(n, 4))
    data = subjects(rng, count, stimuli)
    models = np.array([pdist(stimuli), pdist(rng.normal(size=(n, 4)))])

    def tau(rdm: np.ndarray, model: np.ndarray, keep: np.ndarray) -> float:
        parts = [squareform(squareform(v)[np.ix_(keep, keep)]) for v in (rdm, model)]
        return float(stats.kendalltau(*parts).statistic)

    left = [np.delete(np.arange(n), i) for i in range(n)]
    found = model_test(data, models, method="kendall")
    single = []
    for m, model in enumerate(models):
        whole = np.array([tau(row, model, np.arange(n)) for row in data])
        moved = np.array([[tau(row, model, keep) for row in data] for keep in left])
        moved -= whole
        of_example = moved.mean(1)
        by_rdm = whole.var(ddof=1) / count
        by_example = (n - 1) / n * ((of_example - of_example.mean()) ** 2).sum()
        inner = moved - of_example[:, None]
        inner -= inner.mean(0)
        both = (n - 1) / n * (inner**2).sum() / (count * (count - 1))
        variance = max(by_rdm + by_example - both, by_rdm, by_example)
        freedom = variance**2 / (by_rdm**2 / (count - 1) + by_example**2 / (n - 1))
        reach = stats.t.ppf(0.975, freedom) * np.sqrt(variance)
        assert float(found["estimate"][m]) == pytest.approx(whole.mean())
        assert float(found["standard_error"][m]) == pytest.approx(np.sqrt(variance))
        assert float(found["high"][m]) == pytest.approx(min(1, whole.mean() + reach))
        single.append(stats.t.sf(whole.mean() / np.sqrt(variance), freedom))
    np.testing.assert_allclose(found["p_value"], holm(np.array(single)))
    over = model_test(data, models, method="kendall", over="rdm")
    assert (over["standard_error"] <= found["standard_error"] + 1e-12).all()


def test_models_by_name_by_array_and_by_square(rng: np.random.Generator) -> None:
    stimuli = rng.normal(size=(8, 3))
    data, model = subjects(rng, 4, stimuli), pdist(stimuli)
    one = model_test(data, {"m": model})
    square = model_test(data, {"m": squareform(model)})
    plain = model_test(xr.DataArray(data, dims=("subject", "pair")), model)
    for other in (square, plain):
        np.testing.assert_allclose(one["estimate"], other["estimate"])
    alone = model_test(data[0], {"m": model}, over="example")
    assert np.isnan(alone.attrs["ceiling_low"])
    assert bool(alone["p_ceiling"].isnull().all())


def test_many_null_models_are_corrected_for() -> None:
    p = np.array([0.01, 0.04, np.nan, 0.03])
    np.testing.assert_allclose(holm(p), [0.03, 0.06, np.nan, 0.06])


def test_refusals(rng: np.random.Generator) -> None:
    data = subjects(rng, 4, rng.normal(size=(8, 3)))
    for args, kwargs, message in (
        ((data, data[0]), {"level": 95}, "Expected `level` between 0 and 1"),
        ((data, data[0]), {"method": "spear"}, "Did you mean 'spearman'"),
        ((data, data[0]), {"over": "subject"}, "Expected `over` to be one of rdm"),
        ((data[:2], data[0]), {}, "at least three RDMs to generalise over"),
        ((data[:, :10], data[0, :10]), {}, "at least 6 examples, but got 10 pairs"),
        ((data, data[0, :21]), {}, "same pairs"),
        (
            (xr.DataArray([data] * 2, dims=("step", "rdm", "pair")), data[0]), {},
            r"one dim besides `pair`, but got \(step, rdm, pair\); select a layer and",
        ),
        (
            (data, {"fc": xr.DataArray(data, dims=("step", "pair"))}), {},
            r"`models\['fc'\]` to have `pair` alone, but got \(step, pair\)",
        ),
        (
            (data, xr.DataArray([data] * 2, dims=("step", "layer", "pair"))), {},
            "`models` to have one dim besides `pair`",
        ),
        ((np.ones((3, 8, 5)), data[0]), {}, "RDMs of responses first, with repsim.rd"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            model_test(*args, **kwargs)  # type: ignore[arg-type]


def test_the_only_layer_and_the_only_moment_need_no_choice(
    rng: np.random.Generator,
) -> None:
    data = subjects(rng, 4, rng.normal(size=(8, 3)))
    dims = ("network", "layer", "pair")
    plain = model_test(data, {"a": data[0], "b": data[1]})
    kept = xr.DataArray(data[:, None], dims=dims)
    models = {k: xr.DataArray(data[None, [i]], dims=("step", "layer", "pair"))
              for i, k in enumerate("ab")}  # fmt: skip
    xr.testing.assert_equal(model_test(kept, models), plain)
    single = model_test(data[:1], data[[1]], over="example")
    assert single.sizes["model"] == 1
