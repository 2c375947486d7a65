"""Conditions × seeds → recordings → analyses → one report, resumable."""

import lazy_loader as _lazy

# A study that is finished is told without them, as they import torch.
__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submod_attrs={
        "given_rdms": ["add_rdms"],
        "joining": ["join_recordings"],
        "report": ["write_report"],
        "run": ["run_study"],
    },
)
