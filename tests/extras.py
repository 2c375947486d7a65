"""Each extra installed alone in an environment of its own, and its feature used.

    python -P tests/extras.py [EXTRA …] [--keep FOLDER]

First the package without extras, where each feature must say which extra it needs; then
an environment for each extra on top of that one. Downloads some hundred megabytes.
Exit status 1 if any fails.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]

START = """
import os, tempfile, warnings
import numpy as np, torch, repsim
os.chdir(tempfile.mkdtemp())
torch.manual_seed(0)
x = torch.randn(24, 6)
net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))

def train(log):
    with repsim.Recorder(net, x, every=2, log=log) as recorder:
        for _ in range(4):
            recorder.step()
    return recorder.dataset()
"""

USES = {
    "netcdf": """
        run = repsim.record(net, x)
        repsim.save_recording(run, "run.nc")
        assert repsim.open_recording("run.nc").equals(run)
    """,
    "lightning": """
        record = repsim.callbacks.LightningRecorder(x, every=2)
        from lightning.pytorch import LightningModule, Trainer

        class Module(LightningModule):
            def __init__(self):
                super().__init__()
                self.layer = torch.nn.Linear(6, 2)

            def forward(self, x):
                return self.layer(x)

            def training_step(self, batch, index):
                return self(batch).square().mean()

            def configure_optimizers(self):
                return torch.optim.SGD(self.parameters(), 0.1)

        loader = torch.utils.data.DataLoader(x, 6)
        Trainer(max_epochs=1, accelerator="cpu", logger=False, callbacks=[record],
                enable_checkpointing=False).fit(Module(), loader)
        assert record.dataset()["step"].values.tolist() == [0, 2, 4]
    """,
    "transformers": """
        record = repsim.callbacks.TransformersRecorder
        from transformers import BertConfig, BertForSequenceClassification
        from transformers import Trainer, TrainingArguments

        model = BertForSequenceClassification(BertConfig(
            vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=32, num_labels=2))
        ids = torch.randint(1, 50, (12, 8))
        data = [{"input_ids": i, "labels": i[0] % 2} for i in ids]
        recorder = record(
            {"input_ids": ids}, layers="bert.encoder.layer.*", reduce="mean", every=2
        )
        arguments = TrainingArguments(
            "out", max_steps=4, per_device_train_batch_size=4, report_to=[],
            save_strategy="no", use_cpu=True)
        Trainer(model, arguments, train_dataset=data, callbacks=[recorder]).train()
        assert recorder.dataset()["step"].values.tolist() == [0, 2, 4]
    """,
    "dask": """
        from repsim.studies.workers import on_scheduler

        repsim.record(net, x, store="run.zarr")
        with on_scheduler("tcp://127.0.0.1:1") if bare else warnings.catch_warnings():
            from distributed import Client

            with Client(processes=False, n_workers=1, dashboard_address=None):
                run = repsim.open_recording("run.zarr")
                cells = repsim.compare(run, memory=2**21)
        np.testing.assert_allclose(cells, repsim.compare(run), atol=1e-5)
    """,
    "notebook": """
        cells = repsim.compare(train(None))
        assert repsim.plot.slider(cells).children[0].options[1][0] == "2"
    """,
    "tensorboard": """
        train(repsim.callbacks.TensorBoardLog("runs"))
        assert os.listdir("runs")
    """,
    "wandb": """
        if not bare:
            import wandb

            wandb.init(mode="offline", dir=".")
        train(repsim.callbacks.WandbLog())
    """,
    "cloud": """
        repsim.record(net, x, store="memory://here/run.zarr")
        assert repsim.layers(repsim.open_recording("memory://here/run.zarr"))
        from repsim.datasets.store.places import place_of

        for address in ("s3://bucket/run.zarr", "gs://bucket/run.zarr"):
            assert place_of(address, {"anon": True} if address[0] == "s" else None).fs
    """,
    "benchmark": "import rsatoolbox, torch_cka, cka",
    "lint": "import subprocess as s; s.run(['ruff', 'check'], cwd=root, check=True)",
    "docs": "import sphinx, numpydoc, sphinx_gallery, pydata_sphinx_theme, myst_parser",
    "types": "import mypy.api; assert 'mypy' in mypy.api.run(['--version'])[0]",
    "test": "import pytest; assert not pytest.main([f'{root}/tests/test_readme.py'])",
    "test-cloud": """
        import pytest
        assert not pytest.main([f"{root}/tests/datasets/store/test_elsewhere.py"])
    """,
}
"""Code that uses what an extra brings, after `START`."""

DEVELOPERS = ("benchmark", "lint", "docs", "types", "test", "test-cloud")
"""Extras that bring tools and no feature."""


def built(folder: Path) -> Path:
    """Build the package from a copy, as building leaves files beside the sources."""
    left_out = shutil.ignore_patterns(".*", "build", "_build", "*.egg-info")
    source = folder / "source"
    shutil.copytree(ROOT, source, ignore=left_out, dirs_exist_ok=True)
    pip: list[str | Path] = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps"]
    subprocess.run([*pip, "-w", folder, source], check=True)
    return next(folder.glob("*.whl"))


def environment(folder: Path, what: str, base: Path | None = None) -> Path:
    """Make an environment that sees another one's packages; return its Python."""
    python = folder / "bin" / "python"
    if python.exists():  # kept from before
        return python
    venv.create(folder, with_pip=True)
    if base is not None:
        asked = "import sysconfig; print(sysconfig.get_path('purelib'))"
        places = [
            subprocess.check_output([p, "-c", asked], text=True).strip()
            for p in (python, base)
        ]
        (Path(places[0]) / "base.pth").write_text(places[1])
    install = [python, "-m", "pip", "install", "-q", "--no-compile", what]
    subprocess.run(install, check=True)
    return python


def used(python: Path, name: str, *, bare: bool) -> subprocess.CompletedProcess[str]:
    """Run an extra's code with the warnings on that a user would see."""
    head = f"bare, root = {bare}, {str(ROOT)!r}\n"
    code = head + START + textwrap.dedent(USES[name])
    paths = os.pathsep.join([str(python.parent), os.environ["PATH"]])
    there = {**os.environ, "PATH": paths, "MPLBACKEND": "agg", "PYTHONSAFEPATH": "1"}
    return subprocess.run(
        [python, "-c", code], env=there, capture_output=True, text=True
    )


def main() -> int:
    """Check the extras that are named, all by default; print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("extras", nargs="*")
    parser.add_argument("--keep", type=Path)
    asked = parser.parse_args()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = list(project["optional-dependencies"])
    if unused := set(declared) ^ set(USES):
        print(f"declared or used alone: {', '.join(sorted(unused))}")
        return 1
    failed = []
    with tempfile.TemporaryDirectory() as there:
        folder = asked.keep or Path(there)
        wheel = built(folder)
        base = environment(folder / "plain", str(wheel))
        for name in asked.extras or declared:
            if name not in DEVELOPERS:
                done = used(base, name, bare=True)
                said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
                good = done.returncode and f"repsim-toolkit[{name}]" in said
                print(f"without {name}: {said if not good else 'names the extra'}")
                failed += [] if good else [name]
            python = environment(folder / name, f"{wheel}[{name}]", base)
            done = used(python, name, bare=False)
            said = f"{done.stdout[-2000:]}{done.stderr[-2000:]}"
            print(f"{name}: {said if done.returncode else 'works'}", flush=True)
            failed += [name] if done.returncode else []
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
