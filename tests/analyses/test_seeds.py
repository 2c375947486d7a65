"""Rules against seeds in the report: the numbers, the moments, and the words."""

import numpy as np
import pytest
import xarray as xr

import repsim
from repsim.analyses import NotApplicable, baselines, depth_profiles, seeds
from repsim.inference import at_accuracy, profile_test, seed_test
from repsim.plot.style import room


def grown(study: xr.DataTree, count: int = 5, *, apart: bool = True) -> xr.DataTree:
    """Return the study with more seeds, sg moved away from bp at the last step."""
    rng, nodes = np.random.default_rng(3), {}
    for condition in ("bp", "sg"):
        for seed in range(count):
            run = study["bp/0"].to_dataset().copy(deep=True)
            for layer in ("hidden_1", "hidden_2", "output"):
                noise = rng.normal(size=run[layer].shape)
                run[layer] = run[layer] + noise.astype("float32")
            if condition == "sg":
                moved = np.random.default_rng(8).normal(size=(24, 6))
                run["hidden_2"][-1] += 4 * moved.astype("float32")
            number = 10 * (condition == "sg") if apart else 0
            run.attrs |= {"init_seed": number + seed}
            log = study[f"{condition}/1/training"].to_dataset().copy(deep=True)
            log["displacement"] = log["displacement"] + (condition == "sg")
            log["displacement"] += 0.01 * rng.normal(size=(3, 3))
            log["test_accuracy"] = ("step", [0.2, 0.5 + 0.01 * seed, 0.9])
            if condition == "sg":
                log["test_accuracy"] = ("step", [0.2, 0.9, 0.95])
            nodes[f"{condition}/{seed}"] = run
            nodes[f"{condition}/{seed}/training"] = log
    return xr.DataTree.from_dict(nodes)


def test_both_moments_are_the_seed_tests(study: xr.DataTree) -> None:
    tree = grown(study)
    found = seeds.compute(tree)
    assert found["moment"].values.tolist() == ["equal steps", "equal accuracy"]
    last = seed_test(tree, "bp", "sg")
    matched = seed_test(at_accuracy(tree), "bp", "sg")
    for name in ("within", "between", "difference", "effect", "p_value"):
        cell = found[name].sel(condition="sg")
        np.testing.assert_allclose(cell.sel(moment="equal steps"), last[name])
        np.testing.assert_allclose(cell.sel(moment="equal accuracy"), matched[name])
    assert found["step"].sel(condition="sg").values.tolist() == [[10, 10], [10, 5]]
    accuracy = found["accuracy"].sel(condition="sg").values
    np.testing.assert_allclose(accuracy, [[0.9, 0.95], [0.9, 0.9]])
    assert bool((found["q_value"] >= found["p_value"] - 1e-12).all())


def test_unequal_accuracies_are_not_called_equal(study: xr.DataTree) -> None:
    tree = grown(study)
    assert "not equal" not in seeds.details(seeds.compute(tree))
    nodes = {node.path: node.to_dataset() for node in tree.subtree if node.has_data}
    for path, log in nodes.items():
        if path.startswith("/sg/") and path.endswith("/training"):
            log["test_accuracy"] = ("step", [0.2, 0.3, 0.6])
    text = seeds.details(seeds.compute(xr.DataTree.from_dict(nodes)))
    # Of backpropagation's moments that of 0.5 + 0.01 seed is nearest to 0.6.
    gap = 0.6 - np.mean([0.5 + 0.01 * int(seed) for seed in tree["bp"].children])
    assert f"not equal: the nearest recorded are {gap:.3f} apart" in text


def test_the_conclusion_leads_the_caption(study: xr.DataTree) -> None:
    found = seeds.compute(grown(study))
    text = seeds.details(found)
    assert text.startswith("Equal steps (test accuracy bp 0.900 at step 10, sg 0.950")
    assert "1 of 3 layers differs by more than seeds do (q ≤ 0.05): hidden_2" in text
    numbers = seeds.summary(found)["bp–sg, equal steps"]
    assert numbers["layers_that_differ_in_place"] == 1 and numbers["layers"] == 3
    assert numbers["found"].startswith("place")


