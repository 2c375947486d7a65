"""What a reproduction is asked for: claims by id, data, seeds, and what is cut."""

import os
from collections.abc import Sequence
from pathlib import Path

from repsim.claims.base import Claim, registered
from repsim.claims.settings import IMAGES, Settings
from repsim.core.messages import unknown
from repsim.datasets.inputs.files import data_root
from repsim.learning import names


def chosen_claims(claims: Sequence[str] | None) -> list[Claim]:
    """Return claims by id, each once, or all; ValueError for one that is not there."""
    known = registered()
    if claims is None:
        return list(known.values())
    wanted = list(dict.fromkeys([claims] if isinstance(claims, str) else claims))
    for name in wanted:
        if name not in known:
            raise ValueError(unknown("claim", name, known))
    if not wanted:
        msg = "Expected at least one claim, but got none; None runs all."
        raise ValueError(msg)
    return [known[name] for name in wanted]


def make_settings(
    quick: bool,
    dataset: str | None,
    root: str | os.PathLike[str] | None,
    seeds: int | None,
    seed: int,
    rule: str = "sg",
) -> tuple[Settings, list[str]]:
    """Return the settings of `reproduce`, and what was chosen for the user or cut.

    ValueError for a name that does not exist or a number out of range.
    """
    if rule not in names():
        raise ValueError(unknown("rule", rule, names()))
    seeds = 5 if seeds is None else seeds
    if seeds < 1 or seed < 0:
        msg = (
            "Expected `seeds` to be at least 1 and `seed` at least 0, but got "
            f"{seeds} and {seed}."
        )
        raise ValueError(msg)
    notes = []
    if dataset is None:
        dataset = "mnist" if not quick and _has_mnist(root) else "digits"
        if dataset == "digits" and not quick:
            notes.append(
                f"MNIST was not found{_below(root)}, so the networks learn digits; "
                "name its folder with root= (--root) or REPSIM_DATA."
            )
    if dataset not in ("digits", *IMAGES):
        raise ValueError(unknown("dataset", dataset, ("digits", *IMAGES)))
    settings = Settings(dataset, quick, seeds, seed, rule)
    notes += [f"Data: {dataset}, {seeds} seeds from {seed}, rule under test {rule}."]
    if quick:
        notes.append("Quick: " + "; ".join(settings.cuts()) + ".")
    if seeds < 5:
        notes.append("Fewer than five seeds: read stochastic claims with care.")
    return settings, notes


def _below(root: str | os.PathLike[str] | None) -> str:
    """Return where a folder named by the user was looked at, as part of a sentence."""
    if root is None:
        return ""
    missing = "" if Path(root).is_dir() else ", which does not exist"
    return f" below {os.fspath(root)!r}{missing}"


def _has_mnist(root: str | os.PathLike[str] | None) -> bool:
    try:
        folder = data_root(root) / "MNIST" / "raw"
    except FileNotFoundError:
        return False
    stem = "train-images-idx3-ubyte"
    return (folder / stem).is_file() or (folder / f"{stem}.gz").is_file()
