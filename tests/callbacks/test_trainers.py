"""Real, small runs of both trainers: steps are updates, weights are untouched."""

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import repsim

pytestmark = pytest.mark.filterwarnings("default")  # the trainers have their own

N_BATCHES = 12


def _data() -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8 * N_BATCHES, 4, generator=generator)
    return TensorDataset(x, torch.randint(0, 3, (len(x),), generator=generator))


def _lit() -> Any:
    from lightning.pytorch import LightningModule

    class Lit(LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU())
            self.drop = nn.Dropout(0.5)
            self.head = nn.Linear(8, 3)
            self.criterion = nn.CrossEntropyLoss()

        def forward(self, x: Tensor) -> Any:
            return self.head(self.drop(self.body(x)))

        def training_step(self, batch: Any, _: int) -> Any:
            return self.criterion(self(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters())

    torch.manual_seed(1)
    return Lit()


def _fit(folder: Path, callbacks: list[Any], **options: Any) -> tuple[Any, Any]:
    from lightning.pytorch import Trainer

    module = _lit()
    trainer = Trainer(
        max_epochs=options.pop("max_epochs", 1),
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=callbacks,
        **options,
    )
    torch.manual_seed(2)
    trainer.fit(module, DataLoader(_data(), batch_size=8, shuffle=True))
    return module, torch.get_rng_state()


def _same(a: nn.Module, b: nn.Module) -> None:
    for (name, x), y in zip(
        a.state_dict().items(), b.state_dict().values(), strict=True
    ):
        assert torch.equal(x, y), name


def test_lightning_records_updates_and_leaves_training_alone(tmp_path: Path) -> None:
    plain, random = _fit(tmp_path, [])
    recorder = repsim.callbacks.LightningRecorder(
        torch.randn(6, 4), every=5, last=True, store=tmp_path / "run.zarr"
    )
    learnt = repsim.callbacks.LightningRecorder("training", every=5, errors="mean")
    module, random_too = _fit(tmp_path, [recorder, learnt])
    assert learnt.dataset()["step"].values.tolist() == [0, 5, 10]
    assert learnt.dataset()["head@error"].sizes["example"] == 8
    run = recorder.dataset()
    assert run["step"].values.tolist() == [0, 5, 10, 12]
    assert repsim.layers(run) == ["body", "drop", "head"]
    assert run.attrs["complete"] == 1
    _same(plain, module)
    assert torch.equal(random, random_too)
    xr.testing.assert_allclose(
        run["head"][-1].drop_vars("step"),
        repsim.record(module, recorder._attached._inputs)["head"],
    )


def test_lightning_counts_updates_under_accumulation(tmp_path: Path) -> None:
    recorder = repsim.callbacks.LightningRecorder(torch.randn(6, 4), every=1)
    _fit(tmp_path, [recorder], accumulate_grad_batches=3)
    assert recorder.dataset()["step"].values.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_lightning_records_in_the_trainers_precision(
    tmp_path: Path, precision: Any
) -> None:
    x = torch.randn(6, 4)
    seen = []
    recorder = repsim.callbacks.LightningRecorder(x, every=6, layers="head")
    module, _ = _fit(tmp_path, [recorder, Peek(x, seen)], precision=precision)
    run = recorder.dataset()
    expected = [t.double().numpy() for t in seen]
    np.testing.assert_array_equal(run["head"].astype(float), expected)
    kinds = {"64-true": {}, "bf16-mixed": {"torch_dtype": "bfloat16"}}
    assert run["head"].attrs == kinds.get(precision, {"torch_dtype": "bfloat16"})
    plain, _ = _fit(tmp_path, [], precision=precision)
    _same(plain, module)


def Peek(x: Tensor, seen: list[Tensor]) -> Any:  # noqa: N802
    """Return a callback that keeps what the head says, by the trainer's own means."""
    from lightning.pytorch import Callback

    class Peeking(Callback):  # type: ignore[misc]
        def on_train_start(self, trainer: Any, module: Any) -> None:
            plugin = trainer.precision_plugin
            module.eval()
            state = torch.get_rng_state()
            with torch.no_grad(), plugin.forward_context():
                seen.append(module(plugin.convert_input(x)))
            torch.set_rng_state(state)
            module.train()

        def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
            if trainer.global_step in (6, 12):
                self.on_train_start(trainer, module)

    return Peeking()


def test_a_second_fit_is_refused_or_goes_on(tmp_path: Path) -> None:
    x = torch.randn(6, 4)
    recorder = repsim.callbacks.LightningRecorder(x, every=6)
    _fit(tmp_path, [recorder])
    with pytest.raises(ValueError, match="one training for each recorder"):
        _fit(tmp_path, [recorder])
    assert recorder.dataset()["step"].values.tolist() == [0, 6, 12]
    again = repsim.callbacks.LightningRecorder(
        x, every=6, store=tmp_path / "s.zarr", resume=True
    )
    _fit(tmp_path, [again])
    _fit(tmp_path, [again], max_steps=3, max_epochs=None)
    assert again.dataset()["step"].values.tolist() == [0]


def test_lightning_keeps_what_it_has_after_an_exception(tmp_path: Path) -> None:
    from lightning.pytorch import Callback

    class Stop(Callback):  # type: ignore[misc]
        def on_train_batch_start(self, *args: Any) -> None:
            if args[-1] == 4:
                raise RuntimeError("stop")

    recorder = repsim.callbacks.LightningRecorder(
        torch.randn(6, 4), every=2, store=tmp_path / "run.zarr"
    )
    with pytest.raises(RuntimeError, match="stop"):
        _fit(tmp_path, [Stop(), recorder])
    run = repsim.open_recording(tmp_path / "run.zarr")
    assert run["step"].values.tolist() == [0, 2, 4]
    assert run.attrs["complete"] == 0


def _bert() -> Any:
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(1)
    config = BertConfig(  # type: ignore[call-arg]
        vocab_size=20,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=8,
        num_labels=3,
    )
    return BertForSequenceClassification(config)


class Words(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Random words with labels."""

    def __init__(self, n: int) -> None:
        generator = torch.Generator().manual_seed(3)
        self.words = torch.randint(0, 20, (n, 6), generator=generator)
        self.labels = torch.randint(0, 3, (n,), generator=generator)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return {"input_ids": self.words[i], "labels": self.labels[i]}


def _train(
    folder: Path, callbacks: list[Any], accumulate: int = 1, **options: Any
) -> Any:
    from transformers import Trainer, TrainingArguments

    model = _bert()
    arguments = TrainingArguments(
        output_dir=str(folder / "out"),
        max_steps=4,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=accumulate,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
        seed=5,
        **options,
    )
    Trainer(model, arguments, train_dataset=Words(64), callbacks=callbacks).train()
    return model


@pytest.mark.parametrize("accumulate", [1, 2])
def test_transformers_records_updates_and_leaves_training_alone(
    tmp_path: Path, accumulate: int
) -> None:
    plain = _train(tmp_path, [], accumulate)
    words = Words(10)
    inputs = {"input_ids": words.words, "labels": words.labels}
    recorder = repsim.callbacks.TransformersRecorder(
        inputs, layers="bert.encoder.layer.*", every=2, reduce="mean"
    )
    learnt = repsim.callbacks.TransformersRecorder(
        "training", layers="bert.encoder.layer.*", every=1, reduce="mean", errors="sum"
    )
    model = _train(tmp_path, [recorder, learnt], accumulate)
    batches = learnt.dataset()
    assert batches["step"].values.tolist() == [0, 1, 2, 3]
    assert batches["bert.encoder.layer.1@error"].shape == (4, 4 * accumulate, 16)
    run = recorder.dataset()
    assert run["step"].values.tolist() == [0, 2, 4]
    assert repsim.layers(run) == ["bert.encoder.layer.0", "bert.encoder.layer.1"]
    assert run["bert.encoder.layer.0"].shape == (3, 10, 16)
    np.testing.assert_array_equal(run["label"], words.labels)
    _same(plain, model)


def test_transformers_records_in_the_trainers_precision(tmp_path: Path) -> None:
    words = Words(10).words
    recorder = repsim.callbacks.TransformersRecorder(
        {"input_ids": words}, layers="classifier", every=4
    )
    model = _train(tmp_path, [recorder], bf16=True)
    run = recorder.dataset()
    model.eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = model(words).logits.float()
    np.testing.assert_array_equal(run["classifier"][-1], expected)
    assert run["classifier"].attrs == {"torch_dtype": "bfloat16"}


def _faulty(layer: nn.Module) -> None:
    """Let recording passes fail: raise, then another shape, then NaN."""
    passes = 0

    def fault(module: nn.Module, _: object, output: Tensor) -> Tensor | None:
        nonlocal passes
        if module.training:
            return None
        passes += 1
        if passes == 2:
            raise RuntimeError("a fault in evaluation")
        return {3: output[:, :-1], 4: output * torch.nan}.get(passes)

    layer.register_forward_hook(fault)


@pytest.mark.parametrize("trainer", ["lightning", "transformers", "loop"])
def test_no_fault_of_a_recording_ends_a_training(
    trainer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_bytes

    def full(self: Path, data: Any) -> int:
        if self.name.startswith("c.2."):
            raise OSError(28, "No space left on device")
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    options: dict[str, Any] = {"every": 1, "store": tmp_path / "run.zarr"}
    recorder: Any
    with pytest.warns(UserWarning) as told:
        if trainer == "lightning":
            made, x = _lit, torch.randn(6, 4)
            recorder = repsim.callbacks.LightningRecorder(x, **options)
            monkeypatch.setitem(globals(), "_lit", lambda: _with_fault(made(), "head"))
            module, _ = _fit(tmp_path, [recorder])
        elif trainer == "transformers":
            bert, words = _bert, {"input_ids": Words(6).words}
            recorder = repsim.callbacks.TransformersRecorder(
                words, layers="classifier", **options
            )
            fault = "classifier"
            monkeypatch.setitem(globals(), "_bert", lambda: _with_fault(bert(), fault))
            module = _train(tmp_path, [recorder])
        else:
            module = _with_fault(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 3)), "1")
            with repsim.Recorder(module, torch.randn(6, 4), **options) as recorder:
                for _ in range(6):
                    recorder.step()
    said = [str(w.message) for w in told if w.category is UserWarning]
    for pattern in (
        r"after 1 updates, as the pass failed \(RuntimeError: a fault in eval",
        r"was not recorded after 2 updates and is NaN there: Expected layer",
        r"Nothing more is recorded after \d updates, and training goes on: .*No space",
    ):
        assert sum(bool(re.search(pattern, s)) for s in said) == 1, said
    monkeypatch.undo()
    run = recorder.dataset()
    assert run["step"].values.tolist() == [0, 2]
    assert run.attrs["complete"] == 0
    assert np.isnan(run[repsim.layers(run)[-1]][1]).all()


def _with_fault(model: nn.Module, layer: str) -> Any:
    _faulty(model.get_submodule(layer))
    return model


def test_the_recording_waits_for_training() -> None:
    recorder = repsim.callbacks.LightningRecorder(torch.ones(2, 4))
    with pytest.raises(ValueError, match="Expected training to have begun"):
        recorder.dataset()


def test_other_names_are_not_there() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'KerasRecorder'"):
        repsim.callbacks.KerasRecorder  # noqa: B018


@pytest.mark.parametrize("home", ["lightning", "transformers"])
def test_a_trainer_that_is_missing_names_its_extra(
    home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(module: str) -> Any:
        raise ModuleNotFoundError(name=f"{home}.inner")

    monkeypatch.setattr(repsim.callbacks, "import_module", missing)
    message = rf'run `pip install "repsim-toolkit\[{home}\]"`'
    with pytest.raises(ImportError, match=message):
        getattr(repsim.callbacks, f"{home.capitalize()}Recorder")
    with pytest.raises(ModuleNotFoundError):  # of something else: its own error
        repsim.callbacks.TextLog()


def test_a_checkout_that_hides_their_datasets_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("transformers")
    checkout = Path(repsim.datasets.__path__[0]).parent
    # As Python does where it is started in that folder without -P.
    monkeypatch.syspath_prepend(str(checkout))
    monkeypatch.delitem(sys.modules, "datasets", raising=False)
    with pytest.raises(ImportError, match="start Python in another folder, or with -P"):
        repsim.callbacks.TransformersRecorder(torch.ones(2, 4).long())