def test_the_verdict_follows_from_the_numbers(study: xr.DataTree) -> None:
    found = seeds.compute(grown(study))
    (verdict,) = seeds.verdicts(found)
    where = "bp and sg: at equal steps they differ in place in 1 of 3 layers (hidden_2;"
    assert verdict.startswith(where)
    one = found.sel(condition="sg", moment="equal steps", layer="hidden_2")
    middle, low, high = (float(one[k]) for k in ("difference", "low", "high"))
    q = f"q = {float(one['q_value']):.2g}, at hidden_2"
    assert f"CKA {middle:.3f} [{low:.3f}, {high:.3f}], {q}" in verdict
    assert "the interval alone" not in verdict
    wide = found.assign(low=found["low"] * 0 - 1)
    words = "at hidden_2, where the permutation test rejects and the interval alone"
    assert words in seeds.verdicts(wide)[0]
    assert seeds.claim(found).startswith("What differs from bp beyond seeds. sg: place")
    nothing = found.assign(q_value=found["q_value"] * 0 + 1)
    nothing["spread_q_value"] = nothing["q_value"]
    assert "at equal steps nothing found (largest diff" in seeds.verdicts(nothing)[0]
    assert seeds.claim(nothing).endswith("sg: nothing found")
    unsure = found.assign(omnibus_p=found["omnibus_p"] * 0 + 1)
    assert "nothing found" in seeds.verdicts(unsure)[0]
    alone = nothing.assign(spread_q_value=nothing["q_value"] * 0)
    alone["omnibus_p"] = alone["omnibus_p"] * 0
    alone["spread_ratio"] = alone["spread_ratio"] * 0 + 2
    text = seeds.verdicts(alone)[0]
    assert "they differ in spread alone in 3 of 3 layers" in text
    assert "sg's networks vary more" in text


def test_rates_that_differ_are_named(study: xr.DataTree) -> None:
    tree = grown(study)
    for condition, lr in (("bp", 1e-3), ("sg", 3e-4)):
        for branch in tree[condition].children.values():
            branch.attrs["rule_options"] = f'{{"lr": {lr}}}'
    (verdict,) = seeds.verdicts(seeds.compute(tree))
    assert verdict.startswith("bp and sg (learning rates 0.001 and 0.0003): at equal")


def test_on_a_phone_each_panel_names_its_layers(study: xr.DataTree) -> None:
    found = seeds.compute(grown(study))
    many = xr.concat(
        [found.assign_coords(condition=[name]) for name in "abc"], "condition"
    ).assign_attrs(found.attrs | {"smallest_p": found.attrs["smallest_p"] * 3})

    def named() -> int:
        figure = seeds.figures(many)["seeds"]
        figure.draw_without_rendering()
        return sum(
            any(t.get_visible() and t.get_text() for t in ax.get_xticklabels())
            for ax in figure.axes
        )

    assert named() == 2  # the lowest row
    with room(4.8):
        assert named() == 6


def test_the_figure_marks_place_and_spread(study: xr.DataTree) -> None:
    found = seeds.compute(grown(study))
    where = seeds.found(found, "sg", "equal steps")
    one = found.sel(condition="sg", moment="equal steps")
    ax = seeds.figures(found)["seeds"].axes[0]
    nothing, spread, place, both = ax.get_lines()[1:]
    for line, at in (
        (nothing, ~where["place"] & ~where["spread"]),
        (spread, ~where["place"] & where["spread"]),
        (place, where["place"] & ~where["spread"]),
        (both, where["place"] & where["spread"]),
    ):
        assert np.asarray(line.get_xdata()).tolist() == np.flatnonzero(at).tolist()
        np.testing.assert_allclose(line.get_ydata(), one["difference"].values[at])
    bars = ax.collections[0].get_segments()
    np.testing.assert_allclose([bar[0][1] for bar in bars], one["low"])
    np.testing.assert_allclose([bar[1][1] for bar in bars], one["high"])


