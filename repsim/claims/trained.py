"""One trained network with everything the claims measure on it: a cell of a study."""

import json
import shutil
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from sklearn.linear_model import RidgeClassifier

from repsim.capture.single import record
from repsim.claims.sources import code, data_code, rule_code
from repsim.core.files import write_whole
from repsim.datasets import to_tensors
from repsim.datasets.recordings import layers
from repsim.datasets.store import open_recording
from repsim.geometry.profiles import class_margin, rdm_distance
from repsim.geometry.stacks import rdms
from repsim.learning.rule import Rule
from repsim.learning.rule_info import Diverged
from repsim.learning.schedules import Stochastic
from repsim.probes import LinearProbe
from repsim.probes.standardising import standardised
from repsim.studies.cell import MEASURED, train_cell
from repsim.studies.completeness import TRAINING, is_complete
from repsim.studies.conditions import Condition
from repsim.studies.spec import Spec, make_spec
from repsim.training.loop import Callback

EXAMPLES = 400
"""Test examples, sorted by label, on which geometry is measured (as in the paper)."""

STILL = 1e-12
"""Learning rate of the untrained networks, recorded before their only update."""

PROBED = (1500, 1000)
"""At most so many training examples to fit a probe, and test examples to score it."""


@dataclass(frozen=True)
class Cell:
    """What one network is trained as.

    `options` are the rule's as JSON, without the learning rate; `init` is the label
    whose initial weights are taken; `measured` says whether layers are measured, and
    not only the learning curve. `decay` are the shares of training after which rates
    are divided by ten; `p_update` is the probability with which a segment is updated.
    `evaluated` are the updates after which the curve has a point besides its start and
    its end, each twentieth of training unless some are given.
    """

    label: str
    rule: str
    options: str
    lr: float
    seed: int
    init: str
    dataset: str
    depth: int
    width: int
    activation: str
    steps: int
    batch_size: int
    measured: bool = True
    decay: tuple[float, ...] = ()
    p_update: float = 1.0
    evaluated: tuple[int, ...] = ()

    @property
    def key(self) -> str:
        """A name for what is kept: everything that decides the numbers, code too."""
        content = (
            asdict(self),
            rule_code(self.rule),
            code(sys.modules[__name__]),
            data_code(self.dataset),
        )
        text = json.dumps(content, sort_keys=True)
        return f"{self.label}-{self.seed}-{sha256(text.encode()).hexdigest()[:12]}"

    def store(self, folder: Path) -> Path:
        """Return the zarr store below a folder, a study of this one network."""
        return folder / f"{self.key}.zarr"

    def condition(self) -> Condition:
        """Return the cell's condition, as a study has it."""
        options = json.loads(self.options)
        init = None if self.init == self.label else self.init
        return Condition(self.label, self.label, self.rule, (*options.items(),), init)

    def spec(self, root: str | None) -> Spec:
        """Return the settings of the cell, as a study has them."""
        return make_spec(
            [self.rule],
            self.dataset,
            [self.seed],
            root=root,
            depth=self.depth,
            width=self.width,
            activation=self.activation,
            steps=max(self.steps, 1),
            batch_size=self.batch_size,
            lr=self.lr,
            record=[self.steps],
            examples=EXAMPLES if self.measured else 10,
            device="cpu",
        )

    def prepared(self, rule: Rule) -> Sequence[Callback]:
        """Set how segments take turns, and return what lowers the rates."""
        if self.p_update < 1:
            rule.schedule = Stochastic(self.p_update)
            _ = rule.segments  # Taken apart now: that makes optimisers anew.
        moments = [round(share * self.steps) for share in self.decay]
        return [
            torch.optim.lr_scheduler.MultiStepLR(optimizer, moments, 0.1)
            for optimizer in (rule.optimizers.values() if moments else ())
        ]


