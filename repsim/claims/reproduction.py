"""Run claims, keep what they found, and write it down."""

import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from tqdm import tqdm

from repsim.claims import cost
from repsim.claims.base import Claim, Evidence, summarise
from repsim.claims.drawing import against_bounds
from repsim.claims.lab import Lab
from repsim.claims.render import number, write_page
from repsim.claims.settings import about, chosen_claims, make_settings
from repsim.claims.sources import look_again
from repsim.core.bars import progress_bar
from repsim.core.files import write_whole
from repsim.datasets import load
from repsim.datasets.inputs.loading import own_names
from repsim.learning.rule_info import Diverged
from repsim.studies.materials import forget

Result = dict[str, Any]

CLASSES = 10
"""Outputs of the networks that the claims are about."""


@dataclass(frozen=True)
class Reproduction:
    """What a reproduction found and where it lies.

    Parameters
    ----------
    results : list of dict
        One a claim, as in claims.json: id, statement, source, measured, threshold,
        verdict and more.
    path : Path
        claims.json.
    page : Path
        claims.html, one file that opens offline.
    notes : list of str
        What was chosen or cut, in plain sentences.

    Examples
    --------
    >>> found = reproduce(["C2"], quick=True, progress=False)
    >>> found.holds, found.page.name
    (True, 'claims.html')
    """

    results: list[Result]
    path: Path
    page: Path
    notes: list[str]

    @property
    def holds(self) -> bool:
        """Whether no claim with a threshold failed."""
        return all(r["verdict"] != "does not hold" for r in self.results)

    def table(self) -> str:
        """Return the verdicts as a table of plain text.

        Returns
        -------
        str
            A line a claim: id, verdict, the gated quantities.
        """
        rows = [(r["id"], r["verdict"], _short(r)) for r in self.results]
        width = max((len(row[0]) for row in rows), default=2)
        return "\n".join(f"{i:<{width}}  {v:<13}  {s}" for i, v, s in rows)


