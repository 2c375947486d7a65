"""What a recording says of its origin."""

import hashlib
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import torch
from torch import nn

from repsim.core.provenance import repsim_version
from repsim.datasets.pooling import how_named
from repsim.datasets.recordings import SCHEMA
from repsim.datasets.store.attributes import attribute


def provenance(
    model: Any,
    network: nn.Module,
    *,
    reduce: str | Callable[..., Any] | None,
    attrs: Mapping[str, Any] | None,
    axes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the attributes of a recording; the user's own win."""
    entries: dict[str, Any] = {
        "repsim_schema": SCHEMA,
        "repsim_version": repsim_version(),
        "torch_version": str(torch.__version__),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "network": type(network).__name__,
        "network_sha256": network_hash(network),
        "reduce": how_named(reduce),
    }
    if axes:
        entries["axes"] = json.dumps({str(k): v for k, v in axes.items()})
    if not isinstance(model, nn.Module):
        entries["rule"] = str(getattr(model, "name", type(model).__name__))
        entries["rule_options"] = json.dumps(getattr(model, "options", {}), default=str)
        entries["splits"] = [str(s) for s in getattr(model, "splits", [])]
    for name, value in (attrs or {}).items():
        entries[str(name)] = attribute(str(name), value)
    return entries


def network_hash(network: nn.Module) -> str:
    """Return a hash of the parameters' names and shapes."""
    shapes = [f"{n} {tuple(p.shape)}" for n, p in network.named_parameters()]
    return hashlib.sha256("\n".join(shapes).encode()).hexdigest()