def train_missing(cell: Cell, root: str | None, folder: Path, key: str) -> Cell:
    """Train and record a cell, unless that is done; what diverged leaves a note.

    `key` is the cell's where the numbers are asked for. Code edited since then gives
    another in a process started later: its network would never be found.
    """
    if cell.key != key:
        msg = (
            f"Expected the code of rule {cell.rule!r}, and repsim's, to stay as they "
            "were while networks are trained, but a file was changed; give the same "
            "command again, which keeps what is finished under the new code."
        )
        raise ValueError(msg)
    if is_kept(cell, folder):
        return cell
    folder.mkdir(parents=True, exist_ok=True)
    store = cell.store(folder)
    between = cell.evaluated or range(0, cell.steps, max(cell.steps // 20, 1))
    try:
        with warnings.catch_warnings():
            # A segment may rest at the first update; its rate falls later all the same.
            warnings.filterwarnings("ignore", "Detected call of .lr_scheduler.step")
            train_cell(
                cell.spec(root),
                cell.condition(),
                cell.seed,
                cell.lr if cell.steps else STILL,
                store,
                batch_norm="after",
                evaluate=sorted({0, *between, cell.steps}),
                prepared=cell.prepared,
                finish=_measure if cell.measured else None,
            )
    except Diverged as error:
        shutil.rmtree(store, ignore_errors=True)
        write_whole(_diverged(cell, folder), str(error))
    return cell


def is_kept(cell: Cell, folder: Path) -> bool:
    """Return whether a cell is trained, or known to diverge."""
    store = cell.store(folder)
    return _diverged(cell, folder).is_file() or (
        store.is_dir() and is_complete(store, cell.label, cell.seed)
    )


def _diverged(cell: Cell, folder: Path) -> Path:
    return folder / f"{cell.key}.diverged"


def numbers(cell: Cell, folder: Path) -> dict[str, Any]:
    """Return a trained cell's numbers.

    Curves (`step`, `loss`, `accuracy`, `test_accuracy`), and where the layers are
    measured `margin`, `distance`, `distance_correlation`, `probe`, `probe_train`,
    `regression`, `displacement`, `weight_norm`, `cosine` (a number a hidden layer) and
    `splits`; or `diverged`, the sentence, alone.
    """
    note = _diverged(cell, folder)
    if note.is_file():
        return {"diverged": note.read_text("utf-8")}
    group = f"{cell.label}/{cell.seed}"
    store = cell.store(folder)
    log = xr.open_zarr(store, group=f"{group}/{TRAINING}", consolidated=False).load()
    kept = ("step", "loss", "accuracy", "test_accuracy")
    values: dict[str, Any] = {name: log[name].values.tolist() for name in kept}
    last = log.isel(step=-1)
    hidden = [name for name in last["layer"].values if str(name) != "output"]
    for name in ("displacement", "weight_norm"):
        values[name] = last[name].sel(layer=hidden).values.tolist()
    values["cell"] = asdict(cell)
    if cell.measured:
        measured = xr.open_zarr(store, group=f"{group}/{MEASURED}", consolidated=False)
        values |= {k: v.values.tolist() for k, v in measured.data_vars.items()}
        values["splits"] = [int(v) for v in np.flatnonzero(values.pop("split")) + 1]
    return values


def recording(cell: Cell, folder: Path) -> xr.Dataset:
    """Return the hidden layers' activations of a trained cell, at its end."""
    run = open_recording(f"{cell.store(folder)}/{cell.label}/{cell.seed}")
    hidden = [name for name in layers(run) if name != "output"]
    activations = run[hidden].isel(step=-1, drop=True).load()
    return activations.assign_attrs(layers=hidden)


def _measure(
    rule: Rule, run: xr.Dataset, source: xr.Dataset, test: xr.Dataset
) -> xr.Dataset:
    """Measure every hidden layer of a trained network."""
    if int(run["step"][-1]) == 0:  # untrained: forget the batch it has seen
        for module in rule.network.modules():
            if isinstance(module, torch.nn.BatchNorm1d):
                module.reset_running_stats()
    hidden = list(rule.hidden)
    last = run[hidden].isel(step=-1, drop=True).load().assign_attrs(layers=hidden)
    stack = rdms(last, layers=hidden)
    rows = {
        "margin": class_margin(stack).values,
        "distance": rdm_distance(stack).values,
        "distance_correlation": rdm_distance(stack, metric="correlation").values,
        "cosine": _cosines(rule, test.sel(example=run["example"])),
        "split": [name in rule.splits for name in hidden],
        **_probes(rule, source, test),
    }
    return xr.Dataset(
        {name: ("layer", np.asarray(row, np.float64)) for name, row in rows.items()},
        coords={"layer": hidden},
    )


def _cosines(rule: Rule, chosen: xr.Dataset) -> list[float]:
    """Return the pooled cosine of used and true error at every hidden layer."""
    cosines = []
    for name, (used, true) in rule.errors(*to_tensors(chosen, "flat")).items():
        if name in rule.hidden:
            size = used.norm() * true.norm()
            cosines.append(float((used * true).sum() / size) if size > 0 else 0.0)
    return cosines


def _probes(rule: Rule, source: xr.Dataset, test: xr.Dataset) -> dict[str, list[float]]:
    """Return accuracies of linear probes, logistic and regression, by hidden layer."""
    hidden = list(rule.hidden)
    fit, score = (
        record(rule.network, x, layers=hidden, labels=y.numpy())
        for x, y in (
            to_tensors(data.isel(example=slice(count)), "flat")
            for data, count in zip((source, test), PROBED, strict=True)
        )
    )
    scores: dict[str, list[float]] = {"probe": [], "probe_train": [], "regression": []}
    for name in hidden:
        both = np.concatenate([fit[name].values, score[name].values])
        count = fit.sizes["example"]
        # In the layer's own unit: a penalty in absolute ones reads the layer's scale.
        both = standardised(both, np.arange(count), "layer")
        known = both[:count], fit["label"].values
        unseen = both[count:], score["label"].values
        logistic = LinearProbe().fit(*known)
        scores["probe"].append(float(logistic.score(*unseen)))
        scores["probe_train"].append(float(logistic.score(*known)))
        regression = RidgeClassifier().fit(known[0].astype(np.float64), known[1])
        scores["regression"].append(float(regression.score(*unseen)))
    return scores
