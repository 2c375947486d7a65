"""A study made by hand: two conditions, three seeds, one shared initialisation."""

import numpy as np
import pytest
import xarray as xr


@pytest.fixture
def study() -> xr.DataTree:
    """Return bp/0…2 and sg/0…2; sg/0 began with the weights of bp/0."""
    rng = np.random.default_rng(0)
    nodes: dict[str, xr.Dataset] = {}
    label = np.repeat([0, 1, 2], 8)
    steps = [0, 5, 10]
    for number, condition in enumerate(("bp", "sg")):
        for seed in range(3):
            values = {
                name: (
                    ("step", "example", f"{name}_unit"),
                    (
                        rng.normal(size=(3, 24, 6))
                        + np.arange(3)[:, None, None] * np.eye(6)[label][None]
                    ).astype("float32"),
                )
                for name in ("hidden_1", "hidden_2", "output")
            }
            init = 7 if seed == 0 else 100 * number + seed
            coords = {"step": steps, "example": np.arange(24)}
            nodes[f"{condition}/{seed}"] = xr.Dataset(
                values,
                coords={**coords, "label": ("example", label)},
                attrs={
                    "init_seed": init, "rule": condition, "layers": list(values),
                    "splits": ["hidden_1"] if condition == "sg" else [],
                },
            )  # fmt: skip
            moved = rng.uniform(size=(3, 3))
            nodes[f"{condition}/{seed}/training"] = xr.Dataset(
                {
                    "loss": ("step", [2.0, 1.0, 0.5]),
                    "accuracy": ("step", [0.3, 0.6, 0.9]),
                    "test_accuracy": ("step", [0.3, 0.6, 0.8 + 0.01 * seed]),
                    "displacement": (("step", "layer"), moved),
                    "weight_norm": (("step", "layer"), 1 + moved),
                },
                coords={"step": steps, "layer": ["hidden_1", "hidden_2", "output"]},
            )
    return xr.DataTree.from_dict(nodes)