def test_too_few_seeds_are_a_sentence_and_no_number(study: xr.DataTree) -> None:
    found = seeds.compute(study)
    assert bool(found["q_value"].isnull().all())
    sentence = "bp and sg (3 and 3 networks): no conclusion. Too few networks"
    assert seeds.details(found).startswith(sentence)
    assert len(found.attrs["sentences"]) == 1
    assert seeds.summary(found)["bp–sg, equal steps"]["smallest_q"] is None
    profiles = depth_profiles.compute(study)
    assert depth_profiles.details(profiles).startswith(sentence)
    assert depth_profiles.claim(profiles).endswith("bp's: sg cannot be tested")
    assert "Too few networks to test" in depth_profiles.caption(profiles)


def test_five_shared_beginnings_cannot_reject(study: xr.DataTree) -> None:
    found = seeds.compute(grown(study, apart=False))
    assert found.attrs["smallest_p"] == [2 / 32]
    assert "smallest attainable p is 0.0625" in seeds.details(found)


def test_profiles_are_tested_as_profiles(study: xr.DataTree) -> None:
    tree = grown(study)
    table = depth_profiles.profiles(tree)
    assert set(table.data_vars) == {
        "rdm_to_last", "class_margin", "probe_accuracy", "displacement",
    }  # fmt: skip
    assert bool(table["rdm_to_last"].sel(layer="output").isnull().all())
    found = depth_profiles.compute(tree)
    alone = profile_test(table["displacement"], "bp", "sg")
    cell = found.sel(statistic="displacement", rule="sg")
    np.testing.assert_allclose(cell["p_value"], alone["p_value"])
    np.testing.assert_allclose(cell["effect"], alone["effect"])
    assert bool((cell["q_value"] <= 0.05).all())
    text = depth_profiles.details(found)
    assert "Displacement of the weights: bp and sg (5 and 5 networks): 3 of 3" in text
    assert depth_profiles.summary(found)["displacement, sg"]["layers_that_differ"] == 3
    figure = depth_profiles.figures(found)["depth_profiles"]
    assert len(figure.axes) == 4
    assert depth_profiles.caption(found).startswith("Squares at the bottom")
    found["q_value"] = xr.ones_like(found["q_value"])
    assert "No layer differs from bp's" in depth_profiles.caption(found)


def test_one_condition_or_one_seed_is_not_enough(study: xr.DataTree) -> None:
    one = xr.DataTree.from_dict(
        {f"bp/{i}": study[f"bp/{i}"].to_dataset() for i in range(2)}
    )
    for module in (seeds, depth_profiles):
        with pytest.raises(NotApplicable, match="at least two conditions"):
            module.compute(one)
    single = xr.DataTree.from_dict(
        {f"{c}/0": study[f"{c}/0"].to_dataset() for c in ("bp", "sg")}
    )
    with pytest.raises(NotApplicable, match="one network of each"):
        seeds.compute(single)


def test_baselines_are_the_pixels_and_the_beginning(study: xr.DataTree) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.normal(size=(24, 9))
    nodes: dict[str, xr.Dataset] = {
        "/": xr.Dataset(
            {"input": (("example", "feature"), pixels)}, {"example": np.arange(24)}
        )
    }
    for node in study.subtree:
        if node.data_vars:
            nodes[node.path] = node.to_dataset()
    found = baselines.compute(xr.DataTree.from_dict(nodes))["cka"]
    run = study["sg/1"].to_dataset()
    cell = found.sel(condition="sg", seed="1", layer="hidden_2")
    end, start = (run["hidden_2"].isel(step=i).values for i in (-1, 0))
    expected = [
        repsim.cka(end, pixels), repsim.cka(end, start), repsim.cka(start, pixels)
    ]  # fmt: skip
    np.testing.assert_allclose(cell, expected, atol=1e-5)
    assert len(baselines.figures(found.to_dataset())["baselines"].axes) == 3
    without = baselines.compute(study)
    assert bool(without["cka"].sel(baseline="pixels").isnull().all())
    assert len(baselines.figures(without)["baselines"].axes) == 1
    assert "before training" in baselines.details(without)
    assert set(baselines.summary(without)["bp"]) == {"untrained self"}
    single = {f"bp/{i}": study[f"bp/{i}"].to_dataset().isel(step=-1) for i in range(2)}
    with pytest.raises(NotApplicable, match="neither"):
        baselines.compute(xr.DataTree.from_dict(single))
