"""What stands in the way of a Hugging Face Trainer is named before it trains."""

import sys
from pathlib import Path

import pytest
import torch

import repsim


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
