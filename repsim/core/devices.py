"""Where to compute."""

import torch


def device_named(name: str | torch.device) -> torch.device:
    """Return the device of a name, checked by putting a number there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        msg = (
            f"Expected `device` to work here, but got {str(name)!r}, which torch "
            "cannot use here; auto takes an accelerator where there is one, or the CPU."
        )
        raise ValueError(msg) from error
    return device
