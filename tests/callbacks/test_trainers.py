"""Real, small runs of both trainers: steps are updates, weights are untouched."""

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
    module, random_too = _fit(tmp_path, [recorder])
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
    config = BertConfig(
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


def _train(folder: Path, callbacks: list[Any], accumulate: int = 1) -> Any:
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
    model = _train(tmp_path, [recorder], accumulate)
    run = recorder.dataset()
    assert run["step"].values.tolist() == [0, 2, 4]
    assert repsim.layers(run) == ["bert.encoder.layer.0", "bert.encoder.layer.1"]
    assert run["bert.encoder.layer.0"].shape == (3, 10, 16)
    np.testing.assert_array_equal(run["label"], words.labels)
    _same(plain, model)


def test_the_recording_waits_for_training() -> None:
    recorder = repsim.callbacks.LightningRecorder(torch.ones(2, 4))
    with pytest.raises(ValueError, match="Expected training to have begun"):
        recorder.dataset()


def test_other_names_are_not_there() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'KerasRecorder'"):
        repsim.callbacks.KerasRecorder  # noqa: B018
