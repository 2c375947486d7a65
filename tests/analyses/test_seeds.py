"""Rules against seeds in the report: the numbers, the moments, and the words."""

import numpy as np
import pytest
import xarray as xr
from matplotlib.colors import to_hex

import repsim
from repsim.analyses import NotApplicable, baselines, depth_profiles, seeds
from repsim.inference import at_accuracy, profile_test, seed_test


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
    assert "not equal" not in seeds.caption(seeds.compute(tree))
    nodes = {node.path: node.to_dataset() for node in tree.subtree if node.has_data}
    for path, log in nodes.items():
        if path.startswith("/sg/") and path.endswith("/training"):
            log["test_accuracy"] = ("step", [0.2, 0.3, 0.6])
    text = seeds.caption(seeds.compute(xr.DataTree.from_dict(nodes)))
    # Of backpropagation's moments that of 0.5 + 0.01 seed is nearest to 0.6.
    gap = 0.6 - np.mean([0.5 + 0.01 * int(seed) for seed in tree["bp"].children])
    assert f"not equal: the nearest recorded are {gap:.3f} apart" in text


def test_the_conclusion_leads_the_caption(study: xr.DataTree) -> None:
    found = seeds.compute(grown(study))
    text = seeds.caption(found)
    assert text.startswith("Equal steps (test accuracy bp 0.900 at step 10, sg 0.950")
    assert "1 of 3 layers differs by more than seeds do (q ≤ 0.05): hidden_2" in text
    assert "differ in place and spread (one test over all 3 layers: p = " in text
    # The move makes the layer larger, so that seeds' noise turns it less.
    assert "in 1 of 3 layers (q ≤ 0.05) networks vary more" in text
    assert "Place: the rules' networks stand at different places" in text
    numbers = seeds.summary(found)["bp–sg, equal steps"]
    assert numbers["layers_that_differ"] == 1 and numbers["layers"] == 3
    assert numbers["finding"] == ["", "place and spread", ""]


def test_the_figure_fills_what_differs(study: xr.DataTree) -> None:
    found = seeds.compute(grown(study))
    figure = seeds.figures(found)["seeds"]
    ax = figure.axes[0]
    lines = {str(line.get_label()): line for line in ax.get_lines()}
    one = found.sel(condition="sg", moment="equal steps")
    np.testing.assert_allclose(
        np.asarray(lines["between the rules"].get_ydata(), dtype=float), one["between"]
    )
    sure = lines["place, q ≤ 0.05"]
    assert np.asarray(sure.get_xdata()).tolist() == [1]
    assert to_hex(sure.get_color()) == to_hex("C3")
    assert np.asarray(lines["spread, q ≤ 0.05"].get_xdata()).tolist() == [1]


def test_too_few_seeds_are_a_sentence_and_no_number(study: xr.DataTree) -> None:
    found = seeds.compute(study)
    assert bool(found["q_value"].isnull().all())
    sentence = "bp and sg (3 and 3 networks): no conclusion. Too few networks"
    assert seeds.caption(found).startswith(sentence)
    assert len(found.attrs["sentences"]) == 1
    assert seeds.summary(found)["bp–sg, equal steps"]["smallest_q"] is None
    profiles = depth_profiles.compute(study)
    assert depth_profiles.caption(profiles).startswith(sentence)


def test_five_shared_beginnings_cannot_reject(study: xr.DataTree) -> None:
    found = seeds.compute(grown(study, apart=False))
    assert found.attrs["smallest_p"] == [2 / 32]
    assert "smallest attainable p is 0.0625" in seeds.caption(found)


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
    text = depth_profiles.caption(found)
    assert "Displacement of the weights: bp and sg (5 and 5 networks): 3 of 3" in text
    assert depth_profiles.summary(found)["displacement, sg"]["layers_that_differ"] == 3
    figure = depth_profiles.figures(found)["depth_profiles"]
    assert len(figure.axes) == 4


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
    assert "before training" in baselines.caption(without)
    assert set(baselines.summary(without)["bp"]) == {"untrained self"}
    single = {f"bp/{i}": study[f"bp/{i}"].to_dataset().isel(step=-1) for i in range(2)}
    with pytest.raises(NotApplicable, match="neither"):
        baselines.compute(xr.DataTree.from_dict(single))