def reproduce(
    claims: Sequence[str] | None = None,
    *,
    quick: bool = False,
    dataset: str | None = None,
    root: str | os.PathLike[str] | None = None,
    seeds: int | None = None,
    seed: int = 0,
    out: str | os.PathLike[str] = "reproduce",
    rule: str = "sg",
    size: Mapping[str, Any] | None = None,
    jobs: int | None = None,
    progress: bool = True,
) -> Reproduction:
    """Run the paper's claims as experiments that can fail, and write the verdicts.

    Networks and claims are kept under `out` as they are finished; a second call with
    the same settings takes up where the first stopped and repeats nothing.

    Parameters
    ----------
    claims : sequence of str or None
        Claims by id (see `registered`); None is all.
    quick : bool
        Smaller networks and fewer updates; `notes` says what was cut.
    dataset : str or None
        digits, an image set, or ten classes of one's own that
        `repsim.datasets.register` has given a name. None is MNIST where its files are
        found and the run is not quick, and digits otherwise; `notes` says which.
    root : path or None
        Folder of the data, as in `repsim.datasets.load`.
    seeds : int or None
        Networks a condition; None is 5.
    seed : int
        The first seed.
    out : path
        Folder for claims.json, claims.html, figures and networks.
    rule : str
        The rule under test, a name of `repsim.learning.names()`; a user's own takes
        the options of `sg`.
    size : mapping or None
        Otherwise than the full or quick form, fields of `repsim.claims.settings.Size`:
        ``{"width": 256, "steps": 3000}``; `about.json` keeps them.
    jobs : int or None
        Processes that train at once; None is one for each core, 1 for a rule or data
        that are not ours (they are registered in this process alone).
    progress : bool
        Whether to show a bar and state the cost on stderr.

    Returns
    -------
    Reproduction
        Results, the paths written, notes, and `table()` for a terminal.

    Raises
    ------
    ValueError
        If a claim, data set, rule or size does not exist, or a number is out of range;
        if data of one's own are not ten classes.
    TypeError
        If a size is no number.
    OSError
        If the folder cannot be written, or data are missing and cannot be fetched.

    Examples
    --------
    >>> found = reproduce(["C2"], quick=True, progress=False)
    >>> found.results[0]["verdict"]
    'holds'
    """
    chosen = chosen_claims(claims)
    settings, notes = make_settings(quick, dataset, root, seeds, seed, rule, size)
    if any(claim.uses for claim in chosen):
        # Missing or damaged data are found before anything is written.
        load(settings.dataset, "train", root=root, limit=1)
    own = settings.dataset in own_names()
    if own:
        forget()
        _check_classes(load(settings.dataset, "train", root=root), settings.dataset)
    processes = _jobs(jobs) if rule == "sg" and not own else 1
    folder = _folder(out)
    look_again()
    lab = Lab(settings, folder, root, processes)
    todo = [claim for claim in chosen if _kept(claim, lab, folder) is None]
    with _bar(lab, todo, notes, progress) as name:
        results = [_run(claim, lab, folder, name) for claim in chosen]
    content = about(settings, notes)
    text = json.dumps(content, indent=2, ensure_ascii=False)
    path, page = folder / "claims.json", folder / "claims.html"
    write_whole(path, json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    write_whole(folder / "about.json", text + "\n")
    write_page(page, results, content, folder / "figures")
    return Reproduction(results, path, page, notes)


def _check_classes(data: xr.Dataset, name: str) -> None:
    """Refuse data of one's own that the claims' networks have no outputs for."""
    label = data["label"].values
    classes = np.unique(label)
    if classes.dtype.kind not in "iu" or classes.tolist() != list(range(CLASSES)):
        shown = ", ".join(map(str, classes[:6])) + ", …" * (len(classes) > 6)
        msg = (
            f"Expected {name!r} to hold the {CLASSES} classes 0 to {CLASSES - 1} that "
            f"the paper's experiments tell apart, but its labels are {shown}; "
            "`repsim study` takes any data."
        )
        raise ValueError(msg)


def _folder(out: str | os.PathLike[str]) -> Path:
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        msg = (
            f"Expected {str(folder)!r} to be a folder, but it is a file; name another."
        )
        raise FileExistsError(msg)
    try:
        (folder / "figures").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"Expected {str(folder)!r} to be a folder to write in, but: {error}."
        raise type(error)(msg) from error
    return folder


def _jobs(jobs: int | None) -> int:
    if jobs is None:
        affinity = getattr(os, "sched_getaffinity", None)
        return len(affinity(0)) if affinity else os.cpu_count() or 1
    if jobs < 1:
        msg = f"Expected `jobs` to be at least 1, but got {jobs}."
        raise ValueError(msg)
    return jobs


@contextmanager
def _bar(
    lab: Lab, claims: list[Claim], notes: list[str], progress: bool
) -> Iterator[Callable[[str], None]]:
    """State the cost, and show a bar over the networks; yields what names a claim."""
    if not progress:
        yield lambda name: None
        return
    networks, seconds = cost.estimate(lab, claims)
    for line in (*notes, cost.sentence(networks, seconds, lab.jobs)):
        tqdm.write(line, file=sys.stderr)
    with progress_bar(
        progress=True, total=networks, unit="network", dynamic_ncols=True
    ) as bar:

        def count(label: str, number: int) -> None:
            bar.set_postfix_str(label, refresh=False)
            # Stopping at matched accuracy may train a few more than were foreseen.
            bar.total = max(float(bar.total or 0), bar.n + number)
            bar.update(number)

        lab.tick = count
        yield bar.set_description


def _place(claim: Claim, lab: Lab, folder: Path) -> Path:
    """Return the file of a claim's result: these settings, thresholds and code."""
    text = json.dumps([lab.key(claim.run.__module__), _gates(claim)])
    name = f"{claim.id}-{sha256(text.encode()).hexdigest()[:12]}.json"
    return folder / "results" / name


def _kept(claim: Claim, lab: Lab, folder: Path) -> Result | None:
    """Return a result of an earlier run, if its picture is there too."""
    path = _place(claim, lab, folder)
    if not path.is_file() or not (folder / "figures" / f"{claim.id}.png").is_file():
        return None
    result: Result = json.loads(path.read_text("utf-8"))
    return result


def _run(claim: Claim, lab: Lab, folder: Path, name: Callable[[str], None]) -> Result:
    """Return a claim's result, run now unless it is kept."""
    kept = _kept(claim, lab, folder)
    if kept is not None:
        return kept
    name(claim.id)
    began = time.perf_counter()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            evidence = claim.run(lab)
        except Diverged as error:
            evidence = Evidence({}, note=f"A network diverged. {error}")
    told = dict.fromkeys(str(w.message) for w in said if w.category is UserWarning)
    unjudged = [
        f"Not judged, because it takes {gate.seeds} seeds: {gate.quantity}."
        for gate in claim.unjudged(lab.settings.seeds)
    ]
    drawn = evidence.figure or against_bounds(claim, evidence.measured)
    drawn.savefig(folder / "figures" / f"{claim.id}.png", dpi=130)
    result = {
        "id": claim.id,
        "group": claim.group,
        "statement": claim.statement,
        "source": claim.source,
        "experiment": claim.experiment,
        "measured": {k: summarise(v) for k, v in evidence.measured.items()},
        "threshold": claim.threshold,
        "gates": _gates(claim),
        "verdict": claim.judge(evidence.measured, lab.settings.seeds),
        "broken": [str(g) for g in claim.broken(evidence.measured, lab.settings.seeds)],
        "note": " ".join([evidence.note, *told, *unjudged]).strip(),
        "tables": dict(evidence.tables),
        "dataset": lab.settings.dataset,
        "quick": lab.settings.quick,
        "seeds": lab.seeds,
        "wall_s": round(time.perf_counter() - began, 1),
        "figure": f"figures/{claim.id}.png",
    }
    path = _place(claim, lab, folder)
    path.parent.mkdir(exist_ok=True)
    write_whole(path, json.dumps(result, ensure_ascii=False))
    return result


def _gates(claim: Claim) -> list[dict[str, Any]]:
    return [asdict(gate) for gate in claim.gates]


def _short(result: Result) -> str:
    """Return the gated quantities of a result, or the first, in a line."""
    names = [gate["quantity"] for gate in result["gates"]]
    parts = []
    for name in names or list(result["measured"])[:2]:
        gate = next((g for g in result["gates"] if g["quantity"] == name), None)
        demand = f" ({gate['relation']} {gate['bound']:g})" if gate else ""
        value = result["measured"].get(name)
        parts.append(f"{name} {number(value) if value else 'not measured'}{demand}")
    return "; ".join(parts)
